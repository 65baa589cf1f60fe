"""What is read of events: pages of the list, one event, transitions in their order; and the audit log.

A page comes as quickly with any filters among a million events as among a hundred.

An id begins with the time of its event, so a span of time is a span of ids. Everything else that the list can be
filtered by is the *shelf* on which an event stands (schema 0006): a page is the newest of every shelf that the filters
allow, merged until it is full. The newest events of all, which are not shelved yet, are each looked at.

What had begun before a time and was open at it is found by looking at the day before; what lasts longer than a day is
open still, which is a shelf, or has an index of its own (schema 0013).
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from probed.model import CANARY, Event
from probed.store import AuditQuery, EventDetail, EventQuery, Numbering, TransitionRecord
from probed.store.rows import EVENT_COLUMNS, event_of, evidence_of, transition_of

_COLUMNS = ", ".join(EVENT_COLUMNS)
_LAST_ID = "~"
"""After every id."""
_EVER = 1e15
"""Unix seconds beyond every event's, on either side."""
_CHUNK, _LARGEST_CHUNK = 4, 64
_FETCHED = 200
"""Rows that one statement reads by their ids."""

_NO_CANARY = f" AND event <> '{CANARY}'"
"""Only who asks for canaries sees one that is under way."""
_NEWEST = f"""
SELECT {_COLUMNS} FROM event WHERE id >= ? AND id < ? AND opened_at >= ? AND opened_at < ?{_NO_CANARY}
ORDER BY id DESC LIMIT ?
"""  # noqa: S608 - column names are constants
_DOWN = "SELECT event_id FROM placed WHERE shelf = ? AND event_id < ? AND event_id >= ? ORDER BY event_id DESC LIMIT ?"
_HEADS = """
SELECT shelf, (
    SELECT max(event_id) FROM placed WHERE placed.shelf = labelled.shelf AND event_id < ? AND event_id >= ?
) AS head
FROM labelled WHERE number > 0
"""
_LASTING = """
SELECT id FROM event WHERE id >= :day_before AND id < :split AND (state = 'open' OR resolved_at >= :at)
UNION ALL
SELECT id FROM event WHERE resolved_at - opened_at >= 86400.0 AND resolved_at >= :at AND +id < :day_before
UNION ALL
SELECT event_id FROM labelled JOIN placed USING (shelf) WHERE state = 'open' AND number > 0 AND event_id < :day_before
UNION ALL
SELECT id FROM unshelved WHERE state = 'open' AND id < :day_before
LIMIT -1
"""
_FIRST_UNSHELVED = "SELECT id FROM unshelved ORDER BY id LIMIT 1"
_LONG_SECONDS = 86400.0
"""How long an episode lasts that has a place in the index: as the index says it."""
_EVIDENCE = "SELECT * FROM evidence WHERE event_id = ? ORDER BY taken_at, rowid"
_CONSEQUENCES = "SELECT id FROM event WHERE caused_by = ? ORDER BY id"
_HISTORY = """
SELECT seq, kind, at AS turned_at, who, comment FROM transition
WHERE seq IN (SELECT seq FROM turn WHERE event_id = ?) ORDER BY seq
"""
_TRANSITIONS = """
SELECT seq, kind, transition.at AS turned_at, who, comment, event.*
FROM transition JOIN event ON event.id = transition.event_id WHERE seq > ? ORDER BY seq LIMIT ?
"""
_NUMBERING = "SELECT purged.seq AS purged, (SELECT ifnull(max(seq), 0) FROM transition) AS newest FROM purged"


def ids(since: float, until: float) -> tuple[str, str]:
    """``(low, high)``: every event that began in the span has ``low <= id < high`` (see ``incidents.new_id``).

    The milliseconds at both ends may hold others, too. Unix seconds.
    """
    return _beginning(int(since * 1000)), _beginning(int(until * 1000) + 1)


