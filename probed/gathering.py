"""Gathers evidence for events: what was seen before is frozen, snapshots after are taken. Never in the way of probing.

An event is told first (``announced`` is called when it is durable), evidence follows in commits of its own: a dead
server, a full disk or a bug here costs evidence and nothing else. What could not be had is kept as such, with why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog
from msgspec import Struct
from msgspec.structs import replace

from probed import evidence
from probed.board import Board
from probed.clock import Clock
from probed.evidence import HOST, Collector
from probed.evidence._memory import Memory
from probed.evidence._taking import Taken
from probed.model import Event, EventState, Evidence, Moment, Policy, Side, Target
from probed.quantity import human_seconds
from probed.reaching import Reach
from probed.snapshots import Doors, Snapshots
from probed.store import Change, Commit, Owed

_log = structlog.get_logger(__name__)

AT_ONCE, WAITING = 4, 50
"""Events whose evidence is taken at a time, and how many more may wait for theirs."""
MAX_TARGETS = 8
"""Targets that one collector looks at for one event."""
MAX_BYTES: Mapping[Moment, int] = {Moment.TRIGGER: 192 * 1024, Moment.RECOVERY: 64 * 1024}
"""Of all evidence of one event: 256 KiB."""
LATE_SECONDS = 300.0
"""Evidence that a crash left owed is still taken when its moment is not longer ago."""
AFTERMATH_SECONDS = 30.0
"""An occurrence has no end to look at: so long after it everything has found its new place, or has not."""
STANDING_EVERY = 90.0
"""Seconds between two standing snapshots of one server."""


class Scene(Struct, frozen=True):
    """What of an instance there is to look at."""

    reaches: tuple[Reach, ...]
    standing: Mapping[str, tuple[tuple[Collector, Reach], ...]]
    """By target key."""


class _Job(Struct):
    event: Event
    moment: Moment
    at: float
    collectors: Sequence[Collector]
    bytes: int = 0
    """Of evidence so far."""


Start = Callable[[Callable[[], Awaitable[None]], str], object]
"""Runs work as a task that somebody owns."""


class Gatherer:
    """Lives in the event loop. ``record`` makes a commit durable; ``start`` owns the tasks."""

    def __init__(
        self, board: Board, clock: Clock, doors: Doors, *, record: Callable[[Commit], None], start: Start
    ) -> None:
        self.clock, self._record, self._start = clock, record, start
        self._memory = Memory(board)
        self._snapshots = Snapshots(clock, doors)
        self._policies: Mapping[str, Policy] = {}
        self._scenes: dict[str, Scene] = {}
        self._turns: dict[str, tuple[float, int]] = {}
        """By target key: when the next standing snapshot is due, and whose turn it is."""
        self._waiting: deque[_Job] = deque()
        self._running = 0
        self._closed = False

    # --- what there is to look at -------------------------------------------------------------------------

    def set_scene(
        self,
        instance: str,
        reaches: Sequence[Reach],
        watched: Iterable[tuple[Policy, Target]],
        policies: Mapping[str, Policy],
    ) -> None:
        """Follow a new plan of an instance: what can be reached, and what is judged there."""
        self._policies = policies
        standing: dict[str, dict[str, tuple[Collector, Reach]]] = {}
        for policy, target in watched:
            for collector in map(evidence.find, policy.evidence):
                for reach in _chosen(collector, reaches, target) if collector.standing else ():
                    standing.setdefault(reach.target.key, {})[collector.name] = (collector, reach)
        self._scenes[instance] = Scene(
            tuple(reaches), {key: tuple(choices.values()) for key, choices in standing.items()}
        )
        self._forget_unused()

    def drop_scene(self, instance: str) -> None:
        """An instance that is no longer configured."""
        self._scenes.pop(instance, None)
        self._forget_unused()

    def _forget_unused(self) -> None:
        standing = {key: choices for scene in self._scenes.values() for key, choices in scene.standing.items()}
        self._memory.keep_only((one.name, key) for key, choices in standing.items() for one, _ in choices)
        self._turns = {key: turn for key, turn in self._turns.items() if key in standing}

    def close(self) -> None:
        """The daemon stops: what is not taken yet stays owed, and the next one takes it."""
        self._closed = True
        self._waiting.clear()

    # --- before -------------------------------------------------------------------------------------------

    def round_judged(self, instance: str) -> None:
        """After a round the connections are idle: take the standing snapshots that are due, one per server."""
        scene, now = self._scenes.get(instance), self.clock.mono()
        for key, choices in scene.standing.items() if scene is not None else ():
            # The first ones come soon after the start: an event in the first minutes wants its "before", too.
            due, number = self._turns.get(key, (now, 0))
            collector, reach = choices[number % len(choices)]
            if now >= due and self._memory.well(reach.target):
                self._turns[key] = (now if number + 1 < len(choices) else now + STANDING_EVERY, number + 1)
                self._start(_Standing(self, collector, reach, (now, number)), f"standing {key}")

    async def stand(self, collector: Collector, reach: Reach, turn: tuple[float, int]) -> None:
        """Take a standing snapshot; when somebody else has the connection, its ``turn`` comes again after the round."""
        taken = await self._snapshots.standing(collector, reach)
        if taken is not None:
            self._memory.keep(collector.name, reach.target, taken)
        elif reach.target.key in self._turns:
            self._turns[reach.target.key] = turn

    def _frozen(self, job: _Job) -> list[Evidence]:
        began = job.event.first_failed_at or job.at
        return [
            _kept(job, collector, reach.target.key, taken, Side.BEFORE)
            for collector in job.collectors
            for reach in self._targets(job, collector)
            for taken in self._memory.before(collector, reach.target, began, job.at)
        ]

    # --- after --------------------------------------------------------------------------------------------

    def announced(self, change: Change) -> None:
        """An event became durable, or its end did."""
        event = change.event
        if self._closed or event.canary:
            return
        if change.kind in ("opened", "occurred"):
            job = _Job(event, Moment.TRIGGER, change.at, self._collectors(event))
            before = _fitting(job, self._frozen(job))
            if before:
                self._record(Commit(evidence={event.id: before}))
            self.enqueue(job)
            if change.kind == "occurred":
                later = _Job(event, Moment.RECOVERY, change.at + AFTERMATH_SECONDS, self._again(event))
                self._start(_Aftermath(self, later, self.clock.mono() + AFTERMATH_SECONDS), f"aftermath {event.id}")
        elif change.kind == "resolved":
            self.enqueue(_Job(event, Moment.RECOVERY, change.at, self._again(event)))

    def recover(self, owed: Iterable[Owed]) -> None:
        """Take what the last daemon could not, while its moment is near; say so of the rest."""
        for item in owed:
            event, age = item.event, max(0.0, self.clock.wall() - item.at)
            at_trigger = item.moment is Moment.TRIGGER
            job = _Job(event, item.moment, item.at, self._collectors(event) if at_trigger else self._again(event))
            if at_trigger and not item.frozen:
                text = "the daemon ended as the event opened: nothing is kept of the time before"
                remembering = [one for one in job.collectors if one.recall is not None or one.standing]
                if remembering:
                    self._record(Commit(evidence={event.id: _notes(job, remembering, text, item.at, Side.BEFORE)}))
            if age <= LATE_SECONDS:
                self.enqueue(job)
            else:
                self._refuse(job, f"not taken: the daemon ended before it could be, and was away {human_seconds(age)}")

    def _collectors(self, event: Event) -> list[Collector]:
        policy = self._policies.get(event.event)
        return [evidence.find(name) for name in policy.evidence] if policy is not None else []

    def _again(self, event: Event) -> list[Collector]:
        """What is looked at once more when the event is over; not when somebody switched it off."""
        recovered = event.resolve_reason == "recovered" or event.state is EventState.OCCURRED
        return [one for one in self._collectors(event) if one.recovery] if recovered else []

    def enqueue(self, job: _Job) -> None:
        """Have a job done when its turn comes."""
        if not job.collectors:
            self._settle(job, [])
        elif len(self._waiting) >= WAITING:
            self._refuse(job, f"not taken: {WAITING} other events were waiting for their evidence already")
        else:
            self._waiting.append(job)
            if self._running < AT_ONCE:
                self._running += 1
                self._start(self._work, "evidence")

    async def _work(self) -> None:
        try:
            while self._waiting:
                job = self._waiting.popleft()
                try:
                    self._settle(job, _fitting(job, await self._gather(job)))
                except Exception:  # noqa: BLE001 - a bug here costs an event its evidence; it must not end the daemon
                    _log.exception("evidence.bug", event_id=job.event.id)
                    self._refuse(job, "not taken: probed itself failed at it, see its log")
        finally:
            self._running -= 1

    async def _gather(self, job: _Job) -> list[Evidence]:
        """Everything that is wanted of the moment, in the order of the policy's list."""
        wanted: list[tuple[Collector, Reach]] = []
        found: list[Evidence] = []
        for collector in job.collectors:
            targets = self._targets(job, collector)
            text = _missing(job, collector, len(targets))
            found += _notes(job, [collector], text, self.clock.wall()) if text else []
            wanted += [(collector, reach) for reach in targets[:MAX_TARGETS]]
        taken = await self._snapshots.all(wanted, job.at)
        for collector, reach in wanted:
            key = reach.target.key
            found.append(_kept(job, collector, key, taken[collector.name, key], Side.AFTER))
        return found

    # --- parts --------------------------------------------------------------------------------------------

    def _targets(self, job: _Job, collector: Collector) -> list[Reach]:
        scene = self._scenes.get(job.event.target.instance)
        return _chosen(collector, scene.reaches, job.event.target) if scene is not None else []

    def _refuse(self, job: _Job, text: str) -> None:
        self._settle(job, _notes(job, job.collectors, text, self.clock.wall()))

    def _settle(self, job: _Job, items: Sequence[Evidence]) -> None:
        kept = {job.event.id: items} if items else {}
        self._record(Commit(evidence=kept, settled=((job.event.id, job.moment),)))


