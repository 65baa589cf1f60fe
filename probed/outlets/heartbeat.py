"""A dead man's switch: somebody else is told at a steady pace that this daemon does its work, and alarms when not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from probed.clock import Clock
from probed.errors import Undelivered
from probed.outlets import Door, get

NAME = "heartbeat"
_log = structlog.get_logger(__name__)


class Heartbeat:
    """Pings while ``unready`` has nothing to say: a daemon that does not do its work falls silent."""

    def __init__(
        self,
        door: Door,
        clock: Clock,
        interval: float,
        unready: Callable[[], Sequence[str]],
        told: Callable[[str, str], None],
    ) -> None:
        """``told``: (receiver, outcome) of each ping, for the metric."""
        self._door, self._clock, self._interval, self._unready, self._told = door, clock, interval, unready, told
        self._silent = ""
        """Why nobody hears of us, while that is so."""

    async def run(self) -> None:
        due = self._clock.mono()
        while True:
            await self.beat()
            # One that was missed is not made up for.
            due = max(due + self._interval, self._clock.mono())
            await self._clock.sleep_until(due)

    async def beat(self) -> None:
        """One ping, if the daemon does its work."""
        reasons = self._unready()
        if reasons:
            self._note(f"held back: {'; '.join(reasons)}")
            return
        try:
            async with asyncio.timeout(min(self._interval, 10.0)):
                await get(self._door)
        except TimeoutError:
            self._fail("no answer in time")
        except Undelivered as error:
            self._fail(str(error))
        else:
            self._told(NAME, "delivered")
            self._note("")

    def _fail(self, reason: str) -> None:
        self._told(NAME, "failed")
        self._note(reason)

    def _note(self, silent: str) -> None:
        """Log when the heartbeat stops, and when it is heard again."""
        if bool(silent) != bool(self._silent):
            if silent:
                _log.warning("heartbeat.silent", reason=silent)
            else:
                _log.info("heartbeat.heard")
        self._silent = silent
