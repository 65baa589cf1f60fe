"""The daemon's own tasks: none dies silently, and one that keeps dying ends the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from probed.clock import Clock

_log = structlog.get_logger(__name__)

CRASHES, CRASH_WINDOW = 3, 60.0
"""A task that dies this often within so many seconds ends the daemon: the service manager starts it anew."""

Work = Callable[[], Awaitable[None]]


class Supervisor:
    """Runs tasks. ``failed`` is set when the daemon cannot go on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._crashes: list[float] = []
        self.failed = asyncio.Event()

    def own(self, work: Work, name: str) -> asyncio.Task[None]:
        """Run ``work`` as a task that is started again when it dies, until it returns or is cancelled."""
        task = asyncio.create_task(self._supervise(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _supervise(self, work: Work, name: str) -> None:
        while True:
            try:
                await work()
                return
            except Exception:  # noqa: BLE001 - whatever it is, it is logged, counted, and ends the daemon when it comes back
                now = self._clock.mono()
                self._crashes = [*(at for at in self._crashes if now - at < CRASH_WINDOW), now]
                _log.exception("task.crashed", task=name, crashes=len(self._crashes))
                if len(self._crashes) >= CRASHES:
                    self.failed.set()
                    return
                await self._clock.sleep_until(now + len(self._crashes))

    async def close(self) -> None:
        """Cancel every task and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
