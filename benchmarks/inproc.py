"""What parts of the daemon cost by themselves, in this process: /metrics, evaluators, the store (P16 to P19).

Each beside the least that could do the same, by turns in one run. CPU, not wall time: also for how long a scrape keeps
the event loop busy, which is the longest time at a stretch that its thread computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import history as past
from benchmarks import ledger
from benchmarks.contenders import default_loop, loop_factory
from benchmarks.cycle import Fleet
from benchmarks.floor import Policy as BarePolicy
from benchmarks.goals import Goal, tell, versions
from probed.board import Board
from probed.clock import SystemClock
from probed.evaluators import step
from probed.exposition import Writer, one_by_one
from probed.incidents import new_id
from probed.model import Condition, EventState, Outcome, Sample, Streak, Threshold
from probed.store import Change, Commit
from probed.store.purging import Limits
from probed.store.sqlite import SqliteStore
from probed.testing import make_policy, make_sample
from probed.tidying import by_hand
from probed.watches import Watch
from tests.reliability import test_store_kills as kills

ROUNDS = 5
INSTANCES, FLEET = 50, 1_000
SAMPLES, EVENTS, STORED, KILLS = 20_000, 500, 100_000, 100
BARE = "CREATE TABLE event (id TEXT PRIMARY KEY, body TEXT)"
PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
ROW_BYTES = 539


async def run(
    seconds: float | None = None, *, rounds: int | None = None, kill: int | None = None, markdown: bool = False,
    alone: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    number = rounds or ROUNDS
    with tempfile.TemporaryDirectory(prefix="pi-") as name:
        place = Path(name)
        goals = [*await exposition(number), await longest_block(), evaluators(number)]
        goals += await asyncio.to_thread(stored, place, number)  # loops of its own
        goals += [await start(place), killed(place, KILLS if kill is None else kill)]
    return tell(goals, versions(loop=default_loop()), markdown=markdown)


# --- P16: /metrics


class _Families:
    """The same series for prometheus_client's own renderer."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


async def _fleet(instances: int) -> Fleet:
    fleet = Fleet(instances)
    for number in range(2):
        await fleet.round(number)
    fleet.check()
    return fleet


async def exposition(rounds: int, instances: int = INSTANCES) -> list[Goal]:
    """CPU of a scrape beside prometheus_client's renderer of the same series; and whether both say the same."""
    fleet = await _fleet(instances)
    writer = Writer()
    text = (await writer.write(fleet)).body.decode()
    families = list(text_string_to_metric_families(text))
    registry = CollectorRegistry()
    registry.register(_Families(families))
    ours, theirs = list[float](), list[float]()
    for _ in range(rounds):
        before = time.process_time()
        await writer.write(fleet)
        ours.append(time.process_time() - before)
        theirs.append(_cpu(lambda: generate_latest(registry)))
    same = list(text_string_to_metric_families(generate_latest(registry).decode())) == families
    what = f"CPU of a scrape of {instances} instances"
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    lines = text.count("\n")
    return [
        Goal("ms:metrics", what, [1000 * one for one in ours], unit="ms", also={"lines": lines}),
        Goal("P16", f"{what} / prometheus_client's renderer alone", ratios, 0.3, 0.1),
        Goal("P16a", "series that it says otherwise", [0.0 if same else 1.0], 0.0),
    ]


def _multiply(fleet: Fleet, times: int) -> None:
    """Each instance so many times, under other names: their rounds would take minutes, and are not what is measured."""
    entries, states = list(fleet.board.entries()), list(fleet.pipeline.instances.values())
    for turn in range(1, times):
        for entry in entries:
            target = replace(entry.target, instance=f"{entry.target.instance}-{turn}")
            fleet.board.expect(entry.probe, target, entry.interval, computed=entry.computed)
            for sample in entry.ring:
                fleet.board.put(replace(sample, target=target))
        for state in states:
            name = f"{state.name}-{turn}"
            watches = [Watch(one.policy, replace(one.target, instance=name)) for one in state.watches]
            fleet.pipeline.instances[name] = replace(state, name=name, watches=watches)