def audit_sql(query: AuditQuery) -> tuple[str, tuple[Any, ...]]:
    """People make few records: by whom and of what is looked for among those of the time."""
    wanted: list[tuple[str, tuple[Any, ...]]] = [
        ("who = ?", (query.who,)),
        ("(action = ? OR substr(action, 1, length(?) + 1) = ? || '.')", (query.action,) * 3),
        ("subject = ?", (query.subject,)),
        ("at >= ?", (query.since,)),
        ("at < ?", (query.until,)),
        ("seq < ?", (query.before_seq,)),
    ]
    given = [(clause, values) for clause, values in wanted if values[0] is not None]
    where = "WHERE " + " AND ".join(clause for clause, _ in given) if given else ""
    sql = f"SELECT * FROM audit {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - clauses are constants
    return sql, (*(value for _, values in given for value in values), query.limit)


def _beginning(milliseconds: int) -> str:
    if milliseconds >= 1 << 48:
        return _LAST_ID
    stamp = f"{max(0, milliseconds):012x}"
    return f"{stamp[:8]}-{stamp[8:12]}"


def page(connection: sqlite3.Connection, query: EventQuery) -> list[Event]:
    """The newest ``query.limit`` events that fit, newest first. Raises what sqlite3 raises."""
    low, high = ids(*_span(query))
    if query.before_id is not None:
        high = min(high, query.before_id)
    if query.active_since is None:
        return _begun(connection, query, low, high)
    split, _ = ids(query.active_since, _EVER)
    found = _begun(connection, query, max(low, split), high)
    if len(found) < query.limit:
        found += _lasting(connection, replace(query, limit=query.limit - len(found)), low, min(split, high))
    return found


def _span(query: EventQuery) -> tuple[float, float]:
    return -_EVER if query.since is None else query.since, _EVER if query.until is None else query.until


def _begun(connection: sqlite3.Connection, query: EventQuery, low: str, high: str) -> list[Event]:
    """Those with ids in ``[low, high)``, whenever they ended."""
    since, until = _span(query)
    if query.silenced or query.silenced_by is not None:
        return _silenced(connection, query, low, high)
    labels = _labels(query)
    if query.silenced is None and not labels:
        rows = connection.execute(_NEWEST, (low, high, since, until, query.limit))
        return [event_of(row) for row in rows]
    row = connection.execute(_FIRST_UNSHELVED).fetchone()
    split = high if row is None else min(high, row["id"])
    found = _fitting(connection, query, max(low, split), high, "event WHERE true")
    merged = _merged(connection, labels, low, split)
    while len(found) < query.limit:
        wanted = list(islice(merged, min(query.limit - len(found), _FETCHED)))
        if not wanted:
            break
        heard = query.silenced is None  # else only what people were told of: nearly all
        found += [
            event
            for event in _by_id(connection, wanted)
            if since <= event.opened_at < until and (heard or not event.silenced)
        ]
    return found


def _silenced(connection: sqlite3.Connection, query: EventQuery, low: str, high: str) -> list[Event]:
    """Of the few that a silence covered: they have an index of their own."""
    # Said as the partial index says it, else SQLite does not take it.
    few = "silenced_by IS NOT NULL" if query.silenced_by is not None else "silenced = 1"
    return _fitting(connection, query, low, high, f"event WHERE {few}")


def _lasting(connection: sqlite3.Connection, query: EventQuery, low: str, high: str) -> list[Event]:
    """Of those with ids in ``[low, high)``, what was open at ``query.active_since``, before which all of them began."""
    at = query.active_since
    assert at is not None
    day_before, split = ids(at - _LONG_SECONDS, _EVER)[0], ids(at, _EVER)[0]
    wanted = {"day_before": day_before, "split": split, "at": at}
    # A limit, if none, and the order of the join: else SQLite walks over all that came before.
    return _fitting(connection, query, low, high, f"({_LASTING}) CROSS JOIN event USING (id) WHERE true", wanted)


