"""Transition -> event: what happened, in words an operator reads at three in the morning. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec.structs import replace

from probed.leadership import Passage
from probed.model import (
    Comparison,
    Event,
    EventState,
    Increase,
    Kind,
    Occurrence,
    Policy,
    Reading,
    Sample,
    Severity,
    Threshold,
    Transition,
)
from probed.quantity import human_bytes, human_seconds


def new_id(at: float) -> str:
    """A time-ordered id: UUID version 7 of ``at``, to a quarter of a microsecond (RFC 9562, 6.2, method 3)."""
    milliseconds, fraction = divmod(int(at * 4_096_000) & ((1 << 60) - 1), 4096)
    random = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
    text = f"{milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def begin(
    transition: Transition,
    policy: Policy,
    sample: Sample,
    *,
    event_id: str,
    severity: Severity,
    observer: str,
    labels: Mapping[str, str],
    cause: Event | None = None,
) -> Event:
    """The event that an ``opened`` or ``occurred`` transition starts; a consequence when there is a ``cause``."""
    occurred = transition.kind is Kind.OCCURRED
    return Event(
        id=event_id,
        event=policy.id,
        name=policy.name,
        severity=severity,
        state=EventState.OCCURRED if occurred else EventState.OPEN,
        target=sample.target,
        opened_at=transition.at,
        message=message(transition, policy, sample),
        first_failed_at=transition.first_failed_at,
        count=transition.count,
        value=transition.value,
        threshold=transition.threshold,
        suggestion=policy.suggestion,
        policy_version=policy.version,
        observer=observer,
        caused_by=cause.id if cause else None,
        suppressed=cause is not None,
        labels=dict(labels),
    )


def hide(event: Event) -> Event:
    """An event that is recorded and told to nobody."""
    return replace(event, suppressed=True)


def in_pause(event: Event) -> Event:
    """An event that came while Patroni was paused: it would not have failed over, and somebody is at work."""
    return replace(event, details={**event.details, "patroni_paused": True})


def go_on_under(event: Event, version: int) -> Event:
    """An open event whose policy was edited: it is judged by the new version from now on; all else stays."""
    opened = event.details.get("opened_under", event.policy_version)
    return replace(event, policy_version=version, details={**event.details, "opened_under": opened})


def resolve(event: Event, transition: Transition) -> Event:
    """The event after its recovery, or after nothing is left to watch."""
    return replace(
        event, state=EventState.RESOLVED, resolved_at=transition.at, resolve_reason=transition.reason or "recovered"
    )


def lift(event: Event) -> Event:
    """What was held back and is to be told after all: a consequence that outlived its cause, a flapping that lasts.

    Who caused it stays known.
    """
    return replace(event, suppressed=False, details={**event.details, "quiet": False} if event.quiet else event.details)


def link(event: Event, cause: Event) -> Event:
    """An event that was announced before its cause was known, with the cause."""
    return replace(event, caused_by=cause.id)


def flap(event: Event, turns: int, *, quiet: bool) -> Event:
    """An opening that belongs to something that comes and goes: ``turns`` in the last 10 minutes, this one included."""
    said = f"{event.message}; flapping: {turns} changes within 10 minutes"
    details = {**event.details, "turns": turns, "quiet": quiet}
    return replace(event, message=said, flapping=True, details=details)


def restless(event: Event, switchovers: int) -> Event:
    """A switchover of a leadership that flaps. It is announced all the same: each one cost its clients something."""
    said = f"{event.message}; the leadership flaps: {switchovers} switchovers within 10 minutes"
    return replace(event, message=said, flapping=True, details={**event.details, "switchovers_in_10_min": switchovers})


def explain_switchover(event: Event, passage: Passage) -> Event:
    """A switchover with its class and price."""
    return replace(
        event, message=f"{event.message}: {passage}", details={**event.details, "switchover": passage.as_details()}
    )


def acknowledge(event: Event, who: str, at: float, comment: str) -> Event:
    """Somebody has taken it on."""
    said = {"by": who, "at": _rfc3339(at), "comment": comment}
    return replace(event, acked_by=who, details={**event.details, "ack": said})


def unacknowledge(event: Event) -> Event:
    """Whoever had taken it on has given it back; the history of its transitions still tells of it."""
    details = {key: value for key, value in event.details.items() if key != "ack"}
    return replace(event, acked_by=None, details=details)


def message(transition: Transition, policy: Policy, sample: Sample) -> str:
    """One sentence: what was seen, how often, and the target's own words."""
    rule = policy.detect
    why = f": {sample.reason}" if sample.reason else ""
    if transition.kind is Kind.OCCURRED and transition.previous:
        timeline = sample.readings.get("timeline")
        on = f" (timeline {timeline:g})" if isinstance(timeline, float) else ""
        return f"{transition.value} became the primary in place of {transition.previous}{on}"
    match rule:
        case Threshold() if rule.when.on_failure:
            return f"{_times(rule.count)} failed{why}"
        case Threshold() if sample.reason and not rule.when.comparisons[0].reading.endswith(_UNITS):
            # The name of a flag or a count says less than what raised it.
            return f"{_times(rule.count)}{why}"
        case Threshold():
            return f"{_finding(rule.when.comparisons[0], transition.value)} in {_times(rule.count)}{why}"
        case Increase():
            number, window = transition.value, human_seconds(rule.window)
            return f"{rule.reading} rose by {_plain(number)} within {window}, at or above {rule.at_least:g}"
        case Occurrence() if sample.reason:
            return sample.reason  # what happened once is said by who saw it
        case _:
            return sample.reason or f"{rule.reading}: {_plain(transition.value)}"


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_UNITS = ("_seconds", "_bytes", "_pct", "_ratio")
WORDS: Mapping[str, str] = {
    ">=": "at or above", ">": "above", "<=": "at or below", "<": "below", "==": "equal to", "!=": "not",
}  # fmt: skip
"""How a comparison reads."""


def _finding(comparison: Comparison, value: Reading | None) -> str:
    if comparison.op == "==":
        return f"{comparison.reading} was {shown(comparison.reading, value)}"
    limit = shown(comparison.reading, comparison.value)
    return f"{comparison.reading} was {shown(comparison.reading, value)}, {WORDS[comparison.op]} {limit},"


def _times(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} of {count} samples in a row"


def shown(reading: str, value: Reading | None) -> str:
    """A reading with its unit, which its name carries, for people."""
    if not isinstance(value, float | int):
        return str(value)
    if reading.endswith("_seconds"):
        return human_seconds(value)
    if reading.endswith("_bytes"):
        return human_bytes(value)
    if reading.endswith(("_pct", "_ratio")):
        return f"{value:.1f} %"
    return _plain(value)


def _plain(value: Reading | None) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
