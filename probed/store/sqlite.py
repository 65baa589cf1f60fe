"""The embedded store: SQLite in WAL mode, written by one thread of its own.

One writer connection in one thread makes every commit and checkpoint (the only safe way before SQLite 3.51.3, whose
WAL-reset bug needs two writers); ``synchronous=FULL`` makes a commit survive power loss; what queued up meanwhile
becomes one transaction (group commit). Reads run in a second thread on a read-only connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import structlog
from msgspec.structs import replace

from probed.clock import Clock, SystemClock, boot_id
from probed.errors import StoreError
from probed.model import Event, Moment
from probed.revisions import Patch, Revision
from probed.shadows import ShadowEvent
from probed.silences import CLOCK_ERROR_SECONDS, Silence
from probed.store import (
    AuditQuery,
    AuditRecord,
    Commit,
    DailyCount,
    EventDetail,
    EventQuery,
    GapRecord,
    LeadershipRecord,
    Member,
    Numbering,
    Owed,
    Recovered,
    StoreStatus,
    TokenRecord,
    TransitionRecord,
    counting,
    inspections,
    listing,
    outbox,
    policies,
    shadowed,
    tokens,
)
from probed.store.ageing import Life
from probed.store.applying import SHELVE, apply
from probed.store.migrating import migrate
from probed.store.notices import Backlog, Delivery, DeliveryQuery, Notice
from probed.store.opening import FILE, connect, lock
from probed.store.purging import Limits, Purge
from probed.store.reports import Earlier, InspectionQuery, InspectionRecord
from probed.store.rows import audit_of, event_of, silence_of, streak_of
from probed.vitals import Refusal

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

MAX_GROUP = 500
MAX_DELIVERIES = 1000
"""Of one event that are shown with it."""
MAX_QUEUED = 10_000
"""Commits kept in memory while the disk refuses; beyond that the newest are dropped, counted and told."""
RETRY_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0
BEAT_SECONDS = 1.0
"""At least between two signs of life: also while commits come close upon each other, each need not bring its own."""
SHELVED_TOGETHER = 100
"""Changes after which their events are shelved; a page that asks for shelves looks at each of so many beside them."""
PURGE_PAUSE_SECONDS = 0.05
"""Between two slices of a purge while nothing is to be written: it may take its time, and must not take the disk's."""

_UNWRITABLE = (
    sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError, ValueError, TypeError,
    OverflowError,
)  # fmt: skip
"""What no retry mends: a broken rule of the schema; half a surrogate pair or an endless number from a hostile peer."""
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError)
"""What rows raise that are not of this schema, whatever its number says; a damaged length asks for all of memory."""

_OWED = """
SELECT event.*, column1 AS moment, transition.at AS at,
       EXISTS (SELECT 1 FROM evidence WHERE event_id = event.id AND side = 'before') AS frozen
FROM transition JOIN (VALUES ('trigger'), ('recovery')) ON instr(owes, column1) JOIN event ON event.id = event_id
WHERE seq > (SELECT settled FROM shelving) AND owes <> '' ORDER BY transition.at
"""
_SWITCHOVERS = """
SELECT event.instance, max(event.opened_at) AS at FROM (
    SELECT (SELECT max(event_id) FROM placed WHERE placed.shelf = labelled.shelf) AS id
    FROM labelled WHERE event = 'ha_switchover'
) newest JOIN event ON event.id = newest.id GROUP BY event.instance
"""
_STATUS = """
SELECT (SELECT ifnull(sum(number), 0) FROM shelf) + (SELECT count(*) FROM unshelved) AS events,
       (SELECT user_version FROM pragma_user_version) AS version
"""


