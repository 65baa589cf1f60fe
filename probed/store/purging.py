"""What is too old, or too much, goes: oldest first, in slices short enough to go unnoticed between two commits.

An event goes with its transitions, samples and evidence when all of its transitions are old. It stays while it is open,
while a consequence of it is still there, and while somebody is owed news of it; a consequence goes first, so its cause
follows in the same purge. How many events there were is kept apart (schema 0006) and outlives them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from msgspec import Struct

from probed.store import ageing, inspections

DAY = 86_400.0
GIB = 1 << 30
SLICE_SECONDS = 0.020
"""What a slice may take with the end of its transaction, which is the disk's to say: see ``Purge._allowance``."""
MOST_WORK_SECONDS, LEAST_WORK_SECONDS = 0.010, 0.001
LOOK_SECONDS = 60.0
"""Between two looks at whether anything is due."""
COUNTS_AGE = 400 * DAY
"""How long triggers per day and the audit log are kept, if history itself is not kept longer: a year and its season."""
ROOM = 0.95
"""A store that grew too large is purged down to this part of its limit, so that it is not purged at every event."""
SPARE_PAGES = 1024
"""Free pages that stay in the file for what comes next; beyond them, and a tenth of the file, they are given back."""
_BATCH, _PAGES = 100, 32

_WALK = "SELECT seq, event_id FROM transition WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
_OLD = """
SELECT (SELECT state FROM event WHERE id = ?1) AS state,
       (SELECT max(seq) FROM turn WHERE event_id = ?1) AS newest,
       EXISTS (SELECT 1 FROM event WHERE caused_by = ?1)
       OR EXISTS (SELECT 1 FROM delivery WHERE event_id = ?1 AND fate = 'owed') AS needed
"""
_PARTS = (
    "DELETE FROM evidence WHERE event_id = ?",
    "DELETE FROM delivery WHERE event_id = ?",
    "DELETE FROM notice WHERE seq IN (SELECT seq FROM turn WHERE event_id = ?)",
    "DELETE FROM transition WHERE seq IN (SELECT seq FROM turn WHERE event_id = ?)",
    "DELETE FROM event WHERE id = ?",
)
"""All that there is of an event."""
_OLD_SHADOWS = """
DELETE FROM shadow_event WHERE (policy, opened_at, target) IN (
    SELECT policy, opened_at, target FROM shadow_event
    WHERE ifnull(resolved_at, CASE WHEN occurred THEN opened_at END) < ? LIMIT 500
)
"""
_BY_DATE = (
    "DELETE FROM gap WHERE rowid IN (SELECT rowid FROM gap WHERE ended_at < ? LIMIT 500)",
    "DELETE FROM silence WHERE id IN (SELECT id FROM silence WHERE ifnull(ended_at, ends_at) < ? LIMIT 500)",
    _OLD_SHADOWS,
    "DELETE FROM leadership WHERE (instance, at) IN (SELECT instance, at FROM leadership WHERE at < ? LIMIT 500)",
)
_COUNTS_BY_DATE = (
    "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE at < ? LIMIT 500)",
    "DELETE FROM tally WHERE quarter < (SELECT 96 * min(day + 1) FROM tally_day WHERE day < ?1 / 86400 - 1)",
    "DELETE FROM tally_day WHERE day < (SELECT min(day + 1) FROM tally_day WHERE day < ?1 / 86400 - 1)",
)


class Limits(Struct, frozen=True):
    """How much history is kept; what is beyond either goes."""

    age: float = 90 * DAY
    """Seconds of life."""
    size: int = GIB
    """Bytes that the database may hold."""


