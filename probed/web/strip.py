"""The last 24 hours in one strip: a column per quarter of an hour, as high and coloured as its worst event. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from probed.model import Event, EventState, Severity
from probed.store import GapRecord

SLOTS, SLOT_SECONDS = 96, 900.0
SPAN_SECONDS = SLOTS * SLOT_SECONDS
WIDTH, HEIGHT = 6, 28
"""Of a column, in units of the drawing."""
_HEIGHTS = {Severity.FATAL: 28, Severity.CRITICAL: 20, Severity.NORMAL: 12}
QUIET_HEIGHT = 2


class Column(Struct, frozen=True):
    """``look`` is a severity, ``gap`` (nobody looked) or ``quiet``. Times are Unix seconds."""

    x: int
    height: int
    look: str
    since: float
    until: float
    events: int


def span(now: float) -> tuple[float, float]:
    """(begin, end) of the strip: whole quarters of an hour, of which ``now`` is in the last. Unix seconds."""
    end = (now // SLOT_SECONDS + 1) * SLOT_SECONDS
    return end - SPAN_SECONDS, end


def columns(events: Iterable[Event], gaps: Sequence[GapRecord], now: float) -> tuple[Column, ...]:
    """``events`` of one instance, all that were open in the span; what a cause explains counts with its cause."""
    begin, _ = span(now)
    worst: list[Severity | None] = [None] * SLOTS
    number = [0] * SLOTS
    for event in events:
        if event.suppressed:
            continue
        until = now if event.state is EventState.OPEN else event.resolved_at or event.opened_at
        # From where the list of events counts them, since that is where a click leads.
        for slot in range(_slot(max(event.opened_at, begin), begin), _slot(min(until, now), begin) + 1):
            if 0 <= slot < SLOTS and until >= begin:
                number[slot] += 1
                seen = worst[slot]
                worst[slot] = event.severity if seen is None or event.severity.rank < seen.rank else seen
    return tuple(_column(slot, begin, worst[slot], number[slot], gaps) for slot in range(SLOTS))


def _slot(at: float, begin: float) -> int:
    return int((at - begin) // SLOT_SECONDS)


def _column(slot: int, begin: float, worst: Severity | None, number: int, gaps: Sequence[GapRecord]) -> Column:
    since = begin + slot * SLOT_SECONDS
    until = since + SLOT_SECONDS
    if worst is not None:
        return Column(slot * WIDTH, _HEIGHTS[worst], worst.value, since, until, number)
    unseen = sum(max(0.0, min(gap.ended_at, until) - max(gap.began_at, since)) for gap in gaps) if gaps else 0.0
    # A restart takes seconds; a column is blind when a tenth of it was.
    look = "gap" if unseen > SLOT_SECONDS / 10 else "quiet"
    return Column(slot * WIDTH, HEIGHT if look == "gap" else QUIET_HEIGHT, look, since, until, 0)


def told(found: Sequence[Column]) -> str:
    """The strip in words, for who does not see it."""
    counts = {look: sum(column.look == look for column in found) for look in ("fatal", "critical", "normal", "gap")}
    words = {"fatal": "fatal", "critical": "critical", "normal": "normal", "gap": "not watched"}
    said = [
        f"{number} {'quarter' if number == 1 else 'quarters'} {words[look]}"
        for look, number in counts.items()
        if number
    ]
    return f"of 96 quarters of an hour: {', '.join(said)}" if said else "no event in 24 hours"
