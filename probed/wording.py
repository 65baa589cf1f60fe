"""Times and readings as people read them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct

from probed.model import Reading
from probed.quantity import human_bytes, human_seconds

NEVER = "never"


class Moment(Struct, frozen=True):
    """One time in all the forms that a page needs."""

    iso: str
    """RFC 3339 in UTC: for machines."""
    full: str
    """``2026-11-25 17:48:45 UTC``"""
    short: str
    """``17:48:45`` today, else ``11-24 17:48``."""
    ago: str
    """``2 min 5 s ago``"""


def moment(at: float | None, now: float, zone: ZoneInfo) -> Moment | None:
    """``at`` and ``now`` are Unix seconds."""
    if at is None:
        return None
    there, today = datetime.fromtimestamp(at, zone), datetime.fromtimestamp(now, zone)
    iso = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name = there.tzname() or zone.key
    short = f"{there:%H:%M:%S}" if there.date() == today.date() else f"{there:%m-%d %H:%M}"
    return Moment(iso, f"{there:%Y-%m-%d %H:%M:%S} {name}", short, ago(now - at))


def instant(text: object) -> float | None:
    """Unix seconds of an RFC 3339 time as answers carry it; ``None`` for anything else."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def ago(seconds: float) -> str:
    if seconds < 1:
        return "just now"
    return f"{lasting(seconds)} ago"


def lasting(seconds: float) -> str:
    """Whole seconds below a minute: nobody reads tenths of an age."""
    return f"{seconds:.0f} s" if 1 <= seconds < 60 else human_seconds(max(0.0, seconds))


def quantity(name: str, value: Reading) -> str:
    """A reading with its unit, which its name carries: ``lag_seconds`` -> ``0 s``, ``used_pct`` -> ``41 %``."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "not a number"
    if name.endswith("_seconds"):
        return "0 s" if value == 0 else human_seconds(value) if value > 0 else f"-{human_seconds(-value)}"
    if name.endswith("_bytes"):
        return human_bytes(value)
    if name.endswith("_pct") or name == "hit_ratio":
        return f"{value:.3g} %" if value < 100 else f"{value:.0f} %"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def label(name: str) -> str:
    """``lag_seconds`` -> ``lag``: the unit stands beside the value."""
    for unit in ("_seconds", "_bytes", "_pct"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def readings(found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(label, value with unit) of each."""
    return tuple(
        (label(name), quantity(name, value)) for name, value in found.items() if isinstance(value, int | float | str)
    )


def count(number: int, one: str, many: str = "") -> str:
    """``1 target``, ``19 targets``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
