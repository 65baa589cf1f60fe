"""Pure evaluators: ``step(streak, policy, sample) -> (streak, transition or None)``.

No I/O, no clock, no async: time comes only from the sample. What counts, resets, opens, resolves and survives is the
contract in the design page ``evaluators.md``; ``tests/unit`` holds a short reference model against this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probed.model import (
    Change,
    Increase,
    Kind,
    Occurrence,
    Outcome,
    Phase,
    Policy,
    Sample,
    Streak,
    Threshold,
    Transition,
)

Step = tuple[Streak, Transition | None]

RESTART_GRACE = 60.0
"""A streak survives a stop of the daemon of up to max(2 intervals, this many seconds)."""


def step(streak: Streak, policy: Policy, sample: Sample) -> Step:
    """Fold one sample into the watch's streak. Samples of one watch must come in order."""
    return _STEPS[type(policy.detect)](_after_gap(streak, policy, sample), policy, sample)


def inconclusive(streak: Streak, policy: Policy, sample: Sample) -> Streak:
    """What a sample that decides nothing leaves behind: it neither counts nor resets, until there were too many."""
    streak = _after_gap(streak, policy, sample)
    run = streak.inconclusive + 1
    if streak.phase is Phase.PENDING and run > _max_gap(policy):
        streak = _no_streak(streak)
    return streak.but(inconclusive=run, last_mono=sample.mono)


def close(streak: Streak, at: float, reason: str) -> Step:
    """Close an open event from outside the samples (``disabled``, ``target_removed``, ``policy_removed``)."""
    if streak.phase is not Phase.OPEN:
        return _no_streak(streak), None
    return _no_streak(streak), Transition(Kind.RESOLVED, at=at, first_failed_at=streak.since_at, reason=reason)


def restart(streak: Streak, policy: Policy, absence: float, now: float, mono_shift: float) -> Streak:
    """The streak after the daemon was away for ``absence`` seconds; ``now`` is the new monotonic time.

    Open events stay open, baselines and identities survive always; a pending streak survives a short absence only.
    ``mono_shift`` re-dates stored monotonic times on today's clock, so that a window goes on over the restart.
    """
    if absence > max(2 * policy.interval, RESTART_GRACE):
        streak = streak.but(clearing=0) if streak.phase is Phase.OPEN else _no_streak(streak)
    increments = tuple((mono + mono_shift, delta) for mono, delta in streak.increments)
    return streak.but(last_mono=None if streak.last_mono is None else now, increments=increments)


def _threshold(streak: Streak, policy: Policy, sample: Sample) -> Step:
    rule = policy.detect
    assert isinstance(rule, Threshold)
    met = rule.when.met_by(sample)
    if met is None:
        return _undecided(streak, policy, sample, rule.resolve_count)
    if streak.phase is Phase.OPEN and not met and rule.resolve_when is not None:
        cleared = rule.resolve_when.met_by(sample)
        if cleared is None:
            return _undecided(streak, policy, sample, rule.resolve_count)
        # Between the two thresholds an open event neither clears nor counts as met again.
        if not cleared:
            return _conclusive(streak.but(clearing=0), sample), None
    if not met and streak.phase is not Phase.OPEN:
        return _quiet(streak, sample), None
    value, threshold = _compared(rule, sample)
    return _judge(streak, sample, met, rule.count, rule.resolve_count, value, threshold)


def _increase(streak: Streak, policy: Policy, sample: Sample) -> Step:
    rule = policy.detect
    assert isinstance(rule, Increase)
    reading = sample.readings.get(rule.reading) if sample.outcome is Outcome.OBSERVED else None
    if reading is None or isinstance(reading, str):
        return _undecided(streak, policy, sample, rule.resolve_count)
    increments = tuple(item for item in streak.increments if sample.mono - item[0] < rule.window)
    same_series = streak.baseline is not None and sample.series == streak.series
    if same_series and streak.baseline is not None and reading > streak.baseline:
        increments = (*increments, (sample.mono, reading - streak.baseline))
    streak = streak.but(baseline=reading, series=sample.series, increments=increments)
    total = sum(delta for _, delta in increments)
    return _judge(streak, sample, total >= rule.at_least, 1, rule.resolve_count, total, rule.at_least)


def _change(streak: Streak, policy: Policy, sample: Sample) -> Step:
    rule = policy.detect
    assert isinstance(rule, Change)
    reading = sample.readings.get(rule.reading) if sample.outcome is Outcome.OBSERVED else None
    if reading is None or reading == "":
        return inconclusive(streak, policy, sample), None
    identity, previous = str(reading), streak.identity
    streak = _conclusive(streak, sample).but(identity=identity, series=sample.series or streak.series)
    if not previous or previous == identity:
        return streak, None
    return streak, Transition(Kind.OCCURRED, at=sample.at, value=identity, previous=previous)


