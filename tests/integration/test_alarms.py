"""The whole daemon as a process, with receivers on real sockets: what arrives, what survives, and what stays secret."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sqlite3
import subprocess
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from probed.demo.ports import free_port
from tests.daemons import DaemonProcess
from tests.hostile import listening
from tests.receiving import Sink

SECRETS = {name: f"cAnArY-{name}-8d1f" for name in ("path", "query", "file", "signing", "token", "ping")}

POLICY = """
id: component_abnormal
interval: 300ms
timeout: 100ms
"""


@dataclass
class House(DaemonProcess):
    """A daemon that watches one port, and everybody whom it tells."""

    hook: Sink = field(default_factory=Sink)
    filed: Sink = field(default_factory=Sink)
    alertmanager: Sink = field(default_factory=Sink)
    pings: Sink = field(default_factory=Sink)
    door: int = field(default_factory=free_port)
    events: str = "component_abnormal"
    """What the webhooks want to hear of."""

    def configure(self) -> None:
        self.directory.joinpath("policies.d").mkdir(exist_ok=True)
        self.directory.joinpath("policies.d", "component_abnormal.yaml").write_text(POLICY)
        for name in ("signing", "token"):
            self.directory.joinpath(name).write_text(SECRETS[name])
        self.directory.joinpath("address").write_text(f"{self.filed.url}/{SECRETS['file']}\n")
        self.config.write_text(f"""
