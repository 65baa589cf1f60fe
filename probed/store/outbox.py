"""The outbox in SQL: notices are owed in the transaction of their transition, and settled one attempt at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from probed.model import Event, EventState
from probed.store import Change, numbering
from probed.store.notices import (
    Attempt,
    Backlog,
    Delivery,
    DeliveryQuery,
    Fate,
    GivenUp,
    Notice,
    Reminder,
    Resend,
    Told,
    transition_id,
)
from probed.store.rows import EVENT_COLUMNS, Row, event_of, event_row, json_text

Sql = tuple[str, tuple[Any, ...]]
"""A statement and its values."""
_IS_DEAD = """
delivery.fate IN ('refused', 'expired') AND delivery.told <> 'reminded' AND NOT EXISTS (
    SELECT 1 FROM delivery AS later
    WHERE later.event_id = delivery.event_id AND later.receiver = delivery.receiver AND later.id > delivery.id
    AND (later.fate IN ('owed', 'delivered') OR later.fate <> 'dropped' AND later.told <> 'reminded')
)
"""
"""Whoever was told later how an event is, or is owed that, has missed nothing; after a reminder comes the next."""
_NOW: Mapping[EventState, Told] = {
    EventState.OPEN: Told.OPENED, EventState.RESOLVED: Told.RESOLVED, EventState.OCCURRED: Told.OCCURRED,
}  # fmt: skip


def owe(connection: sqlite3.Connection, seq: int, change: Change) -> None:
    """Owe a transition to the receivers that it names.

    An opening is owed once to each, and once more after a silence; what resolves is owed to those who were owed its
    opening, and to nobody else.
    """
    told = change.told
    if told is None:
        return
    sql = "SELECT receiver FROM delivery WHERE event_id = ? AND told = 'opened' AND fate <> 'dropped'"
    heard = {row[0] for row in connection.execute(sql, (change.event.id,))}
    if told is Told.RESOLVED:
        names = [name for name in change.owed if name in heard]
    else:
        names = [name for name in change.owed if name not in heard or change.kind == "unsilenced"]
    if not names:
        return
    connection.execute("INSERT INTO notice (seq, event) VALUES (?, ?)", (seq, _frozen(change.event)))
    connection.executemany(
        "INSERT INTO delivery (seq, receiver, event_id, told, fate, owed_at) VALUES (?, ?, ?, ?, 'owed', ?)",
        [(seq, name, change.event.id, told.value, change.at) for name in names],
    )


def remind(connection: sqlite3.Connection, reminder: Reminder) -> None:
    """Owe a reminder, as a transition of its own, unless the event was resolved or acknowledged meanwhile."""
    sql = "SELECT * FROM event WHERE id = ? AND state = 'open' AND acked_by IS NULL"
    row = connection.execute(sql, (reminder.event_id,)).fetchone()
    if row is None:
        return
    seq = numbering.add(connection, reminder.event_id, "reminded", reminder.at)
    _owe_now(connection, seq, reminder.receiver, event_of(row), Told.REMINDED, reminder.at)


def resend(connection: sqlite3.Connection, resend: Resend) -> None:
    """Owe an event as it is now, as a transition of its own, unless somebody was quicker to have it sent again."""
    row = connection.execute(*given_up_sql(resend.receiver, resend.event_id)).fetchone()
    if row is None:
        return
    event = event_of(row)
    seq = numbering.add(connection, event.id, "resent", resend.at, resend.who, resend.comment)
    _owe_now(connection, seq, resend.receiver, event, _NOW[event.state], resend.at)


def _owe_now(connection: sqlite3.Connection, seq: int, receiver: str, event: Event, told: Told, at: float) -> None:
    connection.execute("INSERT INTO notice (seq, event) VALUES (?, ?)", (seq, _frozen(event)))
    connection.execute(
        "INSERT INTO delivery (seq, receiver, event_id, told, fate, owed_at) VALUES (?, ?, ?, ?, 'owed', ?)",
        (seq, receiver, event.id, told.value, at),
    )


def settle(connection: sqlite3.Connection, attempt: Attempt) -> None:
    """Note what came of an attempt."""
    settled_at = None if attempt.fate is Fate.OWED else attempt.at
    connection.executemany(
        "UPDATE delivery SET fate = ?, attempts = attempts + 1, tried_at = ?, settled_at = ?, answer = ?"
        " WHERE id = ? AND fate = 'owed'",
        [(attempt.fate.value, attempt.at, settled_at, attempt.answer, number) for number in attempt.ids],
    )


def give_up(connection: sqlite3.Connection, given: GivenUp) -> None:
    connection.execute(
        "UPDATE delivery SET fate = ?, settled_at = ?, answer = ?"
        " WHERE receiver = ? AND fate = 'owed' AND owed_at < coalesce(?, 9e99)",
        (given.fate.value, given.at, given.answer, given.receiver, given.owed_before),
    )


_CANARIES = """
SELECT seq, event_id, EXISTS (SELECT 1 FROM delivery WHERE delivery.event_id = transition.event_id AND fate = 'owed')
FROM transition WHERE seq < 0
"""


def erase_canaries(connection: sqlite3.Connection, *, also_owed: bool = False) -> None:
    """A canary is in the store while it is under way: its transition is numbered below 0, and is no history."""
    for seq, event_id, owed in connection.execute(_CANARIES).fetchall():
        if owed and not also_owed:
            continue
        connection.execute("DELETE FROM delivery WHERE event_id = ?", (event_id,))
        connection.execute("DELETE FROM notice WHERE seq = ?", (seq,))
        connection.execute("DELETE FROM transition WHERE seq = ?", (seq,))
        connection.execute("DELETE FROM event WHERE id = ?", (event_id,))


def owed_sql(receiver: str, limit: int, without: Collection[str]) -> Sql:
    """What a receiver is owed, oldest first, but for some events."""
    marks = ", ".join("?" * len(without))
    sql = f"""
        SELECT event.*, delivery.id AS number, delivery.seq, told, owed_at, attempts, notice.event AS frozen
        FROM delivery JOIN notice ON notice.seq = delivery.seq JOIN event ON event.id = delivery.event_id
        WHERE receiver = ? AND fate = 'owed' AND event_id NOT IN ({marks}) ORDER BY delivery.id LIMIT ?
    """  # noqa: S608 - marks are question marks
    return sql, (receiver, *without, limit)


def notice_of(row: Row) -> Notice:
    # What another version did not know of an event, it has as it is now.
    event = event_of({name: row[name] for name in EVENT_COLUMNS} | json.loads(row["frozen"]))
    told = Told(row["told"])
    transition = transition_id(event.id, told, row["owed_at"])
    return Notice(row["number"], transition, told, event, row["owed_at"], row["attempts"])


BACKLOG = """
SELECT receiver, count(*) AS notices, min(owed_at) AS oldest_at FROM delivery
WHERE fate = 'owed' AND owed_at < ? GROUP BY receiver
"""


def backlog_of(rows: Sequence[Row]) -> Mapping[str, Backlog]:
    return {row["receiver"]: Backlog(row["notices"], row["oldest_at"]) for row in rows}


DEAD_LETTERS = f"""
SELECT receiver, count(*) AS letters FROM delivery NOT INDEXED WHERE {_IS_DEAD} GROUP BY receiver
"""  # noqa: S608 - a constant
"""Few are dead of many: reading all of them as they lie is quicker than by the index that would group them."""


def given_up_sql(receiver: str, event_id: str | None = None) -> Sql:
    """Events of dead letters, in the order of the letters."""
    only = "AND delivery.event_id = ?" if event_id is not None else ""
    sql = f"""
        SELECT event.* FROM delivery JOIN event ON event.id = delivery.event_id
        WHERE delivery.receiver = ? AND {_IS_DEAD} {only} ORDER BY delivery.id
    """  # noqa: S608 - as above
    return sql, (receiver,) if event_id is None else (receiver, event_id)


HEARD = """
SELECT DISTINCT event_id FROM delivery JOIN event ON event.id = delivery.event_id
WHERE event.state = 'open' AND receiver = ? AND told = 'opened' AND fate <> 'dropped'
"""


UNHEEDED = """
SELECT * FROM event WHERE state = 'open' AND acked_by IS NULL AND id IN (
    SELECT event_id FROM delivery WHERE receiver = ? AND told IN ('opened', 'reminded') AND fate <> 'dropped'
    GROUP BY event_id HAVING max(owed_at) <= ? AND sum(fate = 'owed') = 0
)
"""


def history_sql(query: DeliveryQuery) -> Sql:
    clauses: list[str] = []
    values: list[Any] = []
    wanted: list[tuple[str, Any]] = [
        ("delivery.receiver = ?", query.receiver),
        ("delivery.fate = ?", query.fate.value if query.fate else None),
        ("delivery.event_id = ?", query.event_id),
        ("delivery.id < ?", query.before_id),
    ]
    for clause, value in wanted:
        if value is not None:
            clauses.append(clause)
            values.append(value)
    where = "WHERE " + " AND ".join(clauses) if clauses else ""
    sql = f"""
        SELECT delivery.*, event.event, event.instance, {_IS_DEAD} AS dead_letter
        FROM delivery JOIN event ON event.id = delivery.event_id
        {where} ORDER BY delivery.id DESC LIMIT ?
    """  # noqa: S608 - clauses are constants
    return sql, (*values, query.limit)


def delivery_of(row: Row) -> Delivery:
    told = Told(row["told"])
    return Delivery(
        row["id"], row["receiver"], transition_id(row["event_id"], told, row["owed_at"]), row["event_id"], row["event"],
        row["instance"], told, Fate(row["fate"]), row["owed_at"], row["attempts"], row["tried_at"],
        row["settled_at"], row["answer"], bool(row["dead_letter"]),
    )  # fmt: skip


def _frozen(event: Event) -> str:
    return json_text(dict(zip(EVENT_COLUMNS, event_row(event), strict=True)))
