"""``samples.db``: the file of the recorded samples, written by one thread of its own, apart from the ledger.

What is lost here is a few minutes of a chart, so the discipline is another than the ledger's: ``synchronous=NORMAL`` (a
power cut may cost the last chunks, never the file), and a disk that refuses costs the samples of the moment: they are
dropped and counted, nobody waits. A damaged file is set aside under another name and a new one begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path

import structlog
from msgspec import Struct

from probed.clock import Clock
from probed.model import Target
from probed.recording.chunks import Buffer, unpack

_log = structlog.get_logger(__name__)

NAME = "samples.db"
SCHEMA = Path(__file__).parent / "schema.sql"
VERSION = 1
PAGE_BYTES = 16_384
"""Bodies are a few KiB; on pages of 4 KiB a third of the file would be the rests of pages."""
FULL = 720
"""Samples in a chunk that is not merged any more: an hour at 5 s."""
TINY, TINY_CHUNKS = 30, 12
"""So many chunks of fewer samples, from a probe that runs once a minute, become one before that."""
MAX_QUEUED = 2_000
"""Buffers that may wait for the disk; a few KiB each."""
BATCH = 64
"""Buffers in one transaction."""
PURGE_SECONDS = 30.0
PAUSE_SECONDS = 0.2
"""Between two slices, while there is more to purge."""
SLICE = 50
"""Chunks that one transaction purges."""
SPARE_PAGES = 1_024
"""Free pages that the file keeps for what comes; more go back to the disk."""


class Tally(Struct):
    """What became of the samples so far."""

    written: int = 0
    dropped: int = 0


class SampleFile:
    """Takes buffers and keeps them. ``put`` never blocks and never raises; nothing here can end the daemon."""

    def __init__(self, directory: Path, clock: Clock, *, retention: float, max_bytes: int, observer: str) -> None:
        self.path = directory / NAME
        self._clock, self._observer = clock, observer
        self.retention, self.max_bytes = retention, max_bytes
        self.tally = Tally()
        self.degraded = ""
        """Why samples are being dropped, while they are."""
        self._queue: queue.Queue[Buffer | Callable[[], None] | None] = queue.Queue(MAX_QUEUED)
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._run = 0
        self._places: dict[tuple[str, str], tuple[int, Target]] = {}
        self._loose: dict[int, list[tuple[int, int]]] = {}
        """By place: (mono, samples) of the chunks of this run that are still to be merged."""
        self._ended: Callable[[], None] = lambda: None
        self._purged_at, self._purging = 0.0, False

    # --- from the event loop ------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the writer; the file itself is opened in its thread, so that a slow disk delays nothing."""
        self._thread = threading.Thread(target=self._work, name="samples-write", daemon=True)
        self._thread.start()

    def put(self, buffer: Buffer) -> None:
        """Have a buffer written; it must not be touched any more."""
        try:
            self._queue.put_nowait(buffer)
        except queue.Full:
            self._drop(len(buffer), "the disk does not keep up")

    async def written(self) -> None:
        """When everything that was put so far is in the file, or was dropped."""
        if self._thread is not None and self._thread.is_alive():
            done = asyncio.Event()
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(_setter(done))
                await done.wait()

    async def close(self) -> None:
        """Write what is queued, then close."""
        if self._thread is None:
            return
        done = asyncio.Event()
        self._ended = _setter(done)
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
            await done.wait()
        self._thread = None

    # --- in the writer's thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        self._attempt(lambda: None, 0)
        going = True
        while going:
            batch, calls, going = self._next_batch()
            if batch:
                self._attempt(partial(self._write, batch), sum(map(len, batch)))
            for call in calls:
                call()
            if going and (self._purging or self._clock.mono() - self._purged_at >= PURGE_SECONDS):
                self._purged_at = self._clock.mono()
                self._attempt(self._purge, 0)
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
        self._ended()

    def _next_batch(self) -> tuple[list[Buffer], list[Callable[[], None]], bool]:
        batch: list[Buffer] = []
        calls: list[Callable[[], None]] = []
        try:
            item = self._queue.get(timeout=PAUSE_SECONDS if self._purging else PURGE_SECONDS)
            while True:
                if item is None:
                    return batch, calls, False
                if isinstance(item, Buffer):
                    batch.append(item)
                else:
                    calls.append(item)
                if len(batch) >= BATCH:
                    return batch, calls, True
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, calls, True

    def _attempt(self, work: Callable[[], None], samples: int) -> None:
        """Do it in one transaction, or drop so many samples; what is damaged is set aside and tried once more."""
        for again in (True, False):
            try:
                connection = self._connection = self._connection or self._opened()
                connection.execute("BEGIN IMMEDIATE")
                work()
                connection.execute("COMMIT")
            except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
                self._undo()
                if again and _is_damage(error) and self._set_aside(error):
                    continue
                self._drop(samples, str(error))
                return
            if self.degraded and samples:
                _log.info("samples.recovered", path=str(self.path), dropped=self.tally.dropped)
                self.degraded = ""
            self.tally.written += samples
            return

    def _undo(self) -> None:
        """No half transaction; what is remembered of the file is read from it anew."""
        self._places.clear()
        self._loose.clear()
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _drop(self, samples: int, why: str) -> None:
        self.tally.dropped += samples
        if not self.degraded:
            _log.error("samples.dropped", path=str(self.path), error=why, remedy="the events are not concerned")
        self.degraded = why

    def _set_aside(self, error: Exception) -> bool:
        """Give a damaged file another name; False when that cannot be done."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        aside = self.path.with_name(f"{NAME}.damaged")
        try:
            for suffix in ("-wal", "-shm"):
                self.path.with_name(NAME + suffix).unlink(missing_ok=True)
            self.path.replace(aside)  # the last damaged one is enough
        except OSError:
            return False
        _log.error("samples.damaged", path=str(self.path), error=str(error), set_aside=str(aside))
        return True

    def _opened(self) -> sqlite3.Connection:
        old_mask = os.umask(0o077)
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=5.0, check_same_thread=False)
        finally:
            os.umask(old_mask)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA cache_size = -256")
            if version == 0:
                script = SCHEMA.read_text(encoding="utf-8")
                connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {VERSION};\nCOMMIT;")
            elif version != VERSION:
                raise sqlite3.DatabaseError(f"samples of schema {version}, known here {VERSION}")
            began = (self._clock.wall(), self._observer)
            cursor = connection.execute("INSERT INTO run (began_at, observer) VALUES (?, ?)", began)
            self._run = cursor.lastrowid or 0
        except BaseException:  # whatever ends it, a half-opened file must not stay locked
            connection.close()
            raise
        return connection

    def _write(self, batch: Sequence[Buffer]) -> None:
        for buffer in batch:
            place = self._place(buffer)
            loose = self._loose.get(place)
            if loose is None:
                loose = self._loose[place] = [
                    (mono, count)
                    for mono, count in self._db.execute(
                        "SELECT mono, count FROM chunk WHERE place = ? AND run = ? AND count < ? ORDER BY mono",
                        (place, self._run, FULL),
                    )
                ]
            mono = self._insert(place, buffer)
            if len(buffer) >= FULL:
                continue
            loose.append((mono, len(buffer)))
            if sum(count for _, count in loose) >= FULL:
                self._loose[place] = []
                self._merge(place, buffer, loose)
                continue
            tiny = sum(1 for _ in takewhile(lambda one: one[1] < TINY, reversed(loose)))
            if tiny >= TINY_CHUNKS:  # only neighbours: chunks must not overlap
                loose[-tiny:] = self._merge(place, buffer, loose[-tiny:])

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _insert(self, place: int, buffer: Buffer) -> int:
        digest = buffer.digest()
        body = self._db.execute("INSERT INTO body (data) VALUES (?)", (buffer.pack(),)).lastrowid
        mono, began, ended = (round(time * 1000) for time in (digest.first_mono, digest.first_at, digest.last_at))
        self._db.execute(
            "INSERT INTO chunk (place, run, mono, began, ended, count, digest, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (place, self._run, mono, min(began, ended), max(began, ended), digest.count, digest.dump(), body),
        )
        return mono

    def _merge(self, place: int, like: Buffer, chunks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Many small chunks become one: half as large, and faster to go through. Its (mono, samples)."""
        whole = Buffer(like.probe, like.target)
        for mono, _ in chunks:
            key = (place, self._run, mono)
            sql = "SELECT body.id, data FROM chunk JOIN body ON body.id = body WHERE place = ? AND run = ? AND mono = ?"
            row = self._db.execute(sql, key).fetchone()
            if row is None:  # purged: the file has come to its largest size within the hour
                continue
            try:
                for sample in unpack(row[1], like.probe, like.target):
                    whole.put(sample)
            except ValueError as error:
                _log.error(
                    "samples.damaged", path=str(self.path), probe=like.probe, target=like.target.key, error=str(error)
                )
            self._db.execute("DELETE FROM chunk WHERE place = ? AND run = ? AND mono = ?", key)
            self._db.execute("DELETE FROM body WHERE id = ?", (row[0],))
        return [(self._insert(place, whole), len(whole))] if len(whole) else []

    def _place(self, buffer: Buffer) -> int:
        key = (buffer.probe, buffer.target.key)
        known = self._places.get(key)
        if known is not None and known[1] == buffer.target:
            return known[0]
        target = buffer.target
        row = (*key, target.instance, target.node, target.component, target.address, target.kind, target.member)
        number: int = self._db.execute(
            "INSERT INTO place (probe, target, instance, node, component, address, kind, member)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (probe, target)"
            " DO UPDATE SET address = excluded.address, kind = excluded.kind RETURNING id",
            row,
        ).fetchone()[0]
        self._places[key] = (number, target)
        return number

    # --- retention ----------------------------------------------------------------------------------------

    def _purge(self) -> None:
        """One slice of what is too old, or of the oldest while the file is too large."""
        horizon = round((self._clock.wall() - self.retention) * 1000)
        oldest = self._oldest()
        doomed = [row for row in oldest if row[0] < horizon]
        if not doomed and self._used() > self.max_bytes:
            doomed = oldest
        for _, place, run, mono, body in doomed[:SLICE]:
            self._db.execute("DELETE FROM chunk WHERE place = ? AND run = ? AND mono = ?", (place, run, mono))
            self._db.execute("DELETE FROM body WHERE id = ?", (body,))
        self._purging = bool(doomed)
        if not doomed and self._pragma("freelist_count") > SPARE_PAGES:
            self._db.execute("PRAGMA incremental_vacuum(64)")

    def _oldest(self) -> list[tuple[int, int, int, int, int]]:
        """(ended, place, run, mono, body) of the first chunk of every place, the oldest first."""
        sql = "SELECT ended, place, run, mono, body FROM chunk WHERE place = ? ORDER BY run, mono LIMIT 1"
        found: list[tuple[int, int, int, int, int]] = []
        for (place,) in self._db.execute("SELECT id FROM place").fetchall():
            row = self._db.execute(sql, (place,)).fetchone()
            if row is not None:
                found.append(row)
                continue
            self._db.execute("DELETE FROM place WHERE id = ?", (place,))
            self._places.clear()
        return sorted(found)

    def _used(self) -> int:
        """Bytes."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * PAGE_BYTES

    def _pragma(self, name: str) -> int:
        number: int = self._db.execute(f"PRAGMA {name}").fetchone()[0]
        return number


def _setter(event: asyncio.Event) -> Callable[[], None]:
    """Sets an event of the running loop, from another thread."""
    loop = asyncio.get_running_loop()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(event.set)

    return tell


def _is_damage(error: Exception) -> bool:
    """Whether it is the file that is wrong, not the disk, the moment or the samples."""
    if isinstance(error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return False
    return isinstance(error, sqlite3.DatabaseError)
