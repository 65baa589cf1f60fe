"""How a commit becomes rows of the embedded store: one small function for each thing that a commit may hold."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from probed.model import Moment
from probed.store import Change, Commit, inspections, outbox, shadowed, tokens
from probed.store.rows import (
    EVENT_COLUMNS,
    EVIDENCE_COLUMNS,
    SILENCE_COLUMNS,
    event_row,
    evidence_row,
    sample_json,
    silence_row,
    streak_text,
    touched_row,
    worth_keeping,
)

UPSERT = f"""
INSERT INTO event ({", ".join(EVENT_COLUMNS)}) VALUES ({", ".join("?" * len(EVENT_COLUMNS))})
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in EVENT_COLUMNS[1:])}
"""  # noqa: S608 - column names are constants
SHELVE = """
UPDATE shelving SET last = (SELECT max(id) FROM event) WHERE last < (SELECT max(id) FROM event)
"""
"""Puts what came since the last time on its shelves, and counts it (schema 0014)."""
_KEEP_EVIDENCE = f"""
INSERT OR REPLACE INTO evidence ({", ".join(EVIDENCE_COLUMNS)}) VALUES ({", ".join("?" * len(EVIDENCE_COLUMNS))})
"""  # noqa: S608 - as above
_KEEP_SILENCE = f"""
INSERT OR REPLACE INTO silence ({", ".join(SILENCE_COLUMNS)}) VALUES ({", ".join("?" * len(SILENCE_COLUMNS))})
"""  # noqa: S608 - as above
_OWES: Mapping[str, tuple[Moment, ...]] = {
    "opened": (Moment.TRIGGER,), "occurred": (Moment.TRIGGER, Moment.RECOVERY), "resolved": (Moment.RECOVERY,),
}  # fmt: skip
"""Moments of which a kind of change asks for evidence."""


def apply(connection: sqlite3.Connection, commit: Commit) -> None:
    """Write all of it; the transaction is the caller's. Raises what sqlite3 raises."""
    for write in _WRITERS:
        write(connection, commit)


def _changes(connection: sqlite3.Connection, commit: Commit) -> None:
    for change in commit.changes:
        _change(connection, change)


def _change(connection: sqlite3.Connection, change: Change) -> None:
    connection.execute(UPSERT, event_row(change.event))
    if change.before:
        _keep(connection, "samples_before", change.event.id, [sample_json(sample) for sample in change.before])
    if change.after:
        _keep(connection, "samples_after", change.event.id, [sample_json(sample) for sample in change.after])
    row = (_number(connection, change), change.event.id, change.kind, change.at, change.who, change.comment)
    sql = "INSERT INTO transition (seq, event_id, kind, at, who, comment) VALUES (?, ?, ?, ?, ?, ?)"
    numbered = connection.execute(sql, row)
    assert numbered.lastrowid is not None
    outbox.owe(connection, numbered.lastrowid, change)
    if change.event.canary:
        return
    for moment in _OWES.get(change.kind, ()):
        owed = (change.event.id, moment, change.at)
        connection.execute("INSERT OR REPLACE INTO evidence_owed (event_id, moment, at) VALUES (?, ?, ?)", owed)


def _number(connection: sqlite3.Connection, change: Change) -> int | None:
    """What a transition is to be numbered; ``None``: the next of the history. A canary takes the place of the last."""
    if not change.event.canary:
        return None
    outbox.erase_canaries(connection, also_owed=True)
    return -1


def _keep(connection: sqlite3.Connection, column: str, event_id: str, samples: Sequence[Mapping[str, Any]]) -> None:
    sql = f"UPDATE event SET {column} = ? WHERE id = ?"  # noqa: S608 - the column is one of two constants
    connection.execute(sql, (json.dumps(samples), event_id))


def _streaks(connection: sqlite3.Connection, commit: Commit) -> None:
    for watch, streak in commit.streaks.items():
        if worth_keeping(streak):
            row = (watch, streak_text(streak))
            connection.execute("INSERT OR REPLACE INTO streak (watch, state) VALUES (?, ?)", row)
        else:
            connection.execute("DELETE FROM streak WHERE watch = ?", (watch,))
    for watch in commit.forgotten:
        connection.execute("DELETE FROM streak WHERE watch = ?", (watch,))


