"""How old history is: by the time that daemons lived through, never by the date.

The date of a machine can be wrong by years, in either direction, and be put right at any moment. So age is counted on
the monotonic clock: each sign of life adds the seconds since the one before, and once an hour a milestone notes the
newest transition. What was written before a milestone is at least as old as the life since. Time in which no daemon
ran counts only within one boot; history is then kept longer than it was asked for, never shorter.
"""

from __future__ import annotations

import sqlite3

MILESTONE_SECONDS = 3600

_BEAT = "INSERT OR REPLACE INTO heartbeat (one, at, mono, boot, lived) VALUES (1, ?, ?, ?, ?)"
_LAST_BEAT = """
INSERT OR IGNORE INTO milestone (lived, seq, at)
SELECT CAST(lived AS INTEGER) + 1, (SELECT ifnull(max(seq), 0) FROM transition), at FROM heartbeat
"""
_MILESTONE = """
INSERT INTO milestone (lived, seq, at) SELECT ?, (SELECT ifnull(max(seq), 0) FROM transition), ?
WHERE NOT EXISTS (SELECT 1 FROM milestone WHERE lived > ?)
"""


class Life:
    """Seconds that the daemons of a store have lived, as of its last heartbeat."""

    def __init__(self) -> None:
        self._base, self._since = 0.0, 0.0

    def recover(self, connection: sqlite3.Connection, mono: float, boot: str) -> None:
        """Go on from the last heartbeat; ``mono`` and ``boot`` are of now."""
        row = connection.execute("SELECT mono, boot, lived FROM heartbeat").fetchone()
        self._base, self._since = (row["lived"] if row else 0.0), mono
        if row is not None and row["boot"] and row["boot"] == boot:
            self._since = min(mono, row["mono"])
        # Whatever the time until now turns out to have been, it came after all that is there.
        connection.execute(_LAST_BEAT)

    def at(self, mono: float) -> float:
        return self._base + max(0.0, mono - self._since)

    def beat(self, connection: sqlite3.Connection, wall: float, mono: float, boot: str) -> None:
        """The sign of life, as part of a transaction."""
        lived = self.at(mono)
        connection.execute(_BEAT, (wall, mono, boot, lived))
        connection.execute(_MILESTONE, (int(lived), wall, int(lived) - MILESTONE_SECONDS))


def newest_of_age(connection: sqlite3.Connection, lived: float, age: float) -> int:
    """The number of the newest transition that is at least ``age`` seconds old; 0 when none is."""
    sql = "SELECT seq FROM milestone WHERE lived <= ? ORDER BY lived DESC LIMIT 1"
    row = connection.execute(sql, (lived - age,)).fetchone()
    return int(row["seq"]) if row is not None else 0


def date_of_age(connection: sqlite3.Connection, lived: float, age: float) -> float | None:
    """A date (Unix seconds) before which nothing was written within the last ``age`` seconds; ``None`` while unknown.

    The earliest date that the machine had in that time: while its clock was behind, nothing looks old.
    """
    began = "SELECT 1 FROM milestone WHERE lived <= ? LIMIT 1"
    if connection.execute(began, (lived - age,)).fetchone() is None:
        return None
    row = connection.execute("SELECT min(at) AS at FROM milestone WHERE lived > ?", (lived - age,)).fetchone()
    return None if row["at"] is None else float(row["at"])


def forget(connection: sqlite3.Connection, lived: float, age: float) -> None:
    """Drop the milestones that no age up to ``age`` needs any more; the last one before it stays."""
    sql = "DELETE FROM milestone WHERE lived < (SELECT max(lived) FROM milestone WHERE lived <= ?)"
    connection.execute(sql, (lived - age,))
