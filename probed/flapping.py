"""What comes and goes too often to be told each time. Everything is recorded all the same. Pure."""

from __future__ import annotations

from collections.abc import Sequence

WINDOW = 600.0
"""Seconds over which turns (openings and resolutions) are counted."""
TURNS = 4
"""So many turns within the window before it, and an opening belongs to a flapping event."""
SWITCHES = 3
"""So many switchovers within the window, the newest included, and the leadership itself flaps."""
SPARED = 300.0
"""Seconds for which people are spared after they were told of one."""


def turned(turns: Sequence[float], at: float) -> tuple[float, ...]:
    """The turns still in the window, with a new one. Wall times: a step of the clock costs one message at most."""
    return (*recent(turns, at), at)


def recent(turns: Sequence[float], at: float) -> tuple[float, ...]:
    return tuple(turn for turn in turns if 0 <= at - turn < WINDOW)


def flaps(turns: Sequence[float], at: float) -> bool:
    """Whether an opening at ``at`` belongs to something that flaps, by the turns before it."""
    return len(recent(turns, at)) >= TURNS


def is_spared(told_at: float | None, at: float) -> bool:
    """Whether people were told of one so shortly before that they are spared this one."""
    return told_at is not None and 0 <= at - told_at < SPARED
