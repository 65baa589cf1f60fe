"""What is watched: watches and their instances, and what the last daemon left for them to take up."""

from __future__ import annotations

from collections.abc import Mapping, Set
from operator import attrgetter

from msgspec import Struct, field
from msgspec.structs import replace

from probed import topology
from probed.evaluators import at_rest, restart
from probed.model import FRESH, Event, Occurrence, Phase, Policy, Severity, Streak, Target, fingerprint
from probed.store import Recovered
from probed.topology import Shape


class Watch(Struct):
    """One (policy, target): its evaluator's state and its open event."""

    policy: Policy
    target: Target
    streak: Streak = FRESH
    event: Event | None = None
    saved: Streak = FRESH
    """The streak as the store knows it, to write only what changed."""
    caused: bool = False
    """Whether a cause was open at the last sample."""
    held: bool = False
    """Whether its last sample was withheld, because a cause of its own may be about to open."""
    on_replica: bool = False
    """Whether the node was a replica when the running streak began."""
    told_at: float | None = None
    """Wall time of the last opening that was announced, to spare people the turns of a flapping one."""

    @property
    def key(self) -> str:
        return watch_key(self.policy.id, self.target)

    @property
    def severity(self) -> Severity:
        """Of the open event, else of the one that would open."""
        return self.event.severity if self.event else topology.severity(self.policy, self.on_replica)


def watch_key(policy: str, target: Target) -> str:
    return f"{policy}|{target.key}"


class Instance(Struct):
    """What the pipeline knows of one instance."""

    name: str
    labels: Mapping[str, str]
    shape: Shape = field(default_factory=Shape)
    watches: list[Watch] = field(default_factory=list)
    """In topological order."""
    switched_at: float | None = None
    """Monotonic time of the last switchover, for the grace after it."""
    switchover: Event | None = None
    """The last one, as worded before its story: what is learned of it in the minute after is added."""
    paused: bool | None = None
    """Whether Patroni said last that it is in maintenance mode; ``None`` while it has said nothing."""
    remote: bool = False
    """Whether anything of it is reached over a network that can be cut; a file system is not."""


class Inheritance:
    """What the last daemon left. Each piece is taken, not looked up: a watch that is bound again later must not wake
    with the memory of an older daemon.
    """

    def __init__(self, recovered: Recovered, now: float) -> None:
        self._recovered, self._since = recovered, now
        self._streaks = dict(recovered.streaks)
        self._events = {event.fingerprint: event for event in recovered.open_events}

    def take_up(self, watch: Watch, now: float) -> None:
        """Give a new watch its streak and its open event back. ``now`` is monotonic."""
        streak = self._streaks.pop(watch.key, None)
        event = self._events.pop(fingerprint(watch.policy.id, watch.target), None)
        if streak is not None:
            watch.saved = streak
            absence = (self._recovered.absence or 0.0) + now - self._since
            streak = restart(streak, watch.policy, absence, now, self._recovered.mono_shift)
        streak = streak or FRESH
        # Event and streak are one transaction, so they agree; should they ever not, the event is the truth.
        if event is not None and streak.phase is not Phase.OPEN:
            streak = replace(streak, phase=Phase.OPEN, since_at=event.first_failed_at)
        elif event is None and streak.phase is Phase.OPEN:
            streak = at_rest(streak)
        watch.streak, watch.event = streak, event
        watch.caused = event is not None and event.suppressed

    def switched_at(self, instance: str) -> float | None:
        """Wall time of an instance's last switchover."""
        return self._recovered.last_switchover.get(instance)

    def leave(self, instance: str) -> tuple[list[Watch], list[str]]:
        """What no watch of an instance took up: open events as watches to be closed, and keys of streaks."""
        events = [event for event in self._events.values() if event.target.instance == instance]
        for event in events:
            del self._events[event.fingerprint]
        keys = [key for key in self._streaks if _instance_of(key) == instance]
        for key in keys:
            del self._streaks[key]
        return [_stand_in(event) for event in events], keys

    @property
    def instances(self) -> Set[str]:
        """Names of which anything is left."""
        named = {event.target.instance for event in self._events.values()}
        return named | {_instance_of(key) for key in self._streaks}


def _instance_of(key: str) -> str:
    """The instance in a watch's key."""
    return key.partition("|")[2].partition("/")[0]


def _stand_in(event: Event) -> Watch:
    """A stand-in for a watch that no longer exists, just good enough to close its event."""
    policy = Policy(event.event, event.name, "", event.severity, "", Occurrence(""))
    return Watch(policy, event.target, Streak(phase=Phase.OPEN, since_at=event.first_failed_at), event)


def differs(streak: Streak, saved: Streak) -> bool:
    """Whether the store must hear of it: that a sample came, or that an open event goes on, is not worth a write."""
    if _essence(streak) != _essence(saved):
        return True
    return streak.phase is not Phase.OPEN and streak.meeting != saved.meeting


_essence = attrgetter(*(set(Streak.__struct_fields__) - {"last_mono", "inconclusive", "not_applicable", "meeting"}))
