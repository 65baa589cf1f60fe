"""One round without a daemon: reach targets once, in this process, and keep nothing."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import field

from probed import discovery
from probed.cli.check import load_policies
from probed.clock import SystemClock
from probed.config.load import UNNAMED
from probed.config.settings import Instance, Settings
from probed.looking import Eye, Look, Wanted, everything, look
from probed.model import Policy, Target
from probed.policy.site import Site
from probed.probes import AnyProbe, catalogue
from probed.probes._http import HttpClient
from probed.reaching import patroni_access
from probed.watching import InstancePlan, plan


class Round(Look):
    """What one round found."""

    policies: Mapping[str, Policy] = field(default_factory=dict)
    catalogue: Mapping[str, AnyProbe] = field(default_factory=dict)
    known: list[tuple[str, Target]] = field(default_factory=list)
    """Every (probe, target) that these settings yield."""

    def add(self, planned: InstancePlan, seen: Look) -> None:
        """Take in what was seen of one instance."""
        self.known += [(cycle.probe.name, cycle.reach.target) for cycle in planned.cycles]
        self.known += [(cycle.probe.name, cycle.target) for cycle in planned.combined]
        self.samples += seen.samples
        self.inputs += seen.inputs
        self.steps.update(seen.steps)


async def sample_once(settings: Settings, wanted: Wanted = everything) -> Round:
    """Reach every wanted target once. ConfigError for bad policies; never raises for a target's sake."""
    policies = load_policies(settings.policies.directory, settings.defaults, site=Site.of(settings))
    found = Round(policies=policies, catalogue=catalogue())
    http = HttpClient(by_hand=True)
    try:
        plans = [await _planned(instance, settings, found, http) for instance in settings.instances]
        for planned in plans:
            found.add(planned, await look(planned, wanted, Eye(http, SystemClock())))
    finally:
        await http.close()
    return found


async def _planned(instance: Instance, settings: Settings, found: Round, http: HttpClient) -> InstancePlan:
    if not instance.patroni:
        return plan(instance, (), found.policies, found.catalogue, settings.defaults)
    scope, members = await discovery.discover(
        instance.patroni, http, settings.defaults.timeout, instance.name, patroni_access(instance, instance.patroni)
    )
    if instance.name == UNNAMED and scope:
        instance = instance.model_copy(update={"name": scope})
    return plan(instance, members, found.policies, found.catalogue, settings.defaults)
