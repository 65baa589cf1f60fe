"""What one fresh sample means for one watch: evaluate -> suppress -> word the event. Records nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from msgspec.structs import replace

from probed import flapping, incidents, leadership, topology
from probed.board import Board
from probed.evaluators import at_rest, inconclusive, leaves_quiet, step
from probed.leadership import Passage, Promotion
from probed.model import Event, Kind, Outcome, Phase, Policy, Sample, Streak, Transition
from probed.silences import mute, mute_from_birth, unmute
from probed.silencing import Silencing
from probed.store import Change
from probed.suppression import NO_EXPLANATION, Explanation, Suppression, began_first
from probed.watches import Instance, Watch

# Python 3.11 calls a function for each look at a member of an enum.
_QUIET, _OPEN, _NOT_APPLICABLE = Phase.QUIET, Phase.OPEN, Outcome.NOT_APPLICABLE


class Judge:
    """Judges the watches of all instances, causes first; the caller has taken the round's samples in before."""

    def __init__(self, board: Board, observer: str, switchover_grace: float) -> None:
        self._board, self._observer = board, observer
        self.switchover_grace = switchover_grace
        self.suppression = Suppression()
        self.silencing = Silencing()
        self.suppressed = 0
        """Events held back so far."""

    def judge(self, state: Instance, watch: Watch, sample: Sample, *, cut_off: bool) -> Sequence[Change]:
        """What becomes of the watch's event by this sample; the watch's own state is brought up to date.

        ``cut_off``: whether this observer seems to have lost its own network in this very round.
        """
        if watch.event is None:
            return self._judge(state, watch, sample, cut_off=cut_off)
        changes = [*self._mute(watch, sample), *self._judge(state, watch, sample, cut_off=cut_off)]
        if watch.event is not None:
            changes += self._unmute(watch, sample)
        return changes

    def _judge(self, state: Instance, watch: Watch, sample: Sample, *, cut_off: bool) -> Sequence[Change]:
        policy = watch.policy
        watch.held = False
        if watch.streak.phase is _QUIET and watch.event is None and leaves_quiet(policy, sample):
            return ()
        if policy.switchover_grace and sample.outcome is not _NOT_APPLICABLE and self._in_grace(state, sample):
            watch.streak = inconclusive(watch.streak, policy, sample)
            return ()
        if watch.streak.phase is _QUIET:
            watch.on_replica = state.shape.is_replica(watch.target.node)
        behind = NO_EXPLANATION
        if not isinstance(policy.detect, topology.POINTS):
            behind = self.suppression.explain(state, watch, cut_off=cut_off)
            if watch.caused and behind.cause is None:
                # What was counted while the cause was open was its doing: a consequence needs fresh samples.
                watch.streak = _afresh(watch)
        watch.caused = behind.cause is not None
        before = watch.streak
        streak, transition = step(before, policy, sample)
        if behind.pending and before.phase is not _OPEN and streak.meeting > before.meeting:
            watch.held = True
            # It may be the doing of a cause that has not opened yet: it neither counts nor resets.
            held = inconclusive(before, policy, sample)
            watch.streak = replace(held, baseline=streak.baseline, series=streak.series, increments=streak.increments)
            return ()
        watch.streak = streak
        if policy.id == topology.SWITCHOVER:
            return self._switchover(state, watch, transition, sample, before)
        if transition is None:
            return () if watch.event is None else self._while_open(watch, watch.event, sample, behind)
        return [self._change(state, watch, transition, sample, behind)]

    def _change(
        self, state: Instance, watch: Watch, transition: Transition, sample: Sample, behind: Explanation
    ) -> Change:
        ring = self._board.ring(watch.policy.probe, watch.target)
        at, turns = transition.at, watch.streak.turns
        if transition.kind is Kind.RESOLVED:
            event = watch.event
            assert event is not None, "only an open event resolves"
            watch.event = None
            watch.streak = replace(watch.streak, turns=flapping.turned(turns, at))
            return Change(incidents.resolve(event, transition), "resolved", at, after=ring[-10:])
        event = incidents.begin(
            transition,
            watch.policy,
            sample,
            event_id=incidents.new_id(at),
            severity=watch.severity,
            observer=self._observer,
            labels=state.labels,
            cause=behind.cause,
        )
        if event.canary:
            return Change(incidents.hide(event), transition.kind.value, at, before=ring[-10:])
        if behind.cause is None and behind.blame is not None:
            event = incidents.link(event, behind.blame)
        if state.paused:
            event = incidents.in_pause(event)
        silence = self.silencing.over(event, at, sample.mono)
        if silence is not None:
            event = mute_from_birth(event, silence, at)
        if transition.kind is Kind.OPENED:
            if flapping.flaps(turns, at):
                number = len(flapping.recent(turns, at)) + 1
                event = incidents.flap(event, number, quiet=flapping.is_spared(watch.told_at, at))
            watch.streak = replace(watch.streak, turns=flapping.turned(turns, at))
            watch.event = event
        change = Change(event, transition.kind.value, at, before=ring[-10:])
        self._note_told(watch, change)
        return change

    def _switchover(
        self, state: Instance, watch: Watch, transition: Transition | None, sample: Sample, before: Streak
    ) -> list[Change]:
        """A switchover with how it came about: as seen, or as far as Patroni's history tells what nobody saw."""
        passage = sample.facts.get("passage")
        if not isinstance(passage, Passage) or not passage.role_changed:
            passage = _missed(before, watch.streak, sample)
        if transition is None and passage is not None and passage.inferred:
            transition = Transition(
                Kind.OCCURRED, at=sample.at, value=passage.new_leader, previous=passage.old_leader
            )  # the leadership came back to where it was: the name alone does not show it
        if transition is None:
            return []
        change = self._change(state, watch, transition, sample, NO_EXPLANATION)
        turns = flapping.turned(watch.streak.turns, transition.at)
        watch.streak = replace(watch.streak, turns=turns)
        if len(turns) >= flapping.SWITCHES:
            change = replace(change, event=incidents.restless(change.event, len(turns)))
        state.switchover = change.event
        if passage is None:
            return [change]
        return [replace(change, event=incidents.explain_switchover(change.event, passage))]

    def _while_open(self, watch: Watch, event: Event, sample: Sample, behind: Explanation) -> list[Change]:
        """What may change about an event that goes on: who is to blame, whether people must hear of it after all."""
        cause, known = behind.cause, behind.cause or behind.blame
        if known is not None and event.caused_by is None and began_first(known, event, watch.policy.interval):
            watch.event = incidents.link(event, known)
            return [Change(watch.event, "linked", sample.at)]
        fresh = watch.streak.meeting >= _count(watch.policy)
        outlived = event.suppressed and cause is None and not behind.pending and fresh
        held = event.suppressed or event.silenced
        lasting = not held and event.quiet and not flapping.is_spared(watch.told_at, sample.at)
        if not outlived and not lasting:
            return []
        watch.event = incidents.lift(event)
        change = Change(watch.event, "lifted" if outlived else "told", sample.at)
        self._note_told(watch, change)
        return [change]

    def _mute(self, watch: Watch, sample: Sample) -> list[Change]:
        """An open event over which a silence has come, or another one than before."""
        assert watch.event is not None
        silence = self.silencing.over(watch.event, sample.at, sample.mono)
        if silence is None or (watch.event.muted and silence.id == watch.event.silenced_by):
            return []
        watch.event = mute(watch.event, silence, sample.at)
        return [Change(watch.event, "silenced", sample.at)]

    def _unmute(self, watch: Watch, sample: Sample) -> list[Change]:
        """An open event that has outlived its silence."""
        event = watch.event
        if event is None or not event.muted or self.silencing.over(event, sample.at, sample.mono) is not None:
            return []
        watch.event = unmute(event, sample.at)
        change = Change(watch.event, "unsilenced", sample.at)
        self._note_told(watch, change)
        return [change]

    def _note_told(self, watch: Watch, change: Change) -> None:
        if change.announced:
            watch.told_at = change.at
        elif change.event.suppressed and change.kind != "unsilenced":
            self.suppressed += 1

    def _in_grace(self, state: Instance, sample: Sample) -> bool:
        return state.switched_at is not None and sample.mono - state.switched_at < self.switchover_grace


def _missed(before: Streak, after: Streak, sample: Sample) -> Passage | None:
    """A switchover that nobody saw, by the identity and timeline that were last known."""
    history = cast(tuple[Promotion, ...], sample.facts.get("history") or ())
    if not before.identity or not after.identity or before.series == after.series or not before.series:
        return None
    (system, old), (new_system, new) = (_timeline(text) for text in (before.series, after.series))
    if system != new_system:  # another database altogether: restored, or initialised anew
        return None
    return leadership.missed(before.identity, old, after.identity, new, history)


def _timeline(series: str) -> tuple[str, int | None]:
    system, _, timeline = series.rpartition("/")
    return system, int(timeline) if timeline.isdigit() else None


def _count(policy: Policy) -> int:
    return 1 if isinstance(policy.detect, topology.POINTS) else policy.detect.count


def _afresh(watch: Watch) -> Streak:
    """Counting starts anew; an open event stays open, and a suppressed one must be met afresh to outlive its cause."""
    streak = watch.streak
    if streak.phase is not _OPEN:
        streak = at_rest(streak)
        return replace(streak, increments=()) if streak.increments else streak
    suppressed = watch.event is not None and watch.event.suppressed
    return replace(streak, meeting=0, increments=() if suppressed else streak.increments)
