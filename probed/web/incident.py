"""One event as an operator reads it: what, since when, why, what was seen, what to do. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

from msgspec import Struct

from probed import wording
from probed.digests import digest
from probed.model import Event, EventState, Evidence, Increase, Moment, Policy, Threshold
from probed.outline import outline, text
from probed.policy import words
from probed.quantity import human_bytes, human_seconds
from probed.store import EventDetail
from probed.web import drawing, marks
from probed.web.drawing import Dot, Flagged, Plot
from probed.web.marks import Mark
from probed.web.overview import where

MAX_DIGEST_LINES = 8
MAX_BODY_LINES = 200
SLACK_SECONDS = 1.0


class Branch(Struct, frozen=True):
    """One event in the tree of causes."""

    event: Event
    mark: Mark
    where: str
    itself: bool
    """Whether it is the event of this page."""
    below: tuple[Branch, ...] = ()


class Snapshot(Struct, frozen=True):
    age: str
    """Seconds from the moment that it is about: ``-17 s``, ``+2 s``."""
    lines: tuple[str, ...]
    unchanged: bool
    body: tuple[str, ...]
    """All of it."""


class Exhibit(Struct, frozen=True):
    """What one collector saw on one target: before, and after the trigger, and around the end."""

    name: str
    target: str
    before: tuple[Snapshot, ...]
    after: tuple[Snapshot, ...]
    recovery: tuple[Snapshot, ...]

    @property
    def id(self) -> str:
        """The same each time that it is shown, whatever else has come meanwhile."""
        return f"exhibit-{crc32(f'{self.name} {self.target}'.encode('utf-8', 'replace')):08x}"


class Sampled(Struct, frozen=True):
    at: float | None
    mark: Mark
    took: str
    readings: tuple[tuple[str, str], ...]
    said: str


class Incident(Struct, frozen=True):
    event: Event
    mark: Mark
    state: str
    where: str
    lasted: str
    rule: str
    """In words; empty when the policy is gone."""
    version_now: int | None
    """The policy's version today, if that is another."""
    params: tuple[tuple[str, str], ...]
    value: str
    """``34 s, threshold 30 s``; empty when it has none."""
    story: tuple[tuple[str, str], ...]
    """Of a switchover: what it was, from whom to whom, what it cost."""
    signals: tuple[str, ...]
    plot: Plot | None
    reading: str
    """Name of what the plot draws, as people read it."""
    before: tuple[Sampled, ...]
    after: tuple[Sampled, ...]
    since: tuple[Sampled, ...]
    """Of an open event, what came after its trigger."""
    tree: Branch
    exhibits: tuple[Exhibit, ...]
    missing: tuple[tuple[str, tuple[str, ...]], ...]
    """(reason, what could not be had for it)"""
    recovering: str


def incident(
    detail: EventDetail,
    policy: Policy | None,
    causes: Sequence[Event],
    consequences: Sequence[Event],
    since: Sequence[Mapping[str, Any]],
    *,
    recovering: str,
    now: float,
    zone: ZoneInfo,
) -> Incident:
    """``causes``: the nearest first. ``since``: samples after the trigger, while the event is open."""
    event = detail.event
    reading = _judged(policy)
    kept = [*detail.before, *since, *detail.after]
    story, signals = _story(event.details.get("switchover"))
    opened = event.details.get("opened_under", event.policy_version)
    newer = policy.version if policy is not None and policy.version != opened else None
    return Incident(
        event,
        marks.RESOLVED if event.state is EventState.RESOLVED else marks.of_severity(event.severity),
        state_of(event),
        where(event),
        _lasted(event, now),
        words.rule(policy) if policy is not None else "",
        newer,
        tuple((name, words.value(name, value)) for name, value in policy.params.items()) if policy is not None else (),
        _value(event, reading),
        story,
        signals,
        drawing.plot(
            [_dot(sample, reading) for sample in kept],
            reading=reading,
            threshold=event.threshold if reading else None,
            flags=_flags(event),
            zone=zone,
        ),
        wording.label(reading),
        tuple(_sampled(sample) for sample in detail.before),
        tuple(_sampled(sample) for sample in detail.after),
        tuple(_sampled(sample) for sample in since),
        _tree(event, causes, consequences),
        tuple(_exhibits(event, detail.evidence, policy.evidence if policy is not None else ())),
        _missing(detail.evidence),
        recovering,
    )


def state_of(event: Event) -> str:
    """``open``, ``resolved (held back)``."""
    return event.state.value + (", held back" if event.suppressed else "")


def _judged(policy: Policy | None) -> str:
    """The reading that the rule is about; empty when it is about failure or identity."""
    match policy.detect if policy is not None else None:
        case Threshold() as rule if rule.when.comparisons:
            return rule.when.comparisons[0].reading
        case Increase() as rule:
            return rule.reading
        case _:
            return ""


def _value(event: Event, reading: str) -> str:
    if event.value is None:
        return ""
    value = wording.quantity(reading, event.value)
    return value if event.threshold is None else f"{value}, threshold {wording.quantity(reading, event.threshold)}"


def _lasted(event: Event, now: float) -> str:
    if event.state is EventState.OCCURRED:
        return ""
    began = event.first_failed_at or event.opened_at
    return wording.lasting((event.resolved_at or now) - began)


