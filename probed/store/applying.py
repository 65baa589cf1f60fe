"""How a commit becomes rows of the embedded store: one small function for each thing that a commit may hold."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from probed.model import Evidence, Moment, Sample, Streak
from probed.revisions import Revision
from probed.silences import Silence
from probed.store import (
    AuditRecord,
    Change,
    Commit,
    GapRecord,
    LeadershipRecord,
    Member,
    Place,
    TokenRecord,
    inspections,
    numbering,
    outbox,
    shadowed,
    tokens,
)
from probed.store.notices import Attempt, GivenUp, Reminder, Resend
from probed.store.rows import (
    EVENT_COLUMNS,
    EVIDENCE_COLUMNS,
    SILENCE_COLUMNS,
    event_row,
    evidence_row,
    json_text,
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
UPDATE shelving SET
    last = max(last, newest.id), filed = max(filed, newest.seq),
    settled = ifnull((SELECT min(seq) - 1 FROM transition WHERE seq > settled AND owes <> ''), newest.seq)
FROM (SELECT
    ifnull((SELECT max(id) FROM event), '') AS id, max(0, ifnull((SELECT max(seq) FROM transition), 0)) AS seq
) AS newest WHERE last < newest.id OR filed < newest.seq
"""
"""Puts what came since the last time on its shelves, counts it (schema 0014), and files its transitions (0015)."""
_SETTLE = """
UPDATE transition SET owes = trim(replace(owes, ?2, ''))
WHERE seq IN (SELECT seq FROM turn WHERE event_id = ?1) AND instr(owes, ?2)
"""
_KEEP_EVIDENCE = f"""
INSERT OR REPLACE INTO evidence ({", ".join(EVIDENCE_COLUMNS)}) VALUES ({", ".join("?" * len(EVIDENCE_COLUMNS))})
"""  # noqa: S608 - as above
_KEEP_SILENCE = f"""
INSERT OR REPLACE INTO silence ({", ".join(SILENCE_COLUMNS)}) VALUES ({", ".join("?" * len(SILENCE_COLUMNS))})
"""  # noqa: S608 - as above
_FORGET = "DELETE FROM streak WHERE watch = ?"
_OWES = {
    "opened": Moment.TRIGGER.value,
    "occurred": f"{Moment.TRIGGER} {Moment.RECOVERY}",
    "resolved": Moment.RECOVERY.value,
}
"""Moments of which a kind of change asks for evidence."""


def apply(connection: sqlite3.Connection, commit: Commit) -> None:
    """Write all of it; the transaction is the caller's. Raises what sqlite3 raises."""
    for part, write in _WRITERS.items():
        value = getattr(commit, part)
        if value:
            write(connection, value)


