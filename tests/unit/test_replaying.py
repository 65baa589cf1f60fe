"""A replay tells what stepping each sample would have told, however much of it is passed over."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.backtest.replaying import SAME_ROUND, Grace, Replay, Switch
from probed.evaluators import inconclusive, restart, step
from probed.model import (
    Change,
    Comparison,
    Condition,
    Detect,
    Increase,
    Kind,
    Occurrence,
    Outcome,
    Policy,
    Reading,
    Sample,
    Streak,
    Threshold,
    Transition,
)
from probed.recording.chunks import Buffer, Columns, Digest, unpack
from probed.testing import TARGET, make_policy, make_sample
from tests.unit.bench import SHIPPED

PROBE = "postgres_liveness"
OBSERVED, FAILED, BLIND, NA = Outcome.OBSERVED, Outcome.FAILED, Outcome.BLIND, Outcome.NOT_APPLICABLE


@dataclass(frozen=True)
class Chunk:
    run: int
    digest: Digest
    body: bytes

    def load(self) -> Columns:
        return unpack(self.body, PROBE, TARGET)


def recorded(samples: Sequence[Sample], run: int = 1, every: int = 7) -> list[Chunk]:
    chunks = []
    for start in range(0, len(samples), every):
        buffer = Buffer(PROBE, TARGET)
        for sample in samples[start : start + every]:
            buffer.put(sample)
        chunks.append(Chunk(run, Digest.load(buffer.digest().dump()), buffer.pack()))
    return chunks


def at_length(policy: Policy, runs: Sequence[Sequence[Sample]], grace: Grace) -> list[Transition]:
    """Every sample stepped, as the daemon does."""
    streak, told, before = Streak(), [], None
    for run, samples in enumerate(runs, start=1):
        for index, sample in enumerate(samples):
            if index == 0 and before is not None:
                absence = max(0.0, sample.at - before.at)
                streak = restart(streak, policy, absence, sample.mono, sample.mono - absence - before.mono)
            switched = [switch.mono for switch in grace.switches if switch.run == run]
            spared = any(mono - SAME_ROUND < sample.mono < mono + grace.seconds for mono in switched)
            if policy.switchover_grace and spared and sample.outcome is not NA:
                streak = inconclusive(streak, policy, sample)
            else:
                streak, transition = step(streak, policy, sample)
                told += [transition] if transition else []
            before = sample
    return told


def replayed(policy: Policy, runs: Sequence[Sequence[Sample]], grace: Grace, every: int) -> list[Transition]:
    replay = Replay(policy, grace)
    return [
        transition
        for run, samples in enumerate(runs, start=1)
        for chunk in recorded(samples, run, every)
        for transition in replay.feed(chunk)
    ]


numbers = st.sampled_from([0.0, 1.0, 2.0, 29.0, 30.0, 31.0, 50.0])
condition = st.lists(
    st.builds(
        Comparison, st.sampled_from(["lag_seconds", "blocks"]),
        st.sampled_from([">=", ">", "<=", "<", "==", "!="]), st.sampled_from([0.0, 1.0, 30.0]),
    ),
    max_size=2,
).map(lambda items: Condition(tuple(items)))  # fmt: skip
counts = st.integers(1, 3)
rules = st.one_of(
    st.builds(Threshold, condition, counts, counts, st.integers(0, 3), st.one_of(st.none(), condition.filter(lambda c: bool(c.comparisons)))),
    st.builds(Increase, st.just("deadlocks"), st.sampled_from([5.0, 20.0, 60.0]), st.sampled_from([1.0, 3.0, 5.0]), counts),
    st.builds(Change, st.just("leader")),
    st.builds(Occurrence, st.just("blocks")),
)  # fmt: skip


@st.composite
def runs_of_samples(draw: st.DrawFn) -> list[list[Sample]]:
    """Runs of a daemon, each with stretches in which much the same is said for a while."""
    runs, wall = [], 1_790_000_000_000
    for _ in range(draw(st.integers(1, 2))):
        samples: list[Sample] = []
        mono, deadlocks = draw(st.integers(0, 10_000_000)), 0.0
        wall += draw(st.sampled_from([10_000, 50_000, 500_000]))
        offset = wall - mono
        for _ in range(draw(st.integers(1, 5))):
            outcome = draw(st.sampled_from([OBSERVED, OBSERVED, OBSERVED, FAILED, BLIND, NA]))
            says: dict[str, Reading] = draw(
                st.fixed_dictionaries(
                    {}, optional={"lag_seconds": numbers, "blocks": numbers, "leader": st.sampled_from(["", "a", "b"])}
                )
            )
            rises, series = draw(st.sampled_from([0.0, 0.0, 1.0, 3.0, -2.0])), draw(st.sampled_from(["x", "x", "y"]))
            for _ in range(draw(st.integers(1, 8))):
                mono += draw(st.sampled_from([5_000, 5_000, 5_000, 5_003, 40_000]))
                deadlocks += rises
                heard = {**says, "deadlocks": deadlocks} if outcome is OBSERVED else {}
                samples.append(make_sample(outcome, heard, mono=mono / 1000, at=(mono + offset) / 1000, series=series))
        runs.append(samples)
        wall = mono + offset
    return runs


@given(rules, runs_of_samples(), st.integers(1, 9), st.booleans(), st.data())
def test_passing_over_samples_tells_what_stepping_each_of_them_tells(
    rule: Threshold | Increase | Change | Occurrence,
    runs: list[list[Sample]],
    every: int,
    graceful: bool,
    data: st.DataObject,
) -> None:
    policy = make_policy(rule, switchover_grace=graceful)
    at = data.draw(st.sampled_from(runs[-1]))
    grace = Grace(25.0, [Switch(len(runs), at.at, at.mono)] if graceful else ())
    assert replayed(policy, runs, grace, every) == at_length(policy, runs, grace)


def restless(chance: random.Random) -> list[list[Sample]]:
    """Two runs in which everything that a rule looks at keeps for a few samples, then changes."""
    runs, wall = [], 1_790_000_000.0
    for _ in range(2):
        samples: list[Sample] = []
        mono, deadlocks, series, lag, leader, outcome = 1_000.0, 0.0, "x", 0.0, "a", OBSERVED
        wall += chance.choice([5.0, 40.0, 55.0, 90.0])
        for _ in range(chance.randrange(20, 60)):
            step_seconds = chance.choice([5.0] * 12 + [5.003, 40.0])
            mono, wall = round(mono + step_seconds, 3), round(wall + step_seconds, 3)
            if chance.random() < 0.3:
                outcome = chance.choice([OBSERVED, OBSERVED, FAILED, FAILED, BLIND, NA])
            if chance.random() < 0.3:
                lag = chance.choice([0.0, 0.0, 29.0, 31.0, 50.0])
            if chance.random() < 0.15:
                deadlocks += chance.choice([1.0, 2.0, 5.0, -3.0])
            if chance.random() < 0.08:
                series, leader = chance.choice(["x", "y"]), chance.choice(["a", "b", ""])
            said: dict[str, Reading] = {
                "lag_seconds": lag, "deadlocks": deadlocks, "leader": leader, "blocks": max(0.0, lag - 30)
            }  # fmt: skip
            heard = said if outcome is OBSERVED else {}
            samples.append(make_sample(outcome, heard, mono=mono, at=wall, series=series))
        runs.append(samples)
    return runs


LAG = Condition((Comparison("lag_seconds", ">=", 30.0),))
RULES: dict[str, Callable[[random.Random], Detect]] = {
    "failures": lambda chance: Threshold(Condition(), chance.randrange(1, 4), chance.randrange(1, 4), chance.randrange(4)),
    "a limit": lambda chance: Threshold(LAG, chance.randrange(1, 4), chance.randrange(1, 4)),
    "two limits": lambda chance: Threshold(
        LAG, chance.randrange(1, 3), 2, resolve_when=Condition((Comparison("lag_seconds", "<", 10.0),))
    ),
    "a rise": lambda chance: Increase("deadlocks", chance.choice([20.0, 60.0]), chance.choice([2.0, 5.0]), 2),
    "a change": lambda _: Change("leader"),
    "an occurrence": lambda _: Occurrence("blocks"),
}  # fmt: skip


@pytest.mark.parametrize("kind", RULES)
def test_restless_histories_by_the_hundred_tell_the_same_either_way(kind: str) -> None:
    told = 0
    for seed in range(150):
        chance = random.Random(f"{kind} {seed}")
        policy = make_policy(RULES[kind](chance), switchover_grace=chance.random() < 0.5)
        runs = restless(chance)
        at = chance.choice(runs[-1])
        grace = Grace(chance.choice([12.0, 25.0, 60.0]), [Switch(2, at.at, at.mono)])
        wanted = at_length(policy, runs, grace)
        assert replayed(policy, runs, grace, chance.randrange(1, 12)) == wanted, seed
        told += len(wanted)
    assert told > 150


def test_a_quiet_chunk_is_never_unpacked() -> None:
    quiet = recorded([make_sample(readings={"lag_seconds": 1.0}, mono=5.0 * n) for n in range(720)], every=720)
    unreadable = [replace(chunk, body=b"") for chunk in quiet]
    policy = make_policy(Threshold(Condition((Comparison("lag_seconds", ">=", 30.0),)), 2))
    assert Replay(policy).feed(unreadable[0]) == []
    with pytest.raises(ValueError, match="not a chunk"):
        Replay(make_policy(Threshold(Condition((Comparison("lag_seconds", ">=", 1.0),)), 2))).feed(unreadable[0])


def test_a_switchover_of_an_earlier_run_spares_as_long_as_its_date_says() -> None:
    policy = make_policy(Threshold(Condition(), 1), switchover_grace=True)
    failing = [make_sample(FAILED, mono=5.0 * n, at=1_790_000_000 + 5.0 * n) for n in range(10)]
    replay = Replay(policy, Grace(60.0, [Switch(1, 1_790_000_000 - 30.0, 99_999.0)]))
    (opened,) = [transition for chunk in recorded(failing, run=2) for transition in replay.feed(chunk)]
    assert opened.at == 1_790_000_000 + 30.0


@pytest.mark.parametrize("policy", SHIPPED.values(), ids=list(SHIPPED))
def test_every_shipped_policy_can_be_replayed(policy: Policy) -> None:
    assert Replay(policy).feed(recorded([make_sample(OBSERVED, {"leader": "a"})])[0]) == []


def test_an_episode_over_many_chunks_opens_and_resolves_once() -> None:
    outcomes = [OBSERVED] * 50 + [FAILED] * 500 + [OBSERVED] * 50
    samples = [make_sample(outcome, mono=5.0 * n) for n, outcome in enumerate(outcomes)]
    replay = Replay(make_policy(Threshold(Condition(), 3)))
    told = [transition for chunk in recorded(samples, every=60) for transition in replay.feed(chunk)]
    assert [(one.kind, one.first_failed_at) for one in told] == [
        (Kind.OPENED, samples[50].at), (Kind.RESOLVED, samples[50].at),
    ]  # fmt: skip
    assert replay.samples == 600
