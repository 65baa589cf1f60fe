"""Whom the settings say to tell: couriers and the heartbeat, appointed anew at each reload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from probed import telling
from probed.clock import Clock
from probed.config.notifications import Heartbeat as HeartbeatSettings
from probed.config.settings import Settings
from probed.courier import Told
from probed.couriers import Couriers
from probed.outlets import heartbeat
from probed.probes._http import HttpClient
from probed.store import Store
from probed.supervising import Supervisor


class Post:
    """All that leaves towards people. ``unready`` says why the heartbeat is to fall silent."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        tasks: Supervisor,
        shapes: telling.Shapes,
        *,
        unready: Callable[[], Sequence[str]],
        told: Told,
    ) -> None:
        """``told``: (receiver, outcome, how many) of every attempt, for the metric."""
        self._clock, self._tasks, self._shapes, self._unready, self._told = clock, tasks, shapes, unready, told
        self._http = HttpClient()
        """For receivers: what hangs there shares nothing with the probes."""
        self.couriers = Couriers(store, clock, own=tasks.own, told=told)
        self._heartbeat: tuple[HeartbeatSettings | None, asyncio.Task[None] | None] = (None, None)

    async def appoint(self, settings: Settings) -> Sequence[str]:
        """Have the receivers and the heartbeat of these settings; their names."""
        wanted = telling.appointments(settings, self._http, self._clock, self._shapes)
        await self.couriers.appoint(wanted)
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

    def _pinged(self, name: str, outcome: str) -> None:
        self._told(name, outcome, 1)

    async def close(self) -> None:
        """Once no task is left."""
        await self._http.close()
