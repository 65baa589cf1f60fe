"""Where history lives: one protocol, one engine so far (``sqlite``).

Record first, announce after: a commit is one transaction of transitions, streaks and members; who asked for it may
announce only when its future is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from probed.model import Event, EventState, Evidence, Moment, Sample, Severity, Streak
from probed.revisions import FILES, Patch, Revision
from probed.shadows import RecoveredShadows, ShadowChanges, ShadowEvent
from probed.silences import Silence
from probed.store.notices import Attempt, Backlog, Delivery, DeliveryQuery, GivenUp, Notice, Reminder, Resend, Told
from probed.store.reports import Earlier, InspectionQuery, InspectionRecord

_TOLD = {
    "opened": Told.OPENED, "lifted": Told.OPENED, "told": Told.OPENED, "unsilenced": Told.OPENED,
    "occurred": Told.OCCURRED, "resolved": Told.RESOLVED,
}  # fmt: skip


class Change(Struct, frozen=True):
    """One event's new state, and what made it change. ``event`` is written whole."""

    event: Event
    kind: str
    """``opened``, ``resolved``, ``occurred``, ``lifted`` (it outlived its cause and is announced after all), ``told``
    (a turn of a flapping event that lasts), ``linked`` (its cause became known after it had opened), ``amended``
    (more became known of it), ``silenced`` (a silence came over it while it was open), ``unsilenced`` (it outlived
    its silence and is announced, after all or once more), ``acked`` or ``unacked`` (somebody took it on, or gave it
    back)."""
    at: float
    before: tuple[Sample, ...] = ()
    """Samples up to and with the trigger; kept with the event when it opens or occurs."""
    after: tuple[Sample, ...] = ()
    """Samples up to and with the recovery; kept when it resolves."""
    who: str = ""
    """Who did it, of what people do."""
    comment: str = ""
    owed: tuple[str, ...] = ()
    """Receivers that are to be told, by name; a resolution only if they were owed the opening."""

    @property
    def told(self) -> Told | None:
        """What receivers hear of it, if anything."""
        return _TOLD.get(self.kind)

    @property
    def announced(self) -> bool:
        """Whether anybody is to be told: not of what a cause explains, of each turn of what flaps, or under a silence.

        The end of what people were told of before the silence is told during it: an alarm without an end is worse.
        """
        if self.event.held_back:
            return False
        return self.kind == "resolved" or not self.event.muted


class Member(Struct, frozen=True):
    """A node once seen in Patroni's member list; remembered, because a member that vanishes is a failed one."""

    instance: str
    name: str
    host: str
    port: int
    api_url: str


Place = tuple[str, str]
"""(probe, target key)"""


class LeadershipRecord(Struct, frozen=True):
    """One passage from leader to leader, or of a leader in place; also those that are no event."""

    instance: str
    at: float
    details: Mapping[str, Any]
    """``leadership.Passage.as_details()``: class, old_leader, new_leader, timelines, signals, outage, loss."""


class GapRecord(Struct, frozen=True):
    """A time in which an observer did not look; Unix seconds."""

    began_at: float
    ended_at: float
    observer: str
    reason: str
    """``stopped`` (no daemon ran) or ``stalled`` (suspended, stopped by a signal, blocked)."""


class AuditRecord(Struct, frozen=True):
    """Who changed what; becomes durable together with the change."""

    at: float
    who: str
    via: str
    """How they were known: ``socket``, ``password``, ``token``, ``certificate`` or ``session``."""
    client: str
    """Address that the request came from; empty over the UNIX socket."""
    action: str
    """``event.ack``, ``policy.edit`` …: a noun, a dot, a verb."""
    subject: str
    """Id of what was changed."""
    reason: str = ""
    before: Any = None
    """JSON-able; ``None`` where there was nothing."""
    after: Any = None
    seq: int = 0
    """Given by the store."""


