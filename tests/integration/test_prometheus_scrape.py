"""A real Prometheus (Debian's) scrapes over TLS: by password and by token; refused, it says so and probed counts it."""

from __future__ import annotations

import asyncio
import json
import shutil
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from probed.api.app import serve
from tests.unit.certificates import Authority
from tests.unit.people import PASSWORDS, USERS, give_token, know
from tests.unit.serving import Stack, free_port, stack

PROGRAM = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="prometheus is missing (apt-get install prometheus)")

JOBS = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- &probed
  job_name: password
  scheme: https
  tls_config: {{ca_file: ca.pem}}
  basic_auth: {{username: vera, password: {password}}}
  static_configs: [{{targets: ['{address}']}}]
- <<: *probed
  job_name: token
  basic_auth:
  authorization: {{credentials_file: token}}
- <<: *probed
  job_name: nobody
  basic_auth:
"""


@pytest_asyncio.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Stack]:
    made = await stack(tmp_path / "store")
    yield made
    await made.store.close()


async def test_prometheus_scrapes_with_a_password_and_with_a_token_and_not_without(seen: Stack, tmp_path: Path) -> None:
    Authority(tmp_path).issue("server")
    know(seen, tmp_path, "tls_server_config: {cert_file: server.pem, key_file: server.key}\n" + USERS)
    token = await give_token(seen, "prometheus", "viewer", scopes=("metrics",))
    address, own = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    (tmp_path / "token").write_text(token)
    (tmp_path / "prometheus.yml").write_text(JOBS.format(password=f"'{PASSWORDS['vera']}'", address=address))
    close = await serve(seen, addresses=[address], socket_path=None)
    assert PROGRAM is not None
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "--config.file=prometheus.yml", f"--web.listen-address={own}", "--storage.tsdb.path=data",
            cwd=tmp_path, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        up: dict[str, str] = {}
        for _ in range(300):
            up = await asyncio.to_thread(_up, own)
            if len(up) == 3 and (up["password"], up["token"]) == ("1", "1"):
                break
            await asyncio.sleep(0.2)
        assert up == {"password": "1", "token": "1", "nobody": "0"}, (tmp_path / "log").read_text()[-3000:]
    finally:
        process.terminate()
        await process.wait()
        await close()


def _up(address: str) -> dict[str, str]:
    """Value of ``up`` by job."""
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/query?query=up", timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:
        return {}
    return {item["metric"]["job"]: item["value"][1] for item in found}
