"""The nouns of the product. Imports nothing of ours; everything else points here.

Values are frozen: they travel between layers, and pure functions decide over them. Times come in pairs: ``at`` is
wall time (Unix seconds, for people), ``mono`` is monotonic (seconds, for arithmetic).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from msgspec import Struct, field
from msgspec.structs import force_setattr

OBSERVER = "observer"
"""The instance that a daemon is to itself; none of the user's can be called so."""

CANARY = "canary"
"""The event by which a daemon sees that the way of an alarm is open, and its only receiver."""
HOST = "host"
"""The component that the machine is on which this daemon runs."""
RECEIVER = "receiver"
"""The component that a receiver of notices is to the observer; its name is the target's member."""

Reading = float | str
"""One named value in base units (seconds, bytes, per cent where the name says so); a word for an identity."""

NOTHING: Mapping[str, Reading] = MappingProxyType({})
NO_FACTS: Mapping[str, object] = MappingProxyType({})


class Outcome(StrEnum):
    """What a cycle came to. Three outcomes, never two, plus one for what the topology does not have."""

    OBSERVED = "observed"
    FAILED = "failed"
    """The target's fault: refused, hung, garbage."""
    BLIND = "blind"
    """Ours: credentials, privilege, DNS, our own bug or lag. Neither healthy nor down."""
    NOT_APPLICABLE = "not_applicable"
    """There is no such thing here: a primary has no WAL receiver."""


# Python 3.11 calls a function for each look at a member of an enum.
_OBSERVED, _FAILED = Outcome.OBSERVED, Outcome.FAILED


class Severity(StrEnum):
    FATAL = "fatal"
    CRITICAL = "critical"
    NORMAL = "normal"

    @property
    def rank(self) -> int:
        """0 is the gravest."""
        return list(Severity).index(self)


class Role(StrEnum):
    """What somebody may; each may all that the ones before it may."""

    VIEWER = "viewer"
    """Read."""
    OPERATOR = "operator"
    """Acknowledge, silence, edit policies, inspect."""
    ADMIN = "admin"
    """Reload, import policies, make tokens, read the audit log."""

    @property
    def rank(self) -> int:
        """0 may the least."""
        return list(Role).index(self)


class EventState(StrEnum):
    OPEN = "open"
    RESOLVED = "resolved"
    OCCURRED = "occurred"


class Target(Struct, frozen=True):
    """One addressable (instance, node, component, address) that a probe can be pointed at."""

    instance: str
    node: str = ""
    """Empty for what belongs to the instance as a whole."""
    component: str = ""
    address: str = ""
    """``host:port`` or a URL without credentials; for display only, an address may change and the target stay."""
    kind: str = ""
    """What probes bind to; the component, unless one component has several kinds of door (``frontend``)."""
    member: str = ""
    """Tells apart several targets of one component without a node, such as HAProxy frontends."""
    key: str = ""
    """Stable name: ``orders/node-a/postgres``, whatever is given. Asked for 200 times in a round, hence kept."""

    def __post_init__(self) -> None:
        parts = (self.instance, self.node, self.component, self.member)
        force_setattr(self, "key", "/".join(part for part in parts if part))


class Sample(Struct, frozen=True):
    """The immutable result of one cycle."""

    target: Target
    probe: str
    outcome: Outcome
    at: float
    mono: float
    duration: float = 0.0
    readings: Mapping[str, Reading] = field(default_factory=lambda: NOTHING)
    reason: str = ""
    """For people: one line, redacted, at most 500 characters. Empty when there is nothing to say."""
    kind: str = ""
    """The same from a closed set (``refused``, ``timeout``, ``privilege`` …), fit for a metric label."""
    series: str = ""
    """Identity of the counter series behind the readings; when it changes, counters start a new baseline."""
    facts: Mapping[str, object] = field(default_factory=lambda: NO_FACTS)
    """What the probe saw beyond numbers, for combined probes, discovery and evidence; never a metric."""
    keep: Mapping[str, object] | None = None
    """What the probe must find again in its next cycle, after a restart too: JSON-able; ``None`` leaves it as it is."""


# --- questions: what a policy on a generic probe asks ---------------------------------------------------------


class Expect(Struct, frozen=True):
    """What the operator says of an HTTP answer, and of which product gives it."""

    type: str = ""
    """Which product it is: ``kong``, ``meta`` …; empty when nobody said."""
    status: tuple[int, ...] = ()
    """Any of these; when empty, any 2xx."""
    json: Mapping[str, object] = field(default_factory=dict)
    """To be found in the answer's JSON object, with these values; the answer may hold more."""
    body: str = ""
    """Text that the body must contain."""

    @property
    def given(self) -> bool:
        """Whether the operator has said what counts as healthy."""
        return bool(self.status or self.json or self.body)


