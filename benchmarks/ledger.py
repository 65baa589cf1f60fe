"""A store of a million events: pages of the list, triggers per day, the start, a storm, a purge, a download.

The store is written anew into a temporary directory (5 GB, some minutes), or taken from ``--store``, which then is
altered. Times are medians of several runs, in turn the worst of all queries; beside them the CPU time of the same run,
which is what a quiet machine would need.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks import history
from benchmarks.figures import percentile, resident
from probed.api import downloads
from probed.api.streams import Feed
from probed.clock import SystemClock
from probed.incidents import new_id
from probed.model import Event, EventState, Moment, Severity
from probed.store import Change, Commit, EventQuery
from probed.store.listing import ids
from probed.store.purging import Limits
from probed.store.sqlite import SqliteStore

DAY = 86_400.0
PAGE_MS, DAILY_MS, START_RATIO, LATE_MS, SLICE_MS, GREW_MIB = 50.0, 300.0, 1.25, 20.0, 20.0, 20.0
STORM, STORM_SECONDS = 10_000, 10.0
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Auckland", "America/Los_Angeles")
NO_LIMIT = Limits(age=1e9, size=1 << 50)
DOWNLOADED = 100_000

Figure = dict[str, Any]


async def run(
    seconds: float | None = None, *, alone: bool = False, events: int = 1_000_000, store: Path | None = None
) -> list[Figure]:
    figures: list[Figure] = []

    def tell(figure: Figure) -> None:
        if "must" in figure:
            figure["missed"] = figure["value"] > figure["must"]
        print(json.dumps(figure), flush=True)
        figures.append(figure)

    if alone:  # a core whenever it wants one, as on a machine of its own; the controls beside it get the same
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    with tempfile.TemporaryDirectory(prefix="pb-") as name:
        directory = store or Path(name) / "long"
        if not (directory / "probed.db").exists():
            started = time.perf_counter()
            await asyncio.to_thread(history.write, directory, events)
            tell({"figure": "written", "events": events, "seconds": round(time.perf_counter() - started)})
        tell(start_figure(directory, Path(name) / "empty"))
        async with _opened(directory) as opened:
            tell(await _pages(opened))
            tell(await _daily(opened))
            tell(await _download(opened))
            for figure in await _storm(opened):
                tell(figure)
            for figure in await _purge(opened, seconds or 10.0):
                tell(figure)
    return figures


@contextlib.asynccontextmanager
async def _opened(directory: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(directory, limits=NO_LIMIT)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


# --- reading


async def _pages(store: SqliteStore) -> Figure:
    """Every combination of the filters, at the newest end, in the middle and at the oldest end."""
    now = time.time()
    worst, number, asked = (0.0, 0.0), 0, EventQuery()
    for query in _queries(now):
        took = await _median(partial(store.events, query), 5)
        number += 1
        if took > worst:
            worst, asked = took, query
    page = await _median(lambda: store.events(EventQuery(limit=1001)), 5)
    return {
        "figure": "a page of 100, worst of all filters and depths, ms", "value": worst[0], "must": PAGE_MS,
        "cpu_ms": worst[1], "queries": number, "worst": _named(asked), "page_of_1000_ms": page[0],
        "events": (await store.status()).events,
    }  # fmt: skip


def _queries(now: float) -> Iterator[EventQuery]:
    combinations = itertools.product(
        (None, history.INSTANCES[0], history.INSTANCES[15]), (None, history.TYPES[0][0], history.TYPES[-1][0]),
        (None, Severity.FATAL), (None, *EventState), (None, True, False), (None, now - 20 * DAY),
        (None, now - 45 * DAY, now - 88 * DAY),
    )  # fmt: skip
    for instance, event, severity, state, suppressed, since, deep in combinations:
        if since is not None and deep is not None:
            continue
        before = None if deep is None else ids(deep, deep)[0]
        yield EventQuery(instance, event, severity, state, suppressed, since=since, limit=101, before_id=before)


def _named(query: EventQuery) -> dict[str, str]:
    values = {name: getattr(query, name) for name in ("instance", "event", "severity", "state", "suppressed", "since")}
    return {name: str(value) for name, value in values.items() if value is not None} | {
        "depth": "deep" if query.before_id else "first"
    }


async def _daily(store: SqliteStore) -> Figure:
    now, worst, items = time.time(), ((0.0, 0.0), ""), 0
    for zone in ZONES:
        took = await _median(partial(store.daily, now - 90 * DAY, now, zone), 5)
        items = len(await store.daily(now - 90 * DAY, now, zone))
        worst = max(worst, (took, zone))
    return {
        "figure": "triggers per day over 90 days, worst zone, ms", "value": worst[0][0], "must": DAILY_MS,
        "cpu_ms": worst[0][1], "zone": worst[1], "items": items,
    }  # fmt: skip


async def _median(work: Callable[[], Any], times: int) -> tuple[float, float]:
    """(wall, CPU) in milliseconds, each a median. The loop does nothing else, so the process' CPU is the work's."""
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return round(statistics.median(walls) * 1000, 1), round(statistics.median(cpus) * 1000, 1)


async def _download(store: SqliteStore) -> Figure:
    """The first 100,000 lines of everything as CSV: how fast, and how much the process grows."""
    before, started, lines, size = resident(), time.perf_counter(), 0, 0
    async for part in downloads.as_csv(store, EventQuery()):
        lines += part.count(b"\r\n")
        size += len(part)
        if lines > DOWNLOADED:
            break
    took = time.perf_counter() - started
    return {
        "figure": f"growth while {DOWNLOADED:,} events are downloaded as CSV, MiB",
        "value": round(resident() - before, 1), "must": GREW_MIB,
        "events_per_second": round(lines / took), "mib": round(size / 2**20),
    }  # fmt: skip


def start_figure(directory: Path, empty: Path) -> Figure:
    """CPU of a process that imports the daemon and opens a store, as it starts; by turns, median of five."""
    _cpu_of([sys.executable, "-m", "benchmarks.starting", str(empty)])  # makes it
    cpu: dict[Path, list[float]] = {directory: [], empty: []}
    for place in (directory, empty) * 5:
        cpu[place].append(_cpu_of([sys.executable, "-m", "benchmarks.starting", str(place)]))
    long, short = (statistics.median(cpu[place]) for place in (directory, empty))
    return {
        "figure": "CPU of a start with all these events / with none", "value": round(long / short, 2),
        "must": START_RATIO, "ms": round(long * 1000), "empty_ms": round(short * 1000),
    }  # fmt: skip


def _cpu_of(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if os.spawnv(os.P_WAIT, command[0], list(command)) != 0:
        raise RuntimeError(f"{command} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- writing


async def _storm(store: SqliteStore) -> list[Figure]:
    """5,000 events open and resolve within 10 s, each turn a commit of its own; one reader follows the stream."""
    before = (await store.numbering()).newest
    feed, seen, latencies = Feed(store), list[int](), list[float]()
    await feed.join()
    reader = asyncio.create_task(_follow(feed, before, seen))
    async with _lateness() as late:
        loop, pending = asyncio.get_running_loop(), set[asyncio.Future[None]]()
        started = loop.time()
        events = [_toggled(number) for number in range(STORM // 2)]
        for number in range(STORM):
            await asyncio.sleep(max(0.0, started + number * STORM_SECONDS / STORM - loop.time()))
            event = events[number // 2]
            kind = "opened" if number % 2 == 0 else "resolved"
            if kind == "resolved":
                event = replace(event, state=EventState.RESOLVED, resolved_at=time.time(), resolve_reason="recovered")
            done = store.append(Commit(changes=(Change(event, kind, time.time()),)))
            asked = loop.time()
            pending.add(done)
            done.add_done_callback(partial(_settled, asked, latencies, pending, feed))
        while pending:
            await asyncio.wait(pending)
        took = loop.time() - started
    async with asyncio.timeout(30):
        while len(seen) < STORM:  # noqa: ASYNC110 - a list wakes nobody
            await asyncio.sleep(0.05)
    reader.cancel()
    # No evidence is gathered here; what were owed would have to be read at each start.
    await store.append(Commit(settled=tuple((event.id, moment) for event in events for moment in Moment)))
    lost = STORM - sum(one == other for one, other in zip(seen, range(before + 1, before + STORM + 1), strict=True))
    return [
        {"figure": f"of {STORM} transitions in {took:.1f} s: lost, doubled or out of order in store and stream",
         "value": lost, "must": 0, "commit_p99_ms": round(percentile(latencies, 99) * 1000, 1)},
        {"figure": "lateness of the loop meanwhile, p99, ms", "must": LATE_MS, **late},
    ]  # fmt: skip


def _toggled(number: int) -> Event:
    (event,) = history.events_of(1, time.time(), seed=number)
    return replace(
        event, id=new_id(time.time()), state=EventState.OPEN, resolved_at=None, suppressed=False,
        target=replace(event.target, node=f"storm-{number}"),
    )  # fmt: skip


def _settled(
    asked: float, latencies: list[float], pending: set[asyncio.Future[None]], feed: Feed, done: asyncio.Future[None]
) -> None:
    done.result()
    latencies.append(asyncio.get_running_loop().time() - asked)
    pending.discard(done)
    feed.wake()


async def _follow(feed: Feed, after: int, seen: list[int]) -> None:
    while True:
        for frame in await feed.after(after, 1.0):
            after = frame.seq
            seen.append(after)


async def _purge(store: SqliteStore, seconds: float) -> list[Figure]:
    """The store is made to be too large; for some seconds it purges itself, while commits go on."""
    status = await store.status()
    slices: list[tuple[float, float]] = []
    purge = store._purge
    do = purge.slice

    def timed(*arguments: Any) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        do(*arguments)
        if purge.busy:
            slices.append((time.perf_counter() - wall, time.thread_time() - cpu))

    purge.slice = timed  # type: ignore[method-assign, assignment]
    purge._looked_at = None
    store.keep(replace(NO_LIMIT, size=status.bytes // 2))
    clock, latencies = SystemClock(), list[float]()
    async with _lateness() as late:
        ends = clock.mono() + seconds
        while clock.mono() < ends:
            asked = clock.mono()
            await store.append(Commit())
            latencies.append(clock.mono() - asked)
            await asyncio.sleep(0.1)
    store.keep(NO_LIMIT)
    purged = status.events - (await store.status()).events
    return [
        # The rest of a slice's wall time is the disk's: beside it, how long commits with nothing in them took.
        {"figure": "a slice of a purge, CPU p99, ms",
         "value": round(percentile([cpu for _, cpu in slices], 99) * 1000, 1), "must": SLICE_MS,
         "wall_p50_ms": round(percentile([wall for wall, _ in slices], 50) * 1000, 1),
         "wall_p99_ms": round(percentile([wall for wall, _ in slices], 99) * 1000, 1),
         "empty_commit_p50_ms": round(percentile(latencies, 50) * 1000, 1),
         "empty_commit_p99_ms": round(percentile(latencies, 99) * 1000, 1), "slices": len(slices),
         "events_per_second": round(purged / seconds)},
        {"figure": "lateness of the loop meanwhile, p99, ms", "must": LATE_MS, **late},
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def _lateness() -> AsyncIterator[Figure]:
    """Filled at the end: how late a task that sleeps 5 ms at a time woke, and a process that does nothing else."""
    told: Figure = {}
    late: list[float] = []

    async def beat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            late.append(time.monotonic() - before - 0.005)

    idle = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.idle", "8", stdout=asyncio.subprocess.PIPE
    )
    beating = asyncio.create_task(beat())
    try:
        yield told
    finally:
        beating.cancel()
        output, _ = await idle.communicate()
        told["value"] = round(percentile(late, 99) * 1000, 1)
        told["max_ms"] = round(max(late, default=0.0) * 1000, 1)
        told["idle_p99_ms"], told["idle_max_ms"] = (round(float(word), 1) for word in output.split())
