"""The list of events: filters as links, triggers per day as a grid. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

from msgspec import Struct

from probed.model import Event, EventState, Severity
from probed.store import DailyCount
from probed.web import marks
from probed.web.incident import state_of
from probed.web.marks import Mark
from probed.web.overview import where

DAYS = 30
SHADES = 4


class Row(Struct, frozen=True):
    event: Event
    mark: Mark
    state: str
    where: str


class Cell(Struct, frozen=True):
    """``shade`` is 0 (none) to 4 (the most of the grid)."""

    day: str
    until: str
    """The day after: where the link's span ends."""
    number: int
    shade: int


class Line(Struct, frozen=True):
    event: str
    name: str
    mark: Mark
    """Of the gravest trigger."""
    cells: tuple[Cell, ...]
    total: int


class Grid(Struct, frozen=True):
    days: tuple[date, ...]
    lines: tuple[Line, ...]
    total: int


def rows(events: Iterable[Event]) -> tuple[Row, ...]:
    return tuple(
        Row(
            event,
            marks.RESOLVED if event.state is EventState.RESOLVED else marks.of_severity(event.severity),
            state_of(event),
            where(event),
        )
        for event in events
    )


def grid(counts: Sequence[DailyCount], names: Mapping[str, str], today: date, days: int = DAYS) -> Grid:
    """Event types x days up to ``today``; only types that were triggered. ``names`` by event type."""
    span = [today - timedelta(days=back) for back in reversed(range(days))]
    numbers: dict[str, dict[str, int]] = {}
    worst: dict[str, Severity] = {}
    for count in counts:
        per_day = numbers.setdefault(count.event, {})
        per_day[count.date] = per_day.get(count.date, 0) + count.count
        seen = worst.get(count.event, count.severity)
        worst[count.event] = min(seen, count.severity, key=lambda severity: severity.rank)
    most = max((number for per_day in numbers.values() for number in per_day.values()), default=0)
    lines = [
        Line(
            event,
            names.get(event, event),
            marks.of_severity(worst[event]),
            tuple(_cell(day, per_day.get(day.isoformat(), 0), most) for day in span),
            sum(per_day.get(day.isoformat(), 0) for day in span),
        )
        for event, per_day in numbers.items()
    ]
    lines.sort(key=lambda line: (line.mark.rank, -line.total, line.event))
    return Grid(tuple(span), tuple(lines), sum(line.total for line in lines))


def _cell(day: date, number: int, most: int) -> Cell:
    shade = 0 if number == 0 else max(1, -(-SHADES * number // most))
    return Cell(day.isoformat(), (day + timedelta(days=1)).isoformat(), number, shade)
