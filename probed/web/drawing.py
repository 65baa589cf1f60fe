"""Samples along time as the geometry of an SVG: marks by outcome, a reading's line, a threshold, flags. Pure.

Units are those of the drawing (960 wide); the templates turn them into elements, the style sheet into
colours. Where nothing was kept for long between two samples, the axis breaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from msgspec import Struct

from probed import wording
from probed.scales import bounds
from probed.web import marks

WIDTH = 960
LEFT, RIGHT, TOP = 12, 948, 58
"""The field that samples are drawn in; flags stand above it, times below."""
DEEP, SHALLOW = 158, 78
"""Where its ground line lies: with values to draw, and with a row of marks only."""
BREAK_WIDTH = 40
MIN_BREAK_SECONDS, BREAK_RATIO = 60.0, 8.0
"""The axis breaks where nothing was kept for at least so long, and for so many times the usual distance."""
TICK_WIDTH, FLAG_WIDTH, LETTER_WIDTH = 110, 12, 7.5
_SHARES = {"start": 0.0, "middle": 0.5, "end": 1.0}
"""How much of a label stands left of its place, by its anchor."""
MAX_FLAG_ROWS = 3
LONG_SECONDS = 6 * 3600.0
"""From so long a span on, ticks carry the day."""

Height = Callable[[float], float]
"""A value's place on the y axis."""


class Dot(Struct, frozen=True):
    """One sample: when, what it came to, the reading's value if it has one."""

    at: float
    outcome: str
    value: float | None = None
    said: str = ""


class Flagged(Struct, frozen=True):
    at: float
    label: str
    look: str = ""


class Point(Struct, frozen=True):
    x: float
    y: float
    look: str
    title: str


class Flag(Struct, frozen=True):
    x: float
    y: float
    label: str
    look: str
    anchor: str


class Tick(Struct, frozen=True):
    x: float
    label: str
    anchor: str


class Plot(Struct, frozen=True):
    ground: int
    """Where the axis lies."""
    points: tuple[Point, ...]
    lines: tuple[str, ...]
    """Each the ``points`` of a polyline."""
    rule: float | None
    """Where the threshold lies."""
    rule_label: str
    flags: tuple[Flag, ...]
    ticks: tuple[Tick, ...]
    breaks: tuple[float, ...]
    high: str
    """The value at the field's upper edge; empty when there is no reading to draw."""
    low: str
    told: str
    """The drawing in a sentence, for who does not see it."""


