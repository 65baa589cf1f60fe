"""What one look says of the chosen events: an item each, consequences behind their causes. Pure.

A look is one sample, and most events want several in a row. So an item is about what is so at this moment: whether the
condition is met now, and whether the daemon has an event open. What only several samples can tell (an increase, a
change, an occurrence) is judged by open events alone; its history stands in a section of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from probed import topology
from probed.incidents import WORDS, shown
from probed.inspection import Item, Section, Verdict
from probed.inspection.rounding import coarse_above, coarse_below, significant
from probed.model import Comparison, Event, Outcome, Policy, Reading, Sample, Severity, Target, Threshold
from probed.redaction import clean
from probed.topology import Place, Shape

MAX_FINDING = 400
"""Bytes."""
FEW = 10.0
"""A count up to which each one counts: nothing of it is noise."""
_SCALES = ("_seconds", "_bytes", "_pct", "_ratio")


class Seen(Struct, frozen=True):
    """A watch as the look found it."""

    policy: Policy
    target: Target
    sample: Sample | None
    """``None``: there was no way to take one."""
    event: Event | None
    """That the daemon has open."""
    severity: Severity

    @property
    def met(self) -> bool | None:
        """Whether its condition is met at this moment; ``None`` when one sample cannot tell, or there is none."""
        rule = self.policy.detect
        if self.sample is None or not isinstance(rule, Threshold):
            return None
        return rule.when.met_by(self.sample)

    @property
    def troubled(self) -> bool:
        return self.event is not None or bool(self.met)

    @property
    def place(self) -> Place:
        return topology.place_of(self.policy, self.target)


def severity(policy: Policy, target: Target, event: Event | None, shape: Shape) -> Severity:
    """Of the open event, else of the one that would open."""
    return event.severity if event else topology.severity(policy, shape.is_replica(target.node))


def judged(watches: Iterable[Seen], shape: Shape, opened: Mapping[str, Event]) -> list[Item]:
    """An item for each watch. ``opened``: all open events by id, for those whose cause is in another instance."""
    items: list[Item] = []
    roots: dict[Place, Seen] = {}
    """Who is to blame for what stands at a place: itself, or its own cause."""
    for seen in sorted(watches, key=lambda seen: topology.order(seen.policy, seen.target)):
        cause = _cause(seen, shape, roots)
        if seen.troubled and seen.place not in roots:
            roots[seen.place] = cause or seen
        items.append(_item(seen, _named(seen, cause, opened)))
    return items


def _cause(seen: Seen, shape: Shape, roots: Mapping[Place, Seen]) -> Seen | None:
    if topology.is_occurrence(seen.policy):
        return None
    for place in topology.causes(shape, seen.policy, seen.target):
        root = roots.get(place)
        if root is not None and topology.may_hide(root.severity, seen.severity):
            return root
    return None


def _named(seen: Seen, cause: Seen | None, opened: Mapping[str, Event]) -> str:
    """Its cause in words: ``database_unavailable on orders/node-a/postgres``; empty when it has none."""
    event = seen.event
    known = opened.get(event.caused_by or "") if event is not None and event.suppressed else None
    if known is not None:
        return f"{known.event} on {known.target.key}"
    return f"{cause.policy.id} on {cause.target.key}" if cause is not None else ""


def _item(seen: Seen, cause: str) -> Item:
    item = _by_sample(seen, cause)
    event = seen.event
    if event is not None:
        since = datetime.fromtimestamp(event.opened_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        now = "" if item.verdict is not Verdict.PASS else "; not so at this very moment"
        what = f"{event.message}; open since {since}{now}"
        item = replace(item, verdict=_grave(seen.severity), finding=what, events=(event.id,))
    if cause and item.verdict is not Verdict.PASS:
        item = replace(item, verdict=Verdict.WARN, finding=f"{item.finding}; a consequence of {cause}")
    advised = item.suggestion or seen.policy.suggestion
    return replace(
        item,
        finding=clean(item.finding, MAX_FINDING),
        suggestion="" if item.verdict is Verdict.PASS else f"see {cause}" if cause else advised,
    )


def _by_sample(seen: Seen, cause: str) -> Item:
    sample = seen.sample
    if sample is None:
        return _made(seen, Verdict.WARN, "it was not looked at: nothing of it can be reached")
    match sample.outcome:
        case Outcome.NOT_APPLICABLE:
            return _made(seen, Verdict.PASS, f"does not apply: {sample.reason}" if sample.reason else "does not apply")
        case Outcome.BLIND:
            reason = sample.reason or sample.kind
            item = _made(seen, Verdict.WARN, f"cannot be seen: {reason}")
            # What to do about blindness is in its reason; the event's own advice is for when it is met.
            return replace(item, suggestion="" if cause else "mend what it says; probed doctor names the statement")
        case _ if not isinstance(seen.policy.detect, Threshold):
            return _several(seen, sample)
    rule = seen.policy.detect
    if seen.met is None and sample.outcome is Outcome.OBSERVED:  # too early to tell: a counter without a before
        return _made(seen, Verdict.PASS, sample.reason or "well, and nothing to judge in one look")
    if seen.met is None:
        return _made(seen, Verdict.WARN, f"cannot be judged: {sample.reason}")
    if rule.when.on_failure:
        what = f"failed: {sample.reason}" if seen.met else sample.reason or "answers as it should"
        return _made(seen, _grave(seen.severity) if seen.met else Verdict.PASS, what)
    return _met(seen, sample, rule.when.comparisons) if seen.met else _clear(seen, sample, rule.when.comparisons)


def _several(seen: Seen, sample: Sample) -> Item:
    if sample.outcome is Outcome.FAILED:
        return _made(seen, Verdict.WARN, f"cannot be judged: {sample.reason}")
    return _made(seen, Verdict.PASS, "no event is open; one look alone cannot tell, its history does")


def _met(seen: Seen, sample: Sample, comparisons: Sequence[Comparison]) -> Item:
    found = [
        f"{one.reading} is {shown(one.reading, sample.readings[one.reading])}"
        + ("" if one.op == "==" else f", {WORDS[one.op]} {shown(one.reading, one.value)}")
        for one in comparisons
    ]
    why = f": {sample.reason}" if sample.reason else ""
    values = {one.reading: _rounded(sample.readings[one.reading]) for one in comparisons}
    return replace(
        _made(seen, _grave(seen.severity), " and ".join(found) + why), evidence={**values, **_limits(comparisons)}
    )


def _clear(seen: Seen, sample: Sample, comparisons: Sequence[Comparison]) -> Item:
    """By what it is not met: the first comparison that does not hold, in steps that noise does not climb."""
    one = next(one for one in comparisons if not _holds(one, sample))
    value = float(sample.readings[one.reading])
    if value.is_integer() and one.value <= FEW and not one.reading.endswith(_SCALES):
        step, word = value, ""
    elif one.op in (">=", ">"):
        step, word = coarse_above(value, one.value), "at most"
    elif one.op in ("<", "<="):
        step, word = coarse_below(value, one.value, pct=one.reading.endswith(("_pct", "_ratio"))), "at least"
    else:
        step, word = value, ""
    told = " ".join(filter(None, (one.reading, "is", word, shown(one.reading, step))))
    limit = f", its threshold {shown(one.reading, one.value)}" if word else ""
    return replace(_made(seen, Verdict.PASS, told + limit), evidence={one.reading: step, **_limits(comparisons)})


def _holds(one: Comparison, sample: Sample) -> bool:
    reading = sample.readings[one.reading]
    return isinstance(reading, float | int) and one.holds(reading)


def _limits(comparisons: Sequence[Comparison]) -> dict[str, Reading]:
    return {one.parameter: one.value for one in comparisons if one.parameter and one.parameter != one.reading}


def _rounded(value: Reading) -> Reading:
    return significant(value) if isinstance(value, float | int) else value


def _grave(severity: Severity) -> Verdict:
    return Verdict.WARN if severity is Severity.NORMAL else Verdict.FAIL


def _made(seen: Seen, verdict: Verdict, finding: str) -> Item:
    return Item(
        Section.EVENTS,
        seen.policy.id,
        seen.policy.name,
        seen.target.key,
        verdict,
        finding,
        outcome="" if seen.sample is None else seen.sample.outcome.value,
        severity=seen.severity.value,
    )
