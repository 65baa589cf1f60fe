"""A report in the order in which it is read, in words: what every written form of it is made of. Pure.

First the grade and why, what is wrong and what to do; then what changed; then the evidence by section, with charts;
last what was fine, and how the report was made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from zoneinfo import ZoneInfo

from msgspec import Struct

from probed import wording
from probed.inspection import Difference, Grade, Inspected, Item, Report, ReportState, Section, Verdict
from probed.inspection.charts import Drawing, drawings
from probed.model import Outcome, Reading, Severity


class Mark(Struct, frozen=True):
    """A verdict as shape, word and colour, so that none of the three is needed alone. ``look`` is a class of styles."""

    look: str
    shape: str
    word: str


MARKS: Mapping[Verdict, Mark] = {
    Verdict.FAIL: Mark("fatal", "■", "fail"),
    Verdict.WARN: Mark("critical", "▲", "warn"),
    Verdict.PASS: Mark("ok", "●", "pass"),
}
BLIND = Mark("blind", "○", "blind")
"""A warning of its own: nobody knows."""
NOT_APPLICABLE = Mark("absent", "–", "not applicable")
NOT_LOOKED_AT = Mark("absent", "–", "not looked at")

SECTIONS: Mapping[Section, str] = {
    Section.EVENTS: "Seen just now",
    Section.HISTORY: "History",
    Section.TRENDS: "Trends",
    Section.ADVICE: "Configuration",
    Section.SWITCHOVERS: "Switchovers",
}
FINE_SECTIONS = {**SECTIONS, Section.EVENTS: "Looked for just now, and not found"}
"""What these names say of an event that is named after a fault."""
GRADES: Mapping[Grade, str] = {
    Grade.A: "ok",
    Grade.B: "ok",
    Grade.C: "blind",
    Grade.D: "critical",
    Grade.E: "fatal",
}
"""How a grade is coloured; its letter stands in the colour."""
MAX_EVENTS = 3
"""Ids that stand with a finding; the JSON has all of them."""
_ALWAYS_SHOWN = (Section.TRENDS, Section.SWITCHOVERS)
"""Sections whose figures are read whether or not they are fine."""


class Finding(Struct, frozen=True):
    mark: Mark
    title: str
    place: str
    """Where, without the instance's name before it; that name alone when it is about all of it."""
    finding: str
    suggestion: str
    severity: str
    """Of the event that it is about; empty for what is no event."""
    values: tuple[tuple[str, str], ...]
    """(label, value with its unit)"""
    events: tuple[str, ...]
    """Ids of the newest that it is about."""
    more_events: int
    told: bool
    """Whether its finding stands among what is wrong already."""


class Change(Struct, frozen=True):
    turn: str
    """``worse``, ``new``, ``better`` or ``gone``."""
    before: Mark
    now: Mark
    title: str
    place: str
    finding: str


class Part(Struct, frozen=True):
    """The evidence of one section."""

    name: str
    findings: tuple[Finding, ...]
    drawings: tuple[Drawing, ...]


class Fine(Struct, frozen=True):
    """Items of one title that need nothing."""

    mark: Mark
    title: str
    said: tuple[tuple[tuple[str, ...], str, str], ...]
    """(where, finding, what one may do all the same), each finding once."""


class FinePart(Struct, frozen=True):
    name: str
    rows: tuple[Fine, ...]


class Node(Struct, frozen=True):
    name: str
    role: str
    version: str
    mark: Mark


class Row(Struct, frozen=True):
    """One instance in a line."""

    instance: str
    grade: str
    look: str
    """Of the grade."""
    reason: str
    counts: tuple[tuple[Mark, int], ...]
    """Of each verdict, the worst first."""
    turned: str
    """``2 worse, 1 better`` since the inspection before."""


class Sheet(Struct, frozen=True):
    """One instance in full."""

    row: Row
    labels: tuple[tuple[str, str], ...]
    nodes: tuple[Node, ...]
    wrong: tuple[Finding, ...]
    compared: str
    """With what, in a sentence."""
    changes: tuple[Change, ...]
    parts: tuple[Part, ...]
    fine: tuple[FinePart, ...]

    @property
    def instance(self) -> str:
        return self.row.instance