class TokenRecord(Struct, frozen=True):
    """An API token: all of it but the token itself. Times are Unix seconds."""

    id: str
    name: str
    role: str
    scopes: tuple[str, ...]
    digest: str
    """SHA-256 of the token, as hex."""
    created_at: float
    created_by: str
    expires_at: float | None = None
    revoked_at: float | None = None
    used_at: float | None = None
    """Of the last use, some minutes exact."""

    def live(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Commit(Struct, frozen=True):
    """What must become durable together."""

    changes: tuple[Change, ...] = ()
    streaks: Mapping[str, Streak] = field(default_factory=dict)
    """By watch key; a streak that says nothing (quiet, no memory) deletes its row."""
    forgotten: tuple[str, ...] = ()
    """Watch keys whose streaks are dropped."""
    members: tuple[Member, ...] = ()
    forgotten_members: tuple[tuple[str, str], ...] = ()
    """(instance, name)"""
    leadership: tuple[LeadershipRecord, ...] = ()
    gaps: tuple[GapRecord, ...] = ()
    kept: Mapping[Place, Mapping[str, object] | None] = field(default_factory=dict)
    """What probes keep over a restart; ``None`` deletes."""
    evidence: Mapping[str, Sequence[Evidence]] = field(default_factory=dict)
    """By event id; the same snapshot (collector, target, moment, side and time) again replaces what was there."""
    settled: tuple[tuple[str, Moment], ...] = ()
    """(event id, moment) whose evidence is complete: every change makes one owed, see ``Recovered.owed``."""
    silences: tuple[Silence, ...] = ()
    """New ones, and those that were ended; each is written whole."""
    audit: tuple[AuditRecord, ...] = ()
    shadows: ShadowChanges = field(default_factory=ShadowChanges)
    revisions: tuple[Revision, ...] = ()
    """Of policies; refused when their number is taken."""
    attempts: tuple[Attempt, ...] = ()
    """What came of sending notices."""
    given_up: tuple[GivenUp, ...] = ()
    reminders: tuple[Reminder, ...] = ()
    resends: tuple[Resend, ...] = ()
    tokens: tuple[TokenRecord, ...] = ()
    """Written whole."""
    inspections: tuple[InspectionRecord, ...] = ()
    """Written whole."""

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__struct_fields__)


class Owed(Struct, frozen=True):
    """An event whose evidence of a moment was never completed: its daemon ended meanwhile."""

    event: Event
    moment: Moment
    at: float
    frozen: bool = False
    """Whether what was seen before the event is kept already."""


class Recovered(Struct, frozen=True):
    """What a start finds: the state that the last commit left."""

    open_events: tuple[Event, ...]
    streaks: Mapping[str, Streak]
    members: tuple[Member, ...]
    last_switchover: Mapping[str, float]
    """Wall time of the newest ``ha_switchover`` by instance."""
    absence: float | None
    """Seconds since the store last heard of a daemon; ``None`` at the very first start."""
    mono_shift: float
    """What to add to a stored monotonic time to date it on today's monotonic clock (0 within one boot)."""
    kept: Mapping[Place, Mapping[str, object]] = field(default_factory=dict)
    """What probes keep over a restart."""
    owed: tuple[Owed, ...] = ()
    patches: Mapping[str, Patch] = field(default_factory=dict)
    """What lies over the files of policies, by id; also of those that were restored since."""
    policies_version: int = FILES
    """Of the newest revision."""
    silences: tuple[Silence, ...] = ()
    """Those that may still hold."""
    shadows: RecoveredShadows = field(default_factory=RecoveredShadows)


class EventQuery(Struct, frozen=True):
    """Filters of the event list; newest first. Times are Unix seconds, ``until`` exclusive."""

    instance: str | None = None
    event: str | None = None
    severity: Severity | None = None
    state: EventState | None = None
    suppressed: bool | None = None
    silenced: bool | None = None
    silenced_by: str | None = None
    since: float | None = None
    until: float | None = None
    active_since: float | None = None
    """Only what was still open at this time, or began later."""
    limit: int = 100
    before_id: str | None = None
    """Only events older than this id: how a page follows another."""


class AuditQuery(Struct, frozen=True):
    """Filters of the audit log; newest first. Times are Unix seconds, ``until`` exclusive."""

    who: str | None = None
    action: str | None = None
    """``policy.edit``, or ``policy`` for everything that is done to policies."""
    subject: str | None = None
    since: float | None = None
    until: float | None = None
    limit: int = 100
    before_seq: int | None = None
    """Only records older than this one: how a page follows another."""


class TransitionRecord(Struct, frozen=True):
    """One transition as the store numbered it."""

    seq: int
    """Transitions are numbered from 1 in the order of their commits, without gaps."""
    kind: str
    """As in ``Change``."""
    at: float
    event: Event
    """As it is by now, which may be later than this transition."""
    who: str = ""
    comment: str = ""


class Numbering(Struct, frozen=True):
    """What there is of the numbered transitions."""

    purged: int
    """Of those up to this number some are gone; above it, none."""
    newest: int


class EventDetail(Struct, frozen=True):
    """One event with what was kept of it. Samples are JSON objects in the API's shape."""

    event: Event
    before: Sequence[Mapping[str, Any]] = ()
    after: Sequence[Mapping[str, Any]] = ()
    consequences: Sequence[str] = ()
    evidence: Sequence[Evidence] = ()
    history: Sequence[TransitionRecord] = ()
    deliveries: Sequence[Delivery] = ()


