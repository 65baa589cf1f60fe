"""The whole daemon as a process, with receivers on real sockets: what arrives, what survives, and what stays secret."""

from __future__ import annotations

import asyncio
import base64
import urllib.parse
from collections.abc import AsyncIterator
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
      events: [component_abnormal]
      secret_file: {self.directory}/signing
    - {{url_file: {self.directory}/address, name: filed, events: [component_abnormal], resolved: false}}
  heartbeat: {{url: "{self.pings.url}/{SECRETS["ping"]}", interval: 500ms}}
""")


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    async with made.hook.listen(), made.filed.listen(), made.alertmanager.listen(), made.pings.listen():
        made.configure()
        yield made
        if made.process is not None and made.process.returncode is None:
            await made.kill()


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
    for _ in range(100):  # until it is noted: before that, a kill would have it sent twice
        if 'probed_notifications_total{outcome="delivered",receiver="filed"} 1' in await house.get("/metrics"):
            break
        await asyncio.sleep(0.1)

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
    assert 'probed_notifications_total{outcome="delivered",receiver="hook"}' in shown[0]
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