class Keys(Struct, frozen=True):
    """Files that say whom we trust and who we are; read when they are needed, never kept."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    bearer_token_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None


class HttpQuestion(Struct, frozen=True):
    url: str
    method: str = "GET"
    """``GET`` or ``HEAD``."""
    expect: Expect = field(default_factory=Expect)
    keys: Keys = field(default_factory=Keys)


class TcpQuestion(Struct, frozen=True):
    host: str
    port: int


class SqlQuestion(Struct, frozen=True):
    statement: str
    on: str = "primary"
    """``primary``, ``replicas``, ``every`` or a node's name."""
    database: str = ""
    """Empty: the one that the node's own probes use."""
    expect: float | str | bool | None = None
    """The value that is right; ``None``: any."""
    alone: bool = False
    """It gets a connection of its own, and the policy's whole timeout on it."""


Question = HttpQuestion | TcpQuestion | SqlQuestion


# --- policies -------------------------------------------------------------------------------------------------


class Comparison(Struct, frozen=True):
    """``reading op value``, the value resolved from a parameter or a literal."""

    reading: str
    op: str
    value: float
    parameter: str = ""

    def holds(self, reading: float) -> bool:
        return _HOLDS[self.op](reading, self.value)


_HOLDS: Mapping[str, Callable[[float, float], bool]] = {">=": ge, ">": gt, "<=": le, "<": lt, "==": eq, "!=": ne}


class Condition(Struct, frozen=True):
    """Comparisons joined by ``and``; with none, the condition is ``failed``."""

    comparisons: tuple[Comparison, ...] = ()

    @property
    def on_failure(self) -> bool:
        return not self.comparisons

    def met_by(self, sample: Sample) -> bool | None:
        """Whether the sample meets the condition; ``None`` when it is inconclusive."""
        outcome = sample.outcome
        if not self.comparisons:
            return False if outcome is _OBSERVED else True if outcome is _FAILED else None
        if outcome is not _OBSERVED:
            return None
        met = True
        for comparison in self.comparisons:
            reading = sample.readings.get(comparison.reading)
            if reading is None or isinstance(reading, str):
                return None
            met = met and comparison.holds(reading)
        return met


class Threshold(Struct, frozen=True):
    when: Condition
    count: int
    resolve_count: int = 2
    max_gap: int = 5
    resolve_when: Condition | None = None


class Increase(Struct, frozen=True):
    reading: str
    window: float
    at_least: float
    resolve_count: int = 2
    max_gap: int = 5
    count: ClassVar[int] = 1
    """Its window is its patience."""


class Change(Struct, frozen=True):
    reading: str


class Occurrence(Struct, frozen=True):
    reading: str


Detect = Threshold | Increase | Change | Occurrence


class Example(Struct, frozen=True):
    """A worked example of a policy: tokens of samples and the events they must lead to (evaluators.md)."""

    says: str
    samples: tuple[str, ...]
    events: tuple[str, ...]


class Policy(Struct, frozen=True):
    """The effective policy of one event type: built-in file <- policies.d <- stored patch, resolved to numbers."""

    id: str
    name: str
    group: str
    severity: Severity
    probe: str
    detect: Detect
    enabled: bool = True
    can_disable: bool = True
    fixed: bool = False
    description: str = ""
    suggestion: str = ""
    params: Mapping[str, float | str] = field(default_factory=dict)
    interval: float = 5.0
    timeout: float = 2.0
    confirm_interval: float | None = None
    replica_severity: Severity | None = None
    """Severity when the target's node is known to be a replica, if that differs."""
    switchover_grace: bool = False
    """Samples are inconclusive for ``defaults.switchover_grace`` after a switchover of the instance."""
    evidence: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    version: int = 1
    source: str = ""
    """The file the policy came from, for messages."""
    question: Question | None = None
    """What it asks, on a generic probe; its targets are its own then, with its id as their component."""
    instances: tuple[str, ...] = ()
    """Where it applies; empty: everywhere."""

    def applies_to(self, instance: str) -> bool:
        return not self.instances or instance in self.instances

    def judges(self, target: Target) -> bool:
        """Whether a target of its probe is its business: with a question of its own, only what that asks."""
        return self.applies_to(target.instance) and (self.question is None or target.component == self.id)


# --- what evaluators keep and return --------------------------------------------------------------------------


class Phase(StrEnum):
    QUIET = "quiet"
    PENDING = "pending"
    OPEN = "open"


