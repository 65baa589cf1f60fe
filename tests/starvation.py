"""How long the kernel let this thread wait for a processor: what a busy machine does to a bound is not the product's."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

BEAT = 0.05
SCHEDSTAT = Path("/proc/thread-self/schedstat")
"""Nanoseconds on a processor, nanoseconds ready and waiting for one, times that it got one."""


class Starvation:
    """Asked about a stretch of time that lies within :func:`starvation`; of a kernel that does not count, always 0."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []

    def look(self) -> None:
        with contextlib.suppress(OSError, IndexError):
            self._seen.append((time.monotonic(), int(SCHEDSTAT.read_text().split()[1]) / 1e9))

    def between(self, began: float, ended: float) -> float:
        """Seconds of waiting between two monotonic times, to within a beat on either side."""
        before = [waited for at, waited in self._seen if at <= began]
        after = [waited for at, waited in self._seen if at >= ended]
        return after[0] - before[-1] if before and after else 0.0


@contextlib.asynccontextmanager
async def starvation() -> AsyncIterator[Starvation]:
    """Watches the thread of the running loop."""
    found = Starvation()

    async def watch() -> None:
        while True:
            found.look()
            await asyncio.sleep(BEAT)

    found.look()
    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        found.look()
