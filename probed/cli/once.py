"""One round without a daemon: reach targets once, in this process, and keep nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from probed import discovery
from probed.cli.check import load_policies
from probed.clock import SystemClock
from probed.config.load import UNNAMED
from probed.config.settings import Instance, Settings
from probed.model import Policy, Sample, Target
from probed.policy.site import Site
from probed.probes import AnyProbe, Combined, View, catalogue
from probed.probes._http import HttpClient
from probed.probes._sql import Session
from probed.reaching import context_for, patroni_access
from probed.sampling import combine, take_sample
from probed.steps import Step, kept
from probed.watching import Cycle, InstancePlan, plan

Wanted = Callable[[str, Target], bool]
"""(probe, target) -> whether it is to be sampled for the asker."""


@dataclass(slots=True)
class Round:
    """What one round found."""

    policies: Mapping[str, Policy]
    catalogue: Mapping[str, AnyProbe]
    samples: list[Sample] = field(default_factory=list)
    """What was asked for."""
    inputs: list[Sample] = field(default_factory=list)
    """What only fed combined probes."""
    steps: dict[tuple[str, str], Sequence[Step]] = field(default_factory=dict)
    """(probe, target's key) -> what its cycle did, and how long each step took."""
    known: list[tuple[str, Target]] = field(default_factory=list)
    """Every (probe, target) that these settings yield."""


def everything(probe: str, target: Target) -> bool:
    return True


async def sample_once(settings: Settings, wanted: Wanted = everything) -> Round:
    """Reach every wanted target once. ConfigError for bad policies; never raises for a target's sake."""
    probes = catalogue()
    found = Round(load_policies(settings.policies.directory, settings.defaults, site=Site.of(settings)), probes)
    http = HttpClient(by_hand=True)
    try:
        plans = [await _planned(instance, settings, found, http) for instance in settings.instances]
        for planned in plans:
            await _sample_instance(planned, wanted, found, http)
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


async def _sample_instance(planned: InstancePlan, wanted: Wanted, found: Round, http: HttpClient) -> None:
    combined = [cycle for cycle in planned.combined if wanted(cycle.probe.name, cycle.target)]
    fed = {name for cycle in combined for name in cycle.probe.inputs}
    found.known += [(cycle.probe.name, cycle.reach.target) for cycle in planned.cycles]
    found.known += [(cycle.probe.name, cycle.target) for cycle in planned.combined]
    cycles = [
        cycle for cycle in planned.cycles if cycle.probe.name in fed or wanted(cycle.probe.name, cycle.reach.target)
    ]
    by_target: dict[str, list[Cycle]] = {}
    for cycle in cycles:
        by_target.setdefault(cycle.session, []).append(cycle)
    rounds = await asyncio.gather(*(_sample_target(own, http, found) for own in by_target.values()))
    for sample in (sample for samples in rounds for sample in samples):
        (found.samples if wanted(sample.probe, sample.target) else found.inputs).append(sample)
    taken = [sample for samples in rounds for sample in samples]
    newest = {(sample.probe, sample.target.node): sample for sample in taken if not sample.target.member}
    several: dict[str, tuple[Sample, ...]] = {}
    for sample in taken:
        if sample.target.member:
            several[sample.probe] = (*several.get(sample.probe, ()), sample)
    # A combined probe may be the input of none, so one pass is enough.
    for wanted_cycle in combined:
        found.samples.append(_combine(wanted_cycle.probe, wanted_cycle.target, planned.nodes, newest, several))


async def _sample_target(cycles: Sequence[Cycle], http: HttpClient, found: Round) -> list[Sample]:
    """The probes of one target, one after the other, so that none waits for another within its own deadline."""
    first = cycles[0].reach
    session = Session(first.login, max(cycle.timeout for cycle in cycles)) if first.login else None
    try:
        samples = []
        for cycle in cycles:
            context = context_for(cycle.reach, cycle.timeout, http, session)
            with kept() as steps:
                samples.append(await take_sample(cycle.probe, context, cycle.timeout, SystemClock()))
            found.steps[cycle.probe.name, cycle.reach.target.key] = steps.taken
        return samples
    finally:
        if session is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await session.close()
            session.drop()


def _combine(
    probe: Combined,
    target: Target,
    nodes: tuple[str, ...],
    newest: Mapping[tuple[str, str], Sample],
    several: Mapping[str, tuple[Sample, ...]],
) -> Sample:
    samples = {key: sample for key, sample in newest.items() if key[0] in probe.inputs}
    clock = SystemClock()
    own = samples.get((probe.inputs[0], target.node)) or next(iter(samples.values()), None)
    own = own or next(iter(several.get(probe.inputs[0], ())), None)
    at, mono = (own.at, own.mono) if own else (clock.wall(), clock.mono())
    return combine(probe, View(target, nodes, samples, at, mono, several=several))
