"""Shadow policies in the embedded store: rows of a commit, and rows to values."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from probed.shadows import MAX_EVENTS, RecoveredShadows, Shadow, ShadowChanges, ShadowEvent
from probed.store.rows import Row, streak_of, streak_text

EVENTS = """
SELECT * FROM shadow_event WHERE policy = ?1 AND (?2 IS NULL OR (opened_at, target) < (?2, ?3))
ORDER BY opened_at DESC, target DESC LIMIT ?4
"""
_UPSERT = """
INSERT OR REPLACE INTO shadow_event
(policy, target, opened_at, first_failed_at, resolved_at, resolve_reason, occurred, count, value)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_PRUNE = """
DELETE FROM shadow_event WHERE policy = ?1 AND opened_at < (
    SELECT opened_at FROM shadow_event WHERE policy = ?1 ORDER BY opened_at DESC LIMIT 1 OFFSET ?2
)
"""


def apply(connection: sqlite3.Connection, changes: ShadowChanges) -> None:
    for policy in (*changes.removed, *(shadow.policy for shadow in changes.laid)):
        for table in ("shadow_streak", "shadow_event", "shadow"):
            connection.execute(f"DELETE FROM {table} WHERE policy = ?", (policy,))  # noqa: S608 - of three constants
    for shadow in changes.laid:
        row = (shadow.policy, json.dumps(dict(shadow.patch)), shadow.created_at, shadow.author, shadow.reason)
        connection.execute("INSERT INTO shadow (policy, patch, created_at, author, reason) VALUES (?, ?, ?, ?, ?)", row)
    for event in changes.events:
        connection.execute(_UPSERT, _event_row(event))
        connection.execute(_PRUNE, (event.policy, MAX_EVENTS))
    for place, streak in changes.streaks.items():
        row_s = (*place, streak_text(streak))
        connection.execute("INSERT OR REPLACE INTO shadow_streak (policy, target, state) VALUES (?, ?, ?)", row_s)


def recovered(connection: sqlite3.Connection) -> RecoveredShadows:
    open_events = connection.execute("SELECT * FROM shadow_event WHERE resolved_at IS NULL AND occurred = 0")
    return RecoveredShadows(
        tuple(shadow_of(row) for row in connection.execute("SELECT * FROM shadow ORDER BY policy")),
        {
            (row["policy"], row["target"]): streak_of(row["state"])
            for row in connection.execute("SELECT * FROM shadow_streak")
        },
        tuple(events_of(open_events.fetchall())),
    )


def shadow_of(row: Row) -> Shadow:
    return Shadow(row["policy"], json.loads(row["patch"]), row["created_at"], row["author"], row["reason"])


def events_of(rows: Sequence[Row]) -> list[ShadowEvent]:
    return [
        ShadowEvent(
            row["policy"], row["target"], row["opened_at"], row["first_failed_at"], row["resolved_at"],
            row["resolve_reason"], bool(row["occurred"]), row["count"],
            None if row["value"] is None else json.loads(row["value"]),
        )
        for row in rows
    ]  # fmt: skip


def _event_row(event: ShadowEvent) -> tuple[object, ...]:
    value = None if event.value is None else json.dumps(event.value)
    return (
        event.policy, event.target, event.opened_at, event.first_failed_at, event.resolved_at, event.resolve_reason,
        int(event.occurred), event.count, value,
    )  # fmt: skip
