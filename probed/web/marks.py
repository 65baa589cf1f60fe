"""How a state looks: always a shape, a word and a colour, so that none of the three is needed alone. Pure.

*Blind* and *not applicable* have shapes of their own: neither may ever be taken for *ok*.
"""

from __future__ import annotations

from msgspec import Struct

from probed.api.states import State, is_stale
from probed.board import Entry
from probed.model import Outcome, Severity


class Mark(Struct, frozen=True):
    """``look`` is the class that the style sheet colours; ``rank`` sorts, 0 is the worst."""

    look: str
    shape: str
    word: str
    rank: int

    @property
    def bad(self) -> bool:
        return self.rank < _OK_RANK


_SHAPES = {
    State.FATAL: "■",
    State.CRITICAL: "▲",
    State.NORMAL: "◆",
    State.FAILING: "✕",
    State.BLIND: "○",
    State.WAITING: "…",
    State.OK: "●",
}
_OF_STATE = {state: Mark(state.value, shape, state.value, rank) for rank, (state, shape) in enumerate(_SHAPES.items())}
_OK_RANK = _OF_STATE[State.OK].rank

OK, BLIND, WAITING, FAILING = (_OF_STATE[state] for state in (State.OK, State.BLIND, State.WAITING, State.FAILING))
STALE = Mark("blind", "○", "no fresh sample", BLIND.rank)
NOT_APPLICABLE = Mark("absent", "–", "not applicable", _OK_RANK + 1)
RESOLVED = Mark("resolved", "✓", "resolved", _OK_RANK)

_OF_OUTCOME = {
    Outcome.OBSERVED: OK,
    Outcome.FAILED: FAILING,
    Outcome.BLIND: BLIND,
    Outcome.NOT_APPLICABLE: NOT_APPLICABLE,
}


def of_state(state: State | str) -> Mark:
    return _OF_STATE[State(state)]


def of_severity(severity: Severity) -> Mark:
    return _OF_STATE[State(severity.value)]


def of_outcome(outcome: Outcome | str) -> Mark:
    """Of a sample that was kept; an outcome of another version reads as blind."""
    try:
        return _OF_OUTCOME[Outcome(outcome)]
    except ValueError:
        return BLIND


def of_entry(entry: Entry, now: float) -> Mark:
    """Of a probe on a target by its newest sample; ``now`` is monotonic."""
    newest = entry.newest
    if newest is None:
        return WAITING
    return STALE if is_stale(entry, newest, now) else _OF_OUTCOME[newest.outcome]


LEGEND = (*_OF_STATE.values(), NOT_APPLICABLE)
"""Every shape that a target can have, the worst first."""
