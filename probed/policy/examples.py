"""Runs a policy's worked examples through the evaluator that judges live samples (notation: evaluators.md)."""

from __future__ import annotations

from msgspec import Struct

from probed import quantity
from probed.evaluators import step
from probed.model import (
    Change,
    Comparison,
    Example,
    Increase,
    Kind,
    Occurrence,
    Outcome,
    Policy,
    Reading,
    Sample,
    Streak,
    Target,
    Threshold,
)

_TOKENS = {Kind.OPENED: "O", Kind.RESOLVED: "R", Kind.OCCURRED: "X"}
_TARGET = Target(instance="example", node="node-a")


class Mismatch(Struct, frozen=True):
    policy: str
    says: str
    expected: tuple[str, ...]
    got: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.policy}: {self.says}: expected {' '.join(self.expected)}, got {' '.join(self.got)}"


def run(policy: Policy) -> list[Mismatch]:
    """The examples that do not come out as written. ValueError names a token that means nothing."""
    results = [(example, _play(policy, example)) for example in policy.examples]
    return [Mismatch(policy.id, ex.says, ex.events, got) for ex, got in results if got != ex.events]


def _play(policy: Policy, example: Example) -> tuple[str, ...]:
    streak, previous = Streak(), 0.0
    got: list[str] = []
    for index, token in enumerate(example.samples):
        sample, previous = _sample(policy, token, index * policy.interval, previous)
        streak, transition = step(streak, policy, sample)
        got.append(_TOKENS[transition.kind] if transition else ".")
    return tuple(got)


def _sample(policy: Policy, token: str, mono: float, previous: float) -> tuple[Sample, float]:
    outcome = {"F": Outcome.FAILED, "B": Outcome.BLIND}.get(token, Outcome.OBSERVED)
    readings: dict[str, Reading] = {}
    if outcome is Outcome.OBSERVED:
        readings, previous = _readings(policy, token, previous)
    return Sample(_TARGET, policy.probe, outcome, at=mono, mono=mono, readings=readings), previous


def _readings(policy: Policy, token: str, previous: float) -> tuple[dict[str, Reading], float]:
    rule = policy.detect
    match rule:
        case Change():
            return {rule.reading: "" if token == "ok" else token}, previous
        case Increase():
            value = previous if token == "ok" else _value(token)
            return {rule.reading: value}, value
        case Occurrence():
            return {rule.reading: 0.0 if token == "ok" else _value(token)}, previous
        case Threshold():
            if rule.when.on_failure:
                return {}, previous
            first, *others = rule.when.comparisons
            readings: dict[str, Reading] = {other.reading: _meeting(other) for other in others}
            readings[first.reading] = _not_meeting(first) if token == "ok" else _value(token)
            return readings, previous


def _value(token: str) -> float:
    try:
        return quantity.parse(token)
    except ValueError:
        raise ValueError(f'token "{token}": expected ok, F, B, or a number or quantity') from None


def _meeting(comparison: Comparison) -> float:
    steps = {">": 1.0, "<": -1.0, "!=": 1.0}
    return comparison.value + steps.get(comparison.op, 0.0)


def _not_meeting(comparison: Comparison) -> float:
    steps = {">=": -1.0, "<=": 1.0, "==": 1.0}
    return comparison.value + steps.get(comparison.op, 0.0)
