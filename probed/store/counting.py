"""Numbers of events, from what the store keeps of them as they come: never by walking the history."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from probed.model import Severity
from probed.store import DailyCount
from probed.store.listing import ids

QUARTER = 900
"""Seconds. Every zone's offset from UTC is a multiple of it, so days are exact sums of quarters across any DST."""
OF_A_DAY = 96

_SERIES = "SELECT id, event, instance, severity FROM series"
_TOTALS = """
SELECT event, severity, instance, sum(total) AS number FROM (
    SELECT event, severity, instance, total FROM series
    UNION ALL SELECT event, severity, instance, 1 FROM unshelved WHERE suppressed = 0
) GROUP BY event, severity, instance HAVING number > 0
"""
_NEXT = "SELECT min(quarter) AS quarter FROM tally WHERE quarter >= ? AND quarter < ?"
_QUARTERS = "SELECT series, sum(number) AS number FROM tally WHERE quarter >= ? AND quarter < ? GROUP BY series"
_DAY = "SELECT series, number FROM tally_day WHERE day = ?"
_EDGE = """
SELECT event, instance, severity, opened_at FROM event
WHERE id >= ? AND id < ? AND opened_at >= ? AND opened_at < ? AND suppressed = 0
"""

_UNSHELVED = """
SELECT event, instance, severity, opened_at FROM unshelved WHERE opened_at >= ? AND opened_at < ? AND suppressed = 0
"""

_Series = tuple[str, str, str]
"""(event, instance, severity)"""
_Days = dict[date, dict[int, int]]
"""Numbers by series id, by day."""


def daily(connection: sqlite3.Connection, since: float, until: float, zone: ZoneInfo) -> list[DailyCount]:
    """Announced triggers in ``[since, until)`` by the day of ``zone`` on which they began; newest day first.

    All of it in one transaction: meanwhile nothing may be shelved.
    """
    names: dict[int, _Series] = {
        number: (event, instance, severity) for number, event, instance, severity in connection.execute(_SERIES)
    }
    days: _Days = {}
    first, last = math.ceil(since / QUARTER), math.floor(until / QUARTER)
    if first > last:  # within one quarter
        _count_edge(connection, names, days, since, until, zone)
    else:
        _count_edge(connection, names, days, since, first * QUARTER, zone)
        _count_quarters(connection, days, first, last, zone)
        _count_each(connection.execute(_UNSHELVED, (first * QUARTER, last * QUARTER)), names, days, zone)
        _count_edge(connection, names, days, last * QUARTER, until, zone)
    grades = {grade.value: grade for grade in Severity}
    told = [(series, names[series]) for series in sorted(names, key=names.__getitem__, reverse=True)]
    found = []
    for day in sorted(days, reverse=True):
        counts, date_ = days[day], day.isoformat()
        for series, (event, instance, grade) in told:
            number = counts.get(series)
            if number:
                found.append(DailyCount(date_, event, instance, grades[grade], number))
    return found


def totals(connection: sqlite3.Connection) -> Mapping[_Series, int]:
    """Events announced ever, purged ones included, by (event, severity, instance)."""
    rows = connection.execute(_TOTALS)
    return {(row["event"], row["severity"], row["instance"]): row["number"] for row in rows}


def _count_quarters(connection: sqlite3.Connection, days: _Days, first: int, last: int, zone: ZoneInfo) -> None:
    """Day by day, skipping days on which nothing happened."""
    sums = _Sums(connection)
    quarter = first
    while True:
        found = connection.execute(_NEXT, (quarter, last)).fetchone()["quarter"]
        if found is None:
            return
        day = datetime.fromtimestamp(found * QUARTER, zone).date()
        quarter = min(last, max(found + 1, math.ceil(_midnight(day + timedelta(days=1), zone) / QUARTER)))
        counts = sums.of(found, quarter)
        _add(counts, days.get(day, {}).items(), 1)
        days[day] = counts


class _Sums:
    """Numbers by series over spans of quarters, from whole days of UTC and what lies beside them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._last: tuple[tuple[int, int], list[tuple[int, int]]] = ((0, 0), [])

    def of(self, first: int, last: int) -> dict[int, int]:
        total: dict[int, int] = {}
        for day in range(first // OF_A_DAY, math.ceil(last / OF_A_DAY)):
            begin, end = day * OF_A_DAY, (day + 1) * OF_A_DAY
            low, high = max(first, begin), min(last, end)
            if 2 * (high - low) <= OF_A_DAY:
                _add(total, self._beside(low, high), 1)
                continue
            _add(total, self._connection.execute(_DAY, (day,)), 1)
            _add(total, self._beside(begin, low), -1)
            _add(total, self._beside(high, end), -1)
        return total

    def _beside(self, low: int, high: int) -> Iterable[tuple[int, int]]:
        if low >= high:
            return ()
        span, rows = self._last
        if span != (low, high):  # what one day leaves to the next is read once for both
            rows = [(series, number) for series, number in self._connection.execute(_QUARTERS, (low, high))]
            self._last = ((low, high), rows)
        return rows


def _add(total: dict[int, int], rows: Iterable[tuple[int, int]], sign: int) -> None:
    for series, number in rows:
        total[series] = total.get(series, 0) + sign * number


def _count_edge(
    connection: sqlite3.Connection,
    names: dict[int, _Series],
    days: _Days,
    since: float,
    until: float,
    zone: ZoneInfo,
) -> None:
    """A part of a quarter, from the events themselves."""
    if since < until:
        _count_each(connection.execute(_EDGE, (*ids(since, until), since, until)), names, days, zone)


def _count_each(rows: sqlite3.Cursor, names: dict[int, _Series], days: _Days, zone: ZoneInfo) -> None:
    """Event by event. A series of which nothing is shelved yet has no number; it gets one that is none."""
    known = {name: series for series, name in names.items()}
    for event, instance, severity, opened_at in rows:
        name = (event, instance, severity)
        series = known.setdefault(name, -len(known))
        names[series] = name
        counts = days.setdefault(datetime.fromtimestamp(opened_at, zone).date(), {})
        _add(counts, ((series, 1),), 1)


def _midnight(day: date, zone: ZoneInfo) -> float:
    return datetime.combine(day, time(), zone).timestamp()
