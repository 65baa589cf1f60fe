"""kill -9 at every step of a delivery, and receivers that fail: nobody misses anything, nothing overtakes, duplicates are
bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from probed.store.notices import Told, transition_id
from tests.receiving import Received, Sink
from tests.reliability.trapdoors import CLOSING, GIVING_UP, STEPS

ROOT = Path(__file__).parents[2]
AT_RANDOM, UNDER_WAY = "at random", "under way"
WAYS = (AT_RANDOM, UNDER_WAY, *STEPS)
"""Under way: the receiver has read the notice and has not answered; nobody can know what became of it."""
KILLS = int(os.environ.get("PROBED_KILLS", len(WAYS)))
"""In turn at each step; 3,000 is the nightly run."""
ORDER = ("opened", "reminded", "resolved")


@dataclass
class Receivers:
    """Four, each of its own kind, on real sockets."""

    chance: random.Random
    steady: Sink = field(default_factory=Sink)
    """Takes everything."""
    flaky: Sink = field(default_factory=Sink)
    """Fails now and then, in every way that leaves a notice owed."""
    choosy: Sink = field(default_factory=Sink)
    """Says of some that it will never take them."""
    dead: Sink = field(default_factory=lambda: Sink(otherwise="500"))
    """Takes nothing, ever."""
    lost_replies: int = 0
    well: bool = False
    """Whether nobody but the dead fails."""
    gone: set[str] = field(default_factory=set)
    """Ids that were answered with 410."""

    def __post_init__(self) -> None:
        self.flaky.on_request, self.choosy.on_request = self._flake, self._choose

    @property
    def by_name(self) -> Mapping[str, Sink]:
        return {name: getattr(self, name) for name in ("steady", "flaky", "choosy", "dead")}

    def _flake(self, _: Received) -> None:
        ways, weights = ["200", "500", "400", "429 Retry-After: 0", "301 Location: /", "lose"], [88, 2, 2, 2, 2, 4]
        self.flaky.otherwise = "200" if self.well else self.chance.choices(ways, weights)[0]
        self.lost_replies += self.flaky.otherwise == "lose"

    def _choose(self, request: Received) -> None:
        self.choosy.otherwise = "410" if self.chance.random() < 0.1 else "200"
        if self.choosy.otherwise == "410":
            self.gone.add(request.headers["webhook-id"])


async def start(directory: Path, mode: str, trap: str, sinks: Mapping[str, Sink]) -> asyncio.subprocess.Process:
    receivers = [f"{name}={sink.url}/" for name, sink in sinks.items()]
    command = [sys.executable, "-m", "tests.reliability.notifying", str(directory), mode, trap, *receivers]
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    said = (await child.stdout.readline()).strip()
    # It may fall before it has said anything: what was owed before is brought while it starts.
    assert said in (b"going", b"fell"), said
    return child


@pytest.mark.timeout(120 + 10 * KILLS)
async def test_kills_at_every_step_lose_no_notice_invert_none_and_double_at_most_what_was_under_way(
    tmp_path: Path,
) -> None:
    chance = random.Random(20261125)
    receivers, store = Receivers(chance), tmp_path / "store"
    sinks, fell = receivers.by_name, Counter[str]()
    async with contextlib.AsyncExitStack() as listening:
        for sink in sinks.values():
            await listening.enter_async_context(sink.listen())
        for number in range(KILLS):
            way = WAYS[number % len(WAYS)]
            receivers.well = way in GIVING_UP  # a day lasts an instant then, and only the dead are to outlive it
            nth = 1 if way in CLOSING else chance.randrange(1, 7 if way in STEPS[:6] else 3)
            child = await start(store, "go", f"{way}:{nth}", sinks)
            fell[way] += await end(child, way, receivers)
        receivers.well = True
        child = await start(store, "drain", ":1", sinks)
        assert child.stdout is not None
        assert await child.wait() == 0, (await child.stdout.read()).decode()
    wanted = Counter(WAYS[number % len(WAYS)] for number in range(KILLS))
    assert fell == wanted, f"not killed at {wanted - fell}"
    transitions, fates = stored(store / "probed.db")
    print(f"\n{KILLS} kills: {', '.join(f'{way} {count}' for way, count in sorted(fell.items()))}")
    for name, sink in sinks.items():
        taken = Counter(request.headers["webhook-id"] for request in sink.taken)
        doubled = sum(count - 1 for count in taken.values())
        kinds = Counter(fates[name].values())
        print(f"{name}: {len(fates[name])} owed, {dict(kinds)}, {len(sink.seen)} attempts, {doubled} duplicates")
        bound = KILLS + (receivers.lost_replies if sink is receivers.flaky else 0)
        assert doubled <= bound, f"{name}: {doubled} duplicates, {bound} at most were under way"
        assert taken.keys() >= {one for one, fate in fates[name].items() if fate == "delivered"}, f"{name} misses some"
        assert {request.headers["webhook-id"] for request in sink.seen} <= fates[name].keys(), f"{name}: of nothing"
        assert one_body_each(sink.seen), "a duplicate is known by its id, and says what the first one said"
        for event, order in kinds_by_event(sink.seen).items():
            assert order == sorted(order, key=ORDER.index), f"{name}, {event}: {order}"
    assert {*fates["steady"].values(), *fates["flaky"].values()} == {"delivered"}
    assert {one for one, fate in fates["choosy"].items() if fate == "refused"} <= receivers.gone
    assert {*fates["choosy"].values()} <= {"delivered", "refused"}
    assert {*fates["dead"].values()} == {"expired"}
    assert fates["steady"].keys() == transitions, "also the reminders"
    assert len(transitions) > 4 * KILLS, "most kills must hit a daemon that is notifying"


async def end(child: asyncio.subprocess.Process, way: str, receivers: Receivers) -> bool:
    """Have the child killed in that way; whether it was."""
    steady, chance = receivers.steady, receivers.chance
    if way == UNDER_WAY:
        await hit(child, steady, len(steady.seen) + chance.randrange(1, 25))
    elif way == AT_RANDOM or way in CLOSING:
        await asyncio.sleep(chance.uniform(0.05, 0.4))
    if way in CLOSING:
        child.terminate()
    if way in STEPS:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                await child.wait()
    missed = child.returncode is None and way in STEPS
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    return await child.wait() == -signal.SIGKILL and not missed


async def hit(child: asyncio.subprocess.Process, sink: Sink, at: int) -> None:
    """Kill when the sink has read its ``at``-th request and has not answered it."""
    fallen = asyncio.Event()

    def watch(_: Received) -> None:
        if len(sink.seen) >= at and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            fallen.set()

    sink.on_request = watch
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await fallen.wait()
    sink.on_request = lambda _: None


def kinds_by_event(seen: Iterable[Received]) -> dict[str, list[str]]:
    """What arrived of each event, in the order of its arrival; what arrived twice stands there twice."""
    found: dict[str, list[str]] = {}
    for request in seen:
        found.setdefault(request.json["data"]["id"], []).append(request.json["type"].rpartition(".")[2])
    return found


def one_body_each(seen: Sequence[Received]) -> bool:
    bodies: dict[str, bytes] = {}
    return all(
        request.json["id"] == request.headers["webhook-id"]
        and bodies.setdefault(request.headers["webhook-id"], request.body) == request.body
        for request in seen
    )


def stored(path: Path) -> tuple[set[str], dict[str, dict[str, str]]]:
    """(ids of all transitions, by receiver what became of each that it was owed)"""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        turns = connection.execute("SELECT event_id, kind, at FROM transition").fetchall()
        rows = connection.execute("SELECT receiver, event_id, told, owed_at, fate FROM delivery").fetchall()
    fates: dict[str, dict[str, str]] = {}
    for receiver, event, told, at, fate in rows:
        known = transition_id(event, Told(told), at)
        assert fates.setdefault(receiver, {}).setdefault(known, fate) is fate, "owed twice"
    everybody = {transition_id(event, Told(kind), at) for event, kind, at in turns if kind != "reminded"}
    assert all(owed.keys() >= everybody for owed in fates.values()), "owed to everybody in the same commit"
    return {transition_id(event, Told(kind), at) for event, kind, at in turns}, fates
