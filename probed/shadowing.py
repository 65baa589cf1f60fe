"""Has shadow policies judge the samples that the live ones are judged by, and keeps what they would have told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct
from msgspec.structs import replace

from probed.clock import Clock
from probed.errors import ConfigError
from probed.evaluators import inconclusive, restart, step
from probed.model import FRESH, Kind, Outcome, Policy, Sample, Streak, Transition
from probed.policy.library import Library
from probed.shadows import Shadow, ShadowChanges, ShadowEvent, WatchPlace
from probed.store import Commit, Recovered
from probed.watches import differs

_log = structlog.get_logger(__name__)


class _Watch(Struct):
    """What a shadow remembers of one target."""

    streak: Streak = FRESH
    saved: Streak = FRESH
    event: ShadowEvent | None = None


class Shadowing:
    """All shadows of this daemon. ``record`` has a commit made durable, in order; ``grace`` tells its seconds."""

    def __init__(self, record: Callable[[Commit], None], clock: Clock, grace: Callable[[], float]) -> None:
        self._record, self._clock, self._grace = record, clock, grace
        self.shadows: dict[str, Shadow] = {}
        self.policies: dict[str, Policy] = {}
        """By id, as their shadows would make them; without those whose patch does not fit any more."""
        self.problems: dict[str, str] = {}
        """Why a shadow has no effect at present."""
        self._watches: dict[WatchPlace, _Watch] = {}

    def recover(self, recovered: Recovered, library: Library) -> None:
        """Take up what the last daemon left."""
        left = recovered.shadows
        self.shadows = {shadow.policy: shadow for shadow in left.shadows}
        self.follow(library)
        self._watches = {place: _Watch(streak, streak) for place, streak in left.streaks.items()}
        for event in left.open_events:
            self._watches.setdefault((event.policy, event.target), _Watch()).event = event
        now = self._clock.mono()
        for (policy_id, _), watch in self._watches.items():
            policy = self.policies.get(policy_id)
            if policy is not None:
                watch.streak = restart(watch.streak, policy, recovered.absence or 0.0, now, recovered.mono_shift)

    def follow(self, library: Library) -> None:
        """Lay every shadow over the policies as they are now; open episodes of a rule of another kind are dropped."""
        before, self.policies, self.problems = self.policies, {}, {}
        for policy_id, shadow in self.shadows.items():
            try:
                self.policies[policy_id] = library.tried(policy_id, shadow.patch)
            except ConfigError as error:
                self.problems[policy_id] = str(error)
                _log.warning("shadow.does_not_fit", policy=policy_id, problems=str(error))
                continue
            old = before.get(policy_id)
            if old is not None and type(old.detect) is not type(self.policies[policy_id].detect):
                self._forget(policy_id)

    def lay(self, shadow: Shadow, policy: Policy) -> None:
        """Run a new shadow, which is durable already, in place of an older one."""
        self._forget(shadow.policy)
        self.shadows[shadow.policy], self.policies[shadow.policy] = shadow, policy
        self.problems.pop(shadow.policy, None)

    def remove(self, policy_id: str) -> None:
        self._forget(policy_id)
        for known in (self.shadows, self.policies, self.problems):
            known.pop(policy_id, None)

    def _forget(self, policy_id: str) -> None:
        for place in [place for place in self._watches if place[0] == policy_id]:
            del self._watches[place]

    # --- judging ------------------------------------------------------------------------------------------

    def observe(self, samples: Sequence[Sample], switched_at: float | None = None) -> None:
        """Judge the samples of a round; the pipeline's observer."""
        if not self.policies:
            return
        events: list[ShadowEvent] = []
        streaks: dict[WatchPlace, Streak] = {}
        for policy in self.policies.values():
            if not policy.enabled:
                continue
            for sample in samples:
                if sample.probe == policy.probe and policy.judges(sample.target):
                    events += self._judge(policy, sample, switched_at, streaks)
        changes = ShadowChanges(events=tuple(events), streaks=streaks)
        if changes:
            self._record(Commit(shadows=changes))

    def _judge(
        self, policy: Policy, sample: Sample, switched_at: float | None, streaks: dict[WatchPlace, Streak]
    ) -> list[ShadowEvent]:
        place = (policy.id, sample.target.key)
        watch = self._watches.setdefault(place, _Watch())
        transition: Transition | None = None
        in_grace = switched_at is not None and sample.mono - switched_at < self._grace()
        if policy.switchover_grace and in_grace and sample.outcome is not Outcome.NOT_APPLICABLE:
            watch.streak = inconclusive(watch.streak, policy, sample)
        else:
            watch.streak, transition = step(watch.streak, policy, sample)
        if differs(watch.streak, watch.saved):
            streaks[place] = watch.saved = watch.streak
        if transition is None:
            return []
        event = _event(place, watch.event, transition)
        watch.event = event if transition.kind is Kind.OPENED else None
        return [event]


def _event(place: WatchPlace, known: ShadowEvent | None, transition: Transition) -> ShadowEvent:
    if transition.kind is Kind.RESOLVED and known is not None:
        return replace(known, resolved_at=transition.at, resolve_reason=transition.reason)
    # A resolution whose opening is not known any more is one of no length.
    resolved = transition.at if transition.kind is Kind.RESOLVED else None
    return ShadowEvent(
        *place, transition.at, transition.first_failed_at, resolved, transition.reason,
        transition.kind is Kind.OCCURRED, transition.count, transition.value,
    )  # fmt: skip
