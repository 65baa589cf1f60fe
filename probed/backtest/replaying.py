"""One policy over the recorded samples of one target, through ``evaluators.step``. Pure.

Nearly all samples change nothing: a quiet watch stays quiet by a sample that does not meet its condition, an open one
stays open by one that does. Such samples are passed over, whole chunks by their digest alone, and everything else is
stepped. That the outcome is the same as of stepping each is proven by test, not by argument.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from probed.evaluators import inconclusive, restart, step
from probed.model import (
    FRESH,
    Change,
    Condition,
    Increase,
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
from probed.recording.chunks import CODES, OUTCOMES, Columns, Digest

_CALM, _TELLING, _UNDECIDED, _GRACE = range(4)
"""Marks of samples. Those that are telling must be stepped, whatever went before."""
_BY_FAILURE = bytes(
    {Outcome.FAILED: _TELLING, Outcome.OBSERVED: _CALM}.get(OUTCOMES[code], _UNDECIDED) if code < len(OUTCOMES) else 0
    for code in range(256)
)
_OBSERVED, _NOT_APPLICABLE = CODES[Outcome.OBSERVED], CODES[Outcome.NOT_APPLICABLE]
SAME_ROUND = 0.3
"""Seconds within which the samples of a round are taken: those from just before the new leader's are in its grace."""


class Recording(Protocol):
    """A chunk: what is known of it, and its samples."""

    @property
    def run(self) -> int:
        """Which life of a daemon it is from."""
        ...

    @property
    def digest(self) -> Digest: ...

    def load(self) -> Columns: ...


class Switch(Struct, frozen=True):
    """A new leader, as the ``leader`` probe recorded it."""

    run: int
    at: float
    mono: float


class Grace(Struct, frozen=True):
    """The times after switchovers in which samples of policies with ``switchover_grace`` are inconclusive."""

    seconds: float = 0.0
    switches: Sequence[Switch] = ()

    def spans(self, run: int, digest: Digest) -> list[tuple[float, float]]:
        """(first, end) in monotonic time of the run, as far as a chunk is concerned by them."""
        found = []
        for switch in self.switches:
            # Of an earlier run only the date is known, as for a daemon that finds its last switchover in the store.
            mono = switch.mono if switch.run == run else digest.first_mono - (digest.first_at - switch.at)
            first, end = mono - SAME_ROUND, mono + self.seconds
            if switch.run <= run and first <= digest.last_mono and end > digest.first_mono:
                found.append((first, end))
        return found


class Replay:
    """A watch that lives its past again. Feed it the chunks of its target in order."""

    def __init__(self, policy: Policy, grace: Grace | None = None) -> None:
        self.policy = policy
        self.streak = FRESH
        self.samples = 0
        self._grace = grace if grace is not None and policy.switchover_grace else Grace()
        self._rule = _RULES[type(policy.detect)](policy)
        self._run: int | None = None
        self._last_at = self._last_mono = 0.0

    def feed(self, chunk: Recording) -> list[Transition]:
        """What happens in the course of a chunk's samples."""
        digest = chunk.digest
        self._begin(chunk.run, digest)
        self.samples += digest.count
        spans = self._grace.spans(chunk.run, digest)
        after = self._rule.skip(self.streak, digest, bool(spans))
        if after is not None:
            self.streak = _seen(after, digest.last_mono)
            return []
        columns = chunk.load()
        marks = bytearray(self._rule.marks(self.streak, columns))
        for first, end in spans:
            _spare(marks, columns, first, end)
        return self._walk(columns, bytes(marks))

    def _begin(self, run: int, digest: Digest) -> None:
        if self._run is not None and run != self._run:
            absence = max(0.0, digest.first_at - self._last_at)
            shift = digest.first_mono - absence - self._last_mono
            self.streak = restart(self.streak, self.policy, absence, digest.first_mono, shift)
        self._run, self._last_at, self._last_mono = run, digest.last_at, digest.last_mono

    def _walk(self, columns: Columns, marks: bytes) -> list[Transition]:
        told: list[Transition] = []
        monos, count, index = columns.monos, len(columns), 0
        sample_at = _sampler(self.policy, columns)
        graced = _GRACE in marks
        while index < count:
            if self._rule.calm(self.streak, monos[index]) and (not graced or self._rule.forgetful):
                ahead = marks.find(_TELLING, index)
                ahead = count if ahead < 0 else ahead
                if ahead > index:
                    index = ahead
                    continue
            elif self.streak.phase is Phase.OPEN and self._rule.forgetful:
                ahead = count - len(marks[index:].lstrip(_TELLINGS))
                if ahead > index + 1:
                    self.streak = _seen(_met_again(self.streak), monos[ahead - 1])
                    index = ahead
                    continue
            sample = sample_at(index)
            if marks[index] == _GRACE:
                self.streak = inconclusive(self.streak, self.policy, sample)
            else:
                self.streak, transition = step(self.streak, self.policy, sample)
                if transition is not None:
                    told.append(transition)
            index += 1
        return told


