"""Whether this daemon does its work: what people, the heartbeat and the service manager are told of it."""

from __future__ import annotations

from collections.abc import Sequence

from probed.canary import Canary
from probed.clock import Clock
from probed.patrol import Patrol
from probed.store.sqlite import HEARTBEAT_SECONDS, SqliteStore


class Readiness:
    """Asks those who do the work. ``started`` is true from the end of the start to the beginning of the stop."""

    def __init__(self, store: SqliteStore, patrol: Patrol, canary: Canary, clock: Clock) -> None:
        self._store, self._patrol, self._canary, self._clock = store, patrol, canary, clock
        self.started = False

    def unready(self) -> Sequence[str]:
        """Why the daemon is not doing its work; empty when it is."""
        reasons = list(self.stuck())
        if self._store.degraded:
            reasons.append(f"the store cannot write: {self._store.degraded}")
        trip = self._canary.trip()
        if trip.overdue_seconds:
            reasons.append(f"alarms may not arrive, a canary of our own did not: it is {trip.where}")
        return reasons

    def stuck(self) -> Sequence[str]:
        """What a new start would mend.

        A store that says why it cannot write may live, and so may a daemon that does not get through to people: it
        still sees, records and says so.
        """
        if not self.started:
            return ["starting or stopping"]
        reasons = []
        now, shortest = self._clock.mono(), self._patrol.shortest_interval
        stalled = now - self._patrol.pulse.progress_at
        if shortest and stalled > max(2 * shortest + 2.0, 5.0):
            reasons.append(f"no round was finished for {stalled:.0f} s")
        if not self._store.degraded and now - self._store.progress_at > 3 * HEARTBEAT_SECONDS:
            reasons.append("the store's writer makes no progress")
        return reasons
