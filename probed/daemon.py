"""The composition root: the only place that constructs concrete classes, and owns every task."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from probed import systemd, telling
from probed.access.web_file import WebFile
from probed.board import Board
from probed.canary import Canary
from probed.clock import Clock, SystemClock
from probed.config import load
from probed.config.inspections import unfit
from probed.config.notifications import misdirected
from probed.config.settings import Instance, Settings
from probed.config.silences import misnamed
from probed.couriers import Couriers
from probed.editing import Editor
from probed.errors import ConfigError, Problem
from probed.gathering import Gatherer
from probed.inspection import Report, ReportState
from probed.inspection.timetable import Timetable, entry_of, said
from probed.membership import Membership
from probed.metrics import Metrics
from probed.model import OBSERVER, Policy
from probed.patrol import Patrol
from probed.pipeline import Pipeline
from probed.policy.library import Library, Rules
from probed.policy.load import Catalogue
from probed.policy.site import Site
from probed.post import Post
from probed.probes import AnyProbe, catalogue
from probed.reaching import Reach, machines, own_machine
from probed.recording.archive import Archive
from probed.rounds import Pulse
from probed.shadowing import Shadowing
from probed.snapshots import Doors
from probed.store import Commit, GapRecord
from probed.store.purging import Limits
from probed.store.reports import InspectionQuery
from probed.store.sqlite import HEARTBEAT_SECONDS, SqliteStore
from probed.supervising import Supervisor
from probed.thrift import without_authorities
from probed.tidying import settle
from probed.unwritten import Unwritten
from probed.upkeep import upkeep
from probed.vitals import Gap, Vitals
from probed.watching import InstancePlan, detection_seconds, own_plan, plan

if TYPE_CHECKING:
    from probed.api.app import Closer
    from probed.backtest.beside import Beside
    from probed.inspection.inspecting import Inspector

_log = structlog.get_logger(__name__)

STOP_SECONDS = 4.0
"""SIGTERM ends within 5 s, whatever the targets and the disk do."""
FIRST_LOOK_SECONDS = 1.0
"""Rounds that begin within so long after the start have the machine for themselves: nobody is let in before."""
SETTLED_AFTER = 15.0
"""Seconds after the start at which every target was probed: what exists then (sessions, rings, answers) is to stay."""

ReadSettings = Callable[[], Settings]


def readings_of(probes: Mapping[str, AnyProbe]) -> Catalogue:
    """What policies may be bound to."""
    return {name: frozenset(probe.readings) for name, probe in probes.items()}


class Daemon:
    """One running ``probed``. ``read_settings`` is asked again at each reload."""

    def __init__(
        self, settings: Settings, read_settings: ReadSettings | None = None, *, clock: Clock | None = None
    ) -> None:
        self.settings = settings
        self._read_settings = read_settings or (lambda: settings)
        self.clock: Clock = clock or SystemClock()
        self.catalogue = catalogue()
        library = self._library(settings)
        self.web_file = self._web_file(settings)
        self.store = SqliteStore(settings.storage.path, clock=self.clock, limits=_limits(settings))
        samples = settings.storage.samples
        self.archive = Archive(
            settings.storage.path,
            self.clock,
            retention=samples.retention,
            max_bytes=samples.max_size,
            observer=settings.observer,
        )
        self.board = Board()
        self.vitals = Vitals(self.clock, 2 * settings.defaults.interval, on_gap=self._keep_gap)
        self.pipeline = Pipeline(
            self.store,
            self.board,
            self.clock,
            observer=settings.observer,
            switchover_grace=settings.defaults.switchover_grace,
            reachability=self.vitals.reachability,
        )
        self.shadowing = Shadowing(self._record, self.clock, lambda: self.pipeline.switchover_grace)
        self.metrics = Metrics()
        self.started_at = self.clock.wall()
        self.last_reload_ok = True
        self.last_reload_at = self.started_at
        self.tasks = Supervisor(self.clock)
        pulse = Pulse(late=self.metrics.late, skipped=self.metrics.skipped, stalled=self.vitals.lag_since)
        self.patrol = Patrol(self.pipeline, self.board, self.vitals, self.clock, self.tasks, pulse, self._judged)
        self._membership = Membership(self.board, self.patrol.http, self._record)
        doors = Doors(self.patrol.http, self.patrol.session)
        self._gatherer = Gatherer(self.board, self.clock, doors, record=self._record, start=self.tasks.own)
        self.unwritten = Unwritten(self.store, self.clock, self.pipeline.tell_unwritten)
        self.canary = Canary(self.clock, stalled=self.vitals.stalled_since, excused=self._refused)
        self.post = Post(
            self.unwritten,
            self.clock,
            self.tasks,
            _shapes,
            canary=self.canary,
            unready=self.unready,
            told=self.metrics.notified,
        )
        self.timetable = Timetable(lambda: self.inspector, self.store, self.clock)
        self.vitals.refusal, self.vitals.faring = self.store.refusal, self.couriers.faring
        self.vitals.canary_due, self.vitals.trip = self.canary.due, self.canary.trip
        self._turn = asyncio.Lock()
        """Held while files or policies change."""
        self.editor = Editor(library, self.store, lambda: self._apply(self.settings, self.policies), self._turn)
        self._configured: Mapping[str, Instance] = {}
        """By name, as they were applied last."""
        self._started = False
        self._unlooked: set[str] = set()
        """Instances whose first round is waited for."""
        self._looked = asyncio.Event()

    @property
    def couriers(self) -> Couriers:
        return self.post.couriers

    # What most daemons need late or never is imported and made when somebody asks for it.

    @cached_property
    def beside(self) -> Beside:
        from probed.backtest.beside import Beside

        return Beside(self.archive.file.path)

    @cached_property
    def inspector(self) -> Inspector:
        from probed.inspection.inspecting import Inspector, World

        world = World(
            plans=lambda: self.patrol.plans,
            policies=lambda: self.policies,
            instances=lambda: self.pipeline.instances,
            before=self.board.newest,
            stalled=self.vitals.lag_since,
            written=self.archive.written,
            samples=self.archive.file.path,
        )
        return Inspector(
            self.store,
            self.clock,
            world,
            observer=self.settings.observer,
            own=self.tasks.own,
            finished=self._inspected,
        )

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store, take up what the last daemon left, and begin to probe. StoreError or ConfigError."""
        for part in load.not_used_yet(self.settings):
            _log.warning("config.not_used_yet", part=part)
        self.store.write_seconds = self.metrics.wrote
        recovered = await self.store.open()
        self.archive.open()  # once the directory is ours
        self.pipeline.on_round(self.archive.observe)
        self.metrics.restore(await self.store.counts())
        self._membership.recover(recovered.members)
        self.editor.recover(recovered.patches, recovered.policies_version)
        self.shadowing.recover(recovered, self.editor.library)
        self.pipeline.on_round(self.shadowing.observe)
        self.pipeline.recover(recovered)
        self.pipeline.on_announce(self.metrics.announced)
        self.pipeline.on_announce(self._gatherer.announced)
        self.pipeline.on_announce(self.post.announced)
        self.pipeline.owe = self.post.owed
        self.pipeline.ahead, self.pipeline.written = self.unwritten.take, self.post.written
        self.metrics.refusal = self.store.refusal
        self.metrics.oldest_owed, self.metrics.trip = self.couriers.oldest_age, self.canary.trip
        await self._appoint(self.settings)
        await self._membership.bootstrap(self.settings.instances)
        self._apply(self.settings, self.policies)
        self.pipeline.forget_unknown(self.patrol.instances)
        self._gatherer.recover(recovered.owed)
        self.patrol.pulse.progress_at = self.clock.mono()
        self._note_absence(recovered.absence)
        await self._recover_inspections()
        await self.timetable.make_up(recovered.absence)
        _ = self.tasks.own(self.timetable.run, "timetable")
        _ = self.tasks.own(lambda: upkeep(self.clock, self.vitals, self.unwritten), "upkeep")
        self._started = True
        _log.info(
            "daemon.started",
            observer=self.settings.observer,
            instances=[instance.name for instance in self.settings.instances],
            store=str(self.settings.storage.path),
            absence=None if recovered.absence is None else round(recovered.absence, 1),
            open_events=len(recovered.open_events),
        )

    async def stop(self) -> None:
        """End every task, write what is queued, close politely what closes at once."""
        self._started = False
        self.editor.close()
        self._gatherer.close()
        await self.couriers.close()
        if "inspector" in vars(self):
            await self.inspector.close()
        await self.tasks.close()
        await self.patrol.close()
        await self.archive.close()
        await self.post.close()
        await self.store.close()

    async def first_look(self) -> None:
        """Until the rounds that begin at once were judged, for twice as long at most."""
        self._unlooked = self.patrol.beginning(FIRST_LOOK_SECONDS)
        if self._unlooked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * FIRST_LOOK_SECONDS):
                    await self._looked.wait()

    def on_late(self, told: Callable[[float, int], None]) -> None:
        """Have ``told`` learn, instead of the metric, how many seconds late how many cycles start."""
        self.patrol.pulse.late = told

    # --- configuration ------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Read the files again and apply them whole, or raise ConfigError and go on as before.

        Streaks and open events of what stays are kept. Members that left Patroni's list are forgotten.
        """
        async with self._turn:
            try:
                settings = self._read_settings()
                self._unchangeable(settings)
                library = self._library(settings, self.editor.library)
            except ConfigError as error:
                self.last_reload_ok = False
                _log.error("config.reload_failed", problems=[str(problem) for problem in error.problems])
                raise
            self._membership.forget_vanished()
            await self._membership.bootstrap(settings.instances)
            self.settings = settings
            self.editor.replace(library)
            self.pipeline.switchover_grace = settings.defaults.switchover_grace
            self.archive.keep_within(settings.storage.samples.retention, settings.storage.samples.max_size)
            await self._appoint(settings)
            self.store.keep(_limits(settings))
            self._apply(settings, self.policies)
            self.last_reload_ok, self.last_reload_at = True, self.clock.wall()
            _log.info("config.reloaded", instances=[instance.name for instance in settings.instances])

    @property
    def policies(self) -> Mapping[str, Policy]:
        """Those in force."""
        return self.editor.library.policies

    def _library(self, settings: Settings, before: Library | None = None) -> Library:
        """The policy files, under the patches of the library ``before``."""
        rules = Rules(readings_of(self.catalogue), settings.defaults, Site.of(settings))
        laid = (before.patches, before.version) if before is not None else ()
        library = Library.read(settings.policies.directory, rules, *laid)
        problems = [
            *misnamed(settings.silences, library.policies),
            *misdirected(settings.notifications, library.policies),
            *unfit(settings.inspections, library.policies),
        ]
        if problems:
            raise ConfigError(problems)
        return library

    async def _appoint(self, settings: Settings) -> None:
        self.metrics.expect_receivers(await self.post.appoint(settings))

    def _web_file(self, settings: Settings) -> WebFile | None:
        """``web.config_file``, followed from now on. ConfigError when it, or what goes with it, is bad."""
        path = settings.web.config_file
        if path is None:
            return None
        return WebFile(path, lambda config: load.web_misfits(self.settings.web, config), self.clock)

    def _unchangeable(self, settings: Settings) -> None:
        problems = [
            Problem("probed.yml", "cannot be changed by a reload; restart the daemon", path=path)
            for path, before, after in (
                ("storage.path", self.settings.storage.path, settings.storage.path),
                ("web.listen", self.settings.web.listen, settings.web.listen),
                ("web.socket", self.settings.socket, settings.socket),
                ("web.config_file", self.settings.web.config_file, settings.web.config_file),
            )
            if before != after
        ]
        if problems:
            raise ConfigError(problems)

    def _apply(self, settings: Settings, policies: Mapping[str, Policy]) -> None:
        self.shadowing.follow(self.editor.library)
        self.pipeline.silencing.declare(declared.silence() for declared in settings.silences)
        self.timetable.follow([entry_of(declared) for declared in settings.inspections])
        self._configured = {self._membership.name_of(instance): instance for instance in settings.instances}
        instances = [self._membership.named(instance) for instance in settings.instances]
        names = {instance.name for instance in instances}
        self.vitals.longest_pause = 2 * settings.defaults.interval
        receivers = self.couriers.names
        oneself = own_plan(settings.observer, policies, self.catalogue, settings.defaults, receivers)
        self.canary.detection = detection_seconds(oneself)
        self._follow(oneself, (own_machine(settings.observer),), policies)
        for name in self.patrol.instances - names - {OBSERVER}:
            self.patrol.leave(name)
            self._gatherer.drop_scene(name)
        for instance in instances:
            self._apply_instance(instance, settings, policies)
        self.patrol.forget_streaks()

    def _apply_instance(self, instance: Instance, settings: Settings, policies: Mapping[str, Policy]) -> None:
        planned = plan(instance, self._membership.of(instance.name), policies, self.catalogue, settings.defaults)
        # Before the first member is known, nothing can be said to be gone.
        waiting = bool(instance.patroni) and not planned.nodes
        self._follow(planned, machines(instance), policies, waiting=waiting)

    def _follow(
        self,
        planned: InstancePlan,
        here: Sequence[Reach],
        policies: Mapping[str, Policy],
        *,
        waiting: bool = False,
    ) -> None:
        """Have everybody work by a plan. ``here``: the machines of its nodes that are this one."""
        self._gatherer.set_scene(planned.name, (*planned.reaches, *here), planned.watches, policies)
        self.patrol.follow(planned, policies, bind=not waiting)

    def _judged(self, name: str) -> None:
        """After each round of an instance: apply what its member list has news of; its connections are idle now."""
        self._unlooked.discard(name)
        if not self._unlooked:
            self._looked.set()
        self._gatherer.round_judged(name)
        settings = self._configured.get(name)
        if settings is not None and settings.patroni and self._membership.learn(name):
            self._apply_instance(self._membership.named(settings), self.settings, self.policies)

    async def _recover_inspections(self) -> None:
        """Fail what the last daemon left unfinished; as a rule that is nothing."""
        if await self.store.inspections(InspectionQuery(state=ReportState.RUNNING.value, limit=1)):
            await self.inspector.recover()

    def _inspected(self, report: Report) -> None:
        """Of a schedule: whoever is told of events is told of it."""
        self.vitals.note_inspection(said(report, self.settings.web.external_url or ""))

    def _record(self, commit: Commit) -> None:
        self.store.append(commit).add_done_callback(_log_failure)

    # --- time in which nobody looked ---------------------------------------------------------------------------

    def _note_absence(self, seconds: float | None) -> None:
        """A daemon that was stopped leaves blind time behind; a restart of a moment does not."""
        if seconds is not None and seconds > self.vitals.longest_pause + HEARTBEAT_SECONDS:
            now = self.clock.wall()
            self._keep_gap(Gap(now - seconds, now, "stopped"))

    def _keep_gap(self, gap: Gap) -> None:
        _log.warning("monitoring.gap", seconds=round(gap.seconds, 1), reason=gap.reason)
        record = GapRecord(gap.began_at, gap.ended_at, self.settings.observer, gap.reason)
        self._record(Commit(gaps=(record,)))

    # --- health -------------------------------------------------------------------------------------------

    def unready(self) -> Sequence[str]:
        """Why this daemon is not doing its work; empty when it is."""
        reasons = list(self._stuck())
        if self.store.degraded:
            reasons.append(f"the store cannot write: {self.store.degraded}")
        trip = self.canary.trip()
        if trip.overdue_seconds:
            reasons.append(f"alarms may not arrive, a canary of our own did not: it is {trip.where}")
        return reasons

    def _refused(self) -> bool:
        """Whether the disk takes nothing, which is told apart from all that follows from it."""
        return bool(self.store.degraded) or self.unwritten.ahead

    def _stuck(self) -> Sequence[str]:
        """What a new start would mend."""
        reasons = []
        if not self._started:
            reasons.append("starting or stopping")
        stalled = self.clock.mono() - self.patrol.pulse.progress_at
        shortest = self.patrol.shortest_interval
        if self._started and shortest and stalled > max(2 * shortest + 2.0, 5.0):
            reasons.append(f"no round was finished for {stalled:.0f} s")
        if (
            not self.store.degraded
            and self._started
            and self.clock.mono() - self.store.progress_at > 3 * HEARTBEAT_SECONDS
        ):
            reasons.append("the store's writer makes no progress")
        return reasons

    async def watchdog(self) -> None:
        """Feed the service manager's watchdog while work is done.

        A store that says why it cannot write may live, and so may a daemon that does not get through to people: it
        still sees, records and says so.
        """
        period = systemd.watchdog_seconds()
        while period is not None:
            if not self._stuck():
                systemd.notify("WATCHDOG=1", f"STATUS={self._open_events()} open events")
            await asyncio.sleep(period / 3)

    def _open_events(self) -> int:
        return sum(watch.event is not None for state in self.pipeline.instances.values() for watch in state.watches)

    async def settle_down(self) -> None:
        """Once the first rounds are over; before, a walk over what they made would stop the loop for 0.2 s later on."""
        await self.clock.sleep_until(self.clock.mono() + SETTLED_AFTER)
        # What a visitor will want: when somebody comes, the disk may be ill, or may hold another version of us.
        await asyncio.to_thread(_visitable)
        settle()


def _limits(settings: Settings) -> Limits:
    return Limits(age=settings.storage.retention, size=settings.storage.max_size)


def _log_failure(future: asyncio.Future[None]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        _log.error("store.lost", error=str(error))


class _Serve(Protocol):
    async def __call__(self, served: Daemon, *, addresses: Sequence[str], socket_path: Path | None) -> Closer: ...


def _serving() -> _Serve:
    """The API and its server: as much to import as everything else, and nothing that a look needs."""
    with without_authorities():
        from probed.api.app import serve
    return serve


def _visitable() -> None:
    from probed.api import table  # noqa: F401 - to have it, and the page with it


def _shapes() -> telling.Shapes:
    from probed.api import shapes  # for those who are told of events as the API shows them

    return telling.Shapes(shapes.event, shapes.instant)


async def run(settings: Settings, read_settings: ReadSettings | None = None) -> int:
    """The daemon until SIGTERM or SIGINT; the exit code. ConfigError and StoreError come before anything runs."""
    daemon = Daemon(settings, read_settings)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await daemon.start()
        await daemon.first_look()
        # In a thread, for it takes half a second: the rounds go on meanwhile.
        serve = await asyncio.to_thread(_serving)
        closer = await serve(daemon, addresses=settings.web.listen, socket_path=settings.socket)
    except BaseException:  # cancellation too: a half-started daemon must not keep the store locked
        await daemon.stop()
        raise
    loop.add_signal_handler(signal.SIGHUP, daemon.tasks.own, lambda: _reload(daemon), "reload")
    _ = daemon.tasks.own(daemon.watchdog, "watchdog")
    _ = daemon.tasks.own(daemon.settle_down, "settle")
    settle()
    systemd.notify("READY=1", f"STATUS=probing {len(settings.instances)} instances")
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(daemon.tasks.failed.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    systemd.notify("STOPPING=1")
    code = 0 if stop.is_set() else 1
    for wait in waits:
        wait.cancel()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await closer()
            await daemon.stop()
    except TimeoutError:
        _log.error("daemon.stop_timed_out", seconds=STOP_SECONDS)
    _log.info("daemon.stopped", code=code)
    return code


async def _reload(daemon: Daemon) -> None:
    systemd.reloading()
    with contextlib.suppress(ConfigError):  # logged, counted in a metric, and the old settings go on
        await daemon.reload()
    systemd.notify("READY=1")
