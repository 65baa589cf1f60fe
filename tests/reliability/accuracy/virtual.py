"""Time that passes as fast as nobody needs it: an event loop that jumps to its next timer, and the clock that it keeps."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

WALL = 1_790_000_000.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Stands still while anything can run; then it is the time of the next timer. Nothing outside ever happens."""

    def __init__(self) -> None:
        self.now = 1_000.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nobody waits for anything: this would last for ever"
        self._loop.now += timeout
        return []


class VirtualClock:
    """Fulfils ``probed.clock.Clock``."""

    def wall(self) -> float:
        return WALL + self.mono()

    def mono(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep_until(self, mono: float) -> None:
        await asyncio.sleep(max(0.0, mono - self.mono()))
