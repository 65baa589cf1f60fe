"""The shape of answers about inspections; see ``schemas``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from probed.api.schemas import Instant

VerdictWord = Literal["pass", "warn", "fail"]
GradeWord = Literal["A", "B", "C", "D", "E"]
RunWord = Literal["running", "done", "failed"]
SectionWord = Literal["events", "history", "trends", "advice", "switchovers"]
ItemOutcomeWord = Literal["", "observed", "failed", "blind", "not_applicable"]


class InspectedInstance(TypedDict):
    instance: str
    grade: GradeWord
    fails: int
    """Items that fail."""
    warns: int


class Progress(TypedDict):
    done: int
    """Instances."""
    total: int
    at_work: list[str]


class InspectionHead(TypedDict):
    id: str
    name: str | None
    """Of its schedule; null for one on demand."""
    state: RunWord
    author: str
    observer: str
    began_at: Instant
    ended_at: Instant | None
    days: int
    """So much history it takes into account."""
    zone: str
    events: list[str]
    """Ids of those that were chosen."""
    note: str
    error: str


class InspectionSummary(InspectionHead):
    instances: list[InspectedInstance]
    """The worst first."""


class InspectionSchedule(TypedDict):
    name: str
    schedule: str
    zone: str
    instances: list[str]
    """Empty: all."""
    events: list[str]
    """Empty: all that are on."""
    days: int
    next_at: Instant | None


class Inspections(TypedDict):
    items: list[InspectionSummary]
    next_cursor: str | None
    schedules: list[InspectionSchedule]


class InspectionItem(TypedDict):
    section: SectionWord
    id: str
    """An event's, or a trend's or advice's name."""
    title: str
    target: str
    verdict: VerdictWord
    finding: str
    suggestion: str
    outcome: ItemOutcomeWord
    evidence: dict[str, float | str | None]
    """By name, with the unit in the name; rounded so that noise makes no difference."""
    events: list[str]
    severity: Literal["", "fatal", "critical", "normal"]


class InspectionSeries(TypedDict):
    label: str
    points: list[Annotated[list[float], Field(min_length=2, max_length=2)]]
    """Unix seconds and value."""


class InspectionChart(TypedDict):
    id: str
    title: str
    unit: str
    series: list[InspectionSeries]
    threshold: float | None


class InspectionDifference(TypedDict):
    section: SectionWord
    id: str
    title: str
    target: str
    before: VerdictWord | None
    now: VerdictWord | None
    finding: str


class InspectionNode(TypedDict):
    name: str
    role: Literal["", "leader", "replica"]
    version: str
    state: VerdictWord


class InspectedDetail(TypedDict):
    instance: str
    labels: dict[str, str]
    grade: GradeWord
    grade_reason: str
    verdict: VerdictWord
    nodes: list[InspectionNode]
    items: list[InspectionItem]
    """By section, the worst first."""
    charts: list[InspectionChart]
    seconds: float
    """For which it was looked at."""
    compared_with: str | None
    """Id of the report that the differences are against."""
    compared_at: Instant | None
    differences: list[InspectionDifference]


class Inspection(InspectionHead):
    version: str
    verdict: VerdictWord
    instances: list[InspectedDetail]
    """The worst first."""
    progress: Progress | None
    """While it runs."""
