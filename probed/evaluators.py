"""Pure evaluators: ``step(streak, policy, sample) -> (streak, transition or None)``.

No I/O, no clock, no async: time comes only from the sample. What counts, resets, opens, resolves and survives is the
contract in the design page ``evaluators.md``; ``tests/unit`` holds a short reference model against this module.

A sample by which nothing changes gives back the very same streak: a quiet one counts nothing and needs no time, so
that a healthy fleet remakes none, and who keeps streaks sees by identity that there is nothing to keep.
"""

from __future__ import annotations

from msgspec.structs import replace

from probed.model import (
    Change,
    Condition,
    Increase,
    Kind,
    Occurrence,
    Outcome,
    Phase,
    Policy,
    Reading,
    Sample,
    Streak,
    Threshold,
    Transition,
)

Step = tuple[Streak, Transition | None]

RESTART_GRACE = 60.0
"""A streak survives a stop of the daemon of up to max(2 intervals, this many seconds)."""

_EPISODES = (Threshold, Increase)
# Python 3.11 calls a function for each look at a member of an enum.
_QUIET, _PENDING, _OPEN = Phase.QUIET, Phase.PENDING, Phase.OPEN
_OBSERVED, _NOT_APPLICABLE = Outcome.OBSERVED, Outcome.NOT_APPLICABLE
_OPENED, _RESOLVED, _OCCURRED = Kind.OPENED, Kind.RESOLVED, Kind.OCCURRED


def step(streak: Streak, policy: Policy, sample: Sample) -> Step:
    """Fold one sample into the watch's streak. Samples of one watch must come in order."""
    rule = policy.detect
    if isinstance(rule, Threshold):
        met = rule.when.met_by(sample)
        if not met and streak.phase is _QUIET:
            return streak, None
        streak = _after_gap(streak, policy, sample)
        if met is None:
            return _undecided(streak, policy, rule, sample)
        if not met and rule.resolve_when is not None and streak.phase is _OPEN:
            return _clearing(streak, policy, rule, rule.resolve_when, sample)
        return _judge(streak, rule, sample, met)
    if isinstance(rule, Increase):
        return _increase(_after_gap(streak, policy, sample), policy, rule, sample)
    if isinstance(rule, Change):
        return _change(streak, rule, sample)
    return _occurrence(streak, rule, sample)


def leaves_quiet(policy: Policy, sample: Sample) -> bool:
    """Whether a quiet streak stays what it is, whatever else is known: nearly every sample there is."""
    rule = policy.detect
    return isinstance(rule, Threshold) and not rule.when.met_by(sample)


def inconclusive(streak: Streak, policy: Policy, sample: Sample) -> Streak:
    """What a sample that decides nothing leaves behind: it neither counts nor resets, until there were too many."""
    streak, rule = _after_gap(streak, policy, sample), policy.detect
    if streak.phase is _QUIET or not isinstance(rule, _EPISODES):
        return streak
    run = streak.inconclusive + 1
    if streak.phase is _PENDING and run > rule.max_gap:
        return at_rest(streak)
    return replace(streak, inconclusive=run, last_mono=sample.mono)


def close(streak: Streak, at: float, reason: str) -> Step:
    """Close an open event from outside the samples (``disabled``, ``target_removed``, ``policy_removed``)."""
    if streak.phase is not _OPEN:
        return at_rest(streak), None
    return at_rest(streak), Transition(_RESOLVED, at=at, first_failed_at=streak.since_at, reason=reason)


def at_rest(streak: Streak) -> Streak:
    """Nothing is the matter and nothing is counted; what the streak knows of the past stays."""
    if streak.phase is _QUIET:
        return streak
    return _made(streak, _QUIET, 0, 0, None, None)


def restart(streak: Streak, policy: Policy, absence: float, now: float, mono_shift: float) -> Streak:
    """The streak after the daemon was away for ``absence`` seconds; ``now`` is the new monotonic time.

    Open events stay open, baselines and identities survive always; a pending streak survives a short absence only.
    ``mono_shift`` re-dates stored monotonic times on today's clock, so that a window goes on over the restart.
    """
    if absence > max(2 * policy.interval, RESTART_GRACE):
        streak = replace(streak, clearing=0) if streak.phase is _OPEN else at_rest(streak)
    if streak.increments:
        streak = replace(streak, increments=tuple((mono + mono_shift, delta) for mono, delta in streak.increments))
    return streak if streak.last_mono is None else replace(streak, last_mono=None if streak.phase is _QUIET else now)


def _clearing(streak: Streak, policy: Policy, rule: Threshold, clear: Condition, sample: Sample) -> Step:
    """An open event with a clearing condition of its own, after a sample that does not meet the opening one."""
    cleared = clear.met_by(sample)
    if cleared is None:
        return _undecided(streak, policy, rule, sample)
    # Between the two thresholds an open event neither clears nor counts as met again.
    if not cleared:
        return _made(streak, _OPEN, streak.meeting, 0, streak.since_at, sample.mono), None
    return _judge(streak, rule, sample, False)


