"""The composition root: the only place that constructs concrete classes, and owns every task. ``life`` runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from probed import telling
from probed.board import Board
from probed.canary import Canary
from probed.clock import Clock, SystemClock
from probed.config import fitting, load
from probed.config.settings import Settings
from probed.couriers import Couriers
from probed.editing import Editor
from probed.errors import ConfigError
from probed.gathering import Gatherer
from probed.inspection import Report, ReportState
from probed.inspection.timetable import Timetable, entry_of, said
from probed.membership import Membership
from probed.metrics import Metrics
from probed.model import OBSERVER, Policy
from probed.patrol import Patrol
from probed.pipeline import Pipeline
from probed.planning import Planner
from probed.policy.library import Library, Rules
from probed.policy.load import Catalogue
from probed.policy.site import Site
from probed.post import Post
from probed.probes import AnyProbe, catalogue
from probed.readiness import Readiness
from probed.recording.archive import Archive
from probed.rounds import Pulse
from probed.shadowing import Shadowing
from probed.snapshots import Doors
from probed.store import Commit, GapRecord
from probed.store.purging import Limits
from probed.store.reports import InspectionQuery
from probed.store.sqlite import HEARTBEAT_SECONDS, SqliteStore
from probed.supervising import Supervisor
from probed.unwritten import Unwritten
from probed.upkeep import upkeep
from probed.vitals import Gap, Vitals
from probed.watching import detection_seconds

if TYPE_CHECKING:
    from probed.access.web_file import WebFile
    from probed.backtest.beside import Beside
    from probed.inspection.inspecting import Inspector

_log = structlog.get_logger(__name__)

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
        self.web_file = self._web_file(settings.web.config_file)
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
        self.last_reload_ok = True
        self.last_reload_at = self.clock.wall()
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
        self.readiness = Readiness(self.store, self.patrol, self.canary, self.clock)
        self.timetable = Timetable(lambda: self.inspector, self.store, self.clock)
        self._planner = Planner(
            self.catalogue, self._membership, self.patrol, self._gatherer, lambda: self.couriers.names
        )
        self._turn = asyncio.Lock()
        """Held while files or policies change."""
        self.editor = Editor(library, self.store, self._apply, self._turn)
        self._wire()

    def _wire(self) -> None:
        """Who tells whom, and who is asked what."""
        self.store.write_seconds = self.metrics.wrote
        self.pipeline.on_round(self.archive.observe)
        self.pipeline.on_round(self.shadowing.observe)
        self.pipeline.on_announce(self.metrics.announced)
        self.pipeline.on_announce(self._gatherer.announced)
        self.pipeline.on_announce(self.post.announced)
        self.pipeline.owe = self.post.owed
        self.pipeline.ahead, self.pipeline.written = self.unwritten.take, self.post.written
        self.vitals.refusal, self.vitals.faring = self.store.refusal, self.couriers.faring
        self.vitals.canary_due, self.vitals.trip = self.canary.due, self.canary.trip
        self.metrics.refusal, self.metrics.trip = self.store.refusal, self.canary.trip
        self.metrics.oldest_owed = self.couriers.oldest_age

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
        recovered = await self.store.open()
        self.archive.open()  # once the directory is ours
        self.metrics.restore(await self.store.counts())
        self._membership.recover(recovered.members)
        self.editor.recover(recovered.patches, recovered.policies_version)
        self.shadowing.recover(recovered, self.editor.library)
        self.pipeline.recover(recovered)
        await self._appoint(self.settings)
        await self._membership.bootstrap(self.settings.instances)
        self._apply()
        self.pipeline.forget_unknown(self.patrol.instances)
        self._gatherer.recover(recovered.owed)
        self.patrol.pulse.progress_at = self.clock.mono()
        self._note_absence(recovered.absence)
        await self._recover_inspections()
        await self.timetable.make_up(recovered.absence)
        _ = self.tasks.own(self.timetable.run, "timetable")
        _ = self.tasks.own(lambda: upkeep(self.clock, self.vitals, self.unwritten), "upkeep")
        self.readiness.started = True
        _log.info(
            "daemon.started",
            observer=self.settings.observer,
            instances=[instance.name for instance in self.settings.instances],
            store=str(self.settings.storage.path),
            absence=None if recovered.absence is None else round(recovered.absence, 1),
            open_events=len(recovered.open_events),
        )

    async def reload(self) -> None:
        """Read the files again and apply them whole, or raise ConfigError and go on as before.

        Streaks and open events of what stays are kept. Members that left Patroni's list are forgotten.
        """
        async with self._turn:
            try:
                settings = self._read_settings()
                if problems := fitting.reload_problems(self.settings, settings):
                    raise ConfigError(problems)
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
            self._apply()
            self.last_reload_ok, self.last_reload_at = True, self.clock.wall()
            _log.info("config.reloaded", instances=[instance.name for instance in settings.instances])

    async def stop(self) -> None:
        """End every task, write what is queued, close politely what closes at once."""
        self.readiness.started = False
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

    def on_late(self, told: Callable[[float, int], None]) -> None:
        """Have ``told`` learn, instead of the metric, how many seconds late how many cycles start."""
        self.patrol.pulse.late = told

    # --- configuration ------------------------------------------------------------------------------------

    @property
    def policies(self) -> Mapping[str, Policy]:
        """Those in force."""
        return self.editor.library.policies

    def _library(self, settings: Settings, before: Library | None = None) -> Library:
        """The policy files, under the patches of the library ``before``."""
        rules = Rules(readings_of(self.catalogue), settings.defaults, Site.of(settings))
        laid = (before.patches, before.version) if before is not None else ()
        library = Library.read(settings.policies.directory, rules, *laid)
        if problems := fitting.policy_problems(settings, library.policies):
            raise ConfigError(problems)
        return library

    async def _appoint(self, settings: Settings) -> None:
        self.metrics.expect_receivers(await self.post.appoint(settings))

    def _web_file(self, path: Path | None) -> WebFile | None:
        """``web.config_file``, followed from now on. ConfigError when it, or what goes with it, is bad."""
        if path is None:
            return None
        from probed.access.web_file import WebFile

        return WebFile(path, lambda it: load.web_misfits(self.settings.web, it), self.clock)

    def _apply(self) -> None:
        """Work by the settings and policies that are in force now."""
        settings = self.settings
        self.shadowing.follow(self.editor.library)
        self.pipeline.silencing.declare(declared.silence() for declared in settings.silences)
        self.timetable.follow([entry_of(declared) for declared in settings.inspections])
        self.vitals.longest_pause = 2 * settings.defaults.interval
        self._planner.follow(settings, self.policies)
        self.canary.detection = detection_seconds(self.patrol.plans[OBSERVER])

    def _judged(self, name: str) -> None:
        """After each round of an instance: its connections are idle now, and its member list may have news."""
        self._gatherer.round_judged(name)
        self._planner.learn(name)

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
        return self.readiness.unready()

    def _refused(self) -> bool:
        """Whether the disk takes nothing, which is told apart from all that follows from it."""
        return bool(self.store.degraded) or self.unwritten.ahead


def _limits(settings: Settings) -> Limits:
    return Limits(age=settings.storage.retention, size=settings.storage.max_size)


def _log_failure(future: asyncio.Future[None]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        _log.error("store.lost", error=str(error))


def _shapes() -> telling.Shapes:
    from probed.api import shapes  # for those who are told of events as the API shows them

    return telling.Shapes(shapes.event, shapes.instant)
