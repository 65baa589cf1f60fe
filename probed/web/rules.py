"""Policies as operators know them: the rule in words, how late at worst, the switch, where it came from. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from probed import wording
from probed.model import Change, Increase, Occurrence, Policy, Threshold
from probed.policy import words
from probed.policy.parameters import FREE, PARAMETERS, Parameter
from probed.store import DailyCount
from probed.web import marks
from probed.web.marks import Mark

NOISY = 30
"""Triggers in 30 days from which a policy is called noisy: one a day."""


class Field(Struct, frozen=True):
    """One parameter: its value as people write it, and what it may be."""

    name: str
    value: str
    raw: str
    """In base units, as an edit would send it."""
    says: str
    expected: str
    unit: str


class Rule(Struct, frozen=True):
    policy: Policy
    mark: Mark
    rule: str
    worst: str
    """How long after the fault it is told, at worst."""
    triggers: int
    verdict: str
    """``noisy``, ``never fired`` or nothing."""
    fields: tuple[Field, ...]


def rule(policy: Policy, triggers: int) -> Rule:
    """``triggers`` in 30 days."""
    verdict = "noisy" if triggers >= NOISY else "never fired" if policy.enabled and not triggers else ""
    return Rule(
        policy,
        marks.of_severity(policy.severity),
        words.rule(policy),
        worst_case(policy),
        triggers,
        verdict,
        tuple(_field(name, value) for name, value in policy.params.items()),
    )


def table(policies: Mapping[str, Policy], counts: Sequence[DailyCount]) -> dict[str, list[Rule]]:
    """By group, in the order of the files: what is graver first."""
    triggers: dict[str, int] = {}
    for count in counts:
        triggers[count.event] = triggers.get(count.event, 0) + count.count
    groups: dict[str, list[Rule]] = {}
    for policy in sorted(policies.values(), key=lambda policy: (policy.severity.rank, policy.name)):
        groups.setdefault(policy.group or "Your own", []).append(rule(policy, triggers.get(policy.id, 0)))
    return dict(sorted(groups.items(), key=lambda item: _GROUPS.get(item[0], len(_GROUPS))))


_GROUPS = {"Instance": 0, "TCBase": 1}


def worst_case(policy: Policy) -> str:
    """``17 s``: a fault begins right after a sample, and the last one takes its whole timeout."""
    match policy.detect:
        case Threshold() as detect:
            return wording.lasting(detect.count * policy.interval + policy.timeout)
        case Increase() | Change() | Occurrence():
            return wording.lasting(policy.interval + policy.timeout)


def _field(name: str, value: float | str) -> Field:
    known: Parameter = PARAMETERS.get(name, FREE)
    raw = value if isinstance(value, str) else f"{value:.15g}"
    return Field(name, words.value(name, value), raw, known.says, known.expected(), known.unit)
