"""Readings along a report's days as the geometry of an SVG. Pure.

Units are those of the drawing (720 wide). Lines are told apart by their number and their dashes, never by colour alone;
what each of them is, and its figures, stand in a table below it, where a long name may wrap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby, pairwise
from operator import itemgetter
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from probed import wording
from probed.inspection import Chart, Series
from probed.scales import bounds, round_times, round_values

WIDTH, HEIGHT = 720, 168
LEFT, RIGHT, TOP, GROUND = 64, 700, 14, 146
"""The field of the lines: values left of it, their numbers right of it, times below."""
MAX_LINES = 6
"""In one drawing; a chart of more is drawn in several, on one scale."""
GRAIN = 6
"""So near beside each other, points are not told apart."""
MAX_TICKS, MAX_LEVELS, LABEL_HEIGHT = 8, 5, 11
MIN_GAP_SECONDS, GAP_RATIO = 60.0, 8.0
"""A line breaks where nothing was kept for at least so long, and for so many times the usual distance."""
DASHES = ("", "7 3", "2 3", "10 3 2 3", "14 4", "1 4")
_NAMES: Mapping[str, str] = {"seconds": "_seconds", "bytes": "_bytes", "percent": "_pct"}
"""How a name ends whose values have this unit."""


class Line(Struct, frozen=True):
    number: int
    label: str
    dashes: str
    runs: tuple[str, ...]
    """Each the ``points`` of a polyline; a new one begins behind a gap."""
    dots: tuple[tuple[float, float], ...]
    """Where a run has one point only."""
    tag: tuple[float, float]
    """Where its number stands."""
    least: str
    most: str
    last: str
    spark: tuple[float, ...]
    """The same from 0 (the field's foot) to 1 (its top), at most 24 of them."""


class Tick(Struct, frozen=True):
    x: float
    label: str
    anchor: str


class Drawing(Struct, frozen=True):
    title: str
    lines: tuple[Line, ...]
    """None: nothing was recorded."""
    levels: tuple[tuple[float, str], ...]
    """Heights of round values, with these."""
    ticks: tuple[Tick, ...]
    rule: float | None
    """Where the threshold lies."""
    rule_label: str
    told: str
    """The drawing in a sentence, for who does not see it."""


def drawings(charts: Sequence[Chart], zone: ZoneInfo) -> tuple[Drawing, ...]:
    return tuple(drawing for chart in charts for drawing in _drawn(chart, zone))


def _drawn(chart: Chart, zone: ZoneInfo) -> Iterator[Drawing]:
    name = _NAMES.get(chart.unit, "")
    threshold = chart.threshold if chart.threshold is not None and math.isfinite(chart.threshold) else None
    series = [(each.label, points) for each in chart.series if (points := _finite(each))]
    if not series:
        yield Drawing(chart.title, (), (), (), None, "", f"{chart.title}: nothing was recorded")
        return
    values = [value for _, points in series for _, value in points]
    low, high = bounds(values if threshold is None else [*values, threshold])
    field = _Field(min(points[0][0] for _, points in series), max(points[-1][0] for _, points in series), low, high)
    for begin in range(0, len(series), MAX_LINES):
        some = series[begin : begin + MAX_LINES]
        lines = tuple(
            _line(begin + index + 1, DASHES[index], label, points, field, name)
            for index, (label, points) in enumerate(some)
        )
        more = f" ({begin + 1} to {begin + len(some)} of {len(series)})" if len(series) > MAX_LINES else ""
        yield Drawing(
            chart.title + more,
            _spread(lines),
            tuple(
                (field.y(value), wording.quantity(name, round(value, 9)))
                for value in round_values(low, high, chart.unit, MAX_LEVELS)
            ),
            tuple(_ticks(field, zone)),
            field.y(threshold) if threshold is not None else None,
            f"threshold {wording.quantity(name, threshold)}" if threshold is not None else "",
            _told(chart.title + more, lines, wording.quantity(name, threshold) if threshold is not None else ""),
        )


def _finite(series: Series) -> list[tuple[float, float]]:
    return sorted(point for point in series.points if all(map(math.isfinite, point)))


class _Field(Struct, frozen=True):
    """Times and values to places."""

    begin: float
    end: float
    low: float
    high: float

    def x(self, at: float) -> float:
        if self.end <= self.begin:
            return (LEFT + RIGHT) / 2
        return round(LEFT + (RIGHT - LEFT) * (at - self.begin) / (self.end - self.begin), 1)

    def y(self, value: float) -> float:
        return round(GROUND - (GROUND - TOP) * (value - self.low) / (self.high - self.low), 1)

    def thinned(self, run: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
        """Its lowest and highest point within each ``GRAIN``: what can be seen of it."""
        grain = (self.end - self.begin) * GRAIN / (RIGHT - LEFT) or 1.0
        for _, group in groupby(run, lambda point: (point[0] - self.begin) // grain):
            points = list(group)
            if len(points) <= 2:
                yield from points
            else:
                yield from sorted({min(points, key=itemgetter(1)), max(points, key=itemgetter(1))})


def _line(
    number: int, dashes: str, label: str, points: Sequence[tuple[float, float]], field: _Field, name: str
) -> Line:
    runs, dots = [], []
    for run in _runs(points):
        places = [(field.x(at), field.y(value)) for at, value in field.thinned(run)]
        if len(places) == 1:
            dots += places
        else:
            runs.append(" ".join(f"{x},{y}" for x, y in places))
    values = [value for _, value in points]
    return Line(
        number,
        label,
        dashes,
        tuple(runs),
        tuple(dots),
        (min(field.x(points[-1][0]) + 5, RIGHT + 5), field.y(values[-1]) + 4),
        wording.quantity(name, min(values)),
        wording.quantity(name, max(values)),
        wording.quantity(name, values[-1]),
        tuple((value - field.low) / (field.high - field.low) for value in _few(values)),
    )


def _few(values: Sequence[float], most: int = 24) -> list[float]:
    """So many of them, the highest of each stretch."""
    size = math.ceil(len(values) / most)
    return [max(values[begin : begin + size]) for begin in range(0, len(values), size)]


def _runs(points: Sequence[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    distances = sorted(later[0] - earlier[0] for earlier, later in pairwise(points))
    usual = distances[len(distances) // 2] if distances else 0.0
    run = [points[0]]
    for earlier, later in pairwise(points):
        if later[0] - earlier[0] > max(MIN_GAP_SECONDS, GAP_RATIO * usual):
            yield run
            run = []
        run.append(later)
    yield run


def _spread(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """Their numbers moved apart, so that each can be read."""
    below = math.inf
    moved: dict[int, Line] = {}
    for line in sorted(lines, key=lambda line: line.tag[1], reverse=True):
        y = min(line.tag[1], below - LABEL_HEIGHT)
        moved[line.number] = replace(line, tag=(line.tag[0], round(y, 1)))
        below = y
    return tuple(moved[line.number] for line in lines)


def _ticks(field: _Field, zone: ZoneInfo) -> Iterator[Tick]:
    times = list(round_times(field.begin, field.end, zone, MAX_TICKS)) or [field.begin]
    days = all(_at(at, zone).hour == _at(at, zone).minute == 0 for at in times) and len(times) > 1
    long = field.end - field.begin > 86400 or _at(field.begin, zone).date() != _at(field.end, zone).date()
    form = "%m-%d" if days else "%m-%d %H:%M" if long else "%H:%M"
    for at in times:
        x = field.x(at)
        anchor = "start" if x < LEFT + 20 else "end" if x > RIGHT - 20 else "middle"
        yield Tick(x, f"{_at(at, zone):{form}}", anchor)


def _at(at: float, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at, zone)


def _told(title: str, lines: Sequence[Line], threshold: str) -> str:
    said = "; ".join(f"{line.label} from {line.least} to {line.most}, last {line.last}" for line in lines)
    return f"{title}: {said}" + (f"; threshold {threshold}" if threshold else "")
