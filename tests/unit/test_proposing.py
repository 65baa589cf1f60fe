"""Proposals follow from what was recorded: which policies, why, and to which value."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from probed.backtest.comparing import Figures, Told, compare, events_of, figures
from probed.backtest.proposing import Survey, lengths, propose, quantiles
from probed.model import Comparison, Condition, Kind, Policy, Threshold, Transition
from probed.testing import make_policy

COUNT = ("params", "sample_count")


def above(limit: float, count: int = 2, op: str = ">=") -> Policy:
    item = Comparison("lag_seconds", op, limit, "lag_threshold_sec")
    return make_policy(Threshold(Condition((item,)), count), id="replication_lag_high")


def survey(
    events: int = 0,
    *,
    short: int = 0,
    flaps: int = 0,
    days: float = 14.0,
    lengths: Sequence[int] = (),
    seen: tuple[float, float, float, float, float] | None = None,
) -> Survey:
    """``seen``: lowest, one in a thousand, median, all but one in a thousand, highest."""
    found = Survey("p", 1, 241_920, days, Figures(events, flaps, short), lengths)
    if seen is None:
        return found
    ranks = {"0.001": seen[1], "0.5": seen[2], "0.999": seen[3]}
    return replace(found, lowest=seen[0], highest=seen[4], quantiles=ranks)


def test_short_episodes_speak_for_waiting_one_sample_longer_than_nine_in_ten_of_them() -> None:
    proposal = propose(survey(10, short=9, lengths=[2, 2, 2, 3, 3, 3, 3, 3, 4, 90]), above(30), COUNT)
    assert proposal is not None
    assert (proposal.kind, proposal.patch) == ("noisy", {"params": {"sample_count": 5}})
    assert "told 10 events on 1 target in 14.0 days, 9 over within 60 s" in proposal.says
    assert "at most 4 samples in a row: wait for 5" in proposal.says


def test_long_episodes_that_flap_speak_for_a_limit_beyond_nearly_all_samples() -> None:
    noisy = survey(40, flaps=6, lengths=[50] * 40, seen=(0, 0, 5, 41.3, 300))
    proposal = propose(noisy, above(30), COUNT)
    assert proposal is not None
    assert proposal.patch == {"params": {"lag_threshold_sec": 42}}
    low = propose(survey(40, flaps=6, lengths=[50] * 40, seen=(10, 71.3, 99, 100, 100)), above(90, op="<"), COUNT)
    assert low is not None
    assert low.patch == {"params": {"lag_threshold_sec": 71}}


def test_where_no_value_speaks_for_itself_only_the_noise_is_told() -> None:
    failing = make_policy(Threshold(Condition(), 3))
    proposal = propose(survey(40, lengths=[500] * 40), failing, COUNT)
    assert proposal is not None
    assert proposal.patch is None
    assert "look at what it tells of" in proposal.says


def test_a_limit_that_nothing_ever_came_near_is_moved_nearer_but_not_into_reach() -> None:
    proposal = propose(survey(seen=(0, 0, 0.4, 1.1, 2.3)), above(30), COUNT)
    assert proposal is not None
    assert (proposal.kind, proposal.patch) == ("silent", {"params": {"lag_threshold_sec": 3.3}})
    assert (
        "told nothing in 14.0 days: of 241920 samples lag_seconds was never above 2.3, its limit is 30" in proposal.says
    )


@pytest.mark.parametrize(
    "found, policy",
    [
        (survey(seen=(0, 0, 0, 0, 0)), above(30)),
        (survey(seen=(0, 0, 5, 20, 25)), above(30)),
        (survey(days=3, seen=(0, 0, 0.4, 1.1, 2.3)), above(30)),
        (survey(2, lengths=[100, 100], seen=(0, 0, 1, 2, 50)), above(30)),
        (survey(), make_policy(Threshold(Condition(), 3))),
        (survey(10, short=9, lengths=[2] * 10), replace(above(30), fixed=True)),
        (replace(survey(), samples=0), above(30)),
    ],
    ids=["never moves", "close enough", "recorded too shortly", "few and long", "failures", "fixed", "nothing recorded"],
)  # fmt: skip
def test_nothing_is_proposed_where_nothing_speaks_for_it(found: Survey, policy: Policy) -> None:
    assert propose(found, policy, COUNT) is None


def test_the_length_of_an_episode_does_not_count_the_samples_it_resolved_by() -> None:
    policy = above(30, count=2)
    told = [Told(5.0, 0.0, 30.0), Told(105.0, 100.0, None), Told(7.0, occurred=True)]
    assert lengths(policy, told) == [5]


def test_quantiles_are_of_numbers_alone() -> None:
    assert quantiles([[1.0, None, 3], ["x", 2.0]]) == {"0.001": 1.0, "0.5": 2.0, "0.999": 3.0}
    assert quantiles([["x"], []]) is None


# --- comparing


def episode(start: float, end: float | None, seen: float | None = None) -> Told:
    return Told(start, start - 10 if seen is None else seen, end)


def test_episodes_about_the_same_time_are_one_that_moved() -> None:
    found = compare([episode(100, 200), episode(500, 600)], [episode(90, 150), episode(500, 600)], 1000)
    assert (found.kept, found.gained, found.lost) == (1, [], [])
    assert found.moved == [(episode(100, 200), episode(90, 150))]


def test_an_episode_that_became_two_is_one_moved_and_one_gained() -> None:
    found = compare([episode(100, 300)], [episode(100, 150), episode(250, 300)], 1000)
    assert (len(found.moved), found.gained, found.lost) == (1, [episode(250, 300)], [])


def test_two_episodes_that_became_one_are_one_moved_and_one_lost() -> None:
    found = compare([episode(100, 150), episode(250, 300)], [episode(100, 300)], 1000)
    assert (len(found.moved), found.gained, found.lost) == (1, [], [episode(250, 300)])


def test_what_is_still_open_lasts_to_the_end() -> None:
    found = compare([episode(100, None)], [episode(900, 950)], 1000)
    assert len(found.moved) == 1
    assert figures([episode(100, None)], 1000).open_seconds == 900


def test_occurrences_are_the_same_at_the_same_moment_only() -> None:
    one, other = Told(5.0, occurred=True), Told(6.0, occurred=True)
    found = compare([one], [other], 10)
    assert (found.gained, found.lost) == ([other], [one])


def test_events_that_come_and_go_are_known_to_flap() -> None:
    turns = [
        Transition(Kind.OPENED if n % 2 == 0 else Kind.RESOLVED, at=30.0 * n, first_failed_at=30.0 * n - 5)
        for n in range(10)
    ]
    told = events_of(turns)
    assert [one.flapping for one in told] == [False, False, True, True, True]
    found = figures(told, 1000)
    assert (found.events, found.flaps, found.short, found.detect_seconds) == (5, 3, 5, 5.0)
