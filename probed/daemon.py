"""The composition root: the only place that constructs concrete classes, and owns every task."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from probed import systemd, telling
from probed.access.web_file import WebFile
from probed.api import shapes
from probed.backtest.beside import Beside
from probed.board import Board
from probed.clock import Clock, SystemClock
from probed.config import load
from probed.config.notifications import Heartbeat, misdirected
from probed.config.settings import Instance, Settings
from probed.config.silences import misnamed
from probed.couriers import Couriers
from probed.editing import Editor
from probed.errors import ConfigError, Problem
from probed.gathering import Gatherer
from probed.membership import Membership
from probed.metrics import Metrics
from probed.model import OBSERVER, Policy
from probed.outlets import heartbeat
from probed.pipeline import Pipeline
from probed.policy.library import Library, Rules
from probed.policy.load import Catalogue
from probed.policy.site import Site
from probed.probes import AnyProbe, Context, catalogue
from probed.probes._http import HttpClient
from probed.probes._sql import Login, Session
from probed.reaching import Reach, context_for, machines, own_machine
from probed.recording.archive import Archive
from probed.rounds import Contexts, Pulse, Rounds
from probed.shadowing import Shadowing
from probed.snapshots import Doors
from probed.store import Commit, GapRecord
from probed.store.purging import Limits
from probed.store.sqlite import HEARTBEAT_SECONDS, SqliteStore
from probed.vitals import Gap, Vitals
from probed.watching import Cycle, InstancePlan, own_plan, plan

_log = structlog.get_logger(__name__)

STOP_SECONDS = 4.0
"""SIGTERM ends within 5 s, whatever the targets and the disk do."""
CRASHES, CRASH_WINDOW = 3, 60.0
"""A task that dies this often within so many seconds ends the daemon: the service manager starts it anew."""
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
        self.beside = Beside(self.archive.file.path)
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
        self._own_pulse = Pulse(stalled=self.vitals.lag_since)
        """Of the rounds in which this daemon looks at itself: they are no sign that it does its work."""
        self._pulse = Pulse(late=self.metrics.late, skipped=self.metrics.skipped, stalled=self.vitals.lag_since)
        self._http = HttpClient()
        self._sessions: dict[str, Session] = {}
        self._contexts = Contexts(self._context)
        self._membership = Membership(self.board, self._http, self._record)
        doors = Doors(self._http, self._sessions.get)
        self._gatherer = Gatherer(self.board, self.clock, doors, record=self._record, start=self.own)
        self._mail = HttpClient()
        """For receivers: what hangs there shares nothing with the probes."""
        self.couriers = Couriers(self.store, self.clock, own=self.own, told=self.metrics.notified)
        self._heartbeat: tuple[Heartbeat | None, asyncio.Task[None] | None] = (None, None)
        self._rounds: dict[tuple[str, float], tuple[Rounds, asyncio.Task[None]]] = {}
        self._plans: dict[str, InstancePlan] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._crashes: list[float] = []
        self._failed = asyncio.Event()
        self._turn = asyncio.Lock()
        """Held while files or policies change."""
        self.editor = Editor(library, self.store, lambda: self._apply(self.settings, self.policies), self._turn)
        self._started = False

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
        self.pipeline.on_announce(self.couriers.announced)
        self.pipeline.owe = self.couriers.owed
        self.metrics.oldest_owed = self.couriers.oldest_age
        await self._appoint(self.settings)
        await self._membership.bootstrap(self.settings.instances)
        self._apply(self.settings, self.policies)
        self.pipeline.forget_unknown(self._plans.keys())
        self._gatherer.recover(recovered.owed)
        self._pulse.progress_at = self.clock.mono()
        self._note_absence(recovered.absence)
        _ = self.own(self.vitals.beat, "vitals")
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
        tasks = [*self._tasks, *(task for _, task in self._rounds.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.gather(*(session.close() for session in self._sessions.values()), return_exceptions=True)
        for session in self._sessions.values():
            session.drop()
        await self._http.close()
        await self.archive.close()
        await self._mail.close()
        await self.store.close()

    def on_late(self, told: Callable[[float], None]) -> None:
        """Have ``told`` learn, instead of the metric, how many seconds late each cycle starts."""
        self._pulse.late = told

    def own(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Run ``work`` as a task of the daemon's: no task dies silently, one that dies is started again."""
        task = asyncio.create_task(self._supervise(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _supervise(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        while True:
            try:
                await work()
                return
            except Exception:  # noqa: BLE001 - whatever it is, it is logged, counted, and ends the daemon when it comes back
                now = self.clock.mono()
                self._crashes = [*(at for at in self._crashes if now - at < CRASH_WINDOW), now]
                _log.exception("task.crashed", task=name, crashes=len(self._crashes))
                if len(self._crashes) >= CRASHES:
                    self._failed.set()
                    return
                await self.clock.sleep_until(now + len(self._crashes))

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
        ]
        if problems:
            raise ConfigError(problems)
        return library

    async def _appoint(self, settings: Settings) -> None:
        """Have the receivers and the heartbeat of these settings."""
        shown = telling.Shapes(shapes.event, shapes.instant)
        wanted = telling.appointments(settings, self._mail, self.clock, shown)
        await self.couriers.appoint(wanted)
        beat = settings.notifications.heartbeat if settings.notifications else None
        door = telling.heartbeat_door(beat, self._mail) if beat else None
        self.metrics.expect_receivers([*(one.receiver.name for one in wanted), *([heartbeat.NAME] if door else ())])
        before, task = self._heartbeat
        if beat == before:
            return
        if task is not None:
            task.cancel()
        task = None
        if beat is not None and door is not None:
            pulse = heartbeat.Heartbeat(door, self.clock, beat.interval, self.unready, self.metrics.notified)
            task = self.own(pulse.run, "heartbeat")
        self._heartbeat = (beat, task)

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
        instances = [self._membership.named(instance) for instance in settings.instances]
        names = {instance.name for instance in instances}
        self.vitals.longest_pause = 2 * settings.defaults.interval
        oneself = own_plan(settings.observer, policies, self.catalogue, settings.defaults)
        self._follow(oneself, (own_machine(settings.observer),), policies)
        for name in self._plans.keys() - names - {OBSERVER}:
            self.pipeline.unbind(name)
            self._gatherer.drop_scene(name)
            self._run(replace(self._plans.pop(name), cycles=(), combined=(), reaches=(), watches=()))
        for instance in instances:
            self._apply_instance(instance, settings, policies)
        plans = self._plans.values()
        self.pipeline.keep_only({(c.probe.name, c.reach.target.key) for planned in plans for c in planned.cycles})

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
        self._plans[planned.name] = planned
        self._gatherer.set_scene(planned.name, (*planned.reaches, *here), planned.watches, policies)
        for cycle in planned.cycles:
            self.board.expect(cycle.probe.name, cycle.reach.target, cycle.interval)
        for computed in planned.combined:
            self.board.expect(computed.probe.name, computed.target, computed.interval, computed=True)
        self._forget_unused()
        if not waiting:
            self.pipeline.bind(planned.name, planned.labels, planned.nodes, planned.watches, all_policies=policies)
        self._run(planned)

    def _forget_unused(self) -> None:
        cycles = [cycle for planned in self._plans.values() for cycle in planned.cycles]
        combined = [cycle for planned in self._plans.values() for cycle in planned.combined]
        keys = {(cycle.probe.name, cycle.reach.target.key) for cycle in cycles}
        self.board.keep_only(keys | {(cycle.probe.name, cycle.target.key) for cycle in combined})
        self._contexts.keep_only(cycles)
        for key in self._sessions.keys() - {cycle.session for cycle in cycles}:
            self._sessions.pop(key).drop()

    def _run(self, planned: InstancePlan) -> None:
        """Have one runner per grid of the instance follow the plan; start and end runners as grids come and go."""
        for (name, interval), (rounds, task) in list(self._rounds.items()):
            if name != planned.name:
                continue
            if interval in planned.intervals:
                rounds.plan = planned
            else:
                task.cancel()
                del self._rounds[name, interval]
        for interval in planned.intervals:
            if (planned.name, interval) not in self._rounds:
                pulse = self._own_pulse if planned.name == OBSERVER else self._pulse
                rounds = Rounds(planned, interval, self.pipeline, self._contexts.of, self.clock, pulse)
                rounds.after_round = self._judged
                task = self.own(rounds.run, f"rounds {planned.name} {interval:g}s")
                self._rounds[planned.name, interval] = (rounds, task)

    def _context(self, cycle: Cycle) -> Context:
        login = cycle.reach.login
        session = None
        if login is not None:
            # One connection has one statement timeout; who asks first must not set it for the others.
            sharing = (
                other.timeout
                for other in self._plans[cycle.reach.target.instance].cycles
                if other.session == cycle.session
            )
            session = self._session(cycle.session, login, max(sharing, default=cycle.timeout))
        vitals = self.vitals if cycle.reach.target.instance == OBSERVER else None
        return context_for(cycle.reach, cycle.timeout, self._http, session, vitals)

    def _session(self, key: str, login: Login, timeout: float) -> Session:
        session = self._sessions.get(key)
        if session is None or session.login != login:
            if session is not None:
                session.drop()
            session = self._sessions[key] = Session(login, timeout)
        return session

    def _judged(self, name: str) -> None:
        """After each round of an instance: apply what its member list has news of; its connections are idle now."""
        self._gatherer.round_judged(name)
        settings = next(
            (item for item in map(self._membership.named, self.settings.instances) if item.name == name), None
        )
        if settings is not None and settings.patroni and self._membership.learn(name):
            self._apply_instance(settings, self.settings, self.policies)

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
        reasons = []
        if not self._started:
            reasons.append("starting or stopping")
        stalled = self.clock.mono() - self._pulse.progress_at
        shortest = min((interval for _, interval in self._rounds), default=0.0)
        if self._started and shortest and stalled > max(2 * shortest + 2.0, 5.0):
            reasons.append(f"no round was finished for {stalled:.0f} s")
        if self.store.degraded:
            reasons.append(f"the store cannot write: {self.store.degraded}")
        elif self._started and self.clock.mono() - self.store.progress_at > 3 * HEARTBEAT_SECONDS:
            reasons.append("the store's writer makes no progress")
        return reasons

    async def watchdog(self) -> None:
        """Feed the service manager's watchdog while work is done; a store that says why it cannot write may live."""
        period = systemd.watchdog_seconds()
        while period is not None:
            alive = [reason for reason in self.unready() if not reason.startswith("the store cannot write")]
            if not alive:
                systemd.notify("WATCHDOG=1", f"STATUS={self._open_events()} open events")
            await asyncio.sleep(period / 3)

    def _open_events(self) -> int:
        return sum(watch.event is not None for state in self.pipeline.instances.values() for watch in state.watches)

    async def settle_down(self) -> None:
        """Once the first rounds are over; before, a walk over what they made would stop the loop for 0.2 s later on."""
        await self.clock.sleep_until(self.clock.mono() + SETTLED_AFTER)
        settle()

    async def failed(self) -> None:
        """Returns when the daemon cannot go on."""
        await self._failed.wait()


def _limits(settings: Settings) -> Limits:
    return Limits(age=settings.storage.retention, size=settings.storage.max_size)


def _log_failure(future: asyncio.Future[None]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        _log.error("store.lost", error=str(error))


def settle() -> None:
    """What exists now lives as long as the daemon: keep the collector from walking it again, 50 ms at a time.

    What only the start needed goes back to the system: half a MiB of 60.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


async def run(settings: Settings, read_settings: ReadSettings | None = None) -> int:
    """The daemon until SIGTERM or SIGINT; the exit code. ConfigError and StoreError come before anything runs."""
    from probed.api.app import serve

    daemon = Daemon(settings, read_settings)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await daemon.start()
        closer = await serve(daemon, addresses=settings.web.listen, socket_path=settings.socket)
    except BaseException:  # cancellation too: a half-started daemon must not keep the store locked
        await daemon.stop()
        raise
    loop.add_signal_handler(signal.SIGHUP, daemon.own, lambda: _reload(daemon), "reload")
    _ = daemon.own(daemon.watchdog, "watchdog")
    _ = daemon.own(daemon.settle_down, "settle")
    settle()
    systemd.notify("READY=1", f"STATUS=probing {len(settings.instances)} instances")
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(daemon.failed())]
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
