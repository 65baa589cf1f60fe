"""What becomes of a round of samples: combine -> evaluate, causes first -> suppress -> record -> announce.

A *round* is the cycles of one instance that shared a slot. It is judged as a whole, so the order in which its samples
arrived cannot matter. Evaluation is synchronous and pure; durability is the store's; only what is durable is
announced (logged, counted, sent).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Protocol, cast
from urllib.parse import urlsplit

import structlog
from msgspec.structs import replace

from probed import incidents, topology
from probed.board import Board
from probed.clock import Clock
from probed.errors import StoreError
from probed.evaluators import close
from probed.judging import Judge
from probed.leadership import Passage
from probed.model import (
    NO_FACTS,
    Event,
    Outcome,
    Phase,
    Policy,
    Sample,
    Streak,
    Target,
)
from probed.probes import Combined, View
from probed.reachability import Reachability, host_of
from probed.sampling import combine
from probed.silencing import Silencing
from probed.store import AuditRecord, Change, Commit, LeadershipRecord, Place, Recovered
from probed.watches import Inheritance, Instance, Watch, differs, watch_key

_log = structlog.get_logger(__name__)


class Appender(Protocol):
    """The one thing of a store that the pipeline needs."""

    def append(self, commit: Commit) -> asyncio.Future[None]: ...


Announce = Callable[[Change], None]
"""Told of every change that became durable and is not held back."""
Owe = Callable[[Change], tuple[str, ...]]
"""Who is to be told of a change: names of receivers."""
Observe = Callable[[Sequence[Sample], float | None], None]
"""Told the samples of each judged round, and the monotonic time of the instance's last switchover."""