def _increase(streak: Streak, policy: Policy, rule: Increase, sample: Sample) -> Step:
    reading = sample.readings.get(rule.reading) if sample.outcome is _OBSERVED else None
    if reading is None or isinstance(reading, str):
        return _undecided(streak, policy, rule, sample)
    increments = streak.increments
    if increments:
        increments = tuple(item for item in increments if sample.mono - item[0] < rule.window)
    same_series = streak.baseline is not None and sample.series == streak.series
    if same_series and streak.baseline is not None and reading > streak.baseline:
        increments = (*increments, (sample.mono, reading - streak.baseline))
    if not same_series or reading != streak.baseline or increments != streak.increments:
        streak = replace(streak, baseline=reading, series=sample.series, increments=increments)
    total = sum(delta for _, delta in increments)
    return _judge(streak, rule, sample, total >= rule.at_least, total)


def _change(streak: Streak, rule: Change, sample: Sample) -> Step:
    reading = sample.readings.get(rule.reading) if sample.outcome is _OBSERVED else None
    if reading is None or reading == "":
        return streak, None
    identity, previous = str(reading), streak.identity
    series = sample.series or streak.series
    if previous != identity or streak.series != series:
        streak = replace(streak, identity=identity, series=series)
    if not previous or previous == identity:
        return streak, None
    return streak, Transition(_OCCURRED, at=sample.at, value=identity, previous=previous)


def _occurrence(streak: Streak, rule: Occurrence, sample: Sample) -> Step:
    reading = sample.readings.get(rule.reading) if sample.outcome is _OBSERVED else None
    if reading is None or isinstance(reading, str):
        return streak, None
    if reading <= 0 or (sample.series and sample.series == streak.seen):
        return streak, None
    happened = Transition(_OCCURRED, at=sample.at, count=int(reading), value=reading)
    return replace(streak, seen=sample.series), happened


def _judge(streak: Streak, rule: Threshold | Increase, sample: Sample, met: bool, total: float | None = None) -> Step:
    """One conclusive sample over an episode (quiet -> pending -> open -> quiet); of a counter, its rise in total."""
    if met:
        meeting = streak.meeting + 1
        if streak.phase is _OPEN:
            return _made(streak, _OPEN, meeting, 0, streak.since_at, sample.mono), None
        since = streak.since_at if streak.meeting else sample.at
        if meeting < rule.count:
            return _made(streak, _PENDING, meeting, 0, since, sample.mono), None
        value, threshold = _compared(rule, sample, total)
        opened = Transition(_OPENED, sample.at, since, meeting, value, threshold)
        return _made(streak, _OPEN, meeting, 0, since, sample.mono), opened
    if streak.phase is not _OPEN:
        return at_rest(streak), None
    clearing = streak.clearing + 1
    if clearing < rule.resolve_count:
        return _made(streak, _OPEN, 0, clearing, streak.since_at, sample.mono), None
    value, threshold = _compared(rule, sample, total)
    resolved = Transition(_RESOLVED, sample.at, streak.since_at, value=value, threshold=threshold, reason="recovered")
    return at_rest(streak), resolved


def _undecided(streak: Streak, policy: Policy, rule: Threshold | Increase, sample: Sample) -> Step:
    """Inconclusive; a lasting not-applicable closes an open event, because nothing can ever recover it."""
    streak = inconclusive(streak, policy, sample)
    if streak.phase is not _OPEN:
        return streak, None
    if sample.outcome is not _NOT_APPLICABLE:
        return replace(streak, not_applicable=0), None
    if streak.not_applicable + 1 >= rule.resolve_count:
        return close(streak, sample.at, "not_applicable")
    return replace(streak, not_applicable=streak.not_applicable + 1), None


def _made(
    streak: Streak, phase: Phase, meeting: int, clearing: int, since_at: float | None, last_mono: float | None
) -> Streak:
    """The streak after something was decided; what it knows of the past stays."""
    return Streak(
        phase, meeting, clearing, 0, 0, since_at, last_mono,
        streak.series, streak.baseline, streak.increments, streak.identity, streak.seen, streak.turns,
    )  # fmt: skip


def _after_gap(streak: Streak, policy: Policy, sample: Sample) -> Streak:
    """Streaks do not go on over a time in which nobody looked (suspend, stall), whatever the sample after it says."""
    last_mono, rule = streak.last_mono, policy.detect
    if last_mono is None or not isinstance(rule, _EPISODES):
        return streak
    if sample.mono - last_mono <= rule.max_gap * policy.interval:
        return streak
    return replace(streak, meeting=0, clearing=0) if streak.phase is _OPEN else at_rest(streak)


def _compared(rule: Threshold | Increase, sample: Sample, total: float | None) -> tuple[Reading | None, float | None]:
    """What was measured, and the limit that it was held against."""
    if isinstance(rule, Increase):
        return total, rule.at_least
    if not rule.when.comparisons:
        return None, None
    first = rule.when.comparisons[0]
    return sample.readings.get(first.reading), first.value
