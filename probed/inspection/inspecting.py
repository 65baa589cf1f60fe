"""The inspector: has instances looked at, many beside each other, and keeps what comes of it. One at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from probed import incidents
from probed.clock import Clock
from probed.errors import StoreError
from probed.inspection import Busy, Inspected, Progress, Report, ReportState, packing, tracing, trends
from probed.inspection import history as past
from probed.inspection.choosing import Order, chosen
from probed.inspection.comparing import differences
from probed.inspection.examining import Background, examined, seen
from probed.inspection.tracing import Trace
from probed.looking import Eye, Look, opened
from probed.model import OBSERVER, Event, Policy, Sample, Target
from probed.store import AuditRecord, Commit, DailyCount, EventQuery, LeadershipRecord, Store
from probed.store.reports import InspectedRecord, InspectionQuery
from probed.topology import SWITCHOVER
from probed.version import version
from probed.watches import Instance
from probed.watching import InstancePlan

_log = structlog.get_logger(__name__)

BESIDE = 16
"""Instances that are looked at at once."""
TWICE = frozenset({"postgres_liveness"})
"""The first look is the login, the second the round trip on it."""
LONGEST_SECONDS = 900.0
"""After which an inspection is given up."""
DAY = 86_400.0
STOPPED = "the daemon was stopped while it ran"
ENDED = "the daemon ended while it ran"


class World(Struct, frozen=True):
    """What an inspector sees of the daemon, each asked anew when it is needed."""

    plans: Callable[[], Mapping[str, InstancePlan]]
    """Of every instance."""
    policies: Callable[[], Mapping[str, Policy]]
    """In force."""
    instances: Callable[[], Mapping[str, Instance]]
    """What the daemon's own rounds know."""
    before: Callable[[str, Target], Sample | None]
    """The newest sample of a combined probe."""
    stalled: Callable[[float], float]
    written: Callable[[], Awaitable[None]]
    """Has everything sampled so far in the file."""
    samples: Path
    """That file."""


class Running(Struct):
    """The inspection that runs."""

    report: Report
    order: Order
    progress: Progress
    ended: asyncio.Future[Report]
    told: set[Callable[[Progress], None]] = field(default_factory=set)
    """Who is to be told of each step."""
    task: asyncio.Task[None] | None = None

    def begin(self, instance: str) -> None:
        self._tell(replace(self.progress, at_work=(*self.progress.at_work, instance)))

    def end(self, instance: str) -> None:
        left = tuple(name for name in self.progress.at_work if name != instance)
        self._tell(replace(self.progress, done=self.progress.done + 1, at_work=left))

    def _tell(self, progress: Progress) -> None:
        self.progress = progress
        for told in tuple(self.told):
            told(progress)


Own = Callable[[Callable[[], Awaitable[None]], str], "asyncio.Task[None]"]


