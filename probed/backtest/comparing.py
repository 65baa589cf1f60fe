"""What a change of a policy would have changed: events gained, lost and moved, flaps, time to detect. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from msgspec import Struct, field

from probed import flapping
from probed.model import Kind, Reading, Transition


class Told(Struct, frozen=True):
    """One event as a replay tells it: an episode, or an occurrence. Unix seconds."""

    opened_at: float
    first_failed_at: float | None = None
    resolved_at: float | None = None
    """``None`` for an occurrence, and for what was still open at the end."""
    occurred: bool = False
    count: int = 1
    value: Reading | None = None
    flapping: bool = False

    def meets(self, other: Told, until: float) -> bool:
        """Whether both are about the same: episodes that overlap, occurrences of one moment."""
        if self.occurred or other.occurred:
            return self.occurred == other.occurred and self.opened_at == other.opened_at
        return self._began <= other._ended(until) and other._began <= self._ended(until)

    @property
    def _began(self) -> float:
        return self.opened_at if self.first_failed_at is None else self.first_failed_at

    def _ended(self, until: float) -> float:
        return until if self.resolved_at is None else self.resolved_at


def events_of(transitions: Iterable[Transition]) -> list[Told]:
    """Transitions of one watch, in order, as events."""
    told: list[Told] = []
    turns: tuple[float, ...] = ()
    for one in transitions:
        if one.kind is Kind.OCCURRED:
            told.append(Told(one.at, occurred=True, count=one.count, value=one.value))
            continue
        if one.kind is Kind.OPENED:
            flaps = flapping.flaps(turns, one.at)
            told.append(Told(one.at, one.first_failed_at, None, count=one.count, value=one.value, flapping=flaps))
        elif told:
            opened = told.pop()
            told.append(
                Told(
                    opened.opened_at, opened.first_failed_at, one.at, False, opened.count, opened.value, opened.flapping
                )
            )
        turns = flapping.turned(turns, one.at)
    return told


class Figures(Struct, frozen=True):
    """Of the events of one side. Seconds."""

    events: int = 0
    flaps: int = 0
    """Openings that belong to something that flaps: they come and go so often that not each is announced."""
    short: int = 0
    """Episodes that were over within ``SHORT`` seconds."""
    open_seconds: float = 0.0
    detect_seconds: float | None = None
    """From the first sample that met the condition to the opening: the median of all."""
    detect_seconds_max: float | None = None


SHORT = 60.0


def figures(told: Sequence[Told], until: float) -> Figures:
    """Sums over events that may be of several targets."""
    episodes = [one for one in told if not one.occurred]
    lasted = [(until if one.resolved_at is None else one.resolved_at) - one.opened_at for one in episodes]
    waits = [one.opened_at - one.first_failed_at for one in episodes if one.first_failed_at is not None]
    return Figures(
        len(told), sum(one.flapping for one in told),
        sum(one.resolved_at is not None and length < SHORT for one, length in zip(episodes, lasted, strict=True)),
        round(sum(lasted), 3), round(median(waits), 3) if waits else None, round(max(waits), 3) if waits else None,
    )  # fmt: skip


class Difference(Struct, frozen=True):
    """Of one target. What neither is gained, lost nor moved is the same on both sides."""

    kept: int = 0
    gained: list[Told] = field(default_factory=list)
    lost: list[Told] = field(default_factory=list)
    moved: list[tuple[Told, Told]] = field(default_factory=list)
    """The same episode with another beginning or end: (present, changed)."""


def compare(present: Sequence[Told], changed: Sequence[Told], until: float) -> Difference:
    """Match what is about the same time, in order, each with one at most."""
    difference = Difference()
    kept, ahead = 0, 0
    for one in present:
        while (
            ahead < len(changed) and not one.meets(changed[ahead], until) and changed[ahead].opened_at < one.opened_at
        ):
            difference.gained.append(changed[ahead])
            ahead += 1
        if ahead == len(changed) or not one.meets(changed[ahead], until):
            difference.lost.append(one)
            continue
        other = changed[ahead]
        ahead += 1
        if (one.opened_at, one.resolved_at) == (other.opened_at, other.resolved_at):
            kept += 1
        else:
            difference.moved.append((one, other))
    difference.gained.extend(changed[ahead:])
    return Difference(kept, difference.gained, difference.lost, difference.moved)
