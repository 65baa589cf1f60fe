"""Numbers of events, from what the store keeps of them as they come: never by walking the history."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from probed.model import Severity
from probed.store import DailyCount
from probed.store.listing import ids

QUARTER = 900
"""Seconds. Every zone's offset from UTC is a multiple of it, so days are exact sums of quarters across any DST."""

_NEXT = "SELECT min(quarter) AS quarter FROM tally WHERE quarter >= ? AND quarter < ?"
_SUMS = "SELECT series, sum(number) AS number FROM tally WHERE quarter >= ? AND quarter < ? GROUP BY series"
_EDGE = """
SELECT event, instance, severity, opened_at FROM event
WHERE id >= ? AND id < ? AND opened_at >= ? AND opened_at < ? AND suppressed = 0
"""

_Series = tuple[str, str, str]
"""(event, instance, severity)"""


def daily(connection: sqlite3.Connection, since: float, until: float, zone: ZoneInfo) -> list[DailyCount]:
    """Announced triggers in ``[since, until)`` by the day of ``zone`` on which they began; newest day first."""
    counts: Counter[tuple[str, _Series]] = Counter()
    first, last = math.ceil(since / QUARTER), math.floor(until / QUARTER)
    if first > last:  # within one quarter
        _count_edge(connection, counts, since, until, zone)
    else:
        _count_edge(connection, counts, since, first * QUARTER, zone)
        _count_quarters(connection, counts, first, last, zone)
        _count_edge(connection, counts, last * QUARTER, until, zone)
    ordered = sorted(counts.items(), reverse=True)
    return [DailyCount(day, event, name, Severity(grade), number) for (day, (event, name, grade)), number in ordered]


def totals(connection: sqlite3.Connection) -> Mapping[_Series, int]:
    """Events announced ever, purged ones included, by (event, severity, instance)."""
    rows = connection.execute("SELECT event, severity, instance, total FROM series WHERE total > 0")
    return {(row["event"], row["severity"], row["instance"]): row["total"] for row in rows}


def _count_quarters(
    connection: sqlite3.Connection, counts: Counter[tuple[str, _Series]], first: int, last: int, zone: ZoneInfo
) -> None:
    """Day by day, skipping days on which nothing happened."""
    names: dict[int, _Series] = {
        row["id"]: (row["event"], row["instance"], row["severity"])
        for row in connection.execute("SELECT id, event, instance, severity FROM series")
    }
    quarter = first
    while True:
        found = connection.execute(_NEXT, (quarter, last)).fetchone()["quarter"]
        if found is None:
            return
        day = datetime.fromtimestamp(found * QUARTER, zone).date()
        quarter = min(last, max(found + 1, math.ceil(_midnight(day + timedelta(days=1), zone) / QUARTER)))
        for row in connection.execute(_SUMS, (found, quarter)):
            counts[day.isoformat(), names[row["series"]]] += row["number"]


def _count_edge(
    connection: sqlite3.Connection, counts: Counter[tuple[str, _Series]], since: float, until: float, zone: ZoneInfo
) -> None:
    """A part of a quarter, from the events themselves."""
    if since >= until:
        return
    for row in connection.execute(_EDGE, (*ids(since, until), since, until)):
        day = datetime.fromtimestamp(row["opened_at"], zone).date().isoformat()
        counts[day, (row["event"], row["instance"], row["severity"])] += 1


def _midnight(day: date, zone: ZoneInfo) -> float:
    return datetime.combine(day, time(), zone).timestamp()
