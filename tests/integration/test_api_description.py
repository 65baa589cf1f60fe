"""The API is what its description says: schemathesis generates requests from it and holds every answer against it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from probed.api.access import NOBODY, Principal
from probed.api.app import application
from probed.api.problems import unauthorized
from probed.couriers import Appointment
from probed.errors import Undelivered
from probed.model import Role
from probed.receivers import Receiver
from tests.unit.serving import Stack, free_port, stack
from tests.unit.test_couriers import Far

EXAMPLES = int(os.environ.get("PROBED_TEST_API_EXAMPLES", "8"))
"""Generated requests per route, for whom all is allowed; 200 make more than 5,000 in all."""
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method", "ignored_auth", "use_after_free",
)  # fmt: skip
"""All but one: a cursor that was made up is refused, and no schema can say which ones were."""


class ByHeader:
    """Knows people by a header, so that a role can be chosen for a whole run."""

    remedy = "say who you are"

    async def identify(self, request: web.Request) -> Principal:
        role = request.headers.get("X-Role", "")
        if role == "wrong":
            raise unauthorized("these credentials are wrong")
        return Principal("tester", Role(role), "token") if role else NOBODY


@pytest_asyncio.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A served daemon's worth of state, with events of three kinds in it, and a receiver that takes none of them."""
    seen = await stack(tmp_path)
    seen.archive.open()
    await _fill(seen)
    host, port = "127.0.0.1", free_port()
    address = f"{host}:{port}"
    runner = web.AppRunner(application(seen, [address], ByHeader()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    yield f"http://{address}"
    await runner.cleanup()
    await seen.couriers.close()
    await seen.archive.close()
    await seen.store.close()


async def _fill(seen: Stack) -> None:
    gone = Far(otherwise=Undelivered("HTTP 410", final=True))
    await seen.couriers.appoint([Appointment(Receiver("tickets"), lambda: gone)])
    seen.pipeline.owe = seen.couriers.owed
    seen.pipeline.on_announce(seen.couriers.announced)
    await seen.outage("node-a")
    for _ in range(2):
        seen.clock.step(5)
        seen.sample("postgres_liveness", "node-a")
    await seen.outage("node-b", reason="timeout <script>alert(1)</script>")


async def _schemathesis(url: str, role: str, *phases: str, checks: tuple[str, ...] = CHECKS) -> tuple[int, str]:
    """Exit code and report of one run as ``role``."""
    command = [
        str(Path(sys.executable).with_name("st")), "run", f"{url}/api/v1/openapi.json", "--url", url,
        "--phases", ",".join(phases), "--checks", ",".join(checks), "--max-examples", str(EXAMPLES),
        "--exclude-path", "/api/v1/events/stream",  # it has no end: tests/unit/test_ledger_api.py reads it
        # A process of some seconds for each, one at a time: tests/integration/test_report_pictures.py, unit/test_people.py
        "--exclude-path", "/api/v1/inspections/{id}.pdf",
        "--seed", "1", "--no-color", "--warnings", "off", "--suppress-health-check", "all",
    ]  # fmt: skip
    if role:
        command += ["-H", f"X-Role: {role}"]
    running = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await running.communicate()
    return running.returncode or 0, told.decode()


async def _description(url: str, role: str = "viewer") -> dict[str, Any]:
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"{url}/api/v1/openapi.json", headers={"X-Role": role})
        return dict(json.loads(await answer.text()))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_whoever_asks_whatever_the_answer_is_one_that_the_description_names(url: str, role: str) -> None:
    phases = ("examples", "coverage", "fuzzing") if role == "admin" else ("coverage",)
    code, told = await _schemathesis(url, role, *phases)
    assert code == 0, told[-8000:]


@pytest.mark.parametrize("role", ["", "wrong"])
async def test_who_is_not_known_gets_nothing_but_health(url: str, role: str) -> None:
    paths = (await _description(url))["paths"]
    async with aiohttp.ClientSession() as session:
        for path, methods in paths.items():
            for method in methods:
                headers = {"X-Role": role} if role else {}
                answer = await session.request(method, url + path.replace("{id}", "x"), headers=headers)
                expected = 200 if path.startswith("/-/") and method == "get" else 401
                assert answer.status == expected, (method, path)


async def test_every_route_is_described_with_who_may(url: str) -> None:
    described = await _description(url)
    assert described["openapi"] == "3.1.0"
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert "Needs the role" in operation["description"] or path in ("/-/healthy", "/-/ready")
