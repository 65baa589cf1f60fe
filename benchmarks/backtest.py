"""How long a backtest of everything takes: a fortnight, 20 targets of each probe, every shipped policy over them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.figures import percentile, resident
from benchmarks.fortnight import INSTANCE, PROBES, START, samples
from probed.backtest.beside import Beside
from probed.backtest.reporting import Request
from probed.config.settings import Defaults
from probed.daemon import readings_of
from probed.model import Policy, Target
from probed.policy.load import load
from probed.probes import catalogue
from probed.recording.chunks import Buffer
from probed.recording.database import FULL, NAME, SampleFile
from probed.testing import FakeClock

DAYS = 14.0
TARGETS = 20
MOST_SECONDS = 20.0
CONTROL_SECONDS = 5.0


async def run(seconds: float | None = None, *, alone: bool = False) -> list[dict[str, Any]]:
    """``seconds``: how much is recorded, instead of a fortnight."""
    days = seconds / 86_400 if seconds else DAYS
    policies = [policy for policy in _policies() if policy.probe in PROBES]
    with tempfile.TemporaryDirectory(prefix="pb-") as name:
        directory = Path(name)
        await _fill(directory, days)
        _multiply(directory / NAME)
        until = START + 5_000 + days * 86_400
        requests = [Request(policy, policy, until - days * 86_400 - 5_000, until, 60.0) for policy in policies]
        beside = Beside(directory / NAME)
        idle = await lateness(asyncio.sleep(CONTROL_SECONDS))
        started = time.monotonic()
        reports: list[dict[str, Any]] = []

        async def replay() -> None:
            reports.extend(await beside.reports(requests))

        busy = await lateness(replay())
        # Present and changed are both replayed: the goal is about one side, which is what a shadow would have told.
        elapsed = time.monotonic() - started
    judged = sum(report["samples"] for report in reports)
    figures: list[dict[str, Any]] = [
        {
            "figure": f"s for {days:g} days x {TARGETS} targets x {len(policies)} policies, present and changed",
            "value": round(elapsed, 1),
            "must": MOST_SECONDS,
            "samples": judged,
            "million_samples_per_s": round(2 * judged / elapsed / 1e6, 1),
            "events": sum(report["present"]["events"] for report in reports),
            "loop_late_p99_ms": busy,
            "idle_p99_ms": idle,
            "rss_mib_of_the_daemon": resident(),
        }
    ]
    for figure in figures:
        figure["missed"] = figure["value"] > figure["must"]
        print(json.dumps(figure), flush=True)
    return figures


async def lateness(work: Coroutine[Any, Any, None]) -> float:
    """How late this event loop wakes while ``work`` runs: what the probes would feel of it; p99, milliseconds."""
    late: list[float] = []
    running = asyncio.create_task(work)
    while not running.done():
        before = time.monotonic()
        await asyncio.sleep(0.005)
        late.append(max(0.0, time.monotonic() - before - 0.005))
    await running
    return round(percentile(late, 99) * 1000, 1)


def _policies() -> list[Policy]:
    shipped = load(None, readings_of(catalogue()), Defaults())
    return [replace(policy, enabled=True) for policy in shipped.values()]


async def _fill(directory: Path, days: float) -> None:
    """One target of each probe."""
    file = SampleFile(directory, FakeClock(START), retention=1e9, max_bytes=2**40, observer="bench")
    file.open()
    for probe in PROBES:
        target = Target(INSTANCE, "node1", probe)
        buffer = Buffer(probe, target)
        for sample in samples(probe, target, days):
            buffer.put(sample)
            if len(buffer) == FULL:
                file.put(buffer)
                buffer = Buffer(probe, target)
                await file.written()
        if len(buffer):
            file.put(buffer)
    await file.close()
    assert file.tally.dropped == 0, file.degraded


def _multiply(path: Path) -> None:
    """The others say the same, each in chunks of its own."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for number in range(2, TARGETS + 1):
            for place, probe in connection.execute("SELECT id, probe FROM place WHERE node = 'node1'").fetchall():
                target = Target(INSTANCE, f"node{number}", probe)
                copy = connection.execute(
                    "INSERT INTO place (probe, target, instance, node, component, address, kind, member)"
                    " VALUES (?, ?, ?, ?, ?, '', '', '') RETURNING id",
                    (probe, target.key, target.instance, target.node, target.component),
                ).fetchone()[0]
                chunks = connection.execute(
                    "SELECT run, mono, began, ended, count, digest, data FROM chunk JOIN body ON body.id = body"
                    " WHERE place = ?",
                    (place,),
                ).fetchall()
                for *values, data in chunks:
                    body = connection.execute("INSERT INTO body (data) VALUES (?)", (data,)).lastrowid
                    connection.execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (copy, *values, body))


if __name__ == "__main__":
    asyncio.run(run())