class Paper(Struct, frozen=True):
    """A whole report."""

    title: str
    subject: str
    """The instance, or how many."""
    when: str
    iso: str
    """The same in UTC, for machines."""
    told: str
    """For whom, and with how much history: one line."""
    problem: str
    """Why there is no more than this; empty when it came to its end."""
    note: str
    """What is to be known of how it came about; may be empty."""
    verdict: str
    """The report in a sentence."""
    rows: tuple[Row, ...]
    """Every instance, the worst first."""
    sheets: tuple[Sheet, ...]
    """The first of them in full."""
    rest: str
    """Where the sheets of the others are, in a sentence; empty when all are here."""
    made: tuple[tuple[str, str], ...]
    """How it was made: (what, value)."""

    @property
    def is_fleet(self) -> bool:
        return len(self.rows) > 1


def paper(report: Report, most: int | None = None, only: str | None = None) -> Paper:
    """With the sheets of the ``most`` worst instances, or of ``only`` one; of all by default."""
    zone = zone_of(report)
    began = wording.moment(report.began_at, report.began_at, zone)
    assert began is not None
    number = len(report.instances)
    shown = number if most is None else min(most, number)
    subject = report.instances[0].instance if number == 1 else wording.count(number, "instance")
    return Paper(
        title=f"Inspection of {subject}",
        subject=subject,
        when=began.full,
        iso=began.iso,
        told=f"{_asked(report)}, with the history of {wording.count(report.days, 'day')}",
        problem=_problem(report),
        note=report.note,
        verdict=_verdict(report),
        rows=tuple(map(_row, report.instances)),
        sheets=tuple(
            _sheet(one, report, zone) for one in report.instances[:shown] if only is None or one.instance == only
        ),
        rest=""
        if shown == number
        else f"The {shown} worst follow in full; the HTML and the Markdown have all of them.",
        made=tuple(_made(report, zone)),
    )


def zone_of(report: Report) -> ZoneInfo:
    """UTC when this machine does not know the report's zone."""
    try:
        return ZoneInfo(report.zone)
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")


def mark(verdict: Verdict | None, outcome: str = "") -> Mark:
    if verdict is None:
        return NOT_LOOKED_AT
    if outcome == Outcome.BLIND.value and verdict is not Verdict.FAIL:
        return BLIND
    return NOT_APPLICABLE if outcome == Outcome.NOT_APPLICABLE.value and verdict is Verdict.PASS else MARKS[verdict]


def mark_of_word(word: str) -> Mark:
    """Of a node's state as a report holds it."""
    return MARKS[Verdict(word)] if word in set(Verdict) else NOT_LOOKED_AT


def _asked(report: Report) -> str:
    if report.name:
        return f"scheduled as {report.name}"
    return f"asked for by {report.author}" if report.author else "asked for"


def _problem(report: Report) -> str:
    match report.state:
        case ReportState.RUNNING:
            return "This inspection is still going on: what follows is not all of it."
        case ReportState.FAILED:
            return f"This inspection could not be brought to an end: {report.error or 'nobody said why'}"
        case ReportState.DONE:
            return ""


def _verdict(report: Report) -> str:
    counts = [(verdict, sum(one.verdict is verdict for one in report.instances)) for verdict in reversed(Verdict)]
    total = len(report.instances)
    if not total:
        return "No instance was inspected."
    if total == 1:
        return report.instances[0].grade_reason
    words = {Verdict.FAIL: "with something that fails", Verdict.WARN: "with warnings", Verdict.PASS: "fine"}
    if counts[-1][1] == total:
        return f"All {total} instances are fine."
    return f"Of {total} instances: {', '.join(f'{number} {words[verdict]}' for verdict, number in counts if number)}."


