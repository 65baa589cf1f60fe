"""How a commit becomes rows of the embedded store: one small function for each thing that a commit may hold."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from probed.model import Moment, Sample
from probed.store import Change, Commit, inspections, numbering, outbox, shadowed, tokens
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
INSERT INTO event ({", ".join(EVENT_COLUMNS)}, samples_before, samples_after)
VALUES ({"?, " * len(EVENT_COLUMNS)}ifnull(?{len(EVENT_COLUMNS) + 1}, '[]'), ifnull(?{len(EVENT_COLUMNS) + 2}, '[]'))
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in EVENT_COLUMNS[1:])},
    samples_before = ifnull(?{len(EVENT_COLUMNS) + 1}, samples_before),
    samples_after = ifnull(?{len(EVENT_COLUMNS) + 2}, samples_after)
"""  # noqa: S608 - column names are constants
"""``event_row`` and JSON of the samples before and after; ``None`` leaves those that are there."""
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
    for parts, write in _WRITERS:
        if any(getattr(commit, part) for part in parts):
            write(connection, commit)


def _changes(connection: sqlite3.Connection, commit: Commit) -> None:
    for change in commit.changes:
        _change(connection, change)


def _change(connection: sqlite3.Connection, change: Change) -> None:
    event = change.event
    connection.execute(UPSERT, (*event_row(event), _samples(change.before), _samples(change.after)))
    number = None
    if event.canary:  # it takes the place of the last
        outbox.erase_canaries(connection, also_owed=True)
        number = numbering.CANARY
    seq = numbering.add(connection, event.id, change.kind, change.at, change.who, change.comment, number=number)
    outbox.owe(connection, seq, change)
    if event.canary:
        return
    for moment in _OWES.get(change.kind, ()):
        owed = (event.id, moment, change.at)
        connection.execute("INSERT OR REPLACE INTO evidence_owed (event_id, moment, at) VALUES (?, ?, ?)", owed)


def _samples(samples: Sequence[Sample]) -> str | None:
    return json.dumps([sample_json(sample) for sample in samples]) if samples else None


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
    for resend in commit.resends:
        outbox.resend(connection, resend)


def _tokens(connection: sqlite3.Connection, commit: Commit) -> None:
    connection.executemany(tokens.KEEP, [tokens.row_of(record) for record in commit.tokens])


def _shadows(connection: sqlite3.Connection, commit: Commit) -> None:
    shadowed.apply(connection, commit.shadows)


def _inspections(connection: sqlite3.Connection, commit: Commit) -> None:
    inspections.apply(connection, commit.inspections)


_WRITERS: Sequence[tuple[tuple[str, ...], Callable[[sqlite3.Connection, Commit], None]]] = (
    (("changes",), _changes),
    (("streaks", "forgotten"), _streaks),
    (("evidence", "settled"), _evidence),
    (("members", "forgotten_members"), _members),
    (("leadership",), _leadership),
    (("gaps",), _gaps),
    (("kept",), _kept),
    (("audit",), _audit),
    (("revisions",), _revisions),
    (("silences",), _silences),
    (("shadows",), _shadows),
    (("attempts", "given_up", "reminders", "resends"), _outbox),
    (("tokens",), _tokens),
    (("inspections",), _inspections),
)
"""What writes which parts of a commit, in this order: evidence refers to events."""