class Streak(Struct, frozen=True):
    """The evaluator's whole memory of one watch. JSON-able field by field; survives restarts in the store."""

    phase: Phase = Phase.QUIET
    meeting: int = 0
    """Conclusive samples in a row that met the condition; none while it is quiet."""
    clearing: int = 0
    """While open: conclusive samples in a row that did not."""
    inconclusive: int = 0
    """While pending or open: inconclusive ones in a row."""
    not_applicable: int = 0
    """While open: not-applicable ones in a row."""
    since_at: float | None = None
    """Wall time of the first meeting sample of the streak that is running."""
    last_mono: float | None = None
    """While pending or open: monotonic time of the newest sample, conclusive or not. A quiet one needs no time."""
    series: str = ""
    baseline: float | None = None
    """Last observed value of the counter."""
    increments: tuple[tuple[float, float], ...] = ()
    """(mono, delta) of the increments still inside the window."""
    identity: str = ""
    """Last conclusive identity; empty until there was one."""
    seen: str = ""
    """Key of the last occurrence, so that it is not told twice."""
    turns: tuple[float, ...] = ()
    """Wall times of the newest openings and resolutions, by which flapping is known."""


FRESH = Streak()
"""Of a watch that has seen nothing."""


class Kind(StrEnum):
    OPENED = "opened"
    RESOLVED = "resolved"
    OCCURRED = "occurred"


class Transition(Struct, frozen=True):
    """What an evaluator returns when something happened."""

    kind: Kind
    at: float
    first_failed_at: float | None = None
    count: int = 1
    value: Reading | None = None
    threshold: float | None = None
    previous: str = ""
    """The identity before a change."""
    reason: str = ""
    """Why it resolved: ``recovered``, ``not_applicable``, ``disabled``, ``target_removed`` or ``policy_removed``."""


class Event(Struct, frozen=True):
    """What the user sees: one episode (open until resolved) or one occurrence."""

    id: str
    event: str
    name: str
    severity: Severity
    state: EventState
    target: Target
    opened_at: float
    message: str
    first_failed_at: float | None = None
    resolved_at: float | None = None
    resolve_reason: str = ""
    count: int = 1
    value: Reading | None = None
    threshold: float | None = None
    suggestion: str = ""
    policy_version: int = 1
    observer: str = ""
    caused_by: str | None = None
    suppressed: bool = False
    acked_by: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    flapping: bool = False
    """It came and went so often lately that not every turn of it is worth a message."""
    details: Mapping[str, object] = field(default_factory=dict)
    """What more is known of it, JSON-able: of a switchover its class, signals, write outage and possible loss."""
    silenced: bool = False
    """Nobody was told of it, because a silence held."""
    silenced_by: str | None = None
    """The last silence that covered it; it stays known after its end, see ``muted``."""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.event, self.target)

    @property
    def canary(self) -> bool:
        """Whether it is one of our own, that nobody else is told of and nothing counts."""
        return self.event == CANARY

    @property
    def quiet(self) -> bool:
        """Whether it is one turn too many of something that flaps: recorded, and not announced."""
        return self.flapping and bool(self.details.get("quiet"))

    @property
    def held_back(self) -> bool:
        """Whether people know nothing of it: a cause explains it, it is a turn too many, or a silence held."""
        return self.suppressed or self.quiet or self.silenced

    @property
    def muted(self) -> bool:
        """Whether a silence holds over it, whether people were told of it before or not."""
        note = self.details.get("silence")
        return self.silenced_by is not None and isinstance(note, Mapping) and "over_at" not in note


class Moment(StrEnum):
    """What evidence is about."""

    TRIGGER = "trigger"
    RECOVERY = "recovery"
    """The end of an event; of an occurrence, which has none, half a minute later."""


class Side(StrEnum):
    """Whether a snapshot is of the time before its moment, or was taken because of it."""

    BEFORE = "before"
    AFTER = "after"


class Evidence(Struct, frozen=True):
    """One snapshot kept with an event, or why it could not be had."""

    collector: str
    target: str
    """Key of what was looked at; empty for a note about the collector as a whole."""
    taken_at: float
    side: Side
    moment: Moment
    data: str = ""
    """JSON, redacted; empty beside an error."""
    error: str = ""


def fingerprint(event_type: str, target: Target) -> str:
    """16 hex digits naming an event across observers and restarts: a hash of (event type, target)."""
    return _fingerprint(event_type, target.key)


@functools.lru_cache(maxsize=16_384)  # watches ask for theirs at each plan, and events at each change
def _fingerprint(event_type: str, key: str) -> str:
    return hashlib.sha256(f"{event_type}\0{key}".encode()).hexdigest()[:16]