class _Standing(Struct, frozen=True):
    """One standing snapshot, as work for a task."""

    gatherer: Gatherer
    collector: Collector
    reach: Reach
    turn: tuple[float, int]

    async def __call__(self) -> None:
        await self.gatherer.stand(self.collector, self.reach, self.turn)


class _Aftermath(Struct, frozen=True):
    """The second look at an occurrence, as work for a task."""

    gatherer: Gatherer
    job: _Job
    due: float

    async def __call__(self) -> None:
        await self.gatherer.clock.sleep_until(self.due)
        self.gatherer.enqueue(self.job)


def _chosen(collector: Collector, reaches: Iterable[Reach], target: Target) -> list[Reach]:
    """The targets that a collector is pointed at for an event on ``target``."""
    fitting = [reach for reach in reaches if reach.target.kind in collector.kinds]
    if collector.scope == "target":
        return [reach for reach in fitting if reach.target.key == target.key]
    if collector.scope == "node" and target.node:
        return [reach for reach in fitting if reach.target.node == target.node]
    return fitting


def _missing(job: _Job, collector: Collector, targets: int) -> str:
    """Why there is less to look at than one would expect; empty for what the topology simply does not have."""
    if not targets and HOST in collector.kinds:
        where = f"on {job.event.target.node}" if job.event.target.node else "on any node of this instance"
        return f"probed does not run {where} (nodes[].local: true)"
    return f"only {MAX_TARGETS} of {targets} targets were looked at" if targets > MAX_TARGETS else ""


def _fitting(job: _Job, items: Iterable[Evidence]) -> list[Evidence]:
    """The items, those without data that would make the event's evidence too large."""
    kept = []
    for item in items:
        size, limit = len(item.data.encode()), MAX_BYTES[job.moment]
        if job.bytes + size > limit:
            item = replace(item, data="", error=f"left out: the event's evidence is larger than {limit // 1024} KiB")
        job.bytes += len(item.data.encode())
        kept.append(item)
    return kept


def _kept(job: _Job, collector: Collector, target: str, taken: Taken, side: Side) -> Evidence:
    return Evidence(collector.name, target, taken.at, side, job.moment, taken.data, taken.error)


def _notes(job: _Job, collectors: Iterable[Collector], text: str, at: float, side: Side = Side.AFTER) -> list[Evidence]:
    return [_kept(job, collector, "", Taken(at, error=text), side) for collector in collectors]
