"""A daemon killed with -9 at random moments of a real outage loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from pathlib import Path

import pytest

from probed.demo.faults import FAULTS
from probed.demo.lab import Lab
from tests.acceptance.watching import Watcher, configure, names, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]


async def test_kills_at_random_moments_lose_and_double_nothing(place: Path, lab: Lab) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    watcher = Watcher(configure(place / "killed", lab))
    await watcher.start()
    await until(watcher.healthy, 60, "a healthy cluster")
    fault = FAULTS["replica-kill"]
    begin = time.time()
    try:
        await fault.break_(lab)
        for _ in range(3):  # while the streak grows and the event opens
            await asyncio.sleep(dice.uniform(0.1, 8.0))
            await watcher.kill()
            await watcher.start()

        async def opened() -> bool:
            return "database_unavailable" in names(await watcher.announced(begin))

        # A kill costs at most the streak's samples that were not yet taken: the streak itself survives.
        await until(opened, 45, f"the event, seed {seed}")
        [before] = await watcher.announced(begin)
        for _ in range(2):  # while it is open
            await asyncio.sleep(dice.uniform(0.1, 6.0))
            await watcher.kill()
            await watcher.start()
            [event] = await watcher.announced(begin)
            assert (event["id"], event["state"], event["opened_at"]) == (before["id"], "open", before["opened_at"])
        await fault.heal(lab)
        for _ in range(3):  # while it resolves
            await asyncio.sleep(dice.uniform(0.1, 6.0))
            await watcher.kill()
            await watcher.start()
        await until(watcher.healthy, 90, f"everything to resolve, seed {seed}")
        events = await watcher.announced(begin)
        assert names(events) == ["database_unavailable"], f"seed {seed}: {events}"
        assert events[0]["id"] == before["id"]
        assert events[0]["state"] == "resolved"
    finally:
        if fault.name in [path.stem for path in (lab.directory / "faults").glob("*.json")]:
            await fault.heal(lab)
        await watcher.stop()
    _the_ledger_is_whole(place / "killed" / "store" / "probed.db", before["id"])


def _the_ledger_is_whole(path: Path, event_id: str) -> None:
    with sqlite3.connect(path) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        numbers = [row[0] for row in store.execute("SELECT seq FROM transition ORDER BY seq")]
        assert numbers == list(range(1, len(numbers) + 1)), "transitions are numbered without gaps"
        kinds = [
            row[0] for row in store.execute("SELECT kind FROM transition WHERE event_id = ? ORDER BY seq", [event_id])
        ]
        assert kinds == ["opened", "resolved"]