def _flags(event: Event) -> Iterable[Flagged]:
    if event.first_failed_at is not None and event.opened_at - event.first_failed_at > SLACK_SECONDS:
        yield Flagged(event.first_failed_at, "first bad sample")
    occurred = event.state is EventState.OCCURRED
    yield Flagged(event.opened_at, "occurred" if occurred else "opened", event.severity.value)
    if event.resolved_at is not None:
        yield Flagged(event.resolved_at, "resolved", "ok")


def _dot(sample: Mapping[str, Any], reading: str) -> Dot:
    value = (sample.get("readings") or {}).get(reading)
    known = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return Dot(
        float(sample["at"]),
        str(sample.get("outcome")),
        known,
        str(sample.get("reason") or ""),
    )


def _sampled(sample: Mapping[str, Any]) -> Sampled:
    took = sample.get("duration_ms")
    return Sampled(
        float(sample["at"]),
        marks.of_outcome(str(sample.get("outcome"))),
        f"{took:.3g} ms" if isinstance(took, int | float) else "",
        wording.readings(sample.get("readings") or {}),
        str(sample.get("reason") or ""),
    )


_CLASSES = {
    "planned": "planned switchover",
    "automatic_failover": "automatic failover",
    "manual_failover": "failover by hand",
}


def _story(story: object) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Rows and signals of a switchover, whatever version wrote them."""
    if not isinstance(story, Mapping):
        return (), ()
    how = _CLASSES.get(str(story.get("class")), text(story.get("class")))
    if story.get("scheduled"):
        how += ", as scheduled"
    rows = [
        ("what it was", f"{how} (confidence {text(story.get('confidence'))})"),
        ("leader", f"{text(story.get('old_leader'))} → {text(story.get('new_leader'))}"),
    ]
    if story.get("old_timeline") is not None and story.get("new_timeline") is not None:
        rows.append(("timeline", f"{text(story['old_timeline'])} → {text(story['new_timeline'])}"))
    outage, lost = story.get("write_outage_seconds"), story.get("lost_bytes")
    if isinstance(outage, int | float):
        rows.append(("no writes", f"for at most {human_seconds(outage)}"))
    known = isinstance(lost, int | float)
    rows.append(("WAL lost", "not known" if not known else f"at least {human_bytes(lost)}" if lost else "none seen"))
    if story.get("inferred"):
        rows.append(("seen", "no: it happened while nobody looked, and is told from Patroni's history"))
    return tuple(rows), tuple(text(signal) for signal in story.get("signals") or ())


def _tree(event: Event, causes: Sequence[Event], consequences: Sequence[Event]) -> Branch:
    itself = _branch(event, True, tuple(_branch(item, False) for item in consequences))
    for cause in causes:
        itself = _branch(cause, False, (itself,))
    return itself


def _branch(event: Event, itself: bool, below: tuple[Branch, ...] = ()) -> Branch:
    mark = marks.RESOLVED if event.state is EventState.RESOLVED else marks.of_severity(event.severity)
    return Branch(event, mark, where(event), itself, below)


# --- evidence ---------------------------------------------------------------------------------------------------


def _exhibits(event: Event, evidence: Sequence[Evidence], order: Sequence[str]) -> Iterable[Exhibit]:
    """Grouped by what was looked at: as the policy names the collectors, else in the order in which they come."""
    places = {collector: number for number, collector in enumerate(order)}
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for item in evidence:
        if not item.error:
            groups.setdefault((item.collector, item.target), []).append(item)
    for (collector, target), items in sorted(groups.items(), key=lambda group: places.get(group[0][0], len(places))):
        shown: dict[tuple[Moment, str], list[Snapshot]] = {}
        before: Any = None
        earlier: tuple[str, ...] = ()
        for item in sorted(items, key=lambda item: item.taken_at):
            data = json.loads(item.data)
            lines = tuple(digest(collector, data, before)) or ("nothing",)
            side = "before" if item.moment is Moment.TRIGGER and item.side.value == "before" else "after"
            body = tuple(outline(data))
            if len(body) > MAX_BODY_LINES:
                body = (*body[:MAX_BODY_LINES], f"and {len(body) - MAX_BODY_LINES} more lines: in the raw JSON")
            cut = (*lines[:MAX_DIGEST_LINES], f"and {len(lines) - MAX_DIGEST_LINES} more lines")
            snapshot = Snapshot(
                _age(event, item), lines if len(lines) <= MAX_DIGEST_LINES else cut, lines == earlier, body
            )
            shown.setdefault((item.moment, side), []).append(snapshot)
            before, earlier = data, lines
        yield Exhibit(
            collector,
            target,
            tuple(shown.get((Moment.TRIGGER, "before"), ())),
            tuple(shown.get((Moment.TRIGGER, "after"), ())),
            tuple(shown.get((Moment.RECOVERY, "after"), ())),
        )


def _age(event: Event, item: Evidence) -> str:
    recovery = item.moment is Moment.RECOVERY and event.resolved_at is not None
    of = event.resolved_at if recovery and event.resolved_at is not None else event.opened_at
    return f"{item.taken_at - of:+.0f} s"


def _missing(evidence: Sequence[Evidence]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What could not be had and why: the same reason once."""
    reasons: dict[str, list[str]] = {}
    for item in evidence:
        if item.error:
            names = reasons.setdefault(item.error, [])
            name = " ".join(part for part in (item.collector, item.target) if part)
            if name not in names:
                names.append(name)
    return tuple((reason, tuple(names)) for reason, names in reasons.items())
