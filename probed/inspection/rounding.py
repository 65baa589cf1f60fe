"""Numbers in steps so wide that two looks at a cluster where nothing has changed tell the same. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SHARES = (0.25, 0.5, 0.75, 1.0)
_MULTIPLES = (10.0, 4.0, 2.0, 1.5, 1.0)
_NICE = (1.0, 2.0, 5.0, 10.0)
DAY_STEPS = (365.0, 180.0, 90.0, 60.0, 30.0, 21.0, 14.0, 10.0, 7.0, 5.0, 3.0, 2.0, 1.0, 0.0)


def coarse_above(value: float, limit: float) -> float:
    """The least quarter of ``limit`` that is not below a value which is below it; a value of no such limit rounded."""
    if limit <= 0 or value > limit:
        return significant(value)
    return next(limit * share for share in _SHARES if value <= limit * share)


def coarse_below(value: float, limit: float, *, pct: bool = False) -> float:
    """The greatest step above ``limit`` that a value which is above it has reached; ``pct``: half-way to 100."""
    if pct and 0 <= limit <= 100:
        return next((step for share in (0.5, 0.0) if value >= (step := limit + (100 - limit) * share)), limit)
    if limit <= 0:
        return significant(value)
    return next((limit * multiple for multiple in _MULTIPLES if value >= limit * multiple), limit)


def nice_up(value: float) -> float:
    """The least of 1, 2, 5, 10, 20, 50 … that is not below a value; 0 stays 0."""
    if value <= 0:
        return 0.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in _NICE if value <= step * scale * (1 + 1e-9))


def to_five(value: float) -> float:
    """Per cent to the next 5, upwards."""
    return min(100.0, 5.0 * math.ceil(value / 5 - 1e-9))


def down_to(value: float, steps: Sequence[float] = DAY_STEPS) -> float:
    """The greatest of the steps that is not above a value."""
    return next((step for step in steps if value >= step), steps[-1])


def significant(value: float) -> float:
    """Two digits."""
    return value if value == 0 or not math.isfinite(value) else round(value, 1 - math.floor(math.log10(abs(value))))