class SqliteStore:
    """See ``probed.store.Store``. ``directory`` is made when missing; one daemon at a time may own it."""

    def __init__(self, directory: Path, *, clock: Clock | None = None, limits: Limits | None = None) -> None:
        self._directory = directory
        self._path = directory / FILE
        self._clock = clock or SystemClock()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._queued = 0
        self._closing = threading.Event()
        self._writer: threading.Thread | None = None
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-read")
        self._read: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life = Life()
        self._purge = Purge(limits or Limits())
        self.write_seconds: Callable[[float], None] = lambda _: None
        """Told how long each transaction took; for the metric."""
        self.degraded = ""
        """Why the disk refuses, while it does."""
        self.lost = 0
        """Commits that no longer fitted into memory while it did."""
        self._degraded_at: float | None = None
        self._waiting: deque[float] = deque()
        """Monotonic times at which the commits were queued that are not durable."""
        self.progress_at = 0.0
        """Monotonic time of the writer's last sign of life, for the watchdog."""
        self._beat_at = -math.inf
        self._unshelved = 0
        """Changes since events were shelved."""

    # --- life ---------------------------------------------------------------------------------------------

    async def open(self) -> Recovered:
        """Open or create the store and say what the last daemon left. StoreError names the remedy."""
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[Recovered] = self._loop.create_future()
        self._writer = threading.Thread(target=self._write_forever, args=(ready,), name="store-write", daemon=True)
        self._writer.start()
        recovered = await ready
        self._read = await self._in_reader(lambda: connect(self._path, read_only=True))
        return recovered

    async def close(self) -> None:
        if self._writer is not None:
            self._closing.set()
            self._queue.put(None)
            # Not in the default executor, which a hung DNS lookup may have filled.
            await self._in_reader(self._writer.join)
        if self._read is not None:
            await self._in_reader(self._read.close)
        self._reader.shutdown(wait=False)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def keep(self, limits: Limits) -> None:
        """How much history is kept from now on."""
        self._purge.limits = limits

    # --- writing ------------------------------------------------------------------------------------------

    def append(self, commit: Commit) -> asyncio.Future[None]:
        """Queue a commit; the future is done when it is durable."""
        assert self._loop is not None, "open() first"
        done: asyncio.Future[None] = self._loop.create_future()
        if self._queued >= MAX_QUEUED:
            self.lost += 1
            done.set_exception(StoreError(f"{MAX_QUEUED} commits are waiting for the disk; this one is lost"))
            return done
        self._queued += 1
        self._waiting.append(self._clock.mono())
        self._queue.put(_Job(commit, done))
        return done

    @property
    def refused_since(self) -> float | None:
        """Monotonic time since when something is not durable that was to be; ``None``: everything is."""
        since = [at for at in (self._degraded_at, *itertools.islice(self._waiting, 1)) if at is not None]
        return min(since, default=None)

    def refusal(self) -> Refusal:
        """How the disk fares, at this moment."""
        since = self.refused_since
        seconds = 0.0 if since is None else self._clock.mono() - since
        return Refusal(seconds, self.degraded, self._queued, self.lost)

    def _write_forever(self, ready: asyncio.Future[Recovered]) -> None:
        """The writer thread: open, then group what is queued into transactions until told to stop."""
        try:
            connection, recovered = self._open()
        except (OSError, sqlite3.Error, StoreError, *_UNREADABLE) as error:
            problem = error if isinstance(error, StoreError) else StoreError(self._cannot(error))
            self._call(ready.set_exception, problem)
            return
        self.progress_at = self._clock.mono()
        self._call(ready.set_result, recovered)
        stopping = False
        while not stopping:
            jobs, stopping = self._next_group()
            beat_at = self._beat_at
            if jobs or not self._purge.busy or self._clock.mono() - self._beat_at >= HEARTBEAT_SECONDS:
                self._write(connection, jobs)
            # What is left to do when a commit is done keeps the loop from the GIL: so once a second, not each time.
            if not stopping and not self.degraded and (self._purge.busy or self._beat_at != beat_at):
                self._purge_a_little(connection)
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _next_group(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        try:
            job = self._queue.get(timeout=PURGE_PAUSE_SECONDS if self._purge.busy else HEARTBEAT_SECONDS)
            while job is not None:
                jobs.append(job)
                if len(jobs) >= MAX_GROUP or self._queue.empty():
                    return jobs, False
                job = self._queue.get_nowait()
        except queue.Empty:
            return jobs, False
        return jobs, True

    def _write(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        """One transaction for the group. While the disk refuses, the group is kept and tried again, in order."""
        while True:
            self.progress_at = started_at = self._clock.mono()
            started = time.perf_counter()
            try:
                self._transaction(connection, jobs)
            except _UNWRITABLE as error:
                # One bad commit must not take its neighbours along: each gets a transaction of its own.
                if len(jobs) > 1:
                    for job in jobs:
                        self._write(connection, [job])
                    return
                self._finish(jobs, StoreError(f"refused by the store: {error}"))
                return
            except sqlite3.Error as error:
                if not self.degraded:
                    _log.error("store.degraded", path=str(self._path), error=str(error), queued=self._queued)
                    self._degraded_at = started_at
                self.degraded = str(error)
                if self._closing.is_set():
                    self._finish(jobs, StoreError(self._cannot(error)))
                    return
                self._closing.wait(RETRY_SECONDS)
                continue
            if self.degraded:
                _log.info("store.recovered", path=str(self._path))
                self.degraded, self._degraded_at = "", None
            if jobs:
                self.write_seconds(time.perf_counter() - started)
            self._finish(jobs, None)
            return

    def _transaction(self, connection: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            unshelved = self._unshelved
            for job in jobs:
                apply(connection, job.commit)
                unshelved += len(job.commit.changes)
            if unshelved and (unshelved >= SHELVED_TOGETHER or not jobs):
                connection.execute(SHELVE)
                unshelved = 0
            mono = self._clock.mono()
            beats = not jobs or not 0.0 <= mono - self._beat_at < BEAT_SECONDS
            if beats:
                self._life.beat(connection, self._clock.wall(), mono, boot_id())
            connection.execute("COMMIT")
            self._unshelved = unshelved
            if beats:
                self._beat_at = mono
        except BaseException:  # whatever ends it, no half transaction may stay open
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def _purge_a_little(self, connection: sqlite3.Connection) -> None:
        self.progress_at = self._clock.mono()
        try:
            self._purge.slice(connection, self._life.at(self.progress_at))
            if not self._purge.busy and self._purge.purged:
                _log.info("store.purged", events=self._purge.purged, path=str(self._path))
                self._purge.purged = 0
        except sqlite3.Error as error:  # a full disk, as a rule: commits tell of it, and the next look tries again
            _log.warning("store.purge_failed", path=str(self._path), error=str(error))

    def _finish(self, jobs: Sequence[_Job], error: StoreError | None) -> None:
        if jobs:
            self._call(self._settle, jobs, error)

    def _settle(self, jobs: Sequence[_Job], error: StoreError | None) -> None:
        for job in jobs:
            self._queued -= 1
            self._waiting.popleft()
            if job.done.done():
                continue
            if error is None:
                job.done.set_result(None)
            else:
                job.done.set_exception(error)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Into the event loop."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return  # the loop has gone: nobody is left to be told

    # --- opening ------------------------------------------------------------------------------------------

    def _open(self) -> tuple[sqlite3.Connection, Recovered]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = lock(self._directory)
        old_mask = os.umask(0o077)
        try:
            connection = connect(self._path)
        finally:
            os.umask(old_mask)
        try:
            migrate(connection, str(self._path))
            connection.execute(SHELVE)
            return connection, self._recover(connection)
        except BaseException:  # whatever ends it, a half-opened store must not stay locked
            connection.close()
            raise

    def _recover(self, connection: sqlite3.Connection) -> Recovered:
        open_events = [event_of(row) for row in connection.execute("SELECT * FROM event WHERE state = 'open'")]
        streaks = {row["watch"]: streak_of(row["state"]) for row in connection.execute("SELECT * FROM streak")}
        members = [Member(**dict(row)) for row in connection.execute("SELECT * FROM member ORDER BY instance, name")]
        switchovers = connection.execute(_SWITCHOVERS)
        kept = {
            (row["probe"], row["target"]): json.loads(row["state"]) for row in connection.execute("SELECT * FROM kept")
        }
        owed = connection.execute(_OWED)
        lasting = "SELECT * FROM silence WHERE ends_at > ? AND ended_at IS NULL"
        silences = [silence_of(row) for row in connection.execute(lasting, (self._clock.wall() - CLOCK_ERROR_SECONDS,))]
        absence, shift = self._absence(connection)
        patches = policies.patches_of(connection.execute(policies.PATCHES_AT, (policies.NEWEST,)))
        self._life.recover(connection, self._clock.mono(), boot_id())
        return Recovered(
            tuple(open_events),
            streaks,
            tuple(members),
            {row["instance"]: row["at"] for row in switchovers},
            absence,
            shift,
            kept,
            tuple(Owed(event_of(row), Moment(row["moment"]), row["at"], bool(row["frozen"])) for row in owed),
            patches,
            policies.newest(patches),
            tuple(silences),
            shadowed.recovered(connection),
        )

    def _absence(self, connection: sqlite3.Connection) -> tuple[float | None, float]:
        row = connection.execute("SELECT at, mono, boot FROM heartbeat").fetchone()
        if row is None:
            return None, 0.0
        now = self._clock.mono()
        if row["boot"] and row["boot"] == boot_id():
            return max(0.0, now - row["mono"]), 0.0
        away = max(0.0, self._clock.wall() - row["at"])
        return away, now - away - row["mono"]

    def _cannot(self, error: Exception) -> str:
        return f"cannot use {self._path}: {error}; choose another directory with --storage.path or storage.path"

    # --- reading ------------------------------------------------------------------------------------------

    async def events(self, query: EventQuery) -> Sequence[Event]:
        return await self._reading(lambda read: listing.page(read, query))

    async def event(self, event_id: str) -> EventDetail | None:
        detail = await self._reading(lambda read: listing.detail(read, event_id))
        if detail is None:
            return None
        return replace(detail, deliveries=await self.deliveries(DeliveryQuery(event_id=event_id, limit=MAX_DELIVERIES)))

    async def daily(self, since: float, until: float, zone: str) -> Sequence[DailyCount]:
        return await self._reading(lambda read: counting.daily(read, since, until, ZoneInfo(zone)))

    async def leadership(
        self,
        instance: str | None,
        since: float,
        until: float,
        limit: int = 1000,
        after: tuple[float, str] | None = None,
    ) -> Sequence[LeadershipRecord]:
        sql = """
            SELECT instance, at, details FROM leadership
            WHERE at >= ? AND at < ? AND (? IS NULL OR instance = ?) AND (at, instance) < (?, ?)
            ORDER BY at DESC, instance DESC LIMIT ?
        """
        rows = await self._select(sql, (since, until, instance, instance, *(after or (math.inf, "")), limit))
        return [LeadershipRecord(row["instance"], row["at"], json.loads(row["details"])) for row in rows]

    async def gaps(
        self, since: float, until: float, limit: int = 1000, after: tuple[float, float] | None = None
    ) -> Sequence[GapRecord]:
        sql = """
            SELECT began_at, ended_at, observer, reason FROM gap
            WHERE ended_at >= ? AND began_at < ? AND (ended_at, began_at) < (?, ?)
            ORDER BY ended_at DESC, began_at DESC LIMIT ?
        """
        rows = await self._select(sql, (since, until, *(after or (math.inf, 0.0)), limit))
        return [GapRecord(**dict(row)) for row in rows]

    async def silence(self, silence_id: str) -> Silence | None:
        rows = await self._select("SELECT * FROM silence WHERE id = ?", (silence_id,))
        return silence_of(rows[0]) if rows else None

    async def silences(self, limit: int) -> Sequence[Silence]:
        rows = await self._select("SELECT * FROM silence ORDER BY id DESC LIMIT ?", (limit,))
        return [silence_of(row) for row in rows]

    async def audit(self, query: AuditQuery) -> Sequence[AuditRecord]:
        return [audit_of(row) for row in await self._select(*listing.audit_sql(query))]

    async def shadow_events(self, policy: str, before: tuple[float, str] | None, limit: int) -> Sequence[ShadowEvent]:
        return shadowed.events_of(await self._select(shadowed.EVENTS, (policy, *(before or (None, None)), limit)))

    async def revisions(self, policy: str | None, before: int | None, limit: int) -> Sequence[Revision]:
        rows = await self._select(policies.REVISIONS, (policy, before, limit))
        span = (rows[-1]["version"], rows[0]["version"]) if rows else (0, 0)
        return policies.revisions_of(rows, await self._select(policies.TOUCHED, span))

    async def patches_at(self, version: int) -> Mapping[str, Patch]:
        return policies.patches_of(await self._select(policies.PATCHES_AT, (version,)))

    async def transitions(self, after: int, limit: int) -> Sequence[TransitionRecord]:
        return await self._reading(lambda read: listing.transitions(read, after, limit))

    async def numbering(self) -> Numbering:
        return await self._reading(listing.numbering)

    async def inspections(self, query: InspectionQuery) -> Sequence[InspectionRecord]:
        return await self._reading(lambda read: inspections.listed(read, query))

    async def inspection(self, inspection_id: str) -> InspectionRecord | None:
        return await self._reading(lambda read: inspections.one(read, inspection_id))

    async def inspected_before(self, instance: str, inspection_id: str) -> Earlier | None:
        return await self._reading(lambda read: inspections.before(read, instance, inspection_id))

    async def tokens(self) -> Sequence[TokenRecord]:
        return [tokens.token_of(row) for row in await self._select(tokens.ALL, ())]

    async def counts(self) -> Mapping[tuple[str, str, str], int]:
        return await self._reading(counting.totals)

    async def owed(self, receiver: str, limit: int, without: Collection[str] = ()) -> Sequence[Notice]:
        return [outbox.notice_of(row) for row in await self._select(*outbox.owed_sql(receiver, limit, without))]

    async def heard(self, receiver: str) -> Collection[str]:
        return {row["event_id"] for row in await self._select(outbox.HEARD, (receiver,))}

    async def unheeded(self, receiver: str, before: float) -> Sequence[Event]:
        return [event_of(row) for row in await self._select(outbox.UNHEEDED, (receiver, before))]

    async def backlog(self, before: float | None = None) -> Mapping[str, Backlog]:
        return outbox.backlog_of(await self._select(outbox.BACKLOG, (float("inf") if before is None else before,)))

    async def dead_letters(self) -> Mapping[str, int]:
        return {row["receiver"]: row["letters"] for row in await self._select(outbox.DEAD_LETTERS, ())}

    async def given_up(self, receiver: str, event_id: str | None = None) -> Sequence[Event]:
        sql = outbox.given_up_sql(receiver, event_id)
        return await self._reading(lambda read: [event_of(row) for row in read.execute(*sql)])

    async def deliveries(self, query: DeliveryQuery) -> Sequence[Delivery]:
        return [outbox.delivery_of(row) for row in await self._select(*outbox.history_sql(query))]

    async def status(self) -> StoreStatus:
        (row,) = await self._select(_STATUS, ())
        size = sum(file.stat().st_size for file in self._directory.glob("probed.db*"))
        return StoreStatus(str(self._path), row["version"], row["events"], size, f"SQLite {sqlite3.sqlite_version}")

    async def _select(self, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        return await self._reading(lambda read: read.execute(sql, values).fetchall())

    async def _reading(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """``function`` of the read-only connection, in its thread; all that it reads is of one moment.

        StoreError instead of what sqlite3 raises.
        """

        def run() -> _T:
            assert self._read is not None, "open() first"
            try:
                self._read.execute("BEGIN")
                try:
                    return function(self._read)
                finally:
                    if self._read.in_transaction:
                        self._read.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise StoreError(self._cannot(error)) from None

        return await self._in_reader(run)

    async def _in_reader(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._reader, function)


class _Job:
    __slots__ = ("commit", "done")

    def __init__(self, commit: Commit, done: asyncio.Future[None]) -> None:
        self.commit, self.done = commit, done
