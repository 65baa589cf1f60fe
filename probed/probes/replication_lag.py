from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import Struct

from probed.errors import Blind, NotApplicable
from probed.model import Outcome, Reading
from probed.probes import Measured, Readings, View, combined

MAX_RING = 512
MAX_KEPT = 16
"""Marks that outlive the daemon: a standby that is an hour behind is then known to four minutes after a restart."""
WORTH_KEEPING = 10.0
"""Seconds of delay from which on the clock is kept; what is less says itself anew within a few cycles."""


class Mark(Struct, frozen=True):
    """The primary was first seen at ``lsn`` (bytes) at ``seen``, and last seen before it at ``asked`` (monotonic)."""

    asked: float
    seen: float
    lsn: float


class LsnClock(Struct, frozen=True):
    """When the primary reached its WAL positions; marks rise in time and position."""

    source: str
    """Node and timeline: positions of another primary or timeline are not comparable."""
    asked: float
    """Monotonic time at which the primary's position was last known."""
    marks: tuple[Mark, ...]


@combined(
    scope="node",
    component="postgres",
    inputs=("postgres_stats",),
    readings={
        "lag_seconds": "for how long the primary has had WAL that this standby has not replayed, seconds",
        "lag_bytes": "WAL that this standby has not replayed, bytes",
    },
)
def replication_lag(view: View) -> Readings | Measured:
    """Replication delay by the LSN clock: since when has the primary been ahead of what this standby replayed?

    Each cycle marks when the primary reached a WAL position; the delay is the age of the standby's position on that
    scale, interpolated between two marks, so it is right to within one interval. An idle primary is 0, a cut-off
    standby grows truthfully, and no two machines' clocks are compared. ``now() - pg_last_xact_replay_timestamp()``
    does none of this: it grows on an idle primary, and the usual mends of it read 0 on a standby that is cut off.

    While the primary cannot be read, the end of WAL that the streaming receiver reports stands in for it. A wanted
    delay (recovery_min_apply_delay) is subtracted. A delay of 10 s or more outlives a restart of the daemon; of what
    began while no daemon looked, the reading is a lower bound.

    Not applicable on a primary.
    """
    stats = view.of("postgres_stats")
    if stats is None:
        return {}
    observed = stats.outcome is Outcome.OBSERVED
    if observed and not stats.readings["in_recovery"]:
        raise NotApplicable("a primary does not lag behind itself")
    own: Mapping[str, object] = stats.facts if observed else {}
    remembered = cast(LsnClock | None, view.before.facts.get("clock")) if view.before is not None else _kept(view)
    clock, readable = _wind(view, own, remembered)
    facts = {"clock": clock}
    if not observed:
        # The clock goes on while the standby is away: its delay is known as soon as it answers again.
        raise Blind("no_input", f"postgres_stats: {stats.reason}", facts=facts)
    replayed = own["replay_lsn"]
    if not isinstance(replayed, float):
        raise Blind("no_input", "this standby has not replayed anything yet", facts=facts)
    since = _reached(clock, replayed) if clock is not None else None
    if clock is None or (since is None and not readable):
        return Measured({}, reason="the primary's WAL position cannot be read", facts=facts)
    delay = own["apply_delay"]
    wanted = delay if isinstance(delay, float) else 0.0
    age = 0.0 if since is None else view.mono - since
    readings: dict[str, Reading] = {
        "lag_seconds": max(0.0, age - wanted),
        "lag_bytes": max(0.0, clock.marks[-1].lsn - replayed),
    }
    clock = LsnClock(clock.source, clock.asked, _still_needed(clock.marks, replayed))
    reason = "replay is paused on this standby" if own["replay_paused"] else ""
    return Measured(readings, reason=reason, facts={"clock": clock}, keep=_to_keep(view, clock, age))


