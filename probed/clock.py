"""Time as an argument: the daemon gets the real clock, tests a fake one (``probed.testing.FakeClock``)."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Protocol


class Clock(Protocol):
    def wall(self) -> float:
        """Unix seconds, for people."""
        ...

    def mono(self) -> float:
        """Monotonic seconds, for every duration and schedule; a clock step never reaches them."""
        ...

    async def sleep_until(self, mono: float) -> None: ...


class SystemClock:
    """The machine's clocks; ``mono`` is the event loop's own time base."""

    # Asked for two hundred times in a round: the functions themselves.
    wall = staticmethod(time.time)
    mono = staticmethod(time.monotonic)

    async def sleep_until(self, mono: float) -> None:
        await asyncio.sleep(max(0.0, mono - time.monotonic()))


@functools.cache
def boot_id() -> str:
    """The kernel's boot id: monotonic times of two boots cannot be compared. Empty where there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
