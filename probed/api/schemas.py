"""The shape of every answer, as types: what ``shapes`` makes, and what the API's description is generated from.

All times are RFC 3339 in UTC with milliseconds; what does not apply is null.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

_Item = TypeVar("_Item")

Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
SeverityWord = Literal["fatal", "critical", "normal"]
StateWord = Annotated[
    str, Field(json_schema_extra={"enum": ["fatal", "critical", "normal", "failing", "blind", "waiting", "ok"]})
]
RoleWord = Annotated[str, Field(json_schema_extra={"enum": ["primary", "replica", "standby_leader"]})]
AccessWord = Annotated[str, Field(json_schema_extra={"enum": ["viewer", "operator", "admin"]})]
GapWord = Annotated[str, Field(json_schema_extra={"enum": ["stopped", "stalled"]})]
ViaWord = Annotated[
    str, Field(json_schema_extra={"enum": ["socket", "password", "token", "certificate", "session", "anonymous"]})
]
WeekdayWord = Annotated[str, Field(json_schema_extra={"enum": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]})]
OriginWord = Annotated[str, Field(json_schema_extra={"enum": ["api", "file"]})]
OutcomeWord = Literal["observed", "failed", "blind", "not_applicable"]
Readings = dict[str, float | str | None]


class Page(TypedDict, Generic[_Item]):
    items: list[_Item]
    next_cursor: str | None


class Event(TypedDict):
    id: str
    event: str
    name: str
    severity: SeverityWord
    state: Literal["open", "resolved", "occurred"]
    instance: str
    node: str | None
    component: str | None
    target: str
    opened_at: Instant
    first_failed_at: Instant | None
    resolved_at: Instant | None
    resolve_reason: str | None
    count: int
    value: float | None
    threshold: float | None
    message: str
    suggestion: str
    policy_version: int
    observer: str
    fingerprint: str
    caused_by: str | None
    suppressed: bool
    acked_by: str | None
    labels: dict[str, str]
    flapping: bool
    details: dict[str, Any]
    silenced: bool
    """Nobody was told of it, because a silence held."""
    silenced_by: str | None
    """The last silence that covered it; ``details.silence`` says why, since when, and when that was over."""


class Sample(TypedDict):
    at: Instant
    outcome: OutcomeWord
    readings: Readings
    reason: str
    duration_ms: float


class RecordedSample(TypedDict):
    at: Instant
    outcome: OutcomeWord
    readings: Readings
    reason: str
    kind: str
    duration_ms: None
    """Durations are not recorded."""


class Recorded(TypedDict):
    probe: str
    target: str
    instance: str
    node: str | None
    component: str | None
    first_at: Instant
    last_at: Instant
    samples: int


class Samples(TypedDict):
    before: list[Sample]
    after: list[Sample]


class Evidence(TypedDict):
    collector: str
    target: str | None
    taken_at: Instant
    when: Literal["before", "after"]
    moment: Literal["trigger", "recovery"]
    data: NotRequired[Any]
    error: NotRequired[str]


TransitionWord = Literal[
    "opened", "resolved", "occurred", "lifted", "told", "linked", "amended", "silenced", "unsilenced", "acked",
    "unacked", "reminded", "resent",
]  # fmt: skip


class Transition(TypedDict):
    """``seq`` numbers the transitions of all events in their order; who and comment: of what people do."""

    seq: int
    kind: TransitionWord
    at: Instant
    who: str | None
    comment: str | None


class StreamedEvent(Event):
    transition: Transition


class Delivery(TypedDict):
    transition: str
    receiver: str
    event_id: str
    event: str
    instance: str
    told: Literal["opened", "resolved", "occurred", "reminded"]
    fate: Literal["owed", "delivered", "refused", "expired", "dropped"]
    owed_at: Instant
    attempts: int
    tried_at: Instant | None
    settled_at: Instant | None
    answer: str
    dead_letter: bool
    """Whether it was given up, and nothing later of the event arrived or is owed: it can be sent again."""


class Receiver(TypedDict):
    name: str
    kind: Literal["alertmanager", "webhook", "apprise"]
    owed: int
    oldest_owed_at: Instant | None
    dead_letters: int
    failing_since: Instant | None
    answer: str


class Notifications(TypedDict):
    receivers: list[Receiver]
    items: list[Delivery]
    next_cursor: str | None


class Tested(TypedDict):
    receiver: str
    delivered: bool
    answer: str
    seconds: float


class Resent(TypedDict):
    receiver: str
    owed: int
    """Notices that it is owed again."""
    held_back: int
    """Open events that nobody is told of now (a silence, a cause, flapping): they stay dead letters."""


class EventDetail(Event):
    samples: Samples
    evidence: list[Evidence]
    deliveries: list[Delivery]
    consequences: list[str]
    history: list[Transition]


class Recurrence(TypedDict):
    weekdays: list[WeekdayWord]
    monthdays: list[int]
    """1 to 31; 0 is the last one, whatever its number. Both lists must name a day, where they are not empty."""
    start: Annotated[str, Field(json_schema_extra={"examples": ["22:00"]})]
    length_seconds: int
    """By the clock of the zone."""
    zone: str


class Window(TypedDict):
    opens_at: Instant | None
    """Null: it always was."""
    closes_at: Instant | None
    """Null: it stays open."""


class Silence(TypedDict):
    id: str | None
    state: Literal["pending", "active", "expired"]
    origin: OriginWord
    where: str | None
    """File and line, when it is declared there."""
    instances: list[str]
    nodes: list[str]
    events: list[str]
    severities: list[SeverityWord]
    comment: str
    author: str
    created_at: Instant | None
    starts_at: Instant | None
    ends_at: Instant | None
    every: str | None
    recurrence: Recurrence | None
    window: Window | None
    """In which it holds now, else the next one."""
    ended_at: Instant | None
    ended_by: str | None
    open_events: list[str]
    """Ids of open events that it covers, whether it holds now or not."""


class SilenceMade(Silence):
    warnings: list[str]


class DailyCount(TypedDict):
    date: Annotated[str, Field(json_schema_extra={"format": "date"})]
    event: str
    instance: str
    severity: SeverityWord
    count: int


class Daily(TypedDict):
    tz: str
    items: list[DailyCount]


@with_config(ConfigDict(extra="allow"))
class Leadership(TypedDict):
    """Beside these whatever is known of the passage: ``signals``, ``write_outage_seconds`` …"""

    instance: str
    at: Instant


class Gap(TypedDict):
    began_at: Instant
    ended_at: Instant
    seconds: float
    observer: str
    reason: GapWord


class Target(TypedDict):
    component: str | None
    probe: str
    address: str | None
    outcome: OutcomeWord | None
    since: Instant | None
    last_sample_at: Instant | None
    readings: Readings
    reason: str


class Node(TypedDict):
    name: str
    role: RoleWord | None
    state: StateWord
    targets: list[Target]


class Instance(TypedDict):
    name: str
    labels: dict[str, str]
    state: StateWord
    leader: str | None
    paused: bool | None
    """Whether Patroni is in maintenance mode, as it said last; null while it has not said."""
    nodes: list[Node]
    targets: list[Target]
    open_events: list[str]


class Oneself(TypedDict):
    state: StateWord
    open_events: list[str]
    targets: list[Target]


class Status(TypedDict):
    observer: str
    instances: list[Instance]
    self: Oneself


class Example(TypedDict):
    says: str
    samples: str
    events: str


class Detect(TypedDict):
    type: Literal["threshold", "increase", "change", "occurrence"]
    when: NotRequired[str]
    count: NotRequired[int]
    resolve_when: NotRequired[str | None]
    resolve_count: NotRequired[int]
    max_gap: NotRequired[int]
    reading: NotRequired[str]
    window: NotRequired[float]
    at_least: NotRequired[float]


class Policy(TypedDict):
    """Keys as in a policy file; durations and sizes in seconds and bytes."""

    id: str
    name: str
    group: str
    severity: SeverityWord
    replica_severity: SeverityWord | None
    enabled: bool
    can_disable: bool
    fixed: bool
    description: str
    suggestion: str
    rule: str
    probe: str
    http: NotRequired[dict[str, Any]]
    tcp: NotRequired[dict[str, Any]]
    sql: NotRequired[dict[str, Any]]
    instances: list[str]
    params: dict[str, float | str]
    detect: Detect
    interval: float
    timeout: float
    confirm_interval: float | None
    switchover_grace: bool
    evidence: list[str]
    examples: list[Example]
    version: int


class Audit(TypedDict):
    seq: int
    at: Instant
    who: str
    via: ViaWord
    client: str | None
    action: str
    subject: str
    reason: str
    before: Any
    after: Any


class Token(TypedDict):
    id: str
    name: str
    role: AccessWord
    scopes: list[str]
    state: Literal["live", "expired", "revoked"]
    created_at: Instant
    created_by: str
    expires_at: Instant | None
    revoked_at: Instant | None
    used_at: Instant | None
    """Some minutes exact."""


class NewToken(Token):
    token: str
    """Shown this once."""


class Who(TypedDict):
    name: str
    role: AccessWord
    via: ViaWord
    csrf: str | None
    """Of a session: what a form repeats in its field of that name."""


class ProblemItem(TypedDict):
    """One of several things that are wrong; configuration problems have a place in a file instead of ``detail``."""

    path: str
    detail: NotRequired[str]
    message: NotRequired[str]
    where: NotRequired[str]
    line: NotRequired[int | None]
    column: NotRequired[int | None]


class Problem(TypedDict):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[ProblemItem]]
    id: NotRequired[str]
