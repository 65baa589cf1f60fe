"""When cycles start: a fixed grid of monotonic time, a stable phase, 5 ms slots, no overlap, no catching up."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

from probed.clock import Clock

SLOT = 0.005
"""Starts are bundled into slots of this many seconds: half the wake-ups, no loss of punctuality."""

SPREAD = 0.2
"""Targets of one round start within this many seconds, so that a large instance is no herd."""


@dataclass(frozen=True, slots=True)
class Slot:
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


def offset(name: str, interval: float) -> float:
    """How long after its round's start a target's cycle starts; at most ``SPREAD`` and a tenth of the interval."""
    slots = max(1, int(min(SPREAD, interval / 10) / SLOT))
    return (_hash(name) % slots) * SLOT


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