class DailyCount(Struct, frozen=True):
    date: str
    """``2026-11-22`` in the zone that was asked for."""
    event: str
    instance: str
    severity: Severity
    count: int


class StoreStatus(Struct, frozen=True):
    path: str
    schema: int
    events: int
    bytes: int
    engine: str


class Store(Protocol):
    degraded: str
    """Why the disk refuses, while it does."""

    async def open(self) -> Recovered:
        """Open or create. StoreError when it cannot be used, naming the remedy."""
        ...

    def append(self, commit: Commit) -> asyncio.Future[None]:
        """Queue a commit, in order; the future is done when it is durable. Never blocks the loop."""
        ...

    async def events(self, query: EventQuery) -> Sequence[Event]: ...

    async def event(self, event_id: str) -> EventDetail | None: ...

    async def transitions(self, after: int, limit: int) -> Sequence[TransitionRecord]:
        """The first ``limit`` transitions numbered above ``after``, in order."""
        ...

    async def numbering(self) -> Numbering: ...

    async def daily(self, since: float, until: float, zone: str) -> Sequence[DailyCount]:
        """Triggers per day, event and instance, by the day on which they opened or occurred in ``zone``."""
        ...

    async def leadership(
        self,
        instance: str | None,
        since: float,
        until: float,
        limit: int = 1000,
        after: tuple[float, str] | None = None,
    ) -> Sequence[LeadershipRecord]:
        """How the leadership of an instance, or of all, went on; newest first, from (time, instance) on."""
        ...

    async def gaps(
        self, since: float, until: float, limit: int = 1000, after: tuple[float, float] | None = None
    ) -> Sequence[GapRecord]:
        """Times in which nobody looked that reach into a span; the last to end first, from (end, beginning) on."""
        ...

    async def silence(self, silence_id: str) -> Silence | None: ...

    async def silences(self, limit: int) -> Sequence[Silence]:
        """The newest of all that were ever made and are kept, newest first."""
        ...

    async def audit(self, query: AuditQuery) -> Sequence[AuditRecord]:
        """Who changed what, newest first."""
        ...

    async def shadow_events(self, policy: str, before: tuple[float, str] | None, limit: int) -> Sequence[ShadowEvent]:
        """What the shadow of a policy would have told, newest first; only what is older than (opened_at, target)."""
        ...

    async def revisions(self, policy: str | None, before: int | None, limit: int) -> Sequence[Revision]:
        """What was changed of policies, or of one of them, newest first; ``before`` that version, exclusive."""
        ...

    async def patches_at(self, version: int) -> Mapping[str, Patch]:
        """What lay over the files when ``version`` was the newest revision."""
        ...

    async def inspections(self, query: InspectionQuery) -> Sequence[InspectionRecord]:
        """Reports without their bodies, newest first."""
        ...

    async def inspection(self, inspection_id: str) -> InspectionRecord | None: ...

    async def inspected_before(self, instance: str, inspection_id: str) -> Earlier | None:
        """The newest report that is done, older than this one, and about the instance."""
        ...

    async def tokens(self) -> Sequence[TokenRecord]:
        """All API tokens that there ever were, the revoked ones too."""
        ...

    async def counts(self) -> Mapping[tuple[str, str, str], int]:
        """Events announced ever, also those that were purged since, by (event, severity, instance)."""
        ...

    async def owed(self, receiver: str, limit: int, without: Collection[str] = ()) -> Sequence[Notice]:
        """What a receiver is owed, oldest first, leaving out the events with these ids."""
        ...

    async def heard(self, receiver: str) -> Collection[str]:
        """Ids of the open events whose opening a receiver was owed."""
        ...

    async def unheeded(self, receiver: str, before: float) -> Sequence[Event]:
        """Open events that nobody acknowledged, of which a receiver was told last before a time."""
        ...

    async def backlog(self, before: float | None = None) -> Mapping[str, Backlog]:
        """What is owed (since before a time) by receiver; who is owed nothing is missing."""
        ...

    async def dead_letters(self) -> Mapping[str, int]:
        """How many there are, by receiver; see ``Delivery.dead_letter``. Who has none is missing."""
        ...

    async def given_up(self, receiver: str, event_id: str | None = None) -> Sequence[Event]:
        """The events of a receiver's dead letters as they are by now, in the order of the letters; or only this one."""
        ...

    async def deliveries(self, query: DeliveryQuery) -> Sequence[Delivery]: ...

    async def status(self) -> StoreStatus: ...

    async def close(self) -> None:
        """Write what is queued, then close."""
        ...
