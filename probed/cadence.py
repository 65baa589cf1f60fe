"""When cycles start: a fixed grid of monotonic time, a stable phase, 5 ms slots, no overlap, no catching up."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from msgspec import Struct

from probed.clock import Clock

T = TypeVar("T")

SLOT = 0.005
"""Starts are bundled into slots of this many seconds: half the wake-ups, no loss of punctuality."""

SPREAD = 0.2
"""The cycles of one round start within this many seconds, so that a large instance is no herd."""

BUNDLE = 20
"""Cycles that start in one slot: to wake up costs as much as to start three, and a ping must not wait for many."""


class Slot(Struct, frozen=True):
    """One due time on the grid."""

    number: int
    due: float
    """Monotonic seconds."""
    skipped: int
    """Slots that passed unused since the last one, because the last round was still running or nobody was awake."""


def phase(name: str, interval: float) -> float:
    """Where on the grid of ``interval`` a name starts: stable over restarts, spread over names, on a 5 ms slot."""
    slots = max(1, int(interval / SLOT))
    return (_hash(name) % slots) * SLOT


def bundled(groups: Sequence[Sequence[T]], interval: float, first: int = 0) -> list[tuple[int, list[T]]]:
    """(slot after the round's start, what starts in it) for groups that are not to be divided, in their order.

    A slot takes ``BUNDLE`` of them; all end within ``SPREAD`` and a tenth of the interval, however many there are.
    ``first``: the slot to begin with.
    """
    slots = max(1, int(min(SPREAD, interval / 10) / SLOT))
    found: dict[int, list[T]] = {}
    number, room = first, BUNDLE
    for group in groups:
        if room < len(group) and room < BUNDLE:
            number, room = number + 1, BUNDLE
        found.setdefault(number % slots, []).extend(group)
        room -= len(group)
    return sorted(found.items(), key=lambda slot: slot[0])


async def every(interval: float, start: float, clock: Clock) -> AsyncIterator[Slot]:
    """Yield at ``start + n * interval`` for ever. A slot that was missed is counted and skipped, never caught up."""
    number = math.ceil((clock.mono() - start) / interval)
    skipped = 0
    while True:
        due = start + number * interval
        await clock.sleep_until(due)
        yield Slot(number, due, skipped)
        following = max(number + 1, math.floor((clock.mono() - start) / interval) + 1)
        skipped = following - number - 1
        number = following


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
