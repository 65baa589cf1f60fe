"""Values and times onto the axes of a drawing. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_STEPS = (300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600)
"""Seconds between round times within a day."""
_DAYS = (1, 2, 7, 14, 28, 91, 182, 364)


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """A field that holds all values, from zero where that is near."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if low > 0 and low < high * 0.6:
        low = 0.0
    if high == low:
        return (min(0.0, low), high if high > 0 else low + 1.0) if low != 0 else (0.0, 1.0)
    return low, high + (high - low) * 0.08


def round_values(low: float, high: float, unit: str, most: int) -> Iterator[float]:
    """Round values between two, at most so many, evenly apart. ``unit``: as a chart has it."""
    least = (high - low) / most
    step = next((step for step in _round_steps(least, unit) if step > least), math.inf)
    value = math.ceil(low / step - 1e-9) * step
    while value <= high + (high - low) * 1e-9:
        yield value
        value += step


def _round_steps(least: float, unit: str) -> Iterator[float]:
    """From below ``least`` to above it."""
    if unit == "bytes" and least >= 1:
        yield from (2.0 ** (math.floor(math.log2(least)) + more) for more in range(3))
    elif unit == "seconds" and least >= 20:
        yield from (30, 60, 120, 300, 600, 1200, *_STEPS[2:], *(days * 86400 for days in _DAYS))
    else:
        size = 10.0 ** math.floor(math.log10(least))
        yield from (size * factor for factor in (1, 2, 5, 10, 20))


def round_times(begin: float, end: float, zone: ZoneInfo, most: int) -> Iterator[float]:
    """Round times of a zone between two, at most so many, evenly apart: full hours, or midnights over days."""
    span = end - begin
    step = next((step for step in _STEPS if span / step <= most), None)
    days = next((days for days in _DAYS if span / 86400 / days <= most), _DAYS[-1]) if step is None else 1
    at = datetime.fromtimestamp(begin, zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    while at.timestamp() <= end:
        if at.timestamp() >= begin:
            yield at.timestamp()
        # Days by the calendar, so that midnights stay midnights over a change of the clock.
        at = (at + timedelta(days=days)) if step is None else datetime.fromtimestamp(at.timestamp() + step, zone)