_TELLINGS = bytes((_TELLING,))


def _spare(marks: bytearray, columns: Columns, first: float, end: float) -> None:
    """Mark what is in a switchover's grace; what is not applicable is judged all the same."""
    start = bisect_right(columns.monos, first)
    for index in range(start, len(columns)):
        if columns.monos[index] >= end:
            return
        if columns.outcomes[index] != _NOT_APPLICABLE:
            marks[index] = _GRACE


def _met_again(streak: Streak) -> Streak:
    return replace(streak, clearing=0, inconclusive=0, not_applicable=0)


def _seen(streak: Streak, mono: float) -> Streak:
    """The streak after samples that were passed over, the last of them at ``mono``."""
    return streak if streak.phase is Phase.QUIET else replace(streak, last_mono=mono)


def _sampler(policy: Policy, columns: Columns) -> Callable[[int], Sample]:
    """Samples by index, with the readings that the policy's rule looks at."""
    names = readings_of(policy)
    cells = [(name, columns.readings[name]) for name in names if name in columns.readings]
    series = [""] * len(columns) if isinstance(policy.detect, Threshold) else columns.series()
    target, probe = columns.target, columns.probe

    def sample(index: int) -> Sample:
        readings: dict[str, Reading] = {}
        for name, column in cells:
            cell = column[index]
            if cell is not None:
                readings[name] = cell
        return Sample(
            target, probe, OUTCOMES[columns.outcomes[index]], columns.ats[index], columns.monos[index],
            readings=readings, series=series[index],
        )  # fmt: skip

    return sample


def readings_of(policy: Policy) -> list[str]:
    """The readings that decide."""
    rule = policy.detect
    if not isinstance(rule, Threshold):
        return [rule.reading]
    conditions = [rule.when, *([rule.resolve_when] if rule.resolve_when else [])]
    return list(dict.fromkeys(item.reading for condition in conditions for item in condition.comparisons))


# --- what may be passed over, by rule -------------------------------------------------------------------------


class _Rule(Protocol):
    forgetful: bool
    """Whether a sample that is passed over leaves nothing behind that a later one is compared with."""

    def skip(self, streak: Streak, digest: Digest, graced: bool) -> Streak | None:
        """The streak after a whole chunk in which nothing can happen; ``None`` when something may."""
        ...

    def calm(self, streak: Streak, mono: float) -> bool:
        """Whether only a telling sample can change anything."""
        ...

    def marks(self, streak: Streak, columns: Columns) -> bytes: ...


class _ThresholdRule:
    forgetful = True

    def __init__(self, policy: Policy) -> None:
        assert isinstance(policy.detect, Threshold)
        self._when = policy.detect.when

    def skip(self, streak: Streak, digest: Digest, graced: bool) -> Streak | None:
        if streak.phase is Phase.QUIET and _never(self._when, digest):
            return streak
        if streak.phase is Phase.OPEN and not graced and _always(self._when, digest):
            return _met_again(streak)
        return None

    def calm(self, streak: Streak, mono: float) -> bool:
        return streak.phase is Phase.QUIET

    def marks(self, streak: Streak, columns: Columns) -> bytes:
        if self._when.on_failure:
            return columns.outcomes.translate(_BY_FAILURE)
        met: list[int] | None = None
        for item in self._when.comparisons:
            column = columns.readings.get(item.reading)
            if column is None:
                return bytes((_UNDECIDED,)) * len(columns)
            holds = item.holds
            these = [
                _UNDECIDED if cell is None or cell.__class__ is str else _TELLING if holds(cell) else _CALM  # type: ignore[arg-type]  # no text: see before
                for cell in column
            ]
            met = these if met is None else [_both(one, other) for one, other in zip(met, these, strict=True)]
        assert met is not None
        if columns.outcomes.count(_OBSERVED) != len(columns):
            met = [
                mark if outcome == _OBSERVED else _UNDECIDED
                for mark, outcome in zip(met, columns.outcomes, strict=True)
            ]
        return bytes(met)


