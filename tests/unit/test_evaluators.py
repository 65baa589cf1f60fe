"""The evaluators keep the contract: in sentences, and against a reference model over every history that comes up."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from probed.evaluators import RESTART_GRACE, close, inconclusive, restart, step
from probed.model import (
    FRESH,
    Change,
    Comparison,
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
from probed.store.rows import streak_of, streak_text, worth_keeping
from probed.testing import make_policy, make_sample
from tests.unit.reference import Counted, Seen, Verdict, changed, episodes, risen

INTERVAL = 5.0
F, OK, B, NA = Outcome.FAILED, Outcome.OBSERVED, Outcome.BLIND, Outcome.NOT_APPLICABLE
_TOKENS = {None: ".", Kind.OPENED: "O", Kind.RESOLVED: "R", Kind.OCCURRED: "X"}


def failed(count: int = 3, resolve_count: int = 2, max_gap: int = 5) -> Policy:
    return make_policy(Threshold(Condition(), count, resolve_count, max_gap), interval=INTERVAL)


def above(limit: float, count: int = 2, resolve_when: Condition | None = None) -> Policy:
    condition = Condition((Comparison("lag_seconds", ">=", limit),))
    return make_policy(Threshold(condition, count, resolve_when=resolve_when), interval=INTERVAL)


def rising(at_least: float = 5, window: float = 60.0, resolve_count: int = 2) -> Policy:
    return make_policy(Increase("deadlocks", window, at_least, resolve_count), interval=INTERVAL)


def fold(policy: Policy, samples: Sequence[Sample], streak: Streak | None = None) -> tuple[str, Streak]:
    """(what was told, one character per sample; the streak in the end)"""
    state, told = streak or Streak(), ""
    for sample in samples:
        state, transition = step(state, policy, sample)
        told += _TOKENS[transition.kind if transition else None]
    return told, state


def outcomes(*seen: Outcome, every: float = INTERVAL) -> list[Sample]:
    return [make_sample(outcome, mono=index * every) for index, outcome in enumerate(seen)]


def readings(name: str, *values: float | str | None, every: float = INTERVAL) -> list[Sample]:
    """Samples of one reading; ``None`` is an observed sample without it."""
    return [
        make_sample(OK, {} if value is None else {name: value}, mono=index * every)
        for index, value in enumerate(values)
    ]


def told(policy: Policy, samples: Sequence[Sample]) -> str:
    return fold(policy, samples)[0]


# --- threshold: opening


def test_a_third_failure_in_a_row_opens_exactly_one_event() -> None:
    assert told(failed(3), outcomes(F, F, F, F, F, F)) == "..O..."


def test_one_good_sample_sets_a_pending_streak_to_zero() -> None:
    assert told(failed(3), outcomes(F, F, OK, F, F, OK, F, F, F)) == "........O"


def test_a_count_of_one_opens_at_once() -> None:
    assert told(failed(1), outcomes(OK, F, F)) == ".O."


def test_blind_samples_neither_count_nor_reset() -> None:
    assert told(failed(3), outcomes(F, B, F, B, B, F)) == ".....O"
    assert told(failed(1), outcomes(B, B, B, B, B, B, B, B)) == "........"


def test_max_gap_blind_samples_in_a_row_keep_a_pending_streak_and_one_more_ends_it() -> None:
    assert told(failed(2, max_gap=3), outcomes(F, B, B, B, F)) == "....O"
    assert told(failed(2, max_gap=3), outcomes(F, B, B, B, B, F, F)) == "......O"


def test_blind_samples_count_towards_the_gap_only_in_a_row() -> None:
    assert told(failed(3, max_gap=1), outcomes(F, B, F, B, F)) == "....O"


def test_the_opened_transition_tells_when_it_began_and_how_many_met() -> None:
    _, transition = _last(failed(3), outcomes(F, B, F, F))
    assert transition == Transition(
        Kind.OPENED, at=make_sample(mono=15).at, first_failed_at=make_sample(mono=0).at, count=3
    )


def test_the_opened_transition_of_a_reading_carries_the_value_and_the_limit() -> None:
    _, transition = _last(above(30), readings("lag_seconds", 31.0, 45.0))
    assert transition is not None
    assert (transition.value, transition.threshold) == (45.0, 30)


def test_first_failed_at_is_that_of_the_streak_that_opened_and_not_of_an_older_one() -> None:
    _, transition = _last(failed(2), outcomes(F, OK, OK, F, F))
    assert transition is not None
    assert transition.first_failed_at == make_sample(mono=15).at


# --- threshold: what decides


def test_a_failed_target_decides_nothing_about_a_reading() -> None:
    assert told(above(30), [*readings("lag_seconds", 31.0), make_sample(F, mono=5), make_sample(B, mono=10)]) == "..."
    assert told(above(30, count=1), outcomes(F, F, F)) == "..."


def test_an_observed_sample_without_the_reading_is_inconclusive() -> None:
    assert told(above(30), readings("lag_seconds", 31.0, None, 31.0)) == "..O"


def test_a_word_where_a_number_was_expected_is_inconclusive() -> None:
    assert told(above(30, count=1), readings("lag_seconds", "unknown", "unknown")) == ".."


def test_at_the_threshold_is_met() -> None:
    assert told(above(30, count=1), readings("lag_seconds", 29.999)) == "."
    assert told(above(30, count=1), readings("lag_seconds", 30.0)) == "O"


@pytest.mark.parametrize(
    "op, below, at, over",
    [
        (">=", False, True, True),
        (">", False, False, True),
        ("<=", True, True, False),
        ("<", True, False, False),
        ("==", False, True, False),
        ("!=", True, False, True),
    ],
)
def test_comparisons_are_as_written(op: str, below: bool, at: bool, over: bool) -> None:
    comparison = Comparison("x", op, 10.0)
    assert [comparison.holds(value) for value in (9.0, 10.0, 11.0)] == [below, at, over]


def test_comparisons_joined_by_and_must_all_hold_and_all_have_their_reading() -> None:
    both = Condition((Comparison("hit_ratio", "<", 90), Comparison("blocks", ">=", 10_000)))
    assert both.met_by(make_sample(OK, {"hit_ratio": 50.0, "blocks": 10_000.0})) is True
    assert both.met_by(make_sample(OK, {"hit_ratio": 50.0, "blocks": 9_999.0})) is False
    assert both.met_by(make_sample(OK, {"hit_ratio": 95.0, "blocks": 10_000.0})) is False
    assert both.met_by(make_sample(OK, {"hit_ratio": 50.0})) is None
    assert both.met_by(make_sample(OK, {"blocks": 1.0})) is None


# --- threshold: resolving


def test_an_open_event_resolves_after_two_good_samples_in_a_row() -> None:
    assert told(failed(1), outcomes(F, OK, F, OK, OK, OK)) == "O...R."


def test_a_meeting_sample_sets_the_count_of_good_ones_to_zero() -> None:
    assert told(failed(1, resolve_count=3), outcomes(F, OK, OK, F, OK, OK, F, OK, OK, OK)) == "O........R"


def test_blind_samples_never_close_an_open_event_however_many() -> None:
    assert told(failed(1), outcomes(F, *[B] * 50)) == "O" + "." * 50


def test_blind_samples_do_not_interrupt_a_recovery() -> None:
    assert told(failed(1, max_gap=2), outcomes(F, OK, B, B, B, B, OK)) == "O.....R"


def test_the_event_reopens_only_after_a_whole_new_streak() -> None:
    assert told(failed(2), outcomes(F, F, OK, OK, F, OK, F, F)) == ".O.R...O"


def test_the_resolved_transition_says_recovered_and_since_when_it_had_failed() -> None:
    _, transition = _last(failed(1), outcomes(F, OK, OK))
    assert transition is not None
    assert (transition.kind, transition.reason) == (Kind.RESOLVED, "recovered")
    assert transition.first_failed_at == make_sample(mono=0).at


def test_between_opening_and_clearing_condition_an_open_event_does_nothing() -> None:
    policy = above(30, count=1, resolve_when=Condition((Comparison("lag_seconds", "<", 10),)))
    assert told(policy, readings("lag_seconds", 30.0, 20.0, 20.0, 20.0, 9.0, 9.0)) == "O....R"


def test_a_value_between_the_two_conditions_sets_the_count_of_clearing_ones_to_zero() -> None:
    policy = above(30, count=1, resolve_when=Condition((Comparison("lag_seconds", "<", 10),)))
    assert told(policy, readings("lag_seconds", 30.0, 9.0, 20.0, 9.0, 9.0)) == "O...R"


def test_a_clearing_condition_on_a_missing_reading_is_inconclusive() -> None:
    policy = above(30, count=1, resolve_when=Condition((Comparison("lag_bytes", "<", 10),)))
    assert told(policy, readings("lag_seconds", 30.0, 1.0, 1.0, 1.0)) == "O..."


def test_a_lasting_not_applicable_closes_an_open_event() -> None:
    samples = outcomes(F, NA, NA)
    assert told(failed(1), samples) == "O.R"
    _, transition = _last(failed(1), samples)
    assert transition is not None
    assert transition.reason == "not_applicable"


def test_a_passing_not_applicable_closes_nothing_and_opens_nothing() -> None:
    assert told(failed(1), outcomes(F, NA, B, NA, F, NA)) == "O....."
    assert told(failed(1), outcomes(NA, NA, NA)) == "..."


# --- gaps


def test_a_pending_streak_does_not_go_on_over_a_time_in_which_nobody_looked() -> None:
    early, late = outcomes(F, F), [make_sample(F, mono=5 + 5 * INTERVAL + 0.1)]
    assert told(failed(3), early + late) == "..."
    assert told(failed(3), [*early, make_sample(F, mono=5 + 5 * INTERVAL)]) == "..O"


def test_a_blind_sample_at_the_end_of_a_gap_does_not_bridge_it() -> None:
    assert told(failed(3), [*outcomes(F, F), make_sample(B, mono=300), make_sample(F, mono=305)]) == "...."


def test_a_recovery_does_not_go_on_over_a_time_in_which_nobody_looked() -> None:
    samples = [*outcomes(F, OK), make_sample(OK, mono=300), make_sample(OK, mono=305)]
    assert told(failed(1), samples) == "O..R"


def test_the_recovery_of_a_risen_counter_does_not_go_on_over_a_gap_either() -> None:
    values = [(0, 0.0), (5, 9.0), (70, 9.0), (300, 9.0), (305, 9.0)]
    samples = [make_sample(OK, {"deadlocks": value}, mono=mono) for mono, value in values]
    assert told(replace(rising(), interval=60.0), samples[:3]) == ".O."
    assert told(rising(), samples) == ".O..R"


# --- edits


def test_a_changed_count_applies_from_the_next_sample_on_and_the_streak_stays() -> None:
    _, streak = fold(failed(5), outcomes(F, F))
    assert told_from(streak, failed(3), [make_sample(F, mono=10)]) == "O"
    _, streak = fold(failed(2), outcomes(F))
    assert told_from(streak, failed(4), [make_sample(F, mono=m) for m in (5, 10, 15)]) == "..O"


def test_a_changed_threshold_applies_from_the_next_sample_on_and_the_open_event_stays() -> None:
    _, streak = fold(above(30, count=1), readings("lag_seconds", 31.0))
    later = [make_sample(OK, {"lag_seconds": 31.0}, mono=m) for m in (5, 10)]
    assert told_from(streak, above(60, count=1), later) == ".R"


def test_closing_from_outside_tells_of_an_open_event_only() -> None:
    _, pending = fold(failed(3), outcomes(F, F))
    assert close(pending, 99.0, "disabled") == (FRESH, None)
    _, is_open = fold(failed(1), outcomes(F))
    streak, transition = close(is_open, 99.0, "disabled")
    assert streak.phase is Phase.QUIET
    assert transition is not None
    assert (transition.kind, transition.at, transition.reason) == (Kind.RESOLVED, 99.0, "disabled")


# --- increase


def test_a_counter_that_rose_enough_within_the_window_opens() -> None:
    assert told(rising(5), readings("deadlocks", 100.0, 102.0, 104.0, 105.0)) == "...O"


def test_the_first_value_of_a_counter_is_a_baseline() -> None:
    assert told(rising(5), readings("deadlocks", 1_000_000.0)) == "."


def test_increments_older_than_the_window_do_not_count() -> None:
    assert told(rising(5, window=10), readings("deadlocks", 0.0, 3.0, 3.0, 6.0)) == "...."


@pytest.mark.parametrize("values", [(100.0, 3.0, 7.0), (100.0, 99.0, 103.0)])
def test_a_counter_that_fell_is_a_new_baseline(values: tuple[float, ...]) -> None:
    assert told(rising(5), readings("deadlocks", *values)) == "..."


def test_what_a_counter_rises_after_its_fall_counts_whole() -> None:
    assert told(rising(5), readings("deadlocks", 100.0, 3.0, 8.0)) == "..O"


def test_another_series_is_a_new_baseline_even_when_the_value_rose() -> None:
    values = [("a", 10.0), ("b", 100.0), ("b", 104.0), ("b", 105.0)]
    samples = [
        make_sample(OK, {"deadlocks": value}, mono=index * 5.0, series=series)
        for index, (series, value) in enumerate(values)
    ]
    assert told(rising(5), samples) == "...O"


def test_a_rise_over_blind_samples_counts_once_it_is_seen() -> None:
    samples = readings("deadlocks", 0.0, None, 5.0)
    samples[1] = make_sample(F, mono=5.0)
    assert told(rising(5), samples) == "..O"


def test_a_risen_counter_resolves_after_its_increments_left_the_window() -> None:
    assert told(rising(5, window=15), readings("deadlocks", 0.0, 5.0, 5.0, 5.0, 5.0, 5.0)) == ".O...R"


@settings(max_examples=60)
@given(
    burst=st.lists(st.floats(0, 50), min_size=5, max_size=30),
    start=st.floats(0, 500),
    phase=st.floats(0, 5),
    others=st.lists(st.floats(0, 900), max_size=4),
)
def test_a_burst_within_the_window_opens_whatever_the_phase_of_sampling(
    burst: list[float], start: float, phase: float, others: list[float]
) -> None:
    """Five deadlocks within 50 s, sampled every 5 s over a window of 60 s: at no phase do the samples part them."""
    moments = sorted([start + 10 + moment for moment in burst] + others)
    assert "O" in told(rising(5), _counter(moments, phase, 1_000))


@settings(max_examples=60)
@given(st.lists(st.floats(0, 900), max_size=40), st.floats(0, 5))
def test_fewer_than_the_limit_in_any_window_never_open_whatever_the_phase(moments: list[float], phase: float) -> None:
    kept: list[float] = []
    for moment in sorted(moments):
        if len([other for other in kept if moment - other <= 60 + INTERVAL]) < 4:
            kept.append(moment)
    assert "O" not in told(rising(5), _counter(kept, phase, 1_000))


def _counter(moments: Sequence[float], phase: float, until: float) -> list[Sample]:
    """A counter sampled every 5 s that rises by one at each of the moments."""
    times = [phase + index * INTERVAL for index in range(int((until - phase) / INTERVAL))]
    return [make_sample(OK, {"deadlocks": float(len([m for m in moments if m <= time]))}, mono=time) for time in times]


# --- change and occurrence


def test_another_identity_is_told_once_and_the_first_is_not() -> None:
    policy = make_policy(Change("leader"))
    assert told(policy, readings("leader", "a", "a", "b", "b", "a")) == "..X.X"


def test_an_identity_is_compared_over_blind_failed_and_empty_samples() -> None:
    policy = make_policy(Change("leader"))
    samples = readings("leader", "a", "", "a", None, "b")
    samples[3] = make_sample(B, mono=15)
    assert told(policy, samples) == "....X"


def test_a_change_tells_both_identities() -> None:
    _, transition = _last(make_policy(Change("leader")), readings("leader", "a", "b"))
    assert transition is not None
    assert (transition.previous, transition.value) == ("a", "b")


def test_every_sample_above_zero_occurs_with_its_count() -> None:
    policy = make_policy(Occurrence("oom_kills"))
    assert told(policy, readings("oom_kills", 0.0, 2.0, 0.0, 1.0, None)) == ".X.X."
    _, transition = _last(policy, readings("oom_kills", 3.0))
    assert transition is not None
    assert transition.count == 3


def test_an_occurrence_told_under_a_key_is_not_told_again_under_it() -> None:
    policy = make_policy(Occurrence("oom_kills"))
    samples = [make_sample(OK, {"oom_kills": 1.0}, mono=m, series=s) for m, s in ((0, "x"), (5, "x"), (10, "y"))]
    assert told(policy, samples) == "X.X"


# --- restart


def test_a_pending_streak_survives_a_short_absence_and_not_a_long_one() -> None:
    policy = failed(3)
    _, streak = fold(policy, outcomes(F, F))
    short = restart(streak, policy, RESTART_GRACE, now=7.0, mono_shift=0.0)
    assert told_from(short, policy, [make_sample(F, mono=8.0)]) == "O"
    long = restart(streak, policy, RESTART_GRACE + 0.1, now=7.0, mono_shift=0.0)
    assert told_from(long, policy, [make_sample(F, mono=m) for m in (8.0, 13.0, 18.0)]) == "..O"


def test_the_absence_that_a_streak_survives_grows_with_the_interval() -> None:
    policy = replace(failed(2), interval=60.0)
    _, streak = fold(policy, outcomes(F))
    assert told_from(restart(streak, policy, 120.0, 7.0, 0.0), policy, [make_sample(F, mono=8)]) == "O"
    assert told_from(restart(streak, policy, 121.0, 7.0, 0.0), policy, [make_sample(F, mono=8)]) == "."


def test_an_open_event_survives_any_absence_and_needs_a_whole_recovery_after_a_long_one() -> None:
    policy = failed(1)
    _, streak = fold(policy, outcomes(F, OK))
    later = [make_sample(OK, mono=m) for m in (1e6, 1e6 + 5)]
    assert told_from(restart(streak, policy, 10.0, 1e6, 1e6), policy, later[:1]) == "R"
    assert told_from(restart(streak, policy, 1e6, 1e6, 1e6), policy, later) == ".R"


def test_baselines_and_identities_survive_any_absence() -> None:
    _, streak = fold(rising(5), readings("deadlocks", 100.0))
    later = [make_sample(OK, {"deadlocks": 105.0}, mono=1e6)]
    assert told_from(restart(streak, rising(5), 1e6, 1e6, 1e6), rising(5), later) == "O"
    policy = make_policy(Change("leader"))
    _, streak = fold(policy, readings("leader", "a"))
    elsewhere = [make_sample(OK, {"leader": "b"}, mono=1e6)]
    assert told_from(restart(streak, policy, 1e6, 1e6, 1e6), policy, elsewhere) == "X"


def test_a_window_goes_on_over_a_restart_on_another_monotonic_clock() -> None:
    _, streak = fold(rising(5), readings("deadlocks", 0.0, 3.0))
    shifted = restart(streak, rising(5), absence=10.0, now=-985.0, mono_shift=-1_000.0)
    assert told_from(shifted, rising(5), [make_sample(OK, {"deadlocks": 5.0}, mono=-985.0)]) == "O"
    too_late = [make_sample(OK, {"deadlocks": 5.0}, mono=-935.0)]
    assert told_from(shifted, rising(5), too_late) == "."


# --- streaks that nothing happened to


VERDICTS: st.SearchStrategy[Verdict] = st.sampled_from(
    ["meets", "meets", "between", "clears", "clears", "blind", "absent"]
)
STEPS = st.sampled_from([1.0, 5.0, 5.0, 5.0, 5.0, 9.9, 26.0])
ABSENCES = st.sampled_from([0.0] * 12 + [30.0, 61.0, 5_000.0])


@st.composite
def histories(draw: st.DrawFn) -> list[Seen]:
    at, history = 0.0, []
    for verdict, pace, away in draw(st.lists(st.tuples(VERDICTS, STEPS, ABSENCES), max_size=40)):
        at += away or pace
        history.append(Seen(at, verdict, away))
    return history


@pytest.mark.parametrize(
    "policy, after, calm",
    [
        (failed(3), [make_sample(F), make_sample(OK)], [OK, B, NA, OK]),
        (above(30), readings("lag_seconds", 31.0, 1.0), [OK, F, B, NA]),
        (rising(5), readings("deadlocks", 3.0), [OK, F, B, NA]),
        (make_policy(Change("leader")), readings("leader", "a", "b"), [OK, F, B, NA]),
        (make_policy(Occurrence("oom_kills")), readings("oom_kills", 2.0, 0.0), [OK, F, B, NA]),
    ],
    ids=["failures", "a limit", "a rise", "a change", "an occurrence"],
)
def test_a_quiet_streak_is_the_very_same_after_a_sample_by_which_nothing_changes(
    policy: Policy, after: list[Sample], calm: list[Outcome]
) -> None:
    streak = kept = fold(policy, after)[1]
    said: dict[str, Reading] = {"lag_seconds": 1.0, "deadlocks": 3.0, "leader": "b", "oom_kills": 0.0}
    for turn, outcome in enumerate(calm * 3):
        sample = make_sample(outcome, said if outcome is OK else {}, mono=100.0 + 100.0 * turn)
        streak, transition = step(streak, policy, sample)
        assert (transition, streak is kept) == (None, True)
        assert inconclusive(streak, policy, sample) is kept
    assert restart(streak, policy, 1e6, 1e6, 1e6) is kept


def test_after_an_event_a_streak_knows_no_more_of_it_than_a_fresh_one() -> None:
    assert fold(failed(2), outcomes(F, F, B, OK, NA, OK)) == (".O...R", FRESH)
    assert fold(failed(2), outcomes(F, B, OK)) == ("...", FRESH)


@given(histories(), st.integers(1, 3))
def test_what_older_versions_stored_of_a_quiet_streak_changes_nothing(history: list[Seen], count: int) -> None:
    """They counted inconclusive samples, and kept the time, of quiet streaks too."""
    older = streak_of('{"inconclusive": 3, "not_applicable": 2, "last_mono": 5.0, "identity": "a"}')
    policy = failed(count)
    seen = {"meets": F, "clears": OK, "between": OK, "blind": B, "absent": NA}
    samples = [make_sample(seen[one.verdict], mono=one.at) for one in history]
    streak = restart(older, policy, 10.0, 0.0, -5.0)
    assert told_from(streak, policy, samples) == told_from(Streak(identity="a"), policy, samples)


# --- against the reference model


_VALUES = {"meets": 30.0, "between": 20.0, "clears": 5.0}


@given(histories(), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_a_threshold_says_what_the_reference_says(history: list[Seen], count: int, resolve: int, gap: int) -> None:
    when, clear = Condition((Comparison("x", ">=", 30),)), Condition((Comparison("x", "<", 10),))
    policy = make_policy(Threshold(when, count, resolve, gap, clear), interval=INTERVAL)
    streak, got = Streak(), ""
    for seen in history:
        if seen.away:
            streak = streak_of(streak_text(streak)) if worth_keeping(streak) else Streak()
            streak = restart(streak, policy, seen.away, seen.at, 0.0)
        outcome = {"blind": B, "absent": NA}.get(seen.verdict, OK)
        value = {"x": _VALUES[seen.verdict]} if outcome is OK else {}
        streak, transition = step(streak, policy, make_sample(outcome, value, mono=seen.at))
        got += _TOKENS[transition.kind if transition else None]
    assert got == episodes(history, count=count, resolve=resolve, max_gap=gap, interval=INTERVAL)


@given(
    st.lists(
        st.tuples(STEPS, st.one_of(st.none(), st.integers(0, 12).map(float)), st.sampled_from("aaab")), max_size=40
    ),
    st.integers(1, 8),
    st.integers(1, 3),
    st.sampled_from([5.0, 12.0, 60.0]),
)
def test_an_increase_says_what_the_reference_says(
    values: list[tuple[float, float | None, str]], at_least: int, resolve: int, window: float
) -> None:
    at, history = 0.0, []
    for pace, value, series in values:
        at += pace
        history.append(Counted(at, value, series))
    policy = rising(at_least, window, resolve)
    samples = [
        make_sample(B if item.value is None else OK, {"deadlocks": item.value or 0.0}, mono=item.at, series=item.series)
        for item in history
    ]
    seen = [Seen(i.at, v) for i, v in zip(history, risen(history, window=window, at_least=at_least), strict=True)]
    assert told(policy, samples) == episodes(seen, count=1, resolve=resolve, max_gap=5, interval=INTERVAL)


@given(st.lists(st.sampled_from(["a", "b", "c", ""])))
def test_a_change_says_what_the_reference_says(identities: list[str]) -> None:
    assert told(make_policy(Change("leader")), readings("leader", *identities)) == changed(identities)


@given(histories(), st.integers(1, 4))
def test_blind_samples_put_anywhere_within_the_gap_change_nothing(history: list[Seen], count: int) -> None:
    """Said without a model: what is told at conclusive samples is the same with up to five blind ones between them."""
    policy = failed(count)
    conclusive = [seen for seen in history if seen.verdict in ("meets", "clears")]
    plain = [make_sample(F if s.verdict == "meets" else OK, mono=i * INTERVAL) for i, s in enumerate(conclusive)]
    riddled: list[Sample] = []
    for index, sample in enumerate(plain):
        riddled.append(sample)
        blind = (index * 7) % 6
        riddled += [make_sample(B, mono=sample.mono + (n + 1) * INTERVAL / 8) for n in range(blind)]
    got = told(policy, riddled)
    assert "".join(g for g, s in zip(got, riddled, strict=True) if s.outcome is not B) == told(policy, plain)
    assert set("".join(g for g, s in zip(got, riddled, strict=True) if s.outcome is B)) <= {"."}


@given(histories())
def test_a_streak_comes_back_from_the_store_as_it_was(history: list[Seen]) -> None:
    streak = Streak()
    for seen in history:
        streak, _ = step(streak, failed(2), make_sample(F if seen.verdict == "meets" else B, mono=seen.at))
        streak = replace(streak, increments=((seen.at, 2.0),), baseline=1.0)
        assert streak_of(streak_text(streak)) == streak
        assert json.loads(streak_text(streak))


def _last(policy: Policy, samples: Sequence[Sample]) -> tuple[Streak, Transition | None]:
    streak, transition = Streak(), None
    for sample in samples:
        streak, transition = step(streak, policy, sample)
    return streak, transition


def told_from(streak: Streak, policy: Policy, samples: Sequence[Sample]) -> str:
    return fold(policy, samples, streak)[0]
