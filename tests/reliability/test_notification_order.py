"""Thousands of deliveries to receivers that fail at random: nothing lost, nothing overtaken, nothing twice but lost replies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from probed import courier
from probed.api import shapes
from probed.clock import SystemClock
from probed.couriers import Appointment, Couriers
from probed.outlets import Outlet
from probed.outlets.alertmanager import AlertmanagerOutlet
from probed.outlets.webhook import WebhookOutlet
from probed.probes._http import HttpClient
from probed.receivers import Receiver
from probed.store import Commit, outbox
from probed.store.notices import Told, transition_id
from probed.store.sqlite import SqliteStore
from probed.telling import HttpDoor
from tests.receiving import Received, Sink
from tests.reliability.appending import opening, resolving
from tests.reliability.notifying import own

DELIVERIES = int(os.environ.get("PROBED_DELIVERIES", "1500"))
"""10,000 take some four minutes on a busy machine."""
SPEED = 200.0
"""How much faster time passes for the couriers: 5 ms to 1.5 s between attempts, and a day is seven minutes."""
WATCHES = 20
WAYS = {
    "steady": [("200", 1.0)],
    "flaky": [("200", 0.7), ("500", 0.1), ("lose", 0.1), ("429 Retry-After: 1", 0.05), ("301 Location: /", 0.05)],
    "picky": [("200", 0.6), ("400", 0.3), ("422", 0.1)],
    "hanging": [("200", 0.99), ("hang", 0.006), ("drip", 0.004)],
    "wretched": [("200", 0.5), ("503", 0.3), ("lose", 0.1), ("nonsense", 0.1)],
    "alertmanager": [("200", 0.4), ("500", 0.3), ("400", 0.1), ("lose", 0.2)],
}
"""What each answers, and how often. Alertmanager is told many things at once."""
ORDER = ("opened", "resolved")


class QuickClock(SystemClock):
    """The machine's, but durations."""

    def mono(self) -> float:
        return time.monotonic() * SPEED

    async def sleep_until(self, mono: float) -> None:
        await asyncio.sleep(max(0.0, mono / SPEED - time.monotonic()))


@dataclass
class Post:
    """The far side, and how often each answered what."""

    chance: random.Random
    sinks: dict[str, Sink] = field(default_factory=lambda: {name: Sink() for name in WAYS})
    answered: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in WAYS})

    def __post_init__(self) -> None:
        for name, sink in self.sinks.items():
            sink.on_request = partial(self._choose, name, sink)

    def _choose(self, name: str, sink: Sink, _: Received) -> None:
        ways, weights = zip(*WAYS[name], strict=True)
        sink.otherwise = self.chance.choices(ways, weights)[0]
        self.answered[name][sink.otherwise] += 1

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for sink in self.sinks.values():
                await stack.enter_async_context(sink.listen())
            yield


def outlet(name: str, url: str, http: HttpClient, clock: QuickClock) -> Outlet:
    if name == "alertmanager":
        return AlertmanagerOutlet(HttpDoor(http, name, url), clock, observer="o", refresh_seconds=86400.0)
    return WebhookOutlet(HttpDoor(http, name, url), clock, observer="o", render=shapes.event, instant=shapes.instant)


async def happen(store: SqliteStore, couriers: Couriers, watch: int, events: int, chance: random.Random) -> None:
    """One watch's events, each opened and resolved, now and then faster than anybody can be told."""
    for _ in range(events):
        (change,) = opening(watch).changes
        for one in (change, resolving(change.event).changes[0]):
            owed = replace(one, owed=couriers.owed(one))
            await store.append(Commit(changes=(owed,)))
            couriers.announced(owed)
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.05)))


