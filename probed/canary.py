"""A canary: an event of our own that takes the way of an alarm, to see that the way is open.

It is judged, recorded and owed as any event is, and brought by a courier of its own to a door that this daemon holds
open for it. Nobody else is told of it, nothing counts it, and the store forgets it when it has come back. When one does
not come back, that is an event (``pipeline_broken``), and the daemon is not ready: the way of an alarm cannot be
trusted to tell of itself.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from msgspec import Struct

from probed.clock import Clock
from probed.model import CANARY
from probed.store import Change
from probed.vitals import Trip

_log = structlog.get_logger(__name__)

DELIVERY_SECONDS = 5.0
"""In which it is to be brought, once it could be known."""
AGAIN_SECONDS = 60.0
"""After one that did not come back the next is sent this soon."""


class _Flight(Struct):
    """A canary under way; monotonic seconds."""

    began: float
    where: str = "not judged: the observer's rounds, or the pipeline, do not go on"
    event_id: str = ""


class Canary:
    """Which canary is due, under way, back or missing. Lives in the event loop."""

    def __init__(self, clock: Clock, *, stalled: Callable[[float], float], excused: Callable[[], bool]) -> None:
        """``stalled``: seconds for which this process stood still since a monotonic time. ``excused``: whether none
        can be sent for a reason that is told apart from this (a disk that takes nothing)."""
        self._clock, self._stalled, self._excused = clock, stalled, excused
        self.every: float | None = None
        """Seconds between two; ``None``: none is sent."""
        self.detection = 7.5
        """Seconds from a fault to its committed event: what an alarm may take until somebody is owed it."""
        self.deaf = ""
        """Why this daemon cannot receive one."""
        self._due_at = clock.mono()
        self._flight: _Flight | None = None
        self._back_at: float | None = None
        self._round_trip: float | None = None
        self._missing = False

    @property
    def patience(self) -> float:
        """Seconds after which one that is not back is missing."""
        return self.detection + DELIVERY_SECONDS

    def trip(self) -> Trip:
        """How it stands, at this moment."""
        now = self._clock.mono()
        if self.every is None:
            return Trip(sent=False)
        flight = self._flight
        if self._excused():
            if flight is not None:
                flight.began = now
            return Trip(overdue_seconds=None)
        late = 0.0
        if flight is not None:
            late = now - flight.began - self._stalled(flight.began) - self.patience
            if late > 0 and not self._missing:
                self._missing = True
                _log.error("canary.missing", where=self._where(flight), event_id=flight.event_id or None)
        known = self._missing or self._back_at is not None
        return Trip(
            overdue_seconds=max(late, 0.001) if self._missing else 0.0 if known else None,
            age_seconds=None if self._back_at is None else now - self._back_at,
            round_trip_seconds=self._round_trip,
            where=self._where(flight) if self._missing and flight is not None else "",
        )

    def due(self) -> bool:
        """Whether one is to be sent now; asked in every round of the observer, and true until it was judged."""
        now = self._clock.mono()
        if self.every is None or self._excused():
            return False
        if self._missing and self._flight is not None and now - self._flight.began >= AGAIN_SECONDS + self.patience:
            self._due_at, self._flight = now, None
        if self._flight is None and now >= self._due_at:
            self._flight = _Flight(now)
            self._due_at = now + self.every
        return self._flight is not None and not self._flight.event_id

    def judged(self, change: Change) -> tuple[str, ...]:
        """The pipeline asks who is owed a canary: this daemon, and nobody else."""
        if self._flight is not None:
            self._flight.event_id, self._flight.where = change.event.id, "judged, and not durable"
        return (CANARY,)

    def announced(self, change: Change) -> None:
        """A change became durable; for ``Pipeline.on_announce``."""
        if self._flight is not None and self._flight.event_id == change.event.id:
            self._flight.where = "durable, and not brought by its courier"

    def came(self, event_id: str) -> None:
        """One arrived; whatever is not the one under way, such as the last daemon's, is of no interest."""
        flight = self._flight
        if flight is None or flight.event_id != event_id:
            return
        now = self._clock.mono()
        self._round_trip, self._back_at, self._flight = now - flight.began, now, None
        if self._missing:
            self._missing = False
            _log.info("canary.back", seconds=round(self._round_trip, 1))

    def _where(self, flight: _Flight) -> str:
        return self.deaf if self.deaf and flight.where.startswith("durable") else flight.where