async def longest_block(instances: int = FLEET) -> Goal:
    """How long a scrape of a large fleet keeps the loop from its probes: what the loop's own thread computes."""
    fleet = await _fleet(20)
    _multiply(fleet, instances // 20)
    gc.collect()
    gc.freeze()
    worked, blocked, size, writer = list[float](), list[float](), 0, Writer()
    with by_hand(SystemClock()) as tidy:  # as beside a daemon
        async with _beats(worked, blocked):
            for _ in range(3):
                written = await writer.write(fleet)
                size = written.size
                for _ in one_by_one(written.pieces):
                    await asyncio.sleep(0)
                tidy()
                await asyncio.sleep(0.02)
    gc.unfreeze()
    return Goal(
        "P16b", f"longest time at a stretch that a scrape of {instances} instances keeps the loop busy",
        [1000 * max(worked)], 10, 3, unit="ms",
        also={"blocked_ms": round(1000 * max(blocked), 1), "mib": round(size / 2**20, 1)},
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _beats(worked: list[float], blocked: list[float]) -> AsyncIterator[None]:
    """Meanwhile: for how long the loop was away between two beats, and how much of it it computed."""

    async def beat() -> None:
        while True:
            before, cpu = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.001)
            worked.append(time.thread_time() - cpu)
            blocked.append(time.monotonic() - before - 0.001)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0.05)
    try:
        yield
    finally:
        await asyncio.sleep(0.05)
        beating.cancel()


# --- P17: evaluators


def evaluators(rounds: int) -> Goal:
    """A sample kept, and judged with hysteresis; beside a class that only counts."""
    samples = [_sample(number) for number in range(SAMPLES)]
    values = [0.0 if sample.outcome is Outcome.OBSERVED else 1.0 for sample in samples]
    policy = replace(make_policy(Threshold(Condition(), 3, 2)), interval=5.0)
    ours, theirs = list[float](), list[float]()
    for _ in range(rounds):
        board, bare = Board(), BarePolicy(1.0, 3)
        board.expect("postgres_liveness", samples[0].target, 5.0)

        def judge(board: Board = board) -> None:
            streak = Streak()
            for sample in samples:
                board.put(sample)
                streak, _ = step(streak, policy, sample)

        def count(bare: BarePolicy = bare) -> None:
            for value in values:
                bare.judge(value)

        ours.append(_cpu(judge))
        theirs.append(_cpu(count))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    microseconds = round(1e6 * statistics.median(ours) / SAMPLES, 2)
    return Goal("P17", "CPU of a sample kept and judged / a bare class", ratios, 12, 6, also={"us": microseconds})


def _sample(number: int) -> Sample:
    failing = number % 50 in (10, 20, 21, 30, 31, 32, 33)
    outcome = Outcome.FAILED if failing else Outcome.OBSERVED
    return make_sample(outcome, {} if failing else {"ping_seconds": 0.001}, mono=1_000.0 + 5.0 * number)


# --- P18, P19: the store


def stored(place: Path, rounds: int) -> list[Goal]:
    """An event made durable, one at a time; beside one row of the same size that SQLite is given by itself.

    Beside it: the same events at once, as in a storm; the bare row as the least that keeps a loop free could write it,
    by a thread, and awaited; both when there is a history, and neither log grows any more, which is most of what the
    first hundreds of rows cost. On the loop that the daemon takes; and once on asyncio's own.
    """
    usual, plain = place / "usual", place / "plain"
    usual.mkdir()
    plain.mkdir()
    with asyncio.Runner(loop_factory=loop_factory(default_loop())) as runner:
        goals = runner.run(_events(usual, rounds))
    with asyncio.Runner() as runner:
        ratios = runner.run(_ratios(plain, rounds))
    return [*goals, Goal("P18f", "as P18, on asyncio's own event loop", ratios)]


async def _events(place: Path, rounds: int) -> list[Goal]:
    ours, stormy, theirs, apart, later, old = (list[float]() for _ in range(6))
    worked, blocked = list[float](), list[float]()
    for number in range(rounds):
        commits, more = _commits(number), _commits(rounds + number)
        ours.append(await _appended(place / f"store{number}", commits, _one_by_one))
        theirs.append(_bare(place / f"bare{number}.db"))
        stormy.append(await _appended(place / f"storm{number}", commits, _at_once))
        apart.append(await _bare_apart(place / f"apart{number}.db"))
        later.append(await _appended(place / f"later{number}", more, _one_by_one, history=commits))
        old.append(_bare(place / f"old{number}.db", history=EVENTS))
    commits = _commits(2 * rounds)
    async with _beats(worked, blocked):  # by itself: what it takes to look is not the event's
        await _appended(place / "watched", commits, _one_by_one)
    ratios, storm, least = (_divided(taken, theirs) for taken in (ours, stormy, apart))
    return [
        Goal(
            "P18", f"CPU of a durable event / a row of {ROW_BYTES} bytes in SQLite (WAL, FULL)", ratios, 1.6, 1.2,
            also={"us": _each(ours), "bare_us": _each(theirs)},
        ),
        Goal("P18b", "longest time at a stretch that the loop computed meanwhile", [1000 * max(worked)], unit="ms"),
        Goal("P18c", f"as P18, of {EVENTS} events that are appended at once", storm, also={"us": _each(stormy)}),
        Goal("P18d", "as P18, of the bare row, written by a thread and awaited", least, also={"us": _each(apart)}),
        Goal(
            "P18e", f"as P18, when {EVENTS} of each are there already, and no log grows", _divided(later, old),
            also={"us": _each(later), "bare_us": _each(old)},
        ),
    ]  # fmt: skip