web: {{listen: ["127.0.0.1:{self.web}"], external_url: https://probed.example}}
storage: {{path: {self.directory}/store}}
policies: {{directory: {self.directory}/policies.d}}
defaults: {{interval: 1s, timeout: 500ms}}
instances: [{{name: orders, components: {{door: {{url: "tcp://127.0.0.1:{self.door}"}}}}}}]
notifications:
  alertmanager: [{{url: "{self.alertmanager.url}", bearer_token_file: {self.directory}/token, events: [component_abnormal]}}]
  webhooks:
    - url: {self.hook.url}/{SECRETS["path"]}?key={SECRETS["query"]}
      name: hook
      events: [{self.events}]
      secret_file: {self.directory}/signing
    - {{url_file: {self.directory}/address, name: filed, events: [{self.events}], resolved: false}}
  canary: 2s
  heartbeat: {{url: "{self.pings.url}/{SECRETS["ping"]}", interval: 500ms}}
""")

    async def shows(self, text: str) -> None:
        """Until the metrics hold a text."""
        for _ in range(300):
            if text in await self.get("/metrics"):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"never: {text}\n{self.log[-4000:]}")


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    async with made.hook.listen(), made.filed.listen(), made.alertmanager.listen(), made.pings.listen():
        made.configure()
        yield made
        if made.process is not None and made.process.returncode is None:
            await made.kill()


def told_of(sink: Sink) -> list[str]:
    """Types of the events that it took, be it a webhook or an Alertmanager."""
    found: list[str] = []
    for request in sink.taken:
        body = request.json
        found += [one["labels"]["alertname"] for one in body] if isinstance(body, list) else [body["data"]["event"]]
    return found


def kinds(sink: Sink) -> list[str]:
    return [request.json["type"].rpartition(".")[2] for request in sink.taken]


@pytest.mark.timeout(180)
async def test_an_alarm_outlives_a_receiver_that_is_down_and_a_daemon_that_is_killed(house: House) -> None:
    house.hook.otherwise = house.alertmanager.otherwise = "500"
    await house.start()
    await house.until(lambda: house.pings.seen, "a sign of life")
    await house.until(lambda: house.hook.seen and house.filed.seen, "the alarm, at who is up and who is not")
    (told,) = house.filed.seen
    first = house.hook.seen[0]
    assert told.json["data"]["event"] == "component_abnormal"
    assert told.json["id"] == first.json["id"], "every receiver sees the same id"
    # Before that a kill would have it sent twice, rightly.
    await house.shows('probed_notifications_total{receiver="filed",outcome="delivered"} 1')

    await house.kill()
    house.hook.otherwise = house.alertmanager.otherwise = "200"
    pings = len(house.pings.seen)
    await house.start()
    await house.until(lambda: house.hook.taken, "the alarm that is owed")
    assert house.hook.taken[0].body == first.body
    assert house.hook.taken[0].headers["webhook-id"] == first.headers["webhook-id"]
    await house.until(lambda: house.alertmanager.taken, "the alert")
    await house.until(lambda: len(house.pings.seen) > pings, "signs of life again")

    async with listening(lambda line: line.hang(), port=house.door):
        await house.until(lambda: len(house.hook.taken) == 2, "the end of it")
    assert kinds(house.hook) == ["opened", "resolved"]
    assert kinds(house.filed) == ["opened"], "delivered before the kill, not sent again; and it wants no ends"
    assert await house.stop() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The store's directory on a file system of 8 MiB."""
    place = tmp_path / "store"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip(
            "no tmpfs can be mounted here, so no whole daemon met a full disk: run as root (unit/test_unwritten.py has a limit)"
        )
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return ballast


@pytest.mark.timeout(180)
async def test_while_the_disk_is_full_alarms_arrive_all_the_same_and_once(small_disk: Path, house: House) -> None:
    house.events = "component_abnormal, store_degraded, pipeline_broken"
    house.configure()
    async with listening(lambda line: line.hang(), port=house.door):
        await house.start()
        await house.until(lambda: house.pings.seen, "a daemon that does its work")
        ballast = fill(small_disk)
        await house.until(lambda: "store_degraded" in told_of(house.hook), "that the store cannot write")
        assert "503" in (await house.get("/-/ready")).splitlines()[0]
    await house.until(lambda: "component_abnormal" in told_of(house.hook), "an alarm with nothing of it written")
    pings = len(house.pings.seen)
    async with listening(lambda line: line.hang(), port=house.door):
        await house.until(lambda: told_of(house.hook).count("component_abnormal") == 2, "the end of it")
        assert len(house.pings.seen) == pings, "the dead man's switch is let go"
        assert '"component_abnormal"' not in await house.get("/api/v1/events")
        ballast.unlink()
        await house.until(lambda: told_of(house.hook).count("store_degraded") == 2, "that it writes again")
        await house.until(lambda: len(house.pings.seen) > pings, "signs of life again")
        shown = await house.command("notify", "list", "--receiver", "hook")
        assert await house.stop() == 0
    assert Counter(told_of(house.hook)) == {"component_abnormal": 2, "store_degraded": 2}
    assert len({request.headers["webhook-id"] for request in house.hook.taken}) == 4
    assert shown.count("delivered") >= 4
    with contextlib.closing(sqlite3.connect(small_disk / "probed.db")) as connection:
        seen = connection.execute("SELECT event, state FROM event ORDER BY event").fetchall()
        numbers = [seq for (seq,) in connection.execute("SELECT seq FROM transition WHERE seq > 0 ORDER BY seq")]
    assert [row for row in seen if row[0] != "canary"] == [
        ("component_abnormal", "resolved"), ("store_degraded", "resolved"),
    ]  # fmt: skip
    assert numbers == [1, 2, 3, 4]


@pytest.mark.timeout(180)
async def test_whom_nothing_reaches_is_told_of_to_the_others_until_it_takes_something(house: House) -> None:
    house.events = "component_abnormal, notification_failed"
    house.configure()
    edit = "id: notification_failed\nparams: {failing_after: 2s}\n"
    house.directory.joinpath("policies.d", "notification_failed.yaml").write_text(edit)
    house.hook.otherwise = "503"
    await house.start()
    await house.until(lambda: "notification_failed" in told_of(house.filed), "that the other one fails")
    (told,) = [request.json["data"] for request in house.filed.taken if "notification" in request.json["data"]["event"]]
    assert told["target"].endswith("/receiver/hook")
    assert "hook: HTTP 503" in told["message"]
    house.hook.otherwise = "200"
    await house.until(lambda: "event.resolved" in house.log and "notification_failed" in house.log, "the end of it", 60)
    assert "notification_failed" not in told_of(house.hook) + told_of(house.alertmanager)
    assert await house.stop() == 0


@pytest.mark.timeout(180)
async def test_canaries_come_back_and_nobody_hears_of_them(house: House) -> None:
    await house.start()
    await house.until(lambda: house.pings.seen and house.hook.taken, "a daemon that does its work")
    await house.shows("\nprobed_canary_round_trip_seconds ")
    metrics = await house.get("/metrics")
    assert "\nprobed_canary_age_seconds " in metrics
    assert "probed_canary_overdue_seconds 0.0" in metrics
    assert 'event="canary"' not in metrics
    assert 'receiver="canary"' not in metrics
    assert "canary" not in await house.get("/api/v1/events") + await house.get("/api/v1/notifications")
    assert "canary" not in await house.command("notify", "list")
    assert "200" in (await house.get("/-/ready")).splitlines()[0]
    assert set(told_of(house.hook)) == {"component_abnormal"}
    assert await house.stop() == 0


@pytest.mark.timeout(180)
async def test_no_secret_of_a_receiver_is_seen_anywhere_but_at_the_receiver(house: House) -> None:
    """Logs at debug level, metrics, the API, commands, the store: raw, quoted and in base64."""
    house.hook.answers = ["500", "301 Location: /elsewhere", "lose", "429 Retry-After: 1"]
    house.alertmanager.answers = ["503"]
    house.pings.answers = ["500", "lose"]
    await house.start()
    await house.until(
        lambda: len(house.hook.seen) > 4 and house.alertmanager.taken and len(house.pings.seen) > 3, "all", 60
    )
    assert house.alertmanager.taken[0].headers["authorization"] == f"Bearer {SECRETS['token']}"
    shown = [
        await house.get(path) for path in ("/metrics", "/api/v1/notifications", "/api/v1/events", "/api/v1/status")
    ]
    assert 'probed_notifications_total{receiver="hook",outcome="delivered"}' in shown[0]
    assert '"receiver": "hook"' in shown[1] or '"receiver":"hook"' in shown[1]
    shown += [
        await house.command("notify", "list"),
        await house.command("notify", "list", "-o", "json"),
        await house.command("notify", "test", "hook"),
        await house.command("check", str(house.config)),
    ]
    house.filed.otherwise = "500"
    shown.append(await house.command("notify", "test", "filed", code=1))
    shown.append(await house.command("notify", "test", "nobody", code=1))
    house.directory.joinpath("address").write_text(f"gopher://{SECRETS['file']}")
    shown.append(await house.command("notify", "test", "filed", code=1))
    shown.append(await house.command("check", str(house.config), code=1))
    house.config.write_text(house.config.read_text().replace("http://", "htp://"))
    shown.append(await house.command("check", str(house.config), code=1))
    assert await house.stop() == 0
    shown.append(house.log)
    stored = b"".join(file.read_bytes() for file in (house.directory / "store").iterdir() if file.is_file())
    for name, secret in SECRETS.items():
        for form in (secret, urllib.parse.quote(secret), base64.b64encode(secret.encode()).decode()[:-3]):
            assert all(form not in text for text in shown), f"{name} is shown"
            assert form.encode() not in stored, f"{name} is stored"
