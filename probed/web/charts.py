"""Readings of one target along time, a chart for each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zoneinfo import ZoneInfo

from msgspec import Struct

from probed import wording
from probed.model import Outcome, Reading
from probed.web import drawing
from probed.web.drawing import Dot, Plot


class Taken(Struct, frozen=True):
    """One sample, from memory or from the store. ``at`` is Unix seconds."""

    at: float
    outcome: str
    readings: Mapping[str, Reading]
    reason: str = ""


class Chart(Struct, frozen=True):
    name: str
    now: str
    """The newest value with its unit."""
    plot: Plot


def charts(taken: Sequence[Taken], thresholds: Mapping[str, float], zone: ZoneInfo) -> tuple[Chart, ...]:
    """One per reading that is a number, in the order of the probe; a row of marks when there is none."""
    names = dict.fromkeys(
        name for sample in taken for name, value in sample.readings.items() if not isinstance(value, str)
    )
    made = []
    for name in names or [""]:
        dots = [
            Dot(sample.at, sample.outcome, _number(sample, name), sample.reason)
            for sample in taken
            if not _lacks(sample, name)
        ]
        plot = drawing.plot(dots, reading=name, threshold=thresholds.get(name), flags=(), zone=zone)
        newest = next((dot.value for dot in reversed(dots) if dot.value is not None), None)
        if plot is not None:
            now = wording.quantity(name, newest) if newest is not None else ""
            made.append(Chart(wording.label(name) or "outcomes", now, plot))
    return tuple(made)


def _number(sample: Taken, name: str) -> float | None:
    value = sample.readings.get(name)
    return float(value) if isinstance(value, int | float) and sample.outcome == Outcome.OBSERVED.value else None


def _lacks(sample: Taken, name: str) -> bool:
    """Whether it is a good sample without this reading: not each login is timed, and a mark on the axis would say 0."""
    return bool(name) and sample.outcome == Outcome.OBSERVED.value and name not in sample.readings
