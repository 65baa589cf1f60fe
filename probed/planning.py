"""Settings, members and policies become plans, and everybody works by the newest; anew whenever one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from probed.config.settings import Instance, Settings
from probed.gathering import Gatherer
from probed.membership import Membership
from probed.model import OBSERVER, Policy
from probed.patrol import Patrol
from probed.probes import AnyProbe
from probed.reaching import Reach, machines, own_machine
from probed.watching import InstancePlan, own_plan, plan


class Planner:
    """Has the patrol and the gatherer follow a plan of every instance, the observer's own among them."""

    def __init__(
        self,
        probes: Mapping[str, AnyProbe],
        membership: Membership,
        patrol: Patrol,
        gatherer: Gatherer,
        receivers: Callable[[], Sequence[str]],
    ) -> None:
        """``receivers``: names of those whom the observer watches."""
        self._probes, self._membership, self._receivers = probes, membership, receivers
        self._patrol, self._gatherer = patrol, gatherer
        self._settings: Settings
        self._policies: Mapping[str, Policy]
        self._configured: Mapping[str, Instance] = {}
        """By name. All three as they were followed last."""

    def follow(self, settings: Settings, policies: Mapping[str, Policy]) -> None:
        """Plan by these from now on, and leave what they do not have any more."""
        self._settings, self._policies = settings, policies
        self._configured = {self._membership.name_of(instance): instance for instance in settings.instances}
        oneself = own_plan(settings.observer, policies, self._probes, settings.defaults, self._receivers())
        self._carry_out(oneself, (own_machine(settings.observer),))
        for name in self._patrol.instances - self._configured.keys() - {OBSERVER}:
            self._patrol.leave(name)
            self._gatherer.drop_scene(name)
        for instance in settings.instances:
            self._plan(instance)
        self._patrol.forget_streaks()

    def learn(self, name: str) -> None:
        """After a round of an instance: plan anew when its member list has news."""
        instance = self._configured.get(name)
        if instance is not None and instance.patroni and self._membership.learn(name):
            self._plan(instance)

    def _plan(self, configured: Instance) -> None:
        instance = self._membership.named(configured)
        members = self._membership.of(instance.name)
        planned = plan(instance, members, self._policies, self._probes, self._settings.defaults)
        # Before the first member is known, nothing can be said to be gone.
        waiting = bool(instance.patroni) and not planned.nodes
        self._carry_out(planned, machines(instance), bind=not waiting)

    def _carry_out(self, planned: InstancePlan, here: Sequence[Reach], *, bind: bool = True) -> None:
        """``here``: the machines of its nodes that are this one."""
        scene = (*planned.reaches, *here)
        self._gatherer.set_scene(planned.name, scene, planned.watches, self._policies)
        self._patrol.follow(planned, self._policies, bind=bind)
