"""The numbers of transitions: from 1 on, in the order of their commits, without gaps, and none of them twice.

The next one follows the newest that is there, or was: what is purged is noted. SQLite could remember it by itself
(AUTOINCREMENT), in a table that would be one page more to write with every event.
"""

from __future__ import annotations

import sqlite3

CANARY = -1
"""What the transition of a canary is numbered: it is no history."""

_ADD = """
INSERT INTO transition (seq, event_id, kind, at, who, comment, owes) VALUES (
    ifnull(?, (SELECT max(seq, ifnull((SELECT max(seq) FROM transition), 0)) + 1 FROM purged)), ?, ?, ?, ?, ?, ?
)
"""


def add(
    connection: sqlite3.Connection,
    event_id: str,
    kind: str,
    at: float,
    who: str = "",
    comment: str = "",
    owes: str = "",
    *,
    number: int | None = None,
) -> int:
    """Write a transition, and of which moments it owes evidence; what it was numbered. Raises what sqlite3 raises."""
    seq = connection.execute(_ADD, (number, event_id, kind, at, who, comment, owes)).lastrowid
    assert seq is not None
    return seq
