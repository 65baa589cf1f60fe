"""Alarms in a real Alertmanager (Debian's): what it shows, what it forgets over a restart, and what it is told again."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from probed.clock import SystemClock
from probed.courier import Courier
from probed.demo.ports import free_port
from probed.errors import Undelivered
from probed.incidents import new_id
from probed.model import Event, EventState, Severity, Target
from probed.outlets import Link
from probed.outlets.alertmanager import AlertmanagerOutlet
from probed.probes._http import HttpClient
from probed.receivers import Receiver
from probed.store import Change, Commit
from probed.store.sqlite import SqliteStore
from probed.telling import HttpDoor

PROGRAM = shutil.which("prometheus-alertmanager")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="prometheus-alertmanager is missing (apt-get install)")
REFRESH = 0.5


@dataclass
class Alertmanager:
    """One process on loopback, without a cluster; ``seen`` are the groups that it sent to a receiver of its own."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        assert PROGRAM is not None
        self.directory.mkdir(exist_ok=True)
        config = self.directory / "alertmanager.yml"
        config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
        with (self.directory / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                PROGRAM, f"--config.file={config}", f"--storage.path={self.directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address=", stdout=log, stderr=log,
            )  # fmt: skip
        for _ in range(200):
            if await asyncio.to_thread(self._answers):
                return
            await asyncio.sleep(0.1)
        raise AssertionError((self.directory / "log").read_text()[-2000:])

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def forget(self) -> None:
        shutil.rmtree(self.directory / "data")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    async def alerts(self, *, active: bool = True) -> list[dict[str, Any]]:
        """As its API shows them; resolved ones too, unless only the ``active`` are wanted."""

        def ask() -> list[dict[str, Any]]:
            with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=5) as answer:
                return list(json.load(answer))

        found = await asyncio.to_thread(ask)
        return [alert for alert in found if not active or alert["status"]["state"] == "active"]

    async def until(self, condition: Callable[[list[dict[str, Any]]], bool], what: str) -> list[dict[str, Any]]:
        for _ in range(150):
            found = await self.alerts()
            if condition(found):
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(f"never: {what}; {await self.alerts()}")


@pytest_asyncio.fixture
async def alertmanager(tmp_path: Path) -> AsyncIterator[Alertmanager]:
    made = Alertmanager(tmp_path / "alertmanager")
    await made.start()
    yield made
    await made.stop()


@dataclass
class Desk:
    """A store and one courier to an Alertmanager."""

    store: SqliteStore
    courier: Courier

    async def commit(self, event: Event, kind: str) -> None:
        change = Change(event, kind, time.time(), owed=(self.courier.receiver.name,))
        await self.store.append(Commit(changes=(change,)))
        self.courier.wake()


@pytest_asyncio.fixture
async def desk(tmp_path: Path, alertmanager: Alertmanager) -> AsyncIterator[Desk]:
    store, http = SqliteStore(tmp_path / "store"), HttpClient()
    await store.open()
    link = Link("https://probed.example", "https://runbooks.example/{event}")
    outlet = AlertmanagerOutlet(
        HttpDoor(http, "am", alertmanager.url, path="/api/v2/alerts"), SystemClock(), observer="node-x", link=link,
        watchdog=True, refresh_seconds=REFRESH,
    )  # fmt: skip
    courier = Courier(Receiver("am"), outlet, store, SystemClock())
    task = asyncio.ensure_future(courier.run())
    yield Desk(store, courier)
    courier.close()
    await task
    await http.close()
    await store.close()


def an_event(**values: Any) -> Event:
    at = time.time()
    base = Event(
        id=new_id(at),
        event="database_unavailable",
        name="Database access unavailable",
        severity=Severity.FATAL,
        state=EventState.OPEN,
        target=Target("orders", "node-a", "postgres"),
        opened_at=at,
        message="3 of 3 samples in a row failed: connection refused",
        suggestion="Usually heals by itself.",
        labels={"env": "prod", "cost-centre": "7", "alertname": "ours wins"},
    )
    return replace(base, **values)