@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(120 + DELIVERIES / 20)
async def test_no_resolution_overtakes_its_opening_at_whatever_rate_receivers_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "SEND_SECONDS", 2.0)  # of the real time: those that hang are to do so often
    seed = random.randrange(2**32)
    events = -(-DELIVERIES // (len(WAYS) * 2 * WATCHES))
    post = await delivered(tmp_path, random.Random(seed), events)
    verify(tmp_path, post, seed, 2 * events * WATCHES)


@pytest.mark.usefixtures("quiet")
async def test_an_outbox_that_hands_out_the_newest_first_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measure must be able to fail."""
    right = outbox.owed_sql

    def wrong(*arguments: Any) -> outbox.Sql:
        sql, values = right(*arguments)
        return sql.replace("ORDER BY delivery.id", "ORDER BY delivery.id DESC"), values

    monkeypatch.setattr(outbox, "owed_sql", wrong)
    post = await delivered(tmp_path, random.Random(7), 2)
    assert inversions(list(arrived(post.sinks["wretched"].seen, "wretched"))) > 0


async def delivered(directory: Path, chance: random.Random, events: int) -> Post:
    """So many events of every watch, told to everybody until nothing is owed."""
    clock, http, store, post = QuickClock(), HttpClient(), SqliteStore(directory), Post(chance)
    await store.open()
    couriers = Couriers(store, clock, own=own)
    async with post.listen():
        await couriers.appoint(
            [
                Appointment(Receiver(name), partial(outlet, name, sink.url, http, clock))
                for name, sink in post.sinks.items()
            ]
        )
        await asyncio.gather(*(happen(store, couriers, watch, events, chance) for watch in range(WATCHES)))
        for _ in range(600 + DELIVERIES // 4):
            if not await store.backlog():
                break
            await asyncio.sleep(0.1)
        await couriers.close()
    await http.close()
    await store.close()
    return post


def verify(directory: Path, post: Post, seed: int, transitions: int) -> None:
    with contextlib.closing(sqlite3.connect(directory / "probed.db")) as connection:
        rows = connection.execute("SELECT receiver, event_id, told, owed_at, fate FROM delivery").fetchall()
    wanted = {transition_id(event, Told(told), at) for _, event, told, at, _ in rows}
    assert len(rows) == transitions * len(WAYS)
    assert Counter(fate for *_, fate in rows) == {"delivered": len(rows)}, f"seed {seed}"
    print(f"\n{len(rows)} deliveries of {transitions} transitions, seed {seed}")
    for name, sink in post.sinks.items():
        # Attempts that failed count as well, but of many at once: what was refused as a whole told nothing.
        told = list(arrived(sink.taken if name == "alertmanager" else sink.seen, name))
        inverted = inversions(told)
        print(
            f"{name}: {sum(post.answered[name].values())} attempts, {inverted} inversions, {dict(post.answered[name])}"
        )
        assert inverted == 0, f"{name}, seed {seed}"
        if name == "alertmanager":  # of one event it is told the newest alone, which says all that it would keep
            assert {event for event, _ in arrived(sink.taken, name)} == {event for _, event, *_ in rows}
            continue
        taken = Counter(request.headers["webhook-id"] for request in sink.taken)
        assert taken.keys() == wanted, f"{name}, seed {seed}"
        unheard = sum(post.answered[name][way] for way in ("lose", "hang", "drip", "nonsense"))
        doubled = sum(taken.values()) - len(wanted)
        assert doubled <= unheard, f"{name}: twice at most what it has and could not say so, seed {seed}"


def arrived(seen: list[Received], name: str) -> Iterator[tuple[str, str]]:
    """(event, opened or resolved) in the order in which it came."""
    for request in seen:
        if name == "alertmanager":
            for alert in json.loads(request.body):
                # What is open ends far ahead.
                over = datetime.fromisoformat(alert["endsAt"]).timestamp() <= time.time()
                yield alert["annotations"]["event_id"], "resolved" if over else "opened"
        else:
            yield request.json["data"]["id"], request.json["type"].rpartition(".")[2]


def inversions(told: list[tuple[str, str]]) -> int:
    """How often something came behind what comes after it."""
    furthest: dict[str, int] = {}
    count = 0
    for event, kind in told:
        at = ORDER.index(kind)
        count += at < furthest.get(event, 0)
        furthest[event] = max(at, furthest.get(event, 0))
    return count
