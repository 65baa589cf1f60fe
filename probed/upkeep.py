"""What a daemon does for itself twice a second, in one task: to wake up costs more than most of what is done then."""

from __future__ import annotations

from probed import cadence
from probed.clock import Clock
from probed.tidying import by_hand
from probed.unwritten import Unwritten
from probed.vitals import BEAT, Vitals


async def upkeep(clock: Clock, vitals: Vitals, unwritten: Unwritten) -> None:
    """For ever: look at the clock, at what waits for the disk, and at what is garbage."""
    with by_hand(clock) as tidy:
        async for slot in cadence.every(BEAT, 0.0, clock):
            vitals.beat(slot.due)
            unwritten.look()
            tidy()
