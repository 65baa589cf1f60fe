"""What is to be probed, how often, and what is judged by it: settings + policies + known members -> a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from probed import topology
from probed.config import settings
from probed.model import OBSERVER, RECEIVER, Policy, Target
from probed.probes import AnyProbe, Combined, Probe
from probed.reaching import Reach, asked, reaches
from probed.store import Member

TIMEOUT_SHARE = 0.8
"""A cycle's deadline is at most this share of its interval, so that cycles never overlap."""

COMMIT_SECONDS = 0.5
"""What the schedule and the disk may add to the time from a fault to its event."""


class Cycle(Struct, frozen=True):
    """One I/O probe on one target."""

    probe: Probe
    reach: Reach
    interval: float
    timeout: float

    @property
    def session(self) -> str:
        """Key of its database session: the probes of a target share one, but for those that would keep it busy."""
        key = self.reach.session_key
        return f"{key}/{self.probe.name}" if self.probe.costly else key


class CombinedCycle(Struct, frozen=True):
    """One combined probe on one target; computed in the rounds of its slowest input, every ``every``-th time."""

    probe: Combined
    target: Target
    interval: float
    home: float
    """Interval of the rounds it belongs to."""

    @property
    def every(self) -> int:
        return max(1, round(self.interval / self.home))


class InstancePlan(Struct, frozen=True):
    name: str
    labels: Mapping[str, str]
    nodes: tuple[str, ...]
    reaches: tuple[Reach, ...]
    cycles: tuple[Cycle, ...]
    combined: tuple[CombinedCycle, ...]
    watches: tuple[tuple[Policy, Target], ...]
    """What is judged: every enabled policy on every target that its probe samples."""

    @property
    def intervals(self) -> tuple[float, ...]:
        """The distinct grids on which rounds of this instance start."""
        return tuple(sorted({cycle.interval for cycle in self.cycles}))


def own_plan(
    observer: str,
    policies: Mapping[str, Policy],
    catalogue: Mapping[str, AnyProbe],
    defaults: settings.Defaults,
    receivers: Iterable[str] = (),
) -> InstancePlan:
    """What the observer watches of itself, in an instance of its own: itself, and everybody whom it tells."""
    own = [Target(OBSERVER, observer, "probed", kind="observer")]
    own += [Target(OBSERVER, observer, RECEIVER, kind=RECEIVER, member=name) for name in receivers]
    return _planned(OBSERVER, {}, tuple(map(Reach, own)), policies, catalogue, defaults)


def detection_seconds(oneself: InstancePlan) -> float:
    """What it takes the observer at most to see something of itself and record it: D = T + t + e (reliability.md)."""
    canary = next(cycle for cycle in oneself.cycles if cycle.probe.name == "observer_canary")
    return canary.interval + canary.timeout + COMMIT_SECONDS


def plan(
    instance: settings.Instance,
    members: Sequence[Member],
    policies: Mapping[str, Policy],
    catalogue: Mapping[str, AnyProbe],
    defaults: settings.Defaults,
) -> InstancePlan:
    """Everything about one instance. ``members`` are the nodes found through Patroni, beside the declared ones."""
    known = tuple(reaches(instance, members))
    known += tuple(asked(instance.name, known, policies))
    return _planned(instance.name, dict(instance.labels), known, policies, catalogue, defaults)


def _planned(
    instance: str,
    labels: Mapping[str, str],
    reaches: tuple[Reach, ...],
    policies: Mapping[str, Policy],
    catalogue: Mapping[str, AnyProbe],
    defaults: settings.Defaults,
) -> InstancePlan:
    nodes = tuple(dict.fromkeys(reach.target.node for reach in reaches if reach.target.node))
    pace = _Pace(
        {name: policy for name, policy in policies.items() if policy.applies_to(instance)}, catalogue, defaults
    )
    cycles = tuple(
        Cycle(probe, reach, *pace.of(probe, reach))
        for probe in catalogue.values()
        if isinstance(probe, Probe)
        for reach in reaches
        if reach.target.kind in probe.kinds and (not probe.costly or pace.judged(probe))
    )
    combined = tuple(_combined(instance, nodes, cycles, catalogue, pace))
    sampled: list[tuple[str, Target]] = [(cycle.probe.name, cycle.reach.target) for cycle in cycles]
    sampled += [(cycle.probe.name, cycle.target) for cycle in combined]
    watches = tuple(
        (policy, target)
        for policy in policies.values()
        if policy.enabled
        for name, target in sampled
        if name == policy.probe and _judged(policy, target)
    )
    return InstancePlan(instance, labels, nodes, reaches, cycles, combined, watches)


