"""``probed token`` and ``probed check web-config`` as programs, over a real socket."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from probed.api.app import serve
from tests.unit.certificates import Authority
from tests.unit.people import USERS, know
from tests.unit.serving import Stack, free_port, stack


@pytest_asyncio.fixture
async def address(tmp_path: Path, place: Path) -> AsyncIterator[str]:
    seen: Stack = await stack(tmp_path / "store")
    know(seen, tmp_path)
    where = f"127.0.0.1:{free_port()}"
    close = await serve(seen, addresses=[where], socket_path=place / "probed.sock")
    yield where
    await close()
    await seen.store.close()


async def probed(*arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    command = [sys.executable, "-m", "probed", *map(str, arguments)]
    running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = await running.communicate()
    return running.returncode or 0, out.decode(), err.decode()


async def test_a_token_made_over_the_socket_opens_the_tcp_door_until_it_is_revoked(
    address: str, place: Path, tmp_path: Path
) -> None:
    door = ("--socket", place / "probed.sock")
    code, out, err = await probed("token", "add", "ci", "--role", "viewer", "--expires", "90d", *door)
    assert code == 0 and re.fullmatch(r"probed_[0-9a-f]{16}_[\w-]{43}\n", out)
    assert err == "ci: viewer, for metrics and api, until 2027-02-16T12:00:00.000Z; it is not shown again\n"
    file = tmp_path / "token"
    file.write_text(out)
    by_token = ("--url", f"http://{address}", "--token-file", file)
    code, out, _ = await probed("status", "-o", "json", *by_token)
    assert code == 0 and json.loads(out)["observer"] == "watcher"
    code, _, err = await probed("token", "list", *by_token)
    assert code == 1 and "403" in err and "needs the role admin" in err
    code, out, _ = await probed("token", "list", *door)
    assert code == 0 and out.split()[:3] == ["NAME", "ROLE", "SCOPES"] and "metrics,api" in out
    assert (await probed("token", "revoke", "ci", *door))[0] == 0
    code, _, err = await probed("status", *by_token)
    assert code == 1 and "401" in err
    code, out, _ = await probed("token", "list", *door)
    assert out == "No tokens. Make one with: probed token add NAME --role viewer\n"
    _, out, _ = await probed("token", "list", "--all", "-o", "json", *door)
    assert [item["state"] for item in json.loads(out)["items"]] == ["revoked"]


async def test_the_audit_log_is_listed_filtered_and_for_programs(address: str, place: Path) -> None:
    door = ("--socket", place / "probed.sock")
    for name in ("ci", "prometheus"):
        await probed("token", "add", name, "--role", "viewer", "--reason", "scrapes", *door)
    await probed("token", "revoke", "ci", *door)
    code, out, _ = await probed("audit", *door)
    assert code == 0 and out.split()[:6] == ["AT", "WHO", "VIA", "ACTION", "SUBJECT", "CHANGES"]
    newest, *_ = out.splitlines()[1:]
    assert "token.revoke" in newest and "ci" in newest and "role: viewer → –" in newest
    code, out, _ = await probed("audit", "--action", "token.add", "--subject", "ci", "-o", "json", *door)
    [record] = json.loads(out)["items"]
    assert (record["reason"], record["after"]["role"]) == ("scrapes", "viewer")
    code, out, _ = await probed("audit", "--action", "token", "--limit", "2", "-o", "tsv", *door)
    assert [line.split("\t")[5] for line in out.splitlines()] == ["action", "token.revoke", "token.add"]
    assert (await probed("audit", "--who", "nobody", *door))[
        1
    ] == "Nobody changed anything, or the filters exclude it.\n"
    code, _, err = await probed("audit", "--url", f"http://{address}")
    assert code == 1 and "401" in err


async def test_a_wrong_wish_is_told_in_one_line(address: str, place: Path) -> None:
    door = ("--socket", place / "probed.sock")
    code, _, err = await probed("token", "add", "ci", "--role", "root", *door)
    assert code == 2 and "'root' is not one of 'viewer', 'operator', 'admin'" in err
    code, out, err = await probed("token", "add", "ci", "--role", "admin", "--scopes", "all", *door)
    assert (code, out) == (1, "") and 'scopes[0]: expected metrics or api, got "all"' in err
    code, _, err = await probed("token", "revoke", "nobody", *door)
    assert code == 1 and 'no live token has the name or id "nobody"' in err


async def test_a_web_config_is_checked_without_a_daemon(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server")
    file = tmp_path / "web-config.yml"
    file.write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}\n" + USERS)
    assert await probed("check", "web-config", file) == (0, f"{file}: ok\n", "")
    assert await probed("check", file) == (0, f"{file}: ok\n", "")  # what it is, is found by itself
    file.write_text("tls_server_config: {cert_file: server.pem, key_file: ca.pem}\n")
    code, out, err = await probed("check", "web-config", file)
    assert (code, out) == (1, "") and err.startswith(f"{file}: tls_server_config.cert_file: ")
    settings = tmp_path / "probed.yml"
    settings.write_text(f"instances: [{{name: o, patroni: ['http://127.0.0.1:1']}}]\nweb: {{config_file: '{file}'}}\n")
    code, _, err = await probed("check", settings)
    assert code == 1 and "tls_server_config.cert_file" in err
