"""What the recorded samples show of some readings over days: percentiles, extremes and a line for a chart.

Extremes and lines come from the digests of chunks, which are read unopened; percentiles from chunks that are opened,
all of them where that is affordable, else a part that is spread evenly. Runs in a child process (``child``).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct, to_builtins

from probed import child
from probed.recording.chunks import Columns
from probed.recording.reading import Chunk, Place, Reading

SECONDS = 120.0
"""After which a fleet's traces are given up."""
MOST_OPENED, LEAST_OPENED = 6000, 6
"""Chunks that are opened for one inspection, and of one place at least."""
POINTS = 500
SLOPE_POINTS = 120


class Wanted(Struct, frozen=True):
    """Readings of one probe."""

    probe: str
    chart: str
    """The reading whose line is drawn."""
    low: bool = False
    """The worst is the least one."""
    quantiles: tuple[float, ...] = ()
    """Of the same reading, 0 to 1; none are asked for: no chunk is opened."""
    slope: bool = False
    """How it rises or falls over all of the time."""
    also: tuple[str, ...] = ()
    """Readings of which the newest bound is wanted."""
    only_above: tuple[str, float] | None = None
    """(reading, least value): samples that have less of it count for nothing."""


class Task(Struct, frozen=True):
    path: Path
    since: float
    until: float
    wanted: tuple[Wanted, ...]
    instances: tuple[str, ...]


class Trace(Struct, frozen=True):
    """What is recorded of one reading on one target. Times are Unix seconds."""

    probe: str
    reading: str
    target: str
    instance: str
    node: str
    first_at: float
    last_at: float
    samples: int
    """That percentiles are taken of; 0 where none were wanted."""
    worst: float
    newest: float
    quantiles: Mapping[str, float]
    """``0.95`` -> value."""
    slope: float | None
    """Per second; the median of those between any two hours, so that no single one decides."""
    also: Mapping[str, float]
    points: Sequence[tuple[float, float]]


async def traces(task: Task) -> list[Trace]:
    """Everything that is recorded of what is wanted. StoreError when it cannot be read."""
    found = await child.ask(__name__, task, seconds=SECONDS, what="trends")
    return [Trace(**{**one, "points": tuple((at, value) for at, value in one["points"])}) for one in found]


def main() -> None:
    """The child."""
    child.serve(_work, (sqlite3.Error, ValueError, TypeError))


def _work(task: Task, progress: Callable[[float], None]) -> list[dict[str, Any]]:
    with closing(Reading(task.path)) as reading:
        reading.hold()
        known = frozenset(task.instances)
        places = [
            (wanted, place)
            for wanted in task.wanted
            for place in reading.places(wanted.probe)
            if place.target.instance in known
        ]
        opening = sum(bool(wanted.quantiles) for wanted, _ in places)
        budget = max(LEAST_OPENED, MOST_OPENED // max(1, opening))
        found = []
        for number, (wanted, place) in enumerate(places):
            trace = trace_of(reading, wanted, place, task.since, task.until, budget)
            found += [] if trace is None else [to_builtins(trace)]
            progress((number + 1) / len(places))
        return found


def trace_of(reading: Reading, wanted: Wanted, place: Place, since: float, until: float, budget: int) -> Trace | None:
    """``None`` when nothing is recorded of it. ``budget``: chunks that may be opened."""
    chunks = [chunk for chunk in reading.chunks(place, since, until) if wanted.chart in chunk.digest.extents]
    bounds = [_bound(chunk, wanted.chart, low=wanted.low) for chunk in chunks]
    points = [
        (chunk.digest.last_at, bound) for chunk, bound in zip(chunks, bounds, strict=True) if math.isfinite(bound)
    ]
    if not points:
        return None
    cells = _cells(chunks, wanted, since, until, budget) if wanted.quantiles else []
    worst = min if wanted.low else max
    return Trace(
        wanted.probe, wanted.chart, place.target.key, place.target.instance, place.target.node,
        max(since, chunks[0].digest.first_at), chunks[-1].digest.last_at, len(cells),
        worst(value for _, value in points), points[-1][1],
        {f"{share:g}": quantile(cells, share) for share in wanted.quantiles} if cells else {},
        slope(points) if wanted.slope else None,
        {name: bound for name in wanted.also if math.isfinite(bound := _bound(chunks[-1], name, low=False))},
        thinned(points, POINTS, low=wanted.low),
    )  # fmt: skip


def _bound(chunk: Chunk, reading: str, *, low: bool) -> float:
    extent = chunk.digest.extents.get(reading)
    if extent is None:
        return math.nan
    return extent.lowest if low else extent.highest


def _cells(chunks: Sequence[Chunk], wanted: Wanted, since: float, until: float, budget: int) -> list[float]:
    """Values in order of size."""
    step = max(1, math.ceil(len(chunks) / budget))
    cells: list[float] = []
    for chunk in chunks[::-step]:
        cells += _of(chunk.load(), wanted, since, until)
    return sorted(cells)


def _of(columns: Columns, wanted: Wanted, since: float, until: float) -> list[float]:
    values = columns.readings.get(wanted.chart, [])
    if wanted.only_above is not None:
        reading, least = wanted.only_above
        weights = columns.readings.get(reading, [None] * len(values))
        values = [
            value if isinstance(weight, float | int) and weight >= least else None
            for value, weight in zip(values, weights, strict=True)
        ]
    return [
        float(value)
        for at, value in zip(columns.ats, values, strict=True)
        if isinstance(value, float | int) and since <= at < until
    ]


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank."""
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The median slope between any two points (Theil and Sen); ``None`` when there are not two."""
    few = points[:: max(1, math.ceil(len(points) / SLOPE_POINTS))]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(few)
        for later in few[index + 1 :]
        if later[0] > earlier[0]
    ]
    return median(slopes) if slopes else None


def thinned(points: Sequence[tuple[float, float]], most: int, *, low: bool) -> list[tuple[float, float]]:
    """At most so many: of neighbours the worst one."""
    size = max(1, math.ceil(len(points) / most))
    worst = min if low else max
    return [worst(points[start : start + size], key=lambda point: point[1]) for start in range(0, len(points), size)]


if __name__ == "__main__":
    main()