class Purge:
    """The walks of one writer, a slice at a time. Every method is the writer thread's."""

    def __init__(self, limits: Limits, *, timer: Callable[[], float] = time.perf_counter) -> None:
        self.limits = limits
        self.purged = 0
        """Events that went; whoever tells of them sets it back."""
        self._timer = timer
        self._allowance = MOST_WORK_SECONDS
        """Of work in one slice: less while the disk is slow, more again when it is not."""
        self._looked_at: float | None = None
        self._walk: _Walk | None = None

    @property
    def busy(self) -> bool:
        """Whether a walk goes on, that is whether the next slice should come soon."""
        return self._walk is not None

    def slice(self, connection: sqlite3.Connection, lived: float) -> None:
        """Do a little of what is due, in a transaction of its own. Raises what sqlite3 raises, leaving none open."""
        if self._walk is None and not self._look(connection, lived):
            return
        assert self._walk is not None
        if self._walk.done:
            self._give_back(connection)
            return
        began = self._timer()
        ends = began + self._allowance
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._go_on(connection, self._walk, ends)
            if self._walk.done:
                self._sweep(connection, lived)
            connection.execute("COMMIT")
            factor = 1.25 if self._timer() - began <= SLICE_SECONDS else 0.5
            self._allowance = min(MOST_WORK_SECONDS, max(LEAST_WORK_SECONDS, self._allowance * factor))
        except BaseException:  # whatever ends it, no half transaction may stay open
            self._walk = None
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _look(self, connection: sqlite3.Connection, lived: float) -> bool:
        """Whether a walk is due, about once in ``LOOK_SECONDS`` of life."""
        if self._looked_at is not None and lived - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = lived
        newest = ageing.newest_of_age(connection, lived, self.limits.age)
        over = size(connection) > self.limits.size
        self._walk = _Walk(newest, int(self.limits.size * ROOM) if over else None)
        return True

    def _go_on(self, connection: sqlite3.Connection, walk: _Walk, ends: float) -> None:
        while not walk.done and self._timer() < ends:
            rows = connection.execute(_WALK, (walk.at, walk.horizon(connection), _BATCH)).fetchall()
            if not rows:
                walk.end()
            for row in rows:
                walk.at = row["seq"]
                self._weigh(connection, walk, row["event_id"])
                if self._timer() >= ends:
                    return

    def _weigh(self, connection: sqlite3.Connection, walk: _Walk, event_id: str) -> None:
        found = connection.execute(_OLD, (event_id,)).fetchone()
        if found["newest"] is None or found["state"] == "open" or found["newest"] > walk.horizon(connection):
            return
        if found["needed"]:
            walk.held += 1
            return
        for sql in _PARTS:
            connection.execute(sql, (event_id,))
        connection.execute("UPDATE purged SET seq = max(seq, ?)", (found["newest"],))
        walk.gone += 1
        self.purged += 1

    def _sweep(self, connection: sqlite3.Connection, lived: float) -> None:
        """What is no part of an event; the rest of much waits for the next walk."""
        counts_age = max(self.limits.age, COUNTS_AGE)
        for age, statements in ((self.limits.age, _BY_DATE), (counts_age, _COUNTS_BY_DATE)):
            date = ageing.date_of_age(connection, lived, age)
            for sql in statements if date is not None else ():
                connection.execute(sql, (date,))
        date = ageing.date_of_age(connection, lived, self.limits.age)
        if date is not None:
            inspections.forget(
                connection, [row["id"] for row in connection.execute(inspections.OLD, (date,)).fetchall()]
            )
        connection.execute("DELETE FROM shelf WHERE number = 0")
        ageing.forget(connection, lived, counts_age)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        """Free pages to the file system, from the end of the file; a no-op in a file made before it could."""
        pages, free = pages_of(connection)
        if free <= max(SPARE_PAGES, pages // 10) or not _can_shrink(connection):
            self._walk = None
            return
        connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()


class _Walk:
    """One pass, or several, over the transitions up to a horizon."""

    def __init__(self, oldest_kept: int, room: int | None) -> None:
        self.at = 0
        """The transition that was looked at last."""
        self.held, self.gone = 0, 0
        """In this pass: events that wait for their consequences to go, and events that went."""
        self.done = False
        self._oldest_kept, self._room = oldest_kept, room
        """Bytes down to which age does not matter."""

    def horizon(self, connection: sqlite3.Connection) -> int:
        if self._room is not None and size(connection) > self._room:
            row = connection.execute("SELECT ifnull(max(seq), 0) AS seq FROM transition").fetchone()
            return int(row["seq"])
        return self._oldest_kept

    def end(self) -> None:
        """The end of a pass: another one, as long as the last made events free to go."""
        self.done = not (self.held and self.gone)
        self.at, self.held, self.gone = 0, 0, 0


def pages_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """(pages, free ones among them)."""
    pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    return int(pages), int(free)


def size(connection: sqlite3.Connection) -> int:
    """Bytes in use."""
    pages, free = pages_of(connection)
    return (pages - free) * int(connection.execute("PRAGMA page_size").fetchone()[0])


def _can_shrink(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 2)