def _changes(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    for change in changes:
        _change(connection, change)


def _change(connection: sqlite3.Connection, change: Change) -> None:
    event = change.event
    connection.execute(UPSERT, (*event_row(event), _samples(change.before), _samples(change.after)))
    number, owes = None, _OWES.get(change.kind, "")
    if event.canary:  # it takes the place of the last, and asks for no evidence
        outbox.erase_canaries(connection, also_owed=True)
        number, owes = numbering.CANARY, ""
    seq = numbering.add(connection, event.id, change.kind, change.at, change.who, change.comment, owes, number=number)
    if change.owed:
        outbox.owe(connection, seq, change)


def _samples(samples: Sequence[Sample]) -> str | None:
    return json_text([sample_json(sample) for sample in samples]) if samples else None


def _streaks(connection: sqlite3.Connection, streaks: Mapping[str, Streak]) -> None:
    for watch, streak in streaks.items():
        if worth_keeping(streak):
            row = (watch, streak_text(streak))
            connection.execute("INSERT OR REPLACE INTO streak (watch, state) VALUES (?, ?)", row)
        else:
            connection.execute(_FORGET, (watch,))


def _forgotten(connection: sqlite3.Connection, watches: Sequence[str]) -> None:
    connection.executemany(_FORGET, [(watch,) for watch in watches])


def _evidence(connection: sqlite3.Connection, evidence: Mapping[str, Sequence[Evidence]]) -> None:
    for event_id, items in evidence.items():
        connection.executemany(_KEEP_EVIDENCE, [evidence_row(event_id, item) for item in items])


def _settled(connection: sqlite3.Connection, settled: Sequence[tuple[str, Moment]]) -> None:
    connection.executemany(_SETTLE, settled)


def _members(connection: sqlite3.Connection, members: Sequence[Member]) -> None:
    sql = "INSERT OR REPLACE INTO member (instance, name, host, port, api_url) VALUES (?, ?, ?, ?, ?)"
    for member in members:
        connection.execute(sql, (member.instance, member.name, member.host, member.port, member.api_url))


def _forgotten_members(connection: sqlite3.Connection, keys: Sequence[tuple[str, str]]) -> None:
    connection.executemany("DELETE FROM member WHERE instance = ? AND name = ?", keys)


def _leadership(connection: sqlite3.Connection, passages: Sequence[LeadershipRecord]) -> None:
    sql = """
        INSERT OR REPLACE INTO leadership (instance, at, class, old_leader, new_leader, details)
        VALUES (?, ?, ?, ?, ?, ?)
    """
    for passage in passages:
        told = passage.details
        row = (
            passage.instance, passage.at, told["class"], told["old_leader"], told["new_leader"], json.dumps(dict(told)),
        )  # fmt: skip
        connection.execute(sql, row)


def _gaps(connection: sqlite3.Connection, gaps: Sequence[GapRecord]) -> None:
    for gap in gaps:
        row = (gap.began_at, gap.ended_at, gap.observer, gap.reason)
        connection.execute("INSERT INTO gap (began_at, ended_at, observer, reason) VALUES (?, ?, ?, ?)", row)


def _kept(connection: sqlite3.Connection, kept: Mapping[Place, Mapping[str, object] | None]) -> None:
    for place, state in kept.items():
        if state is None:
            connection.execute("DELETE FROM kept WHERE probe = ? AND target = ?", place)
        else:
            row = (*place, json.dumps(dict(state)))
            connection.execute("INSERT OR REPLACE INTO kept (probe, target, state) VALUES (?, ?, ?)", row)


def _silences(connection: sqlite3.Connection, silences: Sequence[Silence]) -> None:
    connection.executemany(_KEEP_SILENCE, [silence_row(silence) for silence in silences])


def _audit(connection: sqlite3.Connection, records: Sequence[AuditRecord]) -> None:
    sql = """
        INSERT INTO audit (at, who, via, client, action, subject, reason, before, after)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
    for record in records:
        before, after = (None if item is None else json.dumps(item) for item in (record.before, record.after))
        row = (
            record.at, record.who, record.via, record.client, record.action, record.subject, record.reason, before,
            after,
        )  # fmt: skip
        connection.execute(sql, row)


def _revisions(connection: sqlite3.Connection, revisions: Sequence[Revision]) -> None:
    sql = "INSERT INTO policy_revision (version, at, author, via, kind, reason) VALUES (?, ?, ?, ?, ?, ?)"
    patch = """
        INSERT INTO policy_patch (policy, version, before, after, differences, marks) VALUES (?, ?, ?, ?, ?, ?)
    """
    for made in revisions:
        connection.execute(sql, (made.version, made.at, made.author, made.via, made.kind.value, made.reason))
        connection.executemany(patch, [touched_row(made.version, item) for item in made.touched])


def _attempts(connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> None:
    for attempt in attempts:
        outbox.settle(connection, attempt)
    outbox.erase_canaries(connection)


def _given_up(connection: sqlite3.Connection, given_up: Sequence[GivenUp]) -> None:
    for given in given_up:
        outbox.give_up(connection, given)
    outbox.erase_canaries(connection)


def _reminders(connection: sqlite3.Connection, reminders: Sequence[Reminder]) -> None:
    for reminder in reminders:
        outbox.remind(connection, reminder)


def _resends(connection: sqlite3.Connection, resends: Sequence[Resend]) -> None:
    for resend in resends:
        outbox.resend(connection, resend)


def _tokens(connection: sqlite3.Connection, records: Sequence[TokenRecord]) -> None:
    connection.executemany(tokens.KEEP, [tokens.row_of(record) for record in records])


_WRITERS: Mapping[str, Callable[[sqlite3.Connection, Any], None]] = {
    "changes": _changes,
    "streaks": _streaks,
    "forgotten": _forgotten,
    "evidence": _evidence,
    "settled": _settled,
    "members": _members,
    "forgotten_members": _forgotten_members,
    "leadership": _leadership,
    "gaps": _gaps,
    "kept": _kept,
    "audit": _audit,
    "revisions": _revisions,
    "silences": _silences,
    "shadows": shadowed.apply,
    "attempts": _attempts,
    "given_up": _given_up,
    "reminders": _reminders,
    "resends": _resends,
    "tokens": _tokens,
    "inspections": inspections.apply,
}
"""What writes which part of a commit, in this order: evidence refers to events."""