def _occurrence(streak: Streak, policy: Policy, sample: Sample) -> Step:
    rule = policy.detect
    assert isinstance(rule, Occurrence)
    reading = sample.readings.get(rule.reading) if sample.outcome is Outcome.OBSERVED else None
    if reading is None or isinstance(reading, str):
        return inconclusive(streak, policy, sample), None
    streak = _conclusive(streak, sample)
    if reading <= 0 or (sample.series and sample.series == streak.seen):
        return streak, None
    happened = Transition(Kind.OCCURRED, at=sample.at, count=int(reading), value=reading)
    return streak.but(seen=sample.series), happened


_EPISODES = Threshold | Increase
_STEPS: dict[type, Callable[[Streak, Policy, Sample], Step]] = {
    Threshold: _threshold,
    Increase: _increase,
    Change: _change,
    Occurrence: _occurrence,
}


def _judge(
    streak: Streak, sample: Sample, met: bool, count: int, resolve_count: int, value: Any, threshold: Any
) -> Step:
    """One conclusive sample over an episode (quiet -> pending -> open -> quiet)."""
    if not met and streak.phase is not Phase.OPEN:
        return _quiet(streak, sample), None
    streak = _conclusive(streak, sample)
    if met:
        meeting = streak.meeting + 1
        since = streak.since_at if streak.meeting or streak.phase is Phase.OPEN else sample.at
        if streak.phase is Phase.OPEN:
            return streak.but(meeting=meeting, clearing=0), None
        if meeting < count:
            return streak.but(phase=Phase.PENDING, meeting=meeting, since_at=since), None
        opened = Transition(
            Kind.OPENED, at=sample.at, first_failed_at=since, count=meeting, value=value, threshold=threshold
        )
        return streak.but(phase=Phase.OPEN, meeting=meeting, clearing=0, since_at=since), opened
    clearing = streak.clearing + 1
    if clearing < resolve_count:
        return streak.but(clearing=clearing, meeting=0), None
    resolved = Transition(
        Kind.RESOLVED,
        at=sample.at,
        first_failed_at=streak.since_at,
        value=value,
        threshold=threshold,
        reason="recovered",
    )
    return _no_streak(streak), resolved


def _undecided(streak: Streak, policy: Policy, sample: Sample, resolve_count: int) -> Step:
    """Inconclusive; a lasting not-applicable closes an open event, because nothing can ever recover it."""
    streak = inconclusive(streak, policy, sample)
    if sample.outcome is not Outcome.NOT_APPLICABLE:
        return streak.but(not_applicable=0), None
    streak = streak.but(not_applicable=streak.not_applicable + 1)
    if streak.phase is Phase.OPEN and streak.not_applicable >= resolve_count:
        return close(streak, sample.at, "not_applicable")
    return streak, None


def _quiet(streak: Streak, sample: Sample) -> Streak:
    """What nearly every sample leaves behind: it decided something, and nothing is the matter."""
    return streak.but(
        phase=Phase.QUIET, meeting=0, clearing=0, since_at=None, inconclusive=0, not_applicable=0, last_mono=sample.mono
    )


def _conclusive(streak: Streak, sample: Sample) -> Streak:
    return streak.but(inconclusive=0, not_applicable=0, last_mono=sample.mono)


def _after_gap(streak: Streak, policy: Policy, sample: Sample) -> Streak:
    """Streaks do not go on over a time in which nobody looked (suspend, stall), whatever the sample after it says."""
    if streak.last_mono is None or sample.mono - streak.last_mono <= _max_gap(policy) * policy.interval:
        return streak
    if streak.phase is Phase.PENDING:
        return _no_streak(streak)
    return streak.but(meeting=0, clearing=0)


def _max_gap(policy: Policy) -> int:
    rule = policy.detect
    return rule.max_gap if isinstance(rule, _EPISODES) else 0


def _no_streak(streak: Streak) -> Streak:
    if streak.phase is Phase.QUIET and not streak.meeting and not streak.clearing and streak.since_at is None:
        return streak
    return streak.but(phase=Phase.QUIET, meeting=0, clearing=0, since_at=None)


def _compared(rule: Threshold, sample: Sample) -> tuple[Any, float | None]:
    if rule.when.on_failure:
        return None, None
    first = rule.when.comparisons[0]
    return sample.readings.get(first.reading), first.value
