"""kill -9 at any moment, and receivers that fail: nobody misses anything, nothing overtakes, duplicates are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.receiving import Received, Sink

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("PROBED_KILLS", "10"))
"""3,000 is the nightly run."""


async def start(directory: Path, mode: str, sinks: dict[str, Sink]) -> asyncio.subprocess.Process:
    receivers = [f"{name}={sink.url}/" for name, sink in sinks.items()]
    command = [sys.executable, "-m", "tests.reliability.notifying", str(directory), mode, *receivers]
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    assert (await child.stdout.readline()).strip() == b"going"
    return child


def kinds_by_event(seen: Sequence[Received]) -> dict[str, list[str]]:
    """What arrived of each event, in the order of its arrival; what arrived twice stands there twice."""
    found: dict[str, list[str]] = {}
    for request in seen:
        found.setdefault(request.json["data"]["id"], []).append(request.json["type"].rpartition(".")[2])
    return found


@pytest.mark.timeout(120 + 10 * KILLS)
async def test_kills_lose_no_notice_invert_none_and_double_at_most_what_was_under_way(tmp_path: Path) -> None:
    """Half of the kills hit at random, half at the worst moment: the receiver has the notice, and nobody knows yet."""
    chance = random.Random(20261125)
    steady, flaky = Sink(), Sink()
    lost_replies = 0

    def answer(_: Received) -> None:
        nonlocal lost_replies
        flaky.otherwise = chance.choices(["200", "500", "lose"], [0.9, 0.06, 0.04])[0]
        lost_replies += flaky.otherwise == "lose"

    flaky.on_request = answer
    async with steady.listen(), flaky.listen():
        sinks = {"steady": steady, "flaky": flaky}
        for number in range(KILLS):
            child = await start(tmp_path / "store", "go", sinks)
            if number % 2:
                await asyncio.sleep(chance.uniform(0.05, 0.4))
            else:
                await hit(child, steady, len(steady.seen) + chance.randrange(1, 25))
            child.kill()
            assert await child.wait() == -signal.SIGKILL
        flaky.on_request, flaky.otherwise = lambda _: None, "200"
        child = await start(tmp_path / "store", "drain", sinks)
        assert child.stdout is not None
        assert await child.wait() == 0, (await child.stdout.read()).decode()
    transitions = stored(tmp_path / "store" / "probed.db")
    for name, sink, bound in (("steady", steady, KILLS), ("flaky", flaky, KILLS + lost_replies)):
        taken = Counter(request.headers["webhook-id"] for request in sink.taken)
        assert taken.keys() == transitions, f"{name} misses something"
        assert all(request.headers["webhook-id"] == request.json["id"] for request in sink.seen)
        doubled = sum(count - 1 for count in taken.values())
        assert doubled <= bound, f"{name}: {doubled} duplicates, {bound} at most were under way"
        for event, kinds in kinds_by_event(sink.seen).items():
            assert kinds == sorted(kinds, key=["opened", "resolved"].index), f"{name}, {event}: {kinds}"
        print(f"{name}: {len(transitions)} transitions, {doubled} duplicates")
    assert len(transitions) > 5 * KILLS, "most kills must hit a daemon that is notifying"


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
        async with asyncio.timeout(10):
            await fallen.wait()
    sink.on_request = lambda _: None


def stored(path: Path) -> set[str]:
    """Ids of all transitions; each is delivered to each receiver, and to nobody twice."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        told = connection.execute("SELECT event_id, seq FROM transition").fetchall()
        rows = connection.execute("SELECT receiver, event_id, seq, fate FROM delivery").fetchall()
    ids = {f"{event}-{seq}" for event, seq in told}
    assert Counter((receiver, f"{event}-{seq}") for receiver, event, seq, _ in rows) == Counter(
        (receiver, identity) for receiver in ("steady", "flaky") for identity in ids
    )
    assert {fate for *_, fate in rows} == {"delivered"}
    return ids