class Pipeline:
    """Accepts rounds of samples for all instances. Single-threaded: lives in the event loop."""

    def __init__(
        self,
        store: Appender,
        board: Board,
        clock: Clock,
        *,
        observer: str,
        switchover_grace: float,
        reachability: Reachability | None = None,
    ) -> None:
        self._store, self.board, self._clock = store, board, clock
        self._judge = Judge(board, observer, switchover_grace)
        self.instances: dict[str, Instance] = {}
        self._reachability = reachability or Reachability()
        self._inheritance: Inheritance | None = None
        self._announce: list[Announce] = []
        self.owe: Owe = lambda _: ()
        """Asked about every change before it is committed, so that what is owed is durable together with it."""
        self._untold: dict[asyncio.Future[None], Commit] = {}
        """Commits with changes that are neither durable nor announced, in order."""
        self.ahead: Announce = lambda _: None
        """Told of each change that is announced though it is not durable."""
        self.written: Announce = lambda _: None
        """Told of each of those when it is durable, or never will be."""
        self._observe: list[Observe] = []
        self._kept: dict[Place, Mapping[str, object]] = {}

    @property
    def suppressed(self) -> int:
        """Events held back so far."""
        return self._judge.suppressed

    @property
    def silencing(self) -> Silencing:
        """The silences that may hold."""
        return self._judge.silencing

    @property
    def switchover_grace(self) -> float:
        """Seconds for which a switchover makes dependent samples inconclusive."""
        return self._judge.switchover_grace

    @switchover_grace.setter
    def switchover_grace(self, seconds: float) -> None:
        self._judge.switchover_grace = seconds

    def on_announce(self, announce: Announce) -> None:
        self._announce.append(announce)

    def on_round(self, observe: Observe) -> None:
        """Have somebody see what is judged, after it was; they judge nothing that is announced."""
        self._observe.append(observe)

    # --- what is watched ----------------------------------------------------------------------------------

    def recover(self, recovered: Recovered) -> None:
        """Remember what the last daemon left; watches take it up as they are bound."""
        self._inheritance = Inheritance(recovered, self._clock.mono())
        self._kept = dict(recovered.kept)
        for silence in recovered.silences:
            self.silencing.put(silence)

    def kept(self, probe: str, target: Target) -> Mapping[str, object]:
        """The ``keep`` of the probe's newest sample of the target that was accepted, in this daemon or the last."""
        return self._kept.get((probe, target.key), NO_FACTS)

    def keep_only(self, places: Set[Place]) -> None:
        """Forget what was kept of what is not probed any more: should it come back, its counters start anew."""
        gone = self._kept.keys() - places
        for place in gone:
            del self._kept[place]
        self._commit(Commit(kept=dict.fromkeys(gone)))

    def bind(
        self,
        instance: str,
        labels: Mapping[str, str],
        nodes: Sequence[str],
        wanted: Iterable[tuple[Policy, Target]],
        *,
        all_policies: Mapping[str, Policy],
    ) -> None:
        """Set what is watched in an instance. Streaks and open events of what stays are kept; the rest is closed.

        Why something is closed is told apart: ``disabled``, ``policy_removed`` (also when its rule became another
        kind of rule) or ``target_removed``.
        """
        state = self.instances.setdefault(instance, Instance(instance, labels))
        state.labels = labels
        wanted = tuple(wanted)
        targets = [target for _, target in wanted]
        state.remote = any(host_of(target.address) for target in targets)
        state.shape = replace(
            state.shape,
            nodes=tuple(nodes),
            hosts=topology.hosts_of({t.node: t.address for t in targets if t.kind == "postgres"}),
            gateways=frozenset(urlsplit(target.address).netloc for target in targets if target.kind == "kong"),
        )
        old = {watch.key: watch for watch in state.watches}
        watches: list[Watch] = []
        fresh: list[Watch] = []
        outlived: list[Watch] = []
        for policy, target in wanted:
            watch = old.pop(watch_key(policy.id, target), None)
            if watch is not None and type(watch.policy.detect) is not type(policy.detect):
                outlived.append(watch)  # a rule of another kind could never resolve what it did not open
                watch = None
            if watch is None:
                watch = self._fresh(state, policy, target)
                fresh.append(watch)
            watch.policy, watch.target = policy, target
            watches.append(watch)
        for watch in fresh:  # once the leader is known from all of them
            watch.on_replica = state.shape.is_replica(watch.target.node)
        state.watches = sorted(watches, key=lambda watch: topology.order(watch.policy, watch.target))
        left, forgotten = self._inheritance.leave(instance) if self._inheritance else ([], [])
        self._close(outlived, {})
        self._commit(Commit(changes=tuple(_edited(state.watches, self._clock.wall()))))
        self._close([*old.values(), *left], all_policies, forgotten)
        self._judge.suppression.follow(self.instances, instance)

    def unbind(self, instance: str) -> None:
        """An instance that is no longer configured: its events close with ``target_removed``."""
        state = self.instances.pop(instance, None)
        self._reachability.forget(instance)
        self._judge.suppression.follow(self.instances, instance)
        if state is not None:
            self._close(state.watches, {watch.policy.id: watch.policy for watch in state.watches})

    def forget_unknown(self, configured: Set[str]) -> None:
        """Close and forget what the last daemon left of instances that are not configured any more."""
        if self._inheritance is None:
            return
        for name in self._inheritance.instances - configured:
            left, forgotten = self._inheritance.leave(name)
            self._close(left, {watch.policy.id: watch.policy for watch in left}, forgotten)

    def _fresh(self, state: Instance, policy: Policy, target: Target) -> Watch:
        """A new watch, taking up what the last daemon left of it."""
        watch = Watch(policy, target)
        if self._inheritance is None:
            return watch
        self._inheritance.take_up(watch, self._clock.mono())
        if policy.id == topology.SWITCHOVER:
            if watch.streak.identity:
                state.shape = replace(state.shape, leader=watch.streak.identity)
            at = self._inheritance.switched_at(state.name)
            if at is not None and state.switched_at is None:
                state.switched_at = self._clock.mono() - max(0.0, self._clock.wall() - at)
        return watch

    def _close(
        self, watches: Iterable[Watch], all_policies: Mapping[str, Policy], forgotten: Iterable[str] = ()
    ) -> None:
        at = self._clock.wall()
        changes: list[Change] = []
        keys = list(forgotten)
        for watch in watches:
            policy = all_policies.get(watch.policy.id)
            reason = "policy_removed" if policy is None else "target_removed" if policy.enabled else "disabled"
            _, transition = close(watch.streak, at, reason)
            if transition is not None and watch.event is not None:
                changes.append(Change(incidents.resolve(watch.event, transition), "resolved", at))
            keys.append(watch.key)
        self._commit(Commit(changes=tuple(changes), forgotten=tuple(keys)))

    # --- what becomes of a round --------------------------------------------------------------------------

    def accept(self, instance: str, samples: Sequence[Sample], due: Sequence[tuple[Combined, Target]] = ()) -> None:
        """Judge one round: the samples of an instance's cycles, and the combined probes that are due with it."""
        state = self.instances.get(instance)
        if state is None:
            return
        fresh: dict[tuple[str, str], Sample] = {}
        for sample in samples:
            self._take(sample, fresh)
        seen = self._seen(state) if due else ({}, {})
        for probe, target in due:
            self._take(combine(probe, self._view(state, probe, target, *seen)), fresh)
        _see_pause(state, fresh)
        passages, changes = self._see_leader(state, fresh)
        cut_off = self._look_around(state)
        streaks: dict[str, Streak] = {}
        judge = self._judge.judge
        for watch in state.watches:
            fresh_sample = fresh.get((watch.policy.probe, watch.target.key))
            if fresh_sample is not None:
                changes += judge(state, watch, fresh_sample, cut_off=cut_off)
                if watch.streak is not watch.saved and differs(watch.streak, watch.saved):
                    streaks[watch.key] = watch.saved = watch.streak
        passages += _unseen(instance, changes)
        news = self._news_to_keep(fresh)
        if changes or streaks or passages or news:
            self._commit(Commit(changes=tuple(changes), streaks=streaks, leadership=tuple(passages), kept=news))
        for observe in self._observe:
            observe(tuple(fresh.values()), state.switched_at)

    def _news_to_keep(self, fresh: Mapping[Place, Sample]) -> Mapping[Place, Mapping[str, object]]:
        """In the same commit as the events: a baseline must be neither ahead of what was told nor behind it."""
        news = {
            place: sample.keep
            for place, sample in fresh.items()
            if sample.keep is not None and sample.keep != self._kept.get(place)
        }
        self._kept.update(news)
        return news

    def _take(self, sample: Sample, fresh: dict[tuple[str, str], Sample]) -> None:
        before = self.board.put(sample)
        fresh[sample.probe, sample.target.key] = sample
        if before is not None:
            _log.info(
                "target.outcome",
                target=sample.target.key,
                probe=sample.probe,
                outcome=sample.outcome.value,
                before=before.value,
                reason=sample.reason,
            )

    def _seen(self, state: Instance) -> tuple[Mapping[tuple[str, str], Sample], Mapping[str, tuple[Sample, ...]]]:
        """The newest samples: by (probe, node), and of what is one of several without a node by probe."""
        single: dict[tuple[str, str], Sample] = {}
        several: dict[str, tuple[Sample, ...]] = {}
        for entry in self.board.newest_of(state.name):
            sample = entry.ring[-1]
            if entry.target.member:
                several[entry.probe] = (*several.get(entry.probe, ()), sample)
            else:
                single[entry.probe, entry.target.node] = sample
        return single, several

    def _view(
        self,
        state: Instance,
        probe: Combined,
        target: Target,
        single: Mapping[tuple[str, str], Sample],
        several: Mapping[str, tuple[Sample, ...]],
    ) -> View:
        # The time of a combination is that of its inputs, so that it is right also when they were late.
        first = _first_input(probe, (target.node, "", *state.shape.nodes), single, several)
        at, mono = (first.at, first.mono) if first is not None else (self._clock.wall(), self._clock.mono())
        before = self.board.newest(probe.name, target)
        return View(target, state.shape.nodes, single, at, mono, before, several, self.kept(probe.name, target))

    def _see_leader(
        self, state: Instance, fresh: Mapping[tuple[str, str], Sample]
    ) -> tuple[list[LeadershipRecord], list[Change]]:
        """Root the topology anew when the leader moved; how the leadership went on, and what became known of it."""
        passages: list[LeadershipRecord] = []
        changes: list[Change] = []
        for (probe, _), sample in fresh.items():
            if probe != "leader":
                continue
            name = sample.readings.get("leader")
            if name and isinstance(name, str) and name != state.shape.leader:
                if state.shape.leader:
                    state.switched_at = sample.mono
                state.shape = replace(state.shape, leader=name)
            passage = sample.facts.get("passage")
            if isinstance(passage, Passage):
                passages.append(LeadershipRecord(state.name, sample.at, passage.as_details()))
                _log.info("leadership.passed", instance=state.name, **passage.as_details())
            settled = sample.facts.get("settled")
            if isinstance(settled, tuple):
                at, known = cast(tuple[float, Passage], settled)
                passages.append(LeadershipRecord(state.name, at, known.as_details()))
                if state.switchover is not None and known.role_changed:
                    event = incidents.explain_switchover(state.switchover, known)
                    changes.append(Change(event, "amended", sample.at))
                    state.switchover = None
        return passages, changes

    def _look_around(self, state: Instance) -> bool:
        """Which machines can be heard in this round; whether this observer seems to be cut off from the network."""
        if not state.remote:
            return False
        entries = self.board.newest_of(state.name)
        seen = self._reachability.see(state.name, [entry.ring[-1] for entry in entries if not entry.computed])
        if seen.dark != state.shape.dark:
            state.shape = replace(state.shape, dark=seen.dark)
        return self._reachability.whole.cut_off

    def confirming(self, instance: str) -> Mapping[str, float]:
        """Probes whose pending streaks are to be confirmed faster, with the seconds between two cycles."""
        state = self.instances.get(instance)
        wanted: dict[str, float] = {}
        for watch in state.watches if state else ():
            confirm = watch.policy.confirm_interval
            if confirm is not None and watch.streak.phase is Phase.PENDING:
                wanted[watch.policy.probe] = min(confirm, wanted.get(watch.policy.probe, confirm))
        return wanted

    # --- what people do to an event -----------------------------------------------------------------------

    def held(self, event_id: str) -> Event | None:
        """The event as it stands, when what comes next would be made of it: it is open, or the last switchover."""
        for state in self.instances.values():
            if state.switchover is not None and state.switchover.id == event_id:
                return state.switchover
            for watch in state.watches:
                if watch.event is not None and watch.event.id == event_id:
                    return watch.event
        return None

    def amend(self, change: Change, audit: AuditRecord) -> asyncio.Future[None]:
        """Record and announce what somebody did to an event, and go on from there; done when it is durable."""
        event_id = change.event.id
        for state in self.instances.values():
            if state.switchover is not None and state.switchover.id == event_id:
                state.switchover = change.event
            for watch in state.watches:
                if watch.event is not None and watch.event.id == event_id:
                    watch.event = change.event
        return self._append(Commit(changes=(change,), audit=(audit,)))

    # --- record, then announce ----------------------------------------------------------------------------

    def _commit(self, commit: Commit) -> None:
        if commit:
            _ = self._append(commit)

    def _append(self, commit: Commit) -> asyncio.Future[None]:
        commit = replace(commit, changes=tuple(replace(change, owed=self.owe(change)) for change in commit.changes))
        done = self._store.append(commit)
        if commit.changes:
            self._untold[done] = commit
        done.add_done_callback(lambda future: self._committed(commit, future))
        return done

    def tell_unwritten(self) -> None:
        """Announce what the disk has not taken; nothing of it is announced again when it has (adr/0017)."""
        for done, commit in list(self._untold.items()):
            if done.done():
                continue  # it is about to be announced
            del self._untold[done]
            for change in commit.changes:
                self.ahead(change)
                self._tell(change)

    def _committed(self, commit: Commit, future: asyncio.Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            _log.error("store.lost", error=str(error), events=[change.event.id for change in commit.changes])
            if not isinstance(error, StoreError):
                raise error
        told = self._untold.pop(future, None) is None
        for change in commit.changes:
            if told:
                self.written(change)
            elif error is None:
                self._tell(change)
            else:
                _log_change(change)

    def _tell(self, change: Change) -> None:
        _log_change(change)
        for announce in self._announce:
            announce(change)


def _edited(watches: Iterable[Watch], at: float) -> Iterable[Change]:
    """Open events whose policies have another version now; all else about them stays."""
    for watch in watches:
        if watch.event is not None and watch.event.policy_version != watch.policy.version:
            watch.event = incidents.go_on_under(watch.event, watch.policy.version)
            yield Change(watch.event, "amended", at)


def _unseen(instance: str, changes: Iterable[Change]) -> list[LeadershipRecord]:
    """Switchovers that nobody saw: the event knows of them, and no sample does."""
    return [
        LeadershipRecord(instance, change.at, passage)
        for change in changes
        if change.kind == "occurred"
        and isinstance(passage := change.event.details.get("switchover"), Mapping)
        and passage["inferred"]
    ]


def _first_input(
    probe: Combined,
    nodes: Iterable[str],
    single: Mapping[tuple[str, str], Sample],
    several: Mapping[str, tuple[Sample, ...]],
) -> Sample | None:
    for name in probe.inputs:
        for node in nodes:
            sample = single.get((name, node))
            if sample is not None:
                return sample
    return next((sample for name in probe.inputs for sample in several.get(name, ())), None)


def _see_pause(state: Instance, fresh: Mapping[tuple[str, str], Sample]) -> None:
    """Take in whether Patroni is paused; what it said last holds while it is silent."""
    for (probe, _), sample in fresh.items():
        if probe == "patroni_cluster" and sample.outcome is Outcome.OBSERVED:
            state.paused = sample.readings.get("paused") == 1.0


_GOOD_NEWS = ("resolved", "acked", "unacked")


def _log_change(change: Change) -> None:
    event = change.event
    if event.canary:
        return
    level = _log.warning if change.announced and change.kind not in _GOOD_NEWS else _log.info
    level(
        f"event.{change.kind}",
        event_type=event.event,
        severity=event.severity.value,
        target=event.target.key,
        event_id=event.id,
        message=event.message,
        suppressed=event.suppressed,
        caused_by=event.caused_by,
        silenced_by=event.silenced_by,
        reason=event.resolve_reason or None,
    )
