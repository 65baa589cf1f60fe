"""The accuracy protocol of docs/reliability.md, and that it would notice: each seeded bug is found by it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from probed import evaluators
from probed.model import Change, Condition, Outcome, Sample
from probed.suppression import NO_EXPLANATION, Explanation, Suppression
from tests.reliability.accuracy.oracle import judge
from tests.reliability.accuracy.simulation import simulate

SEEDS = range(1, 21) if os.environ.get("CI") else range(1, 5)
FAULTS = 100
PROOF = range(21, 29)
"""Seeds on which a seeded bug has to show, on one of them at least."""


@pytest.mark.parametrize("seed", SEEDS)
def test_every_fault_has_its_event_in_time_and_nothing_else_has_one(seed: int) -> None:
    verdict = judge(simulate(seed, FAULTS))
    assert verdict.wrong == [], f"repeat it: python -m tests.reliability.accuracy --seed {seed} --faults {FAULTS}"
    assert verdict.judged > FAULTS / 2
    assert len(verdict.demanded) > 10


Seed = Callable[[pytest.MonkeyPatch], None]


def _counting(change: Callable[[int], int]) -> Seed:
    judge_one = evaluators._judge

    def judge(streak: Any, rule: Any, *rest: Any) -> Any:
        return judge_one(streak, _but(rule, count=change(rule.count)), *rest)

    return lambda patch: patch.setattr(evaluators, "_judge", judge)


def _never_resolving(patch: pytest.MonkeyPatch) -> None:
    judge_one = evaluators._judge

    def judge(streak: Any, rule: Any, *rest: Any) -> Any:
        return judge_one(streak, _but(rule, resolve_count=10**9), *rest)

    patch.setattr(evaluators, "_judge", judge)


def _but(rule: Any, **changes: int) -> Any:
    """A rule with other numbers; that of a counter knows no count to be changed."""
    return replace(rule, **{name: number for name, number in changes.items() if name in rule.__struct_fields__})


def _blind_as(verdict: bool) -> Seed:
    met_by = Condition.met_by

    def wrong(condition: Condition, sample: Sample) -> bool | None:
        return verdict if sample.outcome is Outcome.BLIND else met_by(condition, sample)

    return lambda patch: patch.setattr(Condition, "met_by", wrong)


def _any_open_event_hides(patch: pytest.MonkeyPatch) -> None:
    def explain(_: Suppression, state: Any, watch: Any, *, cut_off: bool) -> Explanation:
        opened = [other.event for other in state.watches if other.event is not None and other is not watch]
        return Explanation(opened[0]) if opened else NO_EXPLANATION

    patch.setattr(Suppression, "explain", explain)


def _nothing_hides(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Suppression, "explain", lambda *_, **__: NO_EXPLANATION)


def _identity_forgotten(patch: pytest.MonkeyPatch) -> None:
    change = evaluators._change

    def forgetful(streak: Any, rule: Change, sample: Sample) -> Any:
        after, transition = change(streak, rule, sample)
        # It keeps the old leader after it has told of the new one.
        return (replace(after, identity=streak.identity) if transition else after), transition

    patch.setattr(evaluators, "_change", forgetful)


def _streaks_that_last(patch: pytest.MonkeyPatch) -> None:
    """A good sample does not set a streak to zero."""
    judge_one = evaluators._judge

    def judge(streak: Any, rule: Any, sample: Sample, met: bool, *rest: Any) -> Any:
        after, transition = judge_one(streak, rule, sample, met, *rest)
        return (after if met or transition or not streak.meeting else streak), transition

    patch.setattr(evaluators, "_judge", judge)


BUGS: dict[str, tuple[Seed, set[str]]] = {
    "one sample too few": (_counting(lambda count: max(1, count - 1)), {"false"}),
    "one sample too many": (_counting(lambda count: count + 1), {"late", "missed"}),
    "never resolved": (_never_resolving, {"stuck"}),
    "blind counted as failed": (_blind_as(True), {"false"}),
    "blind counted as well": (_blind_as(False), {"early"}),
    "any open event hides": (_any_open_event_hides, {"wrong"}),
    "nothing hides": (_nothing_hides, {"beside"}),
    "identity forgotten": (_identity_forgotten, {"double", "false"}),
    "streaks that last": (_streaks_that_last, {"false", "stuck"}),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_protocol_finds_a_seeded_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed_it, expected = BUGS[bug]
    seed_it(monkeypatch)
    found: set[str] = set()
    for seed in PROOF:
        found |= judge(simulate(seed, FAULTS)).kinds.keys()
        if found & expected:
            return
    pytest.fail(f"nothing of {sorted(expected)} was found, only {sorted(found)}")