def _fitting(
    connection: sqlite3.Connection,
    query: EventQuery,
    low: str,
    high: str,
    few: str,
    wanted: Mapping[str, object] = MappingProxyType({}),
) -> list[Event]:
    """Of the ``few``, which an index finds, those that fit: each is looked at. It is the statement from FROM on."""
    since, until = _span(query)
    asked: dict[str, object] = {"silenced_by": query.silenced_by}
    asked |= {"silenced": None if query.silenced is None else int(query.silenced), **_labels(query)}
    asked = {column: value for column, value in asked.items() if value is not None}
    also = "".join(f" AND {column} = :{column}" for column in asked) + ("" if "event" in asked else _NO_CANARY)
    sql = f"""
        SELECT {_COLUMNS} FROM {few}
            AND id >= :low AND id < :high AND opened_at >= :since AND opened_at < :until{also}
        ORDER BY id DESC LIMIT :limit
    """  # noqa: S608 - all that is put in is constant
    span = {"low": low, "high": high, "since": since, "until": until, "limit": query.limit}
    return [event_of(row) for row in connection.execute(sql, {**asked, **span, **wanted})]


def detail(connection: sqlite3.Connection, event_id: str) -> EventDetail | None:
    """One event with everything that was kept of it."""
    row = connection.execute("SELECT * FROM event WHERE id = ?", (event_id,)).fetchone()
    if row is None:
        return None
    event = event_of(row)
    return EventDetail(
        event,
        json.loads(row["samples_before"]),
        json.loads(row["samples_after"]),
        [item["id"] for item in connection.execute(_CONSEQUENCES, (event_id,))],
        [evidence_of(item) for item in connection.execute(_EVIDENCE, (event_id,))],
        [transition_of(item, event) for item in connection.execute(_HISTORY, (event_id,))],
    )


def transitions(connection: sqlite3.Connection, after: int, limit: int) -> list[TransitionRecord]:
    """The first ``limit`` transitions with a number above ``after``, oldest first; events as they are by now."""
    return [transition_of(row, event_of(row)) for row in connection.execute(_TRANSITIONS, (after, limit))]


def numbering(connection: sqlite3.Connection) -> Numbering:
    row = connection.execute(_NUMBERING).fetchone()
    return Numbering(row["purged"], max(row["purged"], row["newest"]))


def _labels(query: EventQuery) -> dict[str, object]:
    """What the filters ask of a shelf, by column of ``labelled``."""
    labels = {
        "instance": query.instance,
        "event": query.event,
        "severity": query.severity and query.severity.value,
        "state": query.state and query.state.value,
        "suppressed": None if query.suppressed is None else int(query.suppressed),
    }
    return {column: value for column, value in labels.items() if value is not None}


def _merged(connection: sqlite3.Connection, labels: dict[str, object], low: str, high: str) -> Iterator[str]:
    """Ids in ``[low, high)`` on the shelves with these labels, newest first."""
    sql = _HEADS + "".join(f" AND {column} = ?" for column in labels) + ("" if "event" in labels else _NO_CANARY)
    heads = connection.execute(sql, (high, low, *labels.values())).fetchall()
    return heapq.merge(
        *(_down(connection, row["shelf"], row["head"], low) for row in heads if row["head"]), reverse=True
    )


def _down(connection: sqlite3.Connection, shelf: int, head: str, low: str) -> Iterator[str]:
    """One shelf from ``head`` on; most shelves of a page are never asked for more than that."""
    yield head
    size = _CHUNK
    while True:
        rows = connection.execute(_DOWN, (shelf, head, low, size)).fetchall()
        for row in rows:
            yield row["event_id"]
        if len(rows) < size:
            return
        head, size = rows[-1]["event_id"], min(2 * size, _LARGEST_CHUNK)


def _by_id(connection: sqlite3.Connection, wanted: Sequence[str]) -> list[Event]:
    marks = ", ".join("?" * len(wanted))
    sql = f"SELECT {_COLUMNS} FROM event WHERE id IN ({marks}) ORDER BY id DESC"  # noqa: S608 - only marks
    return [event_of(row) for row in connection.execute(sql, wanted)]
