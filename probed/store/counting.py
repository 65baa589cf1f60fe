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
OF_A_DAY = 96

_NEXT = "SELECT min(quarter) AS quarter FROM tally WHERE quarter >= ? AND quarter < ?"
_QUARTERS = "SELECT series, sum(number) AS number FROM tally WHERE quarter >= ? AND quarter < ? GROUP BY series"
_DAY = "SELECT series, number FROM tally_day WHERE day = ?"
_EDGE = """
SELECT event, instance, severity, opened_at FROM event
WHERE id >= ? AND id < ? AND opened_at >= ? AND opened_at < ? AND suppressed = 0
"""

_Series = tuple[str, str, str]
"""(event, instance, severity)"""


def daily(connection: sqlite3.Connection, since: float, until: float, zone: ZoneInfo) -> list[DailyCount]:
    """Announced triggers in ``[since, until)`` by the day of ``zone`` on which they began; newest day first."""
    days: dict[date, Counter[_Series]] = {}
    first, last = math.ceil(since / QUARTER), math.floor(until / QUARTER)
    if first > last:  # within one quarter
        _count_edge(connection, days, since, until, zone)
    else:
        _count_edge(connection, days, since, first * QUARTER, zone)
        _count_quarters(connection, days, first, last, zone)
        _count_edge(connection, days, last * QUARTER, until, zone)
    grades = {grade.value: grade for grade in Severity}
    return [
        DailyCount(day.isoformat(), event, instance, grades[grade], counts[event, instance, grade])
        for day, counts in sorted(days.items(), reverse=True)
        for event, instance, grade in sorted(counts, reverse=True)
    ]


def totals(connection: sqlite3.Connection) -> Mapping[_Series, int]:
    """Events announced ever, purged ones included, by (event, severity, instance)."""
    rows = connection.execute("SELECT event, severity, instance, total FROM series WHERE total > 0")
    return {(row["event"], row["severity"], row["instance"]): row["total"] for row in rows}


def _count_quarters(
    connection: sqlite3.Connection, days: dict[date, Counter[_Series]], first: int, last: int, zone: ZoneInfo
) -> None:
    """Day by day, skipping days on which nothing happened."""
    names: dict[int, _Series] = {
        row["id"]: (row["event"], row["instance"], row["severity"])
        for row in connection.execute("SELECT id, event, instance, severity FROM series")
    }
    sums = _Sums(connection)
    quarter = first
    while True:
        found = connection.execute(_NEXT, (quarter, last)).fetchone()["quarter"]
        if found is None:
            return
        day = datetime.fromtimestamp(found * QUARTER, zone).date()
        quarter = min(last, max(found + 1, math.ceil(_midnight(day + timedelta(days=1), zone) / QUARTER)))
        counts = days.setdefault(day, Counter())
        for series, number in sums.of(found, quarter).items():
            if number:
                counts[names[series]] += number


class _Sums:
    """Numbers by series over spans of quarters, from whole days of UTC and what lies beside them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._last: tuple[tuple[int, int], list[tuple[int, int]]] = ((0, 0), [])

    def of(self, first: int, last: int) -> Counter[int]:
        total: Counter[int] = Counter()
        for day in range(first // OF_A_DAY, math.ceil(last / OF_A_DAY)):
            begin, end = day * OF_A_DAY, (day + 1) * OF_A_DAY
            low, high = max(first, begin), min(last, end)
            if 2 * (high - low) <= OF_A_DAY:
                self._add(total, low, high, 1)
                continue
            for row in self._connection.execute(_DAY, (day,)):
                total[row["series"]] += row["number"]
            self._add(total, begin, low, -1)
            self._add(total, high, end, -1)
        return total

    def _add(self, total: Counter[int], low: int, high: int, sign: int) -> None:
        if low >= high:
            return
        span, rows = self._last
        if span != (low, high):  # what one day leaves to the next is read once for both
            rows = [(row["series"], row["number"]) for row in self._connection.execute(_QUARTERS, (low, high))]
            self._last = ((low, high), rows)
        for series, number in rows:
            total[series] += sign * number


def _count_edge(
    connection: sqlite3.Connection, days: dict[date, Counter[_Series]], since: float, until: float, zone: ZoneInfo
) -> None:
    """A part of a quarter, from the events themselves."""
    if since >= until:
        return
    for row in connection.execute(_EDGE, (*ids(since, until), since, until)):
        day = datetime.fromtimestamp(row["opened_at"], zone).date()
        days.setdefault(day, Counter())[row["event"], row["instance"], row["severity"]] += 1


def _midnight(day: date, zone: ZoneInfo) -> float:
    return datetime.combine(day, time(), zone).timestamp()
