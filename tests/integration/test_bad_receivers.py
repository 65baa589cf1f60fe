"""A daemon whose receivers fail in every way at once: who is well hears at once, and each of the others in the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from probed.api import shapes
from probed.couriers import Appointment
from probed.demo.ports import free_port
from probed.outlets.webhook import WebhookOutlet
from probed.probes._http import HttpClient
from probed.receivers import Receiver
from probed.store.sqlite import SqliteStore
from probed.telling import HttpDoor
from probed.testing import FakeClock
from tests.daemons import DaemonProcess
from tests.hostile import listening
from tests.receiving import Received, Sink
from tests.unit.test_couriers import NOON, Office

POLICY = """
id: component_abnormal
interval: 300ms
timeout: 100ms
"""
PATIENCE = 3
"""Seconds for which one of them asks to be left alone."""
ANSWERS = {
    "refuses": "connection refused",
    "hangs": "no answer within 10 s",
    "drips": "no answer within 10 s",
    "fails": "HTTP 500",
    "busy": "HTTP 429",
    "moved": "HTTP 301: redirects are not followed; name the address that it leads to",
    "forgets": "connection",  # reset or closed, as it comes
    "babbles": "not a valid HTTP answer",
    "encrypted": "TLS with",
    "gone": "HTTP 410: the receiver is gone for good",
}
"""What an operator reads of each."""


def kinds(seen: Sequence[Received]) -> list[str]:
    return [request.json["type"].rpartition(".")[2] for request in seen]


@pytest.mark.timeout(240)
async def test_every_way_of_a_bad_receiver_is_told_delays_nobody_and_loses_nothing(tmp_path: Path) -> None:
    elsewhere = Sink()
    sinks = {name: Sink() for name in ("well", *ANSWERS)}
    busy_at: list[float] = []
    sinks["busy"].on_request = lambda _: busy_at.append(time.monotonic())
    sinks["refuses"].port, door = free_port(), free_port()
    daemon = DaemonProcess(tmp_path)
    async with contextlib.AsyncExitStack() as open_:
        await open_.enter_async_context(elsewhere.listen())
        for name, sink in sinks.items():
            if name not in ("refuses", "encrypted"):
                await open_.enter_async_context(sink.listen())
        plain = await open_.enter_async_context(listening(lambda line: line.say(b"HTTP/1.1 400 no TLS here\r\n\r\n")))
        sinks["encrypted"].port = plain.port
        bad = {
            "hangs": "hang", "drips": "drip", "fails": "500", "busy": f"429 Retry-After: {PATIENCE}",
            "moved": f"301 Location: {elsewhere.url}/", "forgets": "lose", "babbles": "nonsense", "gone": "410",
        }  # fmt: skip
        for name, answer in bad.items():
            sinks[name].otherwise = answer
        configure(daemon, door, sinks)
        await daemon.start()
        open_.push_async_callback(daemon.kill)

        # Nobody listens at the component's door: an event, which all are told of and one takes.
        first = sinks["well"]
        await daemon.until(lambda: first.taken, "the alarm at who is well")
        await open_.enter_async_context(listening(lambda line: line.hang(), port=door))
        await daemon.until(lambda: len(first.taken) == 2, "its end")
        assert kinds(first.taken) == ["opened", "resolved"]
        opened, resolved = (request.headers["webhook-id"] for request in first.taken)

        states = await failing(daemon)
        assert states.keys() == ANSWERS.keys() - {"gone"}, (
            "who takes nothing is known, and who is well is not among them"
        )
        for name, state in states.items():
            assert ANSWERS[name] in state["answer"], name
            assert {request.headers["webhook-id"] for request in sinks[name].seen} <= {opened}, f"{name}: order"
        dead = await deliveries(daemon, "gone")
        assert [(one["told"], one["fate"], one["answer"]) for one in dead] == [
            ("resolved", "refused", ANSWERS["gone"]), ("opened", "refused", ANSWERS["gone"]),
        ]  # fmt: skip
        assert elsewhere.seen == [], "a redirect is not followed"

        for sink in sinks.values():
            sink.otherwise = "200"
        await open_.enter_async_context(sinks["refuses"].listen(sinks["refuses"].port))
        told = {name: sink for name, sink in sinks.items() if name not in ("gone", "encrypted")}
        await daemon.until(
            lambda: all(ids(sink.taken)[-1:] == [resolved] for sink in told.values()), "everything at everybody", 90
        )
        assert await daemon.stop() == 0
    for name, sink in told.items():
        assert sorted(set(ids(sink.taken)), key=ids(sink.taken).index) == [opened, resolved], name
        assert len({request.body for request in sink.seen}) == 2, f"{name}: a repetition says what the first one said"
    assert ids(sinks["forgets"].taken).count(opened) > 1, "its reply was lost, so it has it twice, by one id"
    assert ids(sinks["gone"].seen) == [opened, resolved], "what it will never take is not tried again"
    tries = busy_at[: ids(sinks["busy"].seen).count(opened)]
    gaps = [after - before for before, after in itertools.pairwise(tries)]
    assert gaps, "it was tried again"
    assert min(gaps) >= PATIENCE, "and left alone for as long as it asked"
    assert elsewhere.seen == []


def ids(seen: Sequence[Received]) -> list[str]:
    return [request.headers["webhook-id"] for request in seen]


def configure(daemon: DaemonProcess, door: int, sinks: dict[str, Sink]) -> None:
    policies = daemon.directory / "policies.d"
    policies.mkdir()
    (policies / "component_abnormal.yaml").write_text(POLICY)
    urls = {name: sink.url for name, sink in sinks.items()}
    urls["encrypted"] = urls["encrypted"].replace("http:", "https:")
    hooks = "\n".join(
        f"    - {{name: {name}, url: '{url}', events: [component_abnormal]}}" for name, url in urls.items()
    )
    daemon.config.write_text(f"""