class _Axis:
    """Time to x, in pieces with breaks between them."""

    def __init__(self, times: Sequence[float]) -> None:
        ordered = sorted(times)
        distances = sorted(later - earlier for earlier, later in pairwise(ordered))
        usual = distances[len(distances) // 2] if distances else 0.0
        self.span = ordered[-1] - ordered[0]
        limit = max(MIN_BREAK_SECONDS, BREAK_RATIO * usual)
        pieces: list[list[float]] = [[ordered[0], ordered[0]]]
        for at in ordered[1:]:
            if at - pieces[-1][1] > limit:
                pieces.append([at, at])
            else:
                pieces[-1][1] = at
        total = sum(end - begin for begin, end in pieces)
        free = RIGHT - LEFT - BREAK_WIDTH * (len(pieces) - 1)
        self.pieces: list[tuple[float, float, float, float]] = []
        x = float(LEFT)
        for begin, end in pieces:
            # A piece of one sample must not stand in the break.
            width = free * ((end - begin) / total if total else 1 / len(pieces))
            self.pieces.append((begin, end, x, width))
            x += width + BREAK_WIDTH
        self.breaks = tuple(round(piece[2] - BREAK_WIDTH / 2, 1) for piece in self.pieces[1:])

    def x(self, at: float) -> float:
        for begin, end, x, width in self.pieces:
            if at < begin:
                return round(max(LEFT, x - BREAK_WIDTH / 2), 1)
            if at <= end:
                return round(x + (width * (at - begin) / (end - begin) if end > begin else width / 2), 1)
        return float(RIGHT)

    def piece(self, at: float) -> int:
        return next((number for number, piece in enumerate(self.pieces) if at <= piece[1]), len(self.pieces))


def plot(
    dots: Sequence[Dot], *, reading: str, threshold: float | None, flags: Iterable[Flagged], zone: ZoneInfo
) -> Plot | None:
    """``None`` when there is nothing to draw. ``reading`` names the values and with them their unit."""
    flags = sorted(flags, key=lambda flag: flag.at)
    dots = sorted(dots, key=lambda dot: dot.at)
    if not dots:
        return None
    axis = _Axis([dot.at for dot in dots] + [flag.at for flag in flags])
    values = [value for dot in dots if (value := _finite(dot)) is not None]
    drawn = [*values, threshold] if values and threshold is not None else values
    low, high = bounds(drawn)
    ground = DEEP if values else SHALLOW

    def y(value: float) -> float:
        return round(ground - (ground - TOP) * (value - low) / (high - low), 1)

    points = tuple(_point(dot, axis, y, reading, zone, bool(values)) for dot in dots)
    return Plot(
        ground,
        points,
        tuple(_lines(dots, axis, y)) if values else (),
        y(threshold) if values and threshold is not None else None,
        f"threshold {wording.quantity(reading, threshold)}" if values and threshold is not None else "",
        tuple(_flags(flags, axis)),
        tuple(_ticks(axis, zone)),
        axis.breaks,
        wording.quantity(reading, high) if values else "",
        wording.quantity(reading, low) if values else "",
        _told(dots, reading, values),
    )


def _point(dot: Dot, axis: _Axis, y: Height, reading: str, zone: ZoneInfo, has_values: bool) -> Point:
    mark = marks.of_outcome(dot.outcome)
    value = _finite(dot)
    # What has no value stands on the ground line; without any values all stand in the middle, in one row.
    place = y(value) if value is not None else DEEP if has_values else (TOP + SHALLOW) / 2
    shown = f", {wording.quantity(reading, value)}" if value is not None else ""
    said = f": {dot.said}" if dot.said else ""
    when = f"{datetime.fromtimestamp(dot.at, zone):%H:%M:%S}"
    return Point(axis.x(dot.at), place, mark.look, f"{when} {mark.word}{shown}{said}")


def _finite(dot: Dot) -> float | None:
    return dot.value if dot.value is not None and math.isfinite(dot.value) else None


def _lines(dots: Sequence[Dot], axis: _Axis, y: Height) -> Iterable[str]:
    run: list[str] = []
    piece = -1
    for dot in dots:
        value = _finite(dot)
        if run and (value is None or axis.piece(dot.at) != piece):
            yield " ".join(run)
            run = []
        if value is not None:
            run.append(f"{axis.x(dot.at)},{y(value)}")
            piece = axis.piece(dot.at)
    if run:
        yield " ".join(run)


def _flags(flags: Sequence[Flagged], axis: _Axis) -> Iterable[Flag]:
    """Labels that would stand in each other's way take rows of their own."""
    ends = [-math.inf] * MAX_FLAG_ROWS
    for flag in flags:
        x = axis.x(flag.at)
        left = x > WIDTH * 0.8
        width = LETTER_WIDTH * len(flag.label) + FLAG_WIDTH
        begin = x - width if left else x
        row = next((number for number, end in enumerate(ends) if begin >= end), MAX_FLAG_ROWS - 1)
        ends[row] = begin + width
        yield Flag(x, 14 + 15 * row, flag.label, flag.look, "end" if left else "start")


def _ticks(axis: _Axis, zone: ZoneInfo) -> Iterable[Tick]:
    form = "%H:%M:%S" if axis.span < LONG_SECONDS else "%m-%d %H:%M"
    last = len(axis.pieces) - 1
    written = -math.inf
    for number, (begin, end, x, width) in enumerate(axis.pieces):
        lasts = end > begin
        steps = int(width // TICK_WIDTH) if lasts else 0
        for step in range(steps + 1):
            share = step / steps if steps else 0.0 if lasts else 0.5
            place = x + width * share
            # At a break, each label stays on its own side.
            if place > RIGHT - 30 or (number < last and 0 < step == steps):
                anchor = "end"
            elif place < LEFT + 30 or (number > 0 and step == 0 and lasts):
                anchor = "start"
            else:
                anchor = "middle"
            label = f"{datetime.fromtimestamp(begin + (end - begin) * share, zone):{form}}"
            length = LETTER_WIDTH * len(label)
            left = place - length * _SHARES[anchor]
            if left > written:
                written = left + length
                yield Tick(round(place, 1), label, anchor)


def _told(dots: Sequence[Dot], reading: str, values: Sequence[float]) -> str:
    counts: dict[str, int] = {}
    for dot in dots:
        word = marks.of_outcome(dot.outcome).word
        counts[word] = counts.get(word, 0) + 1
    said = f"{wording.count(len(dots), 'sample')}: {', '.join(f'{number} {word}' for word, number in counts.items())}"
    if values:
        least, most = wording.quantity(reading, min(values)), wording.quantity(reading, max(values))
        said += f"; {wording.label(reading)} from {least} to {most}"
    return said