class Inspector:
    """``own`` runs a task of the daemon's; ``finished`` is told of every report of a schedule."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        world: World,
        *,
        observer: str,
        own: Own,
        finished: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self._store, self._clock, self._world, self._own, self._finished = store, clock, world, own, finished
        self._observer, self._version = observer, version()
        self.running: Running | None = None

    @property
    def instances(self) -> tuple[str, ...]:
        """Names of those that can be inspected."""
        return tuple(sorted(name for name in self._world.plans() if name != OBSERVER))

    async def recover(self) -> None:
        """Those that the last daemon left unfinished are failed."""
        for record in await self._store.inspections(InspectionQuery(state=ReportState.RUNNING.value)):
            failed = replace(
                packing.report_of(record), state=ReportState.FAILED, ended_at=self._clock.wall(), error=ENDED
            )
            _log.warning("inspection.failed", id=record.id, name=record.name, error=ENDED)
            _ = self._store.append(Commit(inspections=(packing.record(failed, record.series),)))

    async def close(self) -> None:
        """What runs is ended, and kept as failed."""
        if self.running is not None and self.running.task is not None:
            self.running.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.running.task

    async def free(self) -> None:
        """Until no inspection runs."""
        while self.running is not None:
            await asyncio.wait((self.running.ended,))

    async def start(self, order: Order, audit: Callable[[Report], Sequence[AuditRecord]] = lambda _: ()) -> Running:
        """Begin an inspection, once that is durable. Busy while another one runs; StoreError."""
        if self.running is not None:
            raise Busy(self.running.report)
        now = self._clock.wall()
        plans = self._world.plans()
        watched = {policy.id for name in order.instances if name in plans for policy, _ in plans[name].watches}
        report = Report(
            incidents.new_id(now), order.name, self._observer, self._version, order.author, ReportState.RUNNING,
            now, None, order.days, order.zone, chosen(order, self._world.policies(), watched), note=order.note,
        )  # fmt: skip
        ended: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        running = self.running = Running(report, order, Progress(0, len(order.instances)), ended)
        try:
            commit = Commit(inspections=(packing.record(report, order.series),), audit=tuple(audit(report)))
            await self._store.append(commit)
        except BaseException:  # whatever it is: nothing runs
            self.running = None
            ended.cancel()
            raise
        _log.info(
            "inspection.began", id=report.id, name=report.name, author=report.author, instances=len(order.instances)
        )
        running.task = self._own(lambda: self._run(running), f"inspection {report.id}")
        return running

    # --- one inspection ---------------------------------------------------------------------------------------

    async def _run(self, running: Running) -> None:
        report, error = running.report, ""
        parts: tuple[InspectedRecord, ...] = ()
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                report, parts = await self._conduct(running)
        except TimeoutError:
            error = f"it was given up after {LONGEST_SECONDS:g} s"
        except asyncio.CancelledError:
            _ = self._settle(running, replace(report, error=STOPPED), ())
            raise
        except StoreError as raised:
            error = str(raised)
        except Exception as raised:  # noqa: BLE001 - whatever it is, the report must say that it failed, and another may run
            _log.exception("inspection.bug", id=report.id)
            error = f"an error of ours: {type(raised).__name__}: {raised}"
        await self._settle(running, replace(report, error=error), parts)

    def _settle(self, running: Running, report: Report, parts: tuple[InspectedRecord, ...]) -> asyncio.Future[None]:
        """Keep the end of an inspection, and let the next one run."""
        state = ReportState.FAILED if report.error else ReportState.DONE
        report = replace(report, state=state, ended_at=self._clock.wall())
        kept = self._store.append(Commit(inspections=(packing.record(report, running.order.series, parts),)))

        def done(future: asyncio.Future[None]) -> None:
            lost = None if future.cancelled() else future.exception()
            if lost is not None:
                _log.error("inspection.lost", id=report.id, error=str(lost))
            self.running = None
            if not running.ended.done():
                running.ended.set_result(report)

        kept.add_done_callback(done)
        level = _log.warning if report.error else _log.info
        level(
            "inspection.ended",
            id=report.id,
            name=report.name,
            grades={one.instance: one.grade.value for one in report.instances[:20]},
            error=report.error or None,
        )
        if report.name:
            self._finished(report)
        return kept

    async def _conduct(self, running: Running) -> tuple[Report, tuple[InspectedRecord, ...]]:
        order, report, world = running.order, running.report, self._world
        plans = {name: plan for name, plan in self._world.plans().items() if name in order.instances}
        policies = {name: self._world.policies()[name] for name in report.chosen}
        since = report.began_at - order.days * DAY
        looks: dict[str, tuple[Look, float]] = {}
        turn = asyncio.Semaphore(BESIDE)

        async def one(planned: InstancePlan, eye: Eye) -> None:
            async with turn:
                running.begin(planned.name)
                began = self._clock.mono()
                found = await seen(planned, frozenset(report.chosen), eye)
                looks[planned.name] = found, self._clock.mono() - began
                running.end(planned.name)

        try:
            async with opened(self._clock, world.stalled, world.before, TWICE) as eye, asyncio.TaskGroup() as group:
                recorded = group.create_task(self._traces(tuple(plans), since))
                for planned in plans.values():
                    group.create_task(one(planned, eye))
        except BaseExceptionGroup as several:  # the first one ended the others; a report names one reason
            raise several.exceptions[0] from None
        traces, error = recorded.result()
        counts = await self._store.daily(since, report.began_at + 1, order.zone)  # what began at this very moment, too
        found: list[tuple[Inspected, InspectedRecord]] = []
        for name, planned in plans.items():
            lines = [line for line in traces if line.instance == name]
            background = await self._background(name, report, counts, policies, since, lines, error)
            found.append(await self._one(planned, policies, looks[name], background, report))
        found.sort(key=lambda pair: (-ord(pair[0].grade.value), -pair[1].fails, -pair[1].warns, pair[0].instance))
        inspected = tuple(one for one, _ in found)
        return replace(report, instances=inspected), tuple(part for _, part in found)

    async def _one(
        self,
        planned: InstancePlan,
        policies: Mapping[str, Policy],
        looked: tuple[Look, float],
        background: Background,
        report: Report,
    ) -> tuple[Inspected, InspectedRecord]:
        states = self._world.instances()
        opened = {watch.event.id: watch.event for state in states.values() for watch in state.watches if watch.event}
        state = states.get(planned.name) or Instance(planned.name, planned.labels)
        found, seconds = looked
        one = examined(
            planned, policies, found, state, background, days=report.days, now=report.began_at, seconds=seconds,
            opened=opened,
        )  # fmt: skip
        earlier = await self._store.inspected_before(planned.name, report.id)
        if earlier is not None:
            try:
                before = packing.unpacked(earlier.body).items
            except StoreError as error:
                _log.warning("inspection.unreadable", id=earlier.id, error=str(error))
            else:
                one = replace(
                    one, compared_with=earlier.id, compared_at=earlier.began_at,
                    differences=differences(before, one.items),
                )  # fmt: skip
        part = packing.packed(one)
        await asyncio.sleep(0)  # a fleet's reports take some milliseconds each, and the probes come first
        return one, part

    async def _background(
        self,
        name: str,
        report: Report,
        counts: Sequence[DailyCount],
        policies: Mapping[str, Policy],
        since: float,
        traces: Sequence[Trace],
        error: str,
    ) -> Background:
        by_event: dict[str, dict[str, int]] = {}
        for count in counts:
            if count.instance == name and count.event in policies:
                days = by_event.setdefault(count.event, {})
                days[count.date] = days.get(count.date, 0) + count.count
        triggers = {
            event: past.Triggers(days, await self._newest(name, event, since)) for event, days in by_event.items()
        }
        passages: Sequence[LeadershipRecord] = await self._store.leadership(name, since, report.began_at + 1)
        known = triggers.get(SWITCHOVER)
        switchovers = known.newest if known is not None else await self._newest(name, SWITCHOVER, since)
        return Background(triggers, passages, [event.id for event in switchovers], traces, error)

    async def _newest(self, instance: str, event: str, since: float) -> tuple[Event, ...]:
        query = EventQuery(instance=instance, event=event, suppressed=False, since=since, limit=past.MAX_LINKS)
        return tuple(await self._store.events(query))

    async def _traces(self, instances: tuple[str, ...], since: float) -> tuple[list[Trace], str]:
        """(what is recorded, why it cannot be read)"""
        now = self._clock.wall()
        try:
            await self._world.written()
            wanted = trends.wanted(self._world.policies())
            task = tracing.Task(self._world.samples, since, now, wanted, instances)
            return await tracing.traces(task), ""
        except StoreError as error:
            return [], str(error)