def _evidence(connection: sqlite3.Connection, commit: Commit) -> None:
    for event_id, items in commit.evidence.items():
        connection.executemany(_KEEP_EVIDENCE, [evidence_row(event_id, item) for item in items])
    for settled in commit.settled:
        connection.execute("DELETE FROM evidence_owed WHERE event_id = ? AND moment = ?", settled)


def _members(connection: sqlite3.Connection, commit: Commit) -> None:
    sql = "INSERT OR REPLACE INTO member (instance, name, host, port, api_url) VALUES (?, ?, ?, ?, ?)"
    for member in commit.members:
        connection.execute(sql, (member.instance, member.name, member.host, member.port, member.api_url))
    for key in commit.forgotten_members:
        connection.execute("DELETE FROM member WHERE instance = ? AND name = ?", key)


def _leadership(connection: sqlite3.Connection, commit: Commit) -> None:
    sql = """
        INSERT OR REPLACE INTO leadership (instance, at, class, old_leader, new_leader, details)
        VALUES (?, ?, ?, ?, ?, ?)
    """
    for passage in commit.leadership:
        told = passage.details
        row = (
            passage.instance, passage.at, told["class"], told["old_leader"], told["new_leader"], json.dumps(dict(told)),
        )  # fmt: skip
        connection.execute(sql, row)


def _gaps(connection: sqlite3.Connection, commit: Commit) -> None:
    for gap in commit.gaps:
        row = (gap.began_at, gap.ended_at, gap.observer, gap.reason)
        connection.execute("INSERT INTO gap (began_at, ended_at, observer, reason) VALUES (?, ?, ?, ?)", row)


def _kept(connection: sqlite3.Connection, commit: Commit) -> None:
    for place, state in commit.kept.items():
        if state is None:
            connection.execute("DELETE FROM kept WHERE probe = ? AND target = ?", place)
        else:
            row = (*place, json.dumps(dict(state)))
            connection.execute("INSERT OR REPLACE INTO kept (probe, target, state) VALUES (?, ?, ?)", row)


def _silences(connection: sqlite3.Connection, commit: Commit) -> None:
    connection.executemany(_KEEP_SILENCE, [silence_row(silence) for silence in commit.silences])


def _audit(connection: sqlite3.Connection, commit: Commit) -> None:
    sql = """
        INSERT INTO audit (at, who, via, client, action, subject, reason, before, after)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
    for record in commit.audit:
        before, after = (None if item is None else json.dumps(item) for item in (record.before, record.after))
        row = (
            record.at, record.who, record.via, record.client, record.action, record.subject, record.reason, before,
            after,
        )  # fmt: skip
        connection.execute(sql, row)


def _revisions(connection: sqlite3.Connection, commit: Commit) -> None:
    sql = "INSERT INTO policy_revision (version, at, author, via, kind, reason) VALUES (?, ?, ?, ?, ?, ?)"
    patch = """
        INSERT INTO policy_patch (policy, version, before, after, differences, marks) VALUES (?, ?, ?, ?, ?, ?)
    """
    for made in commit.revisions:
        connection.execute(sql, (made.version, made.at, made.author, made.via, made.kind.value, made.reason))
        connection.executemany(patch, [touched_row(made.version, item) for item in made.touched])


def _outbox(connection: sqlite3.Connection, commit: Commit) -> None:
    for attempt in commit.attempts:
        outbox.settle(connection, attempt)
    for given in commit.given_up:
        outbox.give_up(connection, given)
    if commit.attempts or commit.given_up:
        outbox.erase_canaries(connection)
    for reminder in commit.reminders:
        outbox.remind(connection, reminder)


def _tokens(connection: sqlite3.Connection, commit: Commit) -> None:
    connection.executemany(tokens.KEEP, [tokens.row_of(record) for record in commit.tokens])


def _shadows(connection: sqlite3.Connection, commit: Commit) -> None:
    shadowed.apply(connection, commit.shadows)


def _inspections(connection: sqlite3.Connection, commit: Commit) -> None:
    inspections.apply(connection, commit.inspections)


_WRITERS: Sequence[Callable[[sqlite3.Connection, Commit], None]] = (
    _changes, _streaks, _evidence, _members, _leadership, _gaps, _kept, _audit, _revisions, _silences, _shadows,
    _outbox, _tokens, _inspections,
)  # fmt: skip
"""In this order: evidence refers to events."""