def _kept(view: View) -> LsnClock | None:
    """The clock that the last daemon kept: without it a standby that stands still would seem to have caught up."""
    if not view.kept:
        return None
    shift = view.mono - view.at
    marks = tuple(
        # A clock that was set back meanwhile must not put a mark into the future.
        Mark(min(asked + shift, view.mono), min(seen + shift, view.mono), lsn)
        for asked, seen, lsn in cast(Sequence[tuple[float, float, float]], view.kept["marks"])
    )
    return LsnClock(cast(str, view.kept["source"]), marks[-1].seen, marks)


def _to_keep(view: View, clock: LsnClock, age: float) -> Mapping[str, object] | None:
    """The clock in wall time, for the next daemon; rarely another one, because each is a write."""
    if age < WORTH_KEEPING:
        return {} if view.kept else None
    if view.kept.get("source") == clock.source:
        _, seen, lsn = cast(Sequence[tuple[float, float, float]], view.kept["marks"])[-1]
        if lsn == clock.marks[-1].lsn or view.at - seen < max(WORTH_KEEPING, age / 8):
            return None
    marks, shift = clock.marks, view.at - view.mono
    while len(marks) > MAX_KEPT:
        marks = _every_second(marks)
    return {"source": clock.source, "marks": [[mark.asked + shift, mark.seen + shift, mark.lsn] for mark in marks]}


def _wind(view: View, own: Mapping[str, object], clock: LsnClock | None) -> tuple[LsnClock | None, bool]:
    """The clock with this cycle's position of the primary, and whether there was one."""
    source, position = _primary_position(view, own)
    if position is None:
        return clock, False
    if clock is None or source not in ("", clock.source):
        return LsnClock(source, view.mono, (Mark(view.mono, view.mono, position),)), True
    if position <= clock.marks[-1].lsn:
        return LsnClock(clock.source, view.mono, clock.marks), True
    # After cycles in which the primary could not be read nobody knows when it moved on: the mark is a lower bound.
    continuous = view.before is not None and clock.asked >= view.before.mono
    mark = Mark(clock.asked if continuous else view.mono, view.mono, position)
    return LsnClock(clock.source, view.mono, _thin((*clock.marks, mark))), True


def _primary_position(view: View, own: Mapping[str, object]) -> tuple[str, float | None]:
    """(identity of the WAL stream, position in bytes), from the primary itself or from the standby's receiver."""
    for node in view.nodes:
        stats = view.of("postgres_stats", node)
        if stats is None or stats.outcome is not Outcome.OBSERVED or stats.readings["in_recovery"]:
            continue
        position = stats.facts["current_lsn"]
        stranger = own and own["system_identifier"] != stats.facts["system_identifier"]
        if isinstance(position, float) and not stranger:
            return f"{node}/{stats.facts['timeline']}", position
    position = own.get("latest_end_lsn")
    if own.get("receiver_status") == "streaming" and isinstance(position, float):
        return "", position
    return "", None


def _reached(clock: LsnClock, replayed: float) -> float | None:
    """When the primary left the replayed position behind; ``None`` when it has not."""
    previous: Mark | None = None
    for mark in clock.marks:
        if mark.lsn > replayed:
            if previous is None or previous.lsn > replayed:
                return mark.seen
            share = (replayed - previous.lsn) / (mark.lsn - previous.lsn)
            return mark.asked + share * (mark.seen - mark.asked)
        previous = mark
    return None


def _still_needed(marks: tuple[Mark, ...], replayed: float) -> tuple[Mark, ...]:
    """What was replayed has no age, but the last mark before the replayed position is one end of the scale."""
    done = sum(mark.lsn <= replayed for mark in marks)
    return marks[max(0, done - 1) :]


def _thin(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """A standby that is down for days must not fill memory."""
    return marks if len(marks) <= MAX_RING else _every_second(marks)


def _every_second(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """Half of the scale goes; the first two stay, between which the standby is, and the last."""
    return (*marks[:2], *marks[3:-1:2], marks[-1])
