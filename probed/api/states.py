"""What one word says of a target, a node and an instance. Pure; blind never looks like ok.

A node or an instance has the worst word of:

- ``fatal``, ``critical``, ``normal``: an event of this severity is open here, announced or suppressed;
- ``failing``: a target's newest sample failed, and no event is open for it (yet);
- ``blind``: a target cannot be observed for a reason of ours, or was not for 3 intervals; or nothing is known at all;
- ``waiting``: no target has been sampled yet;
- ``ok``: what could be observed was, and nothing above holds.

A target that does not apply (a primary's WAL receiver) speaks neither for nor against.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from probed.board import Entry
from probed.metrics import STALE_INTERVALS
from probed.model import Event, Outcome, Sample


class State(StrEnum):
    """The worst first."""

    FATAL = "fatal"
    CRITICAL = "critical"
    NORMAL = "normal"
    FAILING = "failing"
    BLIND = "blind"
    WAITING = "waiting"
    OK = "ok"


_OF_OUTCOME = {Outcome.OBSERVED: State.OK, Outcome.FAILED: State.FAILING, Outcome.BLIND: State.BLIND}


def fresh(entry: Entry, now: float) -> Sample | None:
    """The newest sample while it still says something about ``now`` (monotonic)."""
    newest = entry.newest
    return None if newest is None or is_stale(entry, newest, now) else newest


def is_stale(entry: Entry, newest: Sample, now: float) -> bool:
    """Whether its ``newest`` sample says nothing of ``now`` (monotonic) any more."""
    return now - newest.mono > STALE_INTERVALS * entry.interval


def state(entries: Iterable[Entry], events: Iterable[Event], now: float) -> State:
    """Of what has these targets and open events."""
    severities = [event.severity for event in events]
    if severities:
        return State(min(severities, key=lambda severity: severity.rank).value)
    words = {_word(entry, now) for entry in entries}
    for word in (State.FAILING, State.BLIND, State.OK, State.WAITING):
        if word in words:
            return word
    return State.BLIND


def _word(entry: Entry, now: float) -> State | None:
    if entry.newest is None:
        return State.WAITING
    newest = fresh(entry, now)
    return State.BLIND if newest is None else _OF_OUTCOME.get(newest.outcome)


def leader(entries: Iterable[Entry], known: str, now: float) -> str | None:
    """The confirmed leader's name; ``None`` when there is none, or nobody can tell.

    ``known`` is the last certain one, for the moments in which there is a leader and its name is disputed.
    """
    for entry in entries:
        if entry.probe == "leader":
            newest = fresh(entry, now)
            if newest is None or newest.readings.get("has_leader") != 1.0:
                return None
            return str(newest.readings.get("leader") or known) or None
    return None


_PATRONI_RUNS = ("running", "streaming", "in archive recovery")


def role(entries: Sequence[Entry], leads: bool, now: float) -> str | None:
    """``primary``, ``replica``, ``standby_leader``, by the server's own word, else its Patroni's; ``None``: unknown."""
    newest = {entry.probe: sample for entry in entries if (sample := fresh(entry, now)) is not None}
    rest = newest.get("patroni_rest")
    readings = rest.readings if rest is not None and rest.outcome is Outcome.OBSERVED else {}
    by_patroni = readings.get("role") if readings.get("state") in _PATRONI_RUNS else None
    stats = newest.get("postgres_stats")
    if stats is not None and stats.outcome is Outcome.OBSERVED:
        if stats.readings.get("in_recovery") == 0.0:
            return "primary"
        return "standby_leader" if leads or by_patroni == "standby_leader" else "replica"
    if stats is not None and stats.outcome is Outcome.FAILED:
        return None
    if by_patroni in ("primary", "standby_leader"):
        return str(by_patroni)
    return "replica" if by_patroni else None
