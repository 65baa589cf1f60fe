"""Whom the settings say to tell: couriers and the heartbeat, appointed anew at each reload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from probed import telling
from probed.canary import Canary
from probed.clock import Clock
from probed.config.notifications import Heartbeat as HeartbeatSettings
from probed.config.settings import Settings
from probed.courier import Told
from probed.couriers import Appointment, Couriers
from probed.outlets import heartbeat
from probed.probes._http import HttpClient
from probed.store import Change
from probed.supervising import Supervisor
from probed.thrift import server_alone
from probed.unwritten import Unwritten

if TYPE_CHECKING:
    from probed.loopback import Loopback

_log = structlog.get_logger(__name__)


class Post:
    """All that leaves towards people. ``unready`` says why the heartbeat is to fall silent."""

    def __init__(
        self,
        unwritten: Unwritten,
        clock: Clock,
        tasks: Supervisor,
        shapes: telling.Ask,
        *,
        canary: Canary,
        unready: Callable[[], Sequence[str]],
        told: Told,
    ) -> None:
        """``told``: (receiver, outcome, how many) of every attempt, for the metric."""
        self._clock, self._tasks, self._shapes, self._unready, self._told = clock, tasks, shapes, unready, told
        self._http = HttpClient()
        """For receivers: what hangs there shares nothing with the probes."""
        self._unwritten = unwritten
        self.couriers = Couriers(unwritten, clock, own=tasks.own, told=told)
        self._canary = canary
        self._loopback: Loopback | None = None
        self._heartbeat: tuple[HeartbeatSettings | None, asyncio.Task[None] | None] = (None, None)

    async def appoint(self, settings: Settings) -> Sequence[str]:
        """Have the receivers and the heartbeat of these settings; their names."""
        wanted = telling.appointments(settings, self._http, self._clock, self._shapes)
        every = settings.notifications.canary if settings.notifications and wanted else None
        oneself = await self._send_canaries(every, settings)
        await self.couriers.appoint([*wanted, *oneself])
        beat = settings.notifications.heartbeat if settings.notifications else None
        door = telling.heartbeat_door(beat, self._http) if beat else None
        before, task = self._heartbeat
        if beat != before:
            if task is not None:
                task.cancel()
            task = None
            if beat is not None and door is not None:
                pulse = heartbeat.Heartbeat(door, self._clock, beat.interval, self._unready, self._pinged)
                task = self._tasks.own(pulse.run, "heartbeat")
            self._heartbeat = (beat, task)
        return [*(one.receiver.name for one in wanted), *([heartbeat.NAME] if door else ())]

    async def _send_canaries(self, every: float | None, settings: Settings) -> Sequence[Appointment]:
        """Send canaries this often, and be there when they come."""
        self._canary.every = every
        if every is None:
            return ()
        with server_alone():  # a server of aiohttp's, for those who have receivers
            from probed.loopback import HOST, Loopback
        self._loopback = self._loopback or Loopback(self._canary.came)
        try:
            await self._loopback.open()
        except OSError as error:
            self._canary.deaf = f"this daemon cannot listen on {HOST}: {error.strerror}"
            _log.error("canary.deaf", reason=self._canary.deaf)
            return ()
        self._canary.deaf = ""
        return [telling.to_oneself(self._loopback.url, settings, self._http, self._clock, self._shapes)]

    def owed(self, change: Change) -> tuple[str, ...]:
        """Who is to be told of a change; for the pipeline, before it makes it durable."""
        return self._canary.judged(change) if change.event.canary else self.couriers.owed(change)

    def announced(self, change: Change) -> None:
        """A change became durable; for ``Pipeline.on_announce``."""
        self._canary.announced(change)
        self.couriers.announced(change)

    def written(self, change: Change) -> None:
        """A change that was told before is durable, or never will be; for ``Pipeline.written``."""
        self._unwritten.written(change)
        self.couriers.announced(change)

    def _pinged(self, name: str, outcome: str) -> None:
        self._told(name, outcome, 1)

    async def close(self) -> None:
        """Once no task is left."""
        await self._http.close()
        if self._loopback is not None:
            await self._loopback.close()