def _made(report: Report, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    yield "report", report.id
    yield "asked for by", report.author or "nobody named"
    if report.name:
        yield "schedule", report.name
    yield "observer", report.observer
    yield "probed", report.version
    began, ended = (wording.moment(at, report.began_at, zone) for at in (report.began_at, report.ended_at))
    yield "began", began.full if began else ""
    if ended is not None and report.ended_at is not None:
        yield "ended", f"{ended.full}, after {wording.lasting(report.ended_at - report.began_at)}"
    yield "history", wording.count(report.days, "day")
    yield "times are in", report.zone
    yield "instances", str(len(report.instances))
    yield "chosen events", ", ".join(report.chosen) or "none"


# --- one instance ----------------------------------------------------------------------------------------------


def _row(one: Inspected) -> Row:
    return Row(
        one.instance,
        one.grade.value,
        GRADES[one.grade],
        one.grade_reason,
        tuple((MARKS[verdict], one.count(verdict)) for verdict in reversed(Verdict)),
        _turned(one),
    )


def _sheet(one: Inspected, report: Report, zone: ZoneInfo) -> Sheet:
    wrong = sorted((item for item in one.items if item.verdict is not Verdict.PASS), key=_gravity)
    return Sheet(
        _row(one),
        labels=tuple(one.labels.items()),
        nodes=tuple(Node(node.name, node.role, node.version, mark_of_word(node.state)) for node in one.nodes),
        wrong=tuple(_finding(item, one, zone) for item in wrong),
        compared=_compared(one, report, zone),
        changes=tuple(_changes(one)),
        parts=tuple(_parts(one, zone)),
        fine=tuple(_fine_parts([item for item in one.items if not _is_shown(item)], one)),
    )


def _gravity(item: Item) -> tuple[int, int]:
    severities = [severity.value for severity in Severity]
    return item.verdict.rank, severities.index(item.severity) if item.severity in severities else len(severities)


def _is_shown(item: Item) -> bool:
    """Whether it stands in the evidence; else it is among what was fine."""
    return item.verdict is not Verdict.PASS or item.section in _ALWAYS_SHOWN or bool(item.events)


def _finding(item: Item, one: Inspected, zone: ZoneInfo) -> Finding:
    return Finding(
        mark(item.verdict, item.outcome),
        item.title,
        _place(item.target, one),
        item.finding,
        item.suggestion,
        item.severity,
        tuple((wording.label(_untimed(name)), _value(name, value, zone)) for name, value in item.evidence.items()),
        item.events[:MAX_EVENTS],
        len(item.events[MAX_EVENTS:]),
        item.verdict is not Verdict.PASS,
    )


def _place(target: str, one: Inspected) -> str:
    return target.removeprefix(f"{one.instance}/") or one.instance


def _untimed(name: str) -> str:
    return name.removesuffix("_at")


def _value(name: str, value: Reading | None, zone: ZoneInfo) -> str:
    if value is None:
        return "not known"
    if name.endswith("_at") and not isinstance(value, str) and math.isfinite(value):
        at = wording.moment(float(value), float(value), zone)
        return at.full if at is not None else ""
    return wording.quantity(name, value)


def _parts(one: Inspected, zone: ZoneInfo) -> Iterator[Part]:
    for section in Section:
        findings = tuple(_finding(item, one, zone) for item in one.items if item.section is section and _is_shown(item))
        drawn = drawings(one.charts, zone) if section is Section.TRENDS else ()
        if findings or drawn:
            yield Part(SECTIONS[section], findings, drawn)


def _fine_parts(items: Sequence[Item], one: Inspected) -> Iterator[FinePart]:
    for section in Section:
        rows = tuple(_fine([item for item in items if item.section is section], one))
        if rows:
            yield FinePart(FINE_SECTIONS[section], rows)


def _fine(items: Iterable[Item], one: Inspected) -> Iterator[Fine]:
    def kind(item: Item) -> tuple[str, str]:
        return item.title, mark(item.verdict, item.outcome).word

    for (title, _), group in groupby(sorted(items, key=kind), key=kind):
        alike = list(group)
        said: dict[tuple[str, str], list[str]] = {}
        for item in alike:
            said.setdefault((item.finding, item.suggestion), []).append(_place(item.target, one))
        yield Fine(
            mark(alike[0].verdict, alike[0].outcome),
            title,
            tuple((tuple(places), finding, suggestion) for (finding, suggestion), places in said.items()),
        )


# --- since the one before --------------------------------------------------------------------------------------

_TURNS = ("worse", "new", "better", "gone")


def _changes(one: Inspected) -> Iterator[Change]:
    """What got worse first."""
    for each in sorted(one.differences, key=lambda each: (_TURNS.index(_turn(each)), (each.now or Verdict.PASS).rank)):
        place = _place(each.target, one)
        yield Change(_turn(each), mark(each.before), mark(each.now), each.title, place, each.finding)


def _turn(each: Difference) -> str:
    if each.now is None:
        return "gone"
    if each.before is None:
        return "new"
    return "worse" if each.now.rank < each.before.rank else "better"


def _turned(one: Inspected) -> str:
    if one.compared_with is None:
        return "first one"
    turns = [_turn(each) for each in one.differences]
    return ", ".join(f"{turns.count(turn)} {turn}" for turn in _TURNS if turn in turns) or "no change"


def _compared(one: Inspected, report: Report, zone: ZoneInfo) -> str:
    if one.compared_with is None:
        return f"This is the first inspection of {one.instance} that is kept: there is nothing to compare it with."
    at = wording.moment(one.compared_at, report.began_at, zone)
    before = f"the inspection of {at.full}" if at is not None else f"inspection {one.compared_with}"
    if not one.differences:
        return f"Nothing is other than in {before}."
    return f"{wording.count(len(one.differences), 'thing is', 'things are')} other than in {before}."