async def _ratios(place: Path, rounds: int) -> list[float]:
    ours, theirs = list[float](), list[float]()
    for number in range(rounds):
        ours.append(await _appended(place / f"store{number}", _commits(number), _one_by_one))
        theirs.append(_bare(place / f"bare{number}.db"))
    return _divided(ours, theirs)


def _divided(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


_Append = Callable[[SqliteStore, Sequence[Commit]], Awaitable[None]]


async def _appended(
    directory: Path, commits: Sequence[Commit], append: _Append, *, history: Sequence[Commit] = ()
) -> float:
    """CPU seconds until all of them are durable."""
    store = SqliteStore(directory, limits=Limits(age=1e9, size=1 << 50))
    await store.open()
    await append(store, history)
    before = time.process_time()
    await append(store, commits)
    took = time.process_time() - before
    await store.close()
    return took


async def _one_by_one(store: SqliteStore, commits: Sequence[Commit]) -> None:
    for commit in commits:
        await store.append(commit)


async def _at_once(store: SqliteStore, commits: Sequence[Commit]) -> None:
    await asyncio.gather(*(store.append(commit) for commit in commits))


def _each(seconds: Sequence[float]) -> int:
    """Microseconds of one event."""
    return round(1e6 * statistics.median(seconds) / EVENTS)


def _commits(seed: int) -> list[Commit]:
    return [_commit(event) for event in past.events_of(EVENTS, time.time(), seed=seed)]


def _commit(event: Any) -> Commit:
    opened = replace(event, id=new_id(time.time()), state=EventState.OPEN, resolved_at=None, suppressed=False,
                     target=replace(event.target, node=new_id(time.time())))  # fmt: skip
    assert opened.fingerprint, "which its watch has asked for already"
    return Commit(changes=(Change(opened, "opened", opened.opened_at),))


def _bare(file: Path, *, history: int = 0) -> float:
    with _bare_table(file) as connection:
        for number in range(history):
            _insert(connection, number)
        before = time.process_time()
        for number in range(history, history + EVENTS):
            _insert(connection, number)
        return time.process_time() - before


async def _bare_apart(file: Path) -> float:
    loop, queued = asyncio.get_running_loop(), queue.SimpleQueue[asyncio.Future[None] | None]()
    with _bare_table(file) as connection:

        def write() -> None:
            for number, done in enumerate(iter(queued.get, None)):
                _insert(connection, number)
                loop.call_soon_threadsafe(done.set_result, None)

        writer = threading.Thread(target=write)
        writer.start()
        before = time.process_time()
        for _ in range(EVENTS):
            done: asyncio.Future[None] = loop.create_future()
            queued.put(done)
            await done
        took = time.process_time() - before
        queued.put(None)
        writer.join()
    return took


@contextlib.contextmanager
def _bare_table(file: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as connection:
        for pragma in PRAGMAS:
            connection.execute(pragma)
        connection.execute(BARE)
        yield connection


def _insert(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO event VALUES (?, ?)", (f"{number:032}", "x" * (ROW_BYTES - 32)))


async def start(place: Path) -> Goal:
    """As ``ledger`` measures it, with a history of a tenth of its length."""
    long = place / "long"
    await asyncio.to_thread(past.write, long, STORED)
    figure = await asyncio.to_thread(ledger.start_figure, long, place / "empty")
    what = f"CPU of a start with {STORED:,} events / with none"
    return Goal("P19", what, [figure["value"]], 1.25, 1.1, also={"ms": figure["ms"], "empty_ms": figure["empty_ms"]})


def killed(place: Path, number: int) -> Goal:
    """The store of a process that is killed while it writes, opened by the next; each time checked row by row."""
    directory, noted = place / "killed", place / "noted"
    noted.touch()
    lost = 0
    for turn in range(number):
        child = kills.start(directory, noted)
        time.sleep(0.05 + 0.01 * (turn % 30))
        kills.kill(child)
        try:
            kills.verify(directory, noted)
        except AssertionError:
            lost += 1
    return Goal("P19b", f"of {number} times kill -9: open events not restored exactly", [float(lost)], 0)


def _cpu(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before