def _both(one: int, other: int) -> int:
    return _UNDECIDED if _UNDECIDED in (one, other) else one & other


def _never(condition: Condition, digest: Digest) -> bool:
    if condition.on_failure:
        return Outcome.FAILED not in digest.outcomes
    for item in condition.comparisons:
        extent = digest.extents.get(item.reading)
        if extent is None or extent.never(item.op, item.value):
            return True
    return False


def _always(condition: Condition, digest: Digest) -> bool:
    if condition.on_failure:
        return digest.outcomes == {Outcome.FAILED}
    if digest.outcomes != {Outcome.OBSERVED}:
        return False
    extents = [(digest.extents.get(item.reading), item) for item in condition.comparisons]
    return all(extent is not None and extent.always(item.op, item.value) for extent, item in extents)


class _IncreaseRule:
    forgetful = False

    def __init__(self, policy: Policy) -> None:
        assert isinstance(policy.detect, Increase)
        self._reading, self._window = policy.detect.reading, policy.detect.window

    def skip(self, streak: Streak, digest: Digest, graced: bool) -> Streak | None:
        if not self.calm(streak, digest.first_mono):
            return None
        extent = digest.extents.get(self._reading)
        unmoved = extent is not None and extent.lowest == extent.highest == streak.baseline
        if extent is None or (unmoved and digest.series == streak.series):
            return replace(streak, increments=()) if streak.increments else streak
        return None

    def calm(self, streak: Streak, mono: float) -> bool:
        over = all(mono - since >= self._window for since, _ in streak.increments)
        return streak.phase is Phase.QUIET and streak.baseline is not None and over

    def marks(self, streak: Streak, columns: Columns) -> bytes:
        column = columns.readings.get(self._reading)
        if column is None:
            return bytes((_UNDECIDED,)) * len(columns)
        before, series_before = streak.baseline, streak.series
        marks = bytearray()
        for cell, series, outcome in zip(column, columns.series(), columns.outcomes, strict=True):
            if cell is None or isinstance(cell, str) or outcome != _OBSERVED:
                marks.append(_UNDECIDED)
            elif cell == before and series == series_before:
                marks.append(_CALM)
            else:
                marks.append(_TELLING)
                before, series_before = cell, series
        return bytes(marks)


class _ChangeRule:
    forgetful = False

    def __init__(self, policy: Policy) -> None:
        assert isinstance(policy.detect, Change)
        self._reading = policy.detect.reading

    def skip(self, streak: Streak, digest: Digest, graced: bool) -> Streak | None:
        extent = digest.extents.get(self._reading)
        return streak if extent is None or (extent.word is not None and extent.word in ("", streak.identity)) else None

    def calm(self, streak: Streak, mono: float) -> bool:
        return True

    def marks(self, streak: Streak, columns: Columns) -> bytes:
        column = columns.readings.get(self._reading)
        if column is None:
            return bytes((_UNDECIDED,)) * len(columns)
        before = streak.identity
        marks = bytearray()
        for cell, outcome in zip(column, columns.outcomes, strict=True):
            if cell is None or cell == "" or outcome != _OBSERVED:
                marks.append(_UNDECIDED)
            elif str(cell) == before:
                marks.append(_CALM)
            else:
                marks.append(_TELLING)
                before = str(cell)
        return bytes(marks)


class _OccurrenceRule:
    forgetful = True

    def __init__(self, policy: Policy) -> None:
        assert isinstance(policy.detect, Occurrence)
        self._reading = policy.detect.reading

    def skip(self, streak: Streak, digest: Digest, graced: bool) -> Streak | None:
        extent = digest.extents.get(self._reading)
        return streak if extent is None or extent.highest <= 0 else None

    def calm(self, streak: Streak, mono: float) -> bool:
        return True

    def marks(self, streak: Streak, columns: Columns) -> bytes:
        column = columns.readings.get(self._reading)
        if column is None:
            return bytes((_UNDECIDED,)) * len(columns)
        return bytes(
            _UNDECIDED if cell is None or isinstance(cell, str) else _CALM if cell <= 0 else _TELLING for cell in column
        )


_RULES: Mapping[type, Callable[[Policy], _Rule]] = {
    Threshold: _ThresholdRule,
    Increase: _IncreaseRule,
    Change: _ChangeRule,
    Occurrence: _OccurrenceRule,
}
