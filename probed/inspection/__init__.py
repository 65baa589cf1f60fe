"""What an inspection finds: one report, of one instance or of a fleet. Values only, between those who make and draw it.

An *inspection* looks at instances once, on demand or on a schedule, and leaves a *report*. A report holds one
*inspected* for each instance, worst first; that holds *items*: what was looked at, a *verdict*, the evidence for it,
what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from probed.errors import ProbedError
from probed.model import Reading


class Verdict(StrEnum):
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(reversed(Verdict)).index(self)


class Section(StrEnum):
    """The parts of an instance's report, in the order they are read."""

    EVENTS = "events"
    """One item per chosen event and target: what its probe saw just now."""
    HISTORY = "history"
    """One item per chosen event: how often it was triggered in the last days, and what is open."""
    TRENDS = "trends"
    """Disk, connections, lag, hit ratio over the recorded samples."""
    ADVICE = "advice"
    """Configuration that the events imply: privileges, reserved connections, failsafe mode, slots, versions …"""
    SWITCHOVERS = "switchovers"
    """How leaders changed: count, classes, write outage."""


class Grade(StrEnum):
    """Of an instance, by its worst item; ``grading`` says how."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"


class Item(Struct, frozen=True):
    """One thing that was looked at."""

    section: Section
    id: str
    """Stable name within its section: an event's id, a trend's or an advice's name."""
    title: str
    target: str
    """Key of what it is about; the instance's name when it is about all of it."""
    verdict: Verdict
    finding: str
    """One sentence: what is so, with its unit, bounded and redacted."""
    suggestion: str = ""
    """What to do; empty when nothing is."""
    outcome: str = ""
    """Of a sample: ``observed``, ``failed``, ``blind`` or ``not_applicable``. Blind is ``warn``: nobody knows."""
    evidence: Mapping[str, Reading | None] = field(default_factory=dict)
    """The values behind the verdict by name, their unit in the name; rounded so that noise makes no difference."""
    events: tuple[str, ...] = ()
    """Ids of events that it is about, newest first, at most 20."""
    severity: str = ""
    """Of the event that it is about: ``fatal``, ``critical`` or ``normal``; empty for what is no event."""

    @property
    def key(self) -> tuple[str, str, str]:
        """By which it is found again in another report."""
        return self.section.value, self.id, self.target


class Series(Struct, frozen=True):
    """One line of a chart: times (Unix seconds) and values, at most 500 points, oldest first."""

    label: str
    """Whose line it is: a node, or a database."""
    points: tuple[tuple[float, float], ...]


class Chart(Struct, frozen=True):
    """A reading along the report's days, to be drawn."""

    id: str
    title: str
    unit: str
    """``seconds``, ``bytes``, ``percent`` or empty for a count."""
    series: tuple[Series, ...]
    threshold: float | None = None
    """Of the policy that judges the reading."""


class Difference(Struct, frozen=True):
    """An item that is not as it was in the inspection before."""

    section: Section
    id: str
    title: str
    target: str
    before: Verdict | None
    """``None``: it was not looked at."""
    now: Verdict | None
    finding: str


class NodeLine(Struct, frozen=True):
    """A node as the report's head shows it."""

    name: str
    role: str
    """``leader``, ``replica`` or empty when nobody said."""
    version: str
    """Of its PostgreSQL; empty when it was not seen."""
    state: str
    """The worst of its event items: ``pass``, ``warn`` or ``fail``."""


class Inspected(Struct, frozen=True):
    """One instance of a report."""

    instance: str
    labels: Mapping[str, str]
    grade: Grade
    grade_reason: str
    """Why this one: one sentence."""
    nodes: tuple[NodeLine, ...]
    items: tuple[Item, ...]
    """By section; within one the worst first, then by title and target."""
    charts: tuple[Chart, ...]
    seconds: float
    """How long it took to look."""
    compared_with: str | None = None
    """The report that the differences are against: the newest one before with this instance, if there is one."""
    compared_at: float | None = None
    differences: tuple[Difference, ...] = ()

    def count(self, verdict: Verdict) -> int:
        return sum(item.verdict is verdict for item in self.items)

    @property
    def verdict(self) -> Verdict:
        return min((item.verdict for item in self.items), key=lambda verdict: verdict.rank, default=Verdict.PASS)


class ReportState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It could not be brought to an end; ``Report.error`` says why."""


class Report(Struct, frozen=True):
    """One inspection, kept. Times are Unix seconds."""

    id: str
    """Time-ordered, as an event's."""
    name: str
    """Of its schedule; empty for one on demand."""
    observer: str
    version: str
    """Of probed."""
    author: str
    """Who asked for it; ``schedule`` for a scheduled one."""
    state: ReportState
    began_at: float
    ended_at: float | None
    days: int
    """So much history it takes into account."""
    zone: str
    """IANA name of the time zone its times are shown in."""
    chosen: tuple[str, ...]
    """Ids of the events that were chosen."""
    instances: tuple[Inspected, ...] = ()
    """Worst first, then by name."""
    error: str = ""
    note: str = ""
    """What is to be known of how it came about, such as that its time had been missed; one sentence."""

    @property
    def verdict(self) -> Verdict:
        return min((one.verdict for one in self.instances), key=lambda verdict: verdict.rank, default=Verdict.PASS)


class Progress(Struct, frozen=True):
    """How far one is that runs."""

    done: int
    """Instances."""
    total: int
    at_work: tuple[str, ...] = ()
    """Names of those that are being looked at."""


class Busy(ProbedError):
    """Another inspection runs; ``running`` is it."""

    def __init__(self, running: Report) -> None:
        self.running = running
        super().__init__(f"inspection {running.id} runs, one at a time; wait for its end")