class _Pace:
    """How often each probe runs: the shortest interval of the policies that need it wins."""

    def __init__(
        self, policies: Mapping[str, Policy], catalogue: Mapping[str, AnyProbe], defaults: settings.Defaults
    ) -> None:
        self._policies, self._catalogue, self._defaults = policies, catalogue, defaults
        self._direct: dict[str, list[Policy]] = {}
        # A probe whose policies are all off still feeds metrics, at their pace.
        for policy in sorted(policies.values(), key=lambda policy: not policy.enabled):
            bound = self._direct.setdefault(policy.probe, [])
            if policy.enabled or not any(other.enabled for other in bound):
                bound.append(policy)

    def _needing(self, name: str) -> list[Policy]:
        """Policies on a probe, and on the combined probes that it feeds."""
        needing = list(self._direct.get(name, ()))
        for other in self._catalogue.values():
            if isinstance(other, Combined) and name in other.inputs:
                needing += self._direct.get(other.name, ())
        return [policy for policy in needing if policy.enabled] or needing

    def judged(self, probe: AnyProbe) -> bool:
        """Whether a policy that is on needs it."""
        return any(policy.enabled for policy in self._needing(probe.name))

    def interval(self, probe: AnyProbe) -> float:
        return min((policy.interval for policy in self._needing(probe.name)), default=self._defaults.interval)

    def of(self, probe: Probe, reach: Reach) -> tuple[float, float]:
        """(interval, timeout); a target that belongs to one policy goes at that one's pace."""
        if reach.question is None:
            return self.interval(probe), self.timeout(probe)
        policy = self._policies[reach.target.component]
        return policy.interval, min(policy.timeout, policy.interval * TIMEOUT_SHARE)

    def timeout(self, probe: Probe) -> float:
        longest = max((policy.timeout for policy in self._needing(probe.name)), default=self._defaults.timeout)
        return min(longest, self.interval(probe) * TIMEOUT_SHARE)


def _combined(
    instance: str,
    nodes: Sequence[str],
    cycles: Sequence[Cycle],
    catalogue: Mapping[str, AnyProbe],
    pace: _Pace,
) -> Iterable[CombinedCycle]:
    for probe in catalogue.values():
        if not isinstance(probe, Combined):
            continue
        inputs = [cycle for cycle in cycles if cycle.probe.name in probe.inputs]
        if probe.scope == "instance":
            if inputs and {cycle.probe.name for cycle in inputs} >= set(probe.needs):
                target = Target(instance, "", probe.component)
                yield _combined_cycle(probe, target, inputs, pace)
            continue
        for node in nodes:
            # A node is combined when its first input is sampled on it; the others may belong to the instance.
            own = [cycle for cycle in inputs if cycle.reach.target.node == node]
            if any(cycle.probe.name == probe.inputs[0] for cycle in own):
                address = next(cycle.reach.target.address for cycle in own if cycle.probe.name == probe.inputs[0])
                target = Target(instance, node, probe.component, address)
                yield _combined_cycle(probe, target, inputs, pace)


def _combined_cycle(probe: Combined, target: Target, inputs: Sequence[Cycle], pace: _Pace) -> CombinedCycle:
    home = max(cycle.interval for cycle in inputs)
    return CombinedCycle(probe, target, max(home, pace.interval(probe)), home)


def _judged(policy: Policy, target: Target) -> bool:
    """Whether a policy judges this target of its probe: a write port has an availability, but no ping to compare."""
    return policy.judges(target) and (target.kind != "frontend" or policy.id == topology.DATABASE)