web: {{listen: ["127.0.0.1:{daemon.web}"]}}
storage: {{path: {daemon.directory}/store}}
policies: {{directory: {policies}}}
defaults: {{interval: 1s, timeout: 500ms}}
instances: [{{name: orders, components: {{door: {{url: "tcp://127.0.0.1:{door}"}}}}}}]
notifications:
  webhooks:
{hooks}
""")


async def failing(daemon: DaemonProcess) -> dict[str, dict[str, Any]]:
    """Receivers that take nothing, once also the slowest has let its 10 s go by."""
    found: dict[str, dict[str, Any]] = {}
    for _ in range(150):
        answer = json.loads(await daemon.command("notify", "list", "-o", "json"))
        found = {one["name"]: one for one in answer["receivers"] if one["failing_since"]}
        if found.keys() == ANSWERS.keys() - {"gone"}:
            break
        await asyncio.sleep(0.2)
    return found


async def deliveries(daemon: DaemonProcess, receiver: str) -> list[dict[str, Any]]:
    answer = json.loads(await daemon.command("notify", "list", "--receiver", receiver, "-o", "json"))
    return list(answer["items"])


@pytest.mark.parametrize("asked, waited", [("120", 120), ("99999999", 3600), ("Wed, 21 Oct 2026 07:28:00 GMT", 60)])
async def test_a_receiver_that_asks_for_patience_gets_it_for_an_hour_at_most(
    tmp_path: Path, asked: str, waited: float
) -> None:
    """On a real socket, and a clock that can be told that an hour is over."""
    clock, http = FakeClock(NOON, 5000.0), HttpClient()
    store = SqliteStore(tmp_path, clock=clock)
    await store.open()
    office = Office(store, clock)
    async with Sink([f"429 Retry-After: {asked}"]).listen() as sink:
        door = HttpDoor(http, "busy", sink.url)
        make = partial(WebhookOutlet, door, clock, observer="o", render=shapes.event, instant=shapes.instant)
        await office.couriers.appoint([Appointment(Receiver("busy"), make)])
        await office.open()
        await office.until(lambda: office.told["busy", "failed"] == 1, "the first attempt")
        await office.open()
        await office.pass_(waited - 1, by=60)
        assert len(sink.seen) == 1, "also for what is new"
        clock.step(2)
        await office.until(lambda: len(sink.taken) == 2, "both")
    await office.couriers.close()
    await http.close()
    await store.close()
