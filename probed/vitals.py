"""What this process knows of its own life: how late its loop runs, when it stood still, what it can see.

A monitor that is starved, suspended or cut off sees faults that are its own. Probes of kind ``observer`` read this.
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from collections.abc import Callable

from msgspec import Struct, field

from probed.clock import Clock
from probed.reachability import Reachability

BEAT = 0.5
"""Seconds between two looks at the clock; a stall is known to within this."""
REMEMBERED = 120
"""Beats: a minute of them, longer than any cycle."""


def suspended_seconds() -> float:
    """How long this machine has been suspended since it started: the monotonic clock stands still meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Gap(Struct, frozen=True):
    """A time in which nobody looked, in Unix seconds."""

    began_at: float
    ended_at: float
    reason: str
    """``stalled`` (suspended, stopped by a signal, blocked), or ``stopped`` (no daemon ran)."""

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at


class Refusal(Struct, frozen=True):
    """How the disk under the store fares."""

    seconds: float = 0.0
    """For how long something has waited for it: a moment as a rule, long while it takes nothing."""
    error: str = ""
    """What it says, while it refuses."""
    waiting: int = 0
    """Commits in memory."""
    lost: int = 0
    """Commits that no longer fitted there, since the start."""


class Faring(Struct, frozen=True):
    """How a receiver of notices fares."""

    failing_seconds: float | None
    """For how long it has taken nothing of what it was sent, 0 while it does; ``None`` before anything was sent."""
    answer: str = ""
    """Why."""
    given_up: int = 0
    """Dead letters since it last took something."""


class Trip(Struct, frozen=True):
    """How the canary fares that this daemon sends the way of an alarm."""

    sent: bool = True
    """Whether any is."""
    overdue_seconds: float | None = None
    """For how long the newest has been missing, 0 when it came back in time; ``None`` while that is not known yet."""
    age_seconds: float | None = None
    """Since when the last one came back."""
    round_trip_seconds: float | None = None
    """How long that one took."""
    where: str = ""
    """How far the one got that is missing."""


class Vitals(Struct):
    """Lives as long as the daemon, whose ``upkeep`` calls ``beat``."""

    clock: Clock
    longest_pause: float = 10.0
    """Seconds: two intervals. A longer one is a gap."""
    reachability: Reachability = field(default_factory=Reachability)
    on_gap: Callable[[Gap], None] = field(default=lambda _: None)
    refusal: Callable[[], Refusal] = field(default=Refusal)
    """Asked how the disk under the store fares."""
    faring: Callable[[str], Faring | None] = field(default=lambda _: None)
    """Asked how a receiver fares, by its name; ``None`` when there is no such receiver."""
    canary_due: Callable[[], bool] = field(default=lambda: False)
    """Asked whether a canary is to be sent."""
    trip: Callable[[], Trip] = field(default=lambda: Trip(sent=False))
    """Asked how the canary fares."""
    _lags: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _gaps: list[Gap] = field(default_factory=list)
    _inspected: list[str] = field(default_factory=list)
    _asleep: Callable[[], float] = field(default=suspended_seconds)
    _slept: float = 0.0

    def __post_init__(self) -> None:
        self._slept = self._asleep()

    def beat(self, due: float) -> None:
        """Note by how much a look at the clock came late that was due at a monotonic time; each ``BEAT``."""
        now, slept = self.clock.mono(), self._asleep()
        self.note(now, max(0.0, now - due) + max(0.0, slept - self._slept))
        self._slept = slept

    def note(self, now: float, late: float) -> None:
        """The loop came ``late`` seconds late to its look at the clock at ``now`` (monotonic)."""
        self._lags.append((now, late))
        if late > self.longest_pause:
            ended = self.clock.wall()
            gap = Gap(ended - late, ended, "stalled")
            self._gaps.append(gap)
            self.on_gap(gap)

    def lag_since(self, mono: float) -> float:
        """The longest stall of the loop since a monotonic time, seconds."""
        longest = 0.0
        for at, late in reversed(self._lags):
            if at <= mono:
                break
            longest = max(longest, late)
        return longest

    def stalled_since(self, mono: float) -> float:
        """All seconds since a monotonic time in which the loop stood still, a stall that goes on included."""
        noted = [(at, late) for at, late in self._lags if at > mono]
        since = noted[-1][0] if noted else mono
        return sum(late for _, late in noted) + max(0.0, self.clock.mono() - since - BEAT)

    def take_gaps(self) -> list[Gap]:
        """The gaps that nobody has taken yet."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def note_inspection(self, said: str) -> None:
        """An inspection of the schedule has ended, with this in a sentence."""
        self._inspected.append(said)

    def take_inspections(self) -> list[str]:
        """Those that nobody has taken yet."""
        inspected, self._inspected = self._inspected, []
        return inspected


def descriptors_used() -> tuple[int, int]:
    """(open file descriptors of this process, how many it may have)."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # Since Linux 6.2 the directory's size says how many there are; to list it costs more than a question over HTTP.
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1, limit
