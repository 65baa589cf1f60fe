"""A real Prometheus (Debian's): scraping over TLS by password and by token; and what the dashboard asks it of events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from mixin import dashboard
from probed.api.app import serve
from probed.model import Severity
from probed.store import Change
from tests.unit.certificates import Authority
from tests.unit.people import PASSWORDS, USERS, give_token, know
from tests.unit.serving import Stack, free_port, stack
from tests.unit.test_couriers import an_event

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
    async with prometheus(tmp_path, own):
        up: dict[str, str] = {}
        for _ in range(300):
            up = await asyncio.to_thread(_up, own)
            if len(up) == 3 and (up["password"], up["token"]) == ("1", "1"):
                break
            await asyncio.sleep(0.2)
        assert up == {"password": "1", "token": "1", "nobody": "0"}, (tmp_path / "log").read_text()[-3000:]
    await close()


async def test_the_dashboard_draws_events_from_their_opening_to_their_end_and_occurrences(
    seen: Stack, tmp_path: Path
) -> None:
    address, own = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    (tmp_path / "prometheus.yml").write_text(
        f"scrape_configs:\n- {{job_name: probed, scrape_interval: 1s, static_configs: [{{targets: ['{address}']}}]}}\n"
    )
    close = await serve(seen, addresses=[address], socket_path=None)
    async with prometheus(tmp_path, own):
        for query in dashboard.queries():
            await until(own, chosen(query, "orders"), lambda _: True)  # fails for a query that is none

        events, occurrences = (annotation.query for annotation in dashboard.ANNOTATIONS)
        await until(own, "count_over_time(probed_events_total[1h]) > 2", bool)
        await seen.outage("node-a")
        switchover = an_event(event="ha_switchover", severity=Severity.CRITICAL)
        seen.metrics.announced(Change(switchover, "occurred", seen.clock.wall()))
        drawn = await until(own, chosen(events, "orders"), bool)
        assert [(one["event"], one["db_instance"], one["node"], one["severity"]) for one in drawn] == [
            ("database_unavailable", "orders", "node-a", "fatal")
        ]
        assert await until(own, chosen(events, "billing"), lambda _: True) == []
        moments = await until(own, occurrences, bool)
        assert [one["event"] for one in moments] == ["ha_switchover"]
        for _ in range(2):
            seen.clock.step(5)
            seen.sample("postgres_liveness", "node-a")
        await seen.settle()
        await until(own, chosen(events, "orders"), lambda found: not found)
    await close()


def chosen(query: str, instance: str) -> str:
    """As Grafana asks it when somebody has chosen an instance."""
    return query.replace("$db_instance", instance)


@contextlib.asynccontextmanager
async def prometheus(directory: Path, address: str) -> AsyncIterator[None]:
    assert PROGRAM is not None
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "--config.file=prometheus.yml", f"--web.listen-address={address}", "--storage.tsdb.path=data",
            cwd=directory, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def until(address: str, query: str, wanted: Callable[[list[dict[str, str]]], bool]) -> list[dict[str, str]]:
    """Labels of what the query finds, once it is as wanted. AssertionError when it is no query."""
    found: list[dict[str, str]] = []
    for _ in range(150):
        try:
            found = await asyncio.to_thread(_asked, address, query)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 503:  # which says that it is starting
                raise AssertionError(f"no query: {query}") from None
        except OSError:  # it is starting
            pass
        else:
            if wanted(found):
                return found
        await asyncio.sleep(0.2)
    raise AssertionError(f"never as wanted: {query}: {found}")


def _asked(address: str, query: str) -> list[dict[str, str]]:
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return [one["metric"] for one in json.load(answer)["data"]["result"]]


def _up(address: str) -> dict[str, str]:
    """Value of ``up`` by job."""
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/query?query=up", timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:
        return {}
    return {item["metric"]["job"]: item["value"][1] for item in found}