def ours(alerts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [alert for alert in alerts if alert["labels"]["alertname"] != "ProbedWatchdog"]


async def test_an_event_is_an_alert_until_it_resolves_also_over_a_restart_that_forgets_everything(
    desk: Desk, alertmanager: Alertmanager
) -> None:
    event = an_event()
    await desk.commit(event, "opened")
    (alert,) = ours(await alertmanager.until(lambda found: bool(ours(found)), "the alert"))
    assert alert["labels"] == {
        "alertname": "database_unavailable", "severity": "critical", "probed_severity": "fatal", "db_instance": "orders",
        "node": "node-a", "component": "postgres", "env": "prod", "cost_centre": "7",
    }  # fmt: skip
    assert alert["annotations"] == {
        "summary": "Database access unavailable: orders/node-a/postgres",
        "description": "3 of 3 samples in a row failed: connection refused\nUsually heals by itself.",
        "event_id": event.id,
        "runbook_url": "https://runbooks.example/database_unavailable",
    }
    assert alert["generatorURL"] == f"https://probed.example/events/{event.id}"

    # Its end moves on with every post, for as long as the event is open.
    first = alert["endsAt"]
    await alertmanager.until(lambda found: ours(found)[0]["endsAt"] > first, "a later end")

    await alertmanager.stop()
    alertmanager.forget()
    other = an_event(target=Target("orders", "node-b", "postgres"))
    await desk.commit(other, "opened")
    await alertmanager.start()
    both = await alertmanager.until(lambda found: len(ours(found)) == 2, "what was open before and what is new")
    assert {alert["annotations"]["event_id"] for alert in ours(both)} == {event.id, other.id}

    await alertmanager.stop()
    over = replace(event, state=EventState.RESOLVED, resolved_at=time.time(), resolve_reason="recovered")
    await desk.commit(over, "resolved")
    await alertmanager.start()
    left = await alertmanager.until(
        lambda found: [alert["annotations"]["event_id"] for alert in ours(found)] == [other.id], "the resolution"
    )
    assert len(ours(left)) == 1


async def test_the_watchdog_fires_always_and_ends_soon_after_the_daemon(desk: Desk, alertmanager: Alertmanager) -> None:
    await alertmanager.until(lambda found: [a["labels"]["alertname"] for a in found] == ["ProbedWatchdog"], "it")
    desk.courier.close()
    await alertmanager.until(lambda found: not found, "silence")


async def test_hostile_words_are_taken_and_two_ports_of_one_component_are_two_alerts(
    desk: Desk, alertmanager: Alertmanager
) -> None:
    ports = [Target("orders", "", "haproxy", f"10.0.0.{n}:5000", member=f"10.0.0.{n}:5000") for n in (1, 2)]
    for target in ports:
        event = an_event(target=target, message='{{ template }} "quoted"\n\u202e', labels={"ü-1": "é", "1a": "b"})
        await desk.commit(event, "opened")
    found = ours(await alertmanager.until(lambda found: len(ours(found)) == 2, "both"))
    assert {alert["labels"]["member"] for alert in found} == {"10.0.0.1:5000", "10.0.0.2:5000"}


async def test_what_it_refuses_is_said(alertmanager: Alertmanager) -> None:
    http = HttpClient()
    door = HttpDoor(http, "am", alertmanager.url, path="/api/v2/nothing")
    outlet = AlertmanagerOutlet(door, SystemClock(), observer="node-x")
    with pytest.raises(Undelivered, match="HTTP 404"):
        await outlet.test()
    await AlertmanagerOutlet(
        HttpDoor(http, "am", alertmanager.url, path="/api/v2/alerts"), SystemClock(), observer="node-x"
    ).test()
    (alert,) = await alertmanager.until(bool, "the test")
    assert alert["labels"]["alertname"] == "probed_test"
    await http.close()
