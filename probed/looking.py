"""One look at an instance beside its rounds: wanted probes once, on connections of its own, kept by nobody.

No server is ever asked over more than one such connection at a time: what shares a server takes turns, the login that
``postgres_liveness`` makes comes first and is kept, and write ports, which lead to a server that has its own turn, come
after the servers. Everything else is asked at once, each probe under its own deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set

from msgspec import Struct, field

from probed.clock import Clock
from probed.evidence import Collector
from probed.evidence._taking import Taken, take
from probed.model import Sample, Target
from probed.probes import Combined, View
from probed.probes._http import HttpClient
from probed.probes._sql import Session
from probed.reaching import Reach, context_for
from probed.sampling import combine, take_sample
from probed.steps import Step, kept
from probed.watching import Cycle, InstancePlan

Wanted = Callable[[str, Target], bool]
"""(probe, target) -> whether it is to be sampled for the asker."""
Place = tuple[str, str]
"""(probe or collector, target's key)"""

COLLECTOR_SECONDS = 3.0
"""Deadline of one collector on one target."""
FIRST = "postgres_liveness"
"""Its login becomes the connection that the others use; after them it would be a second one."""


def everything(probe: str, target: Target) -> bool:
    return True


class Look(Struct):
    """What one look found."""

    samples: list[Sample] = field(default_factory=list)
    """What was asked for."""
    inputs: list[Sample] = field(default_factory=list)
    """What only fed combined probes."""
    steps: dict[Place, Sequence[Step]] = field(default_factory=dict)
    """What each cycle did, and how long each step took."""
    snapshots: dict[Place, Taken] = field(default_factory=dict)


class Eye(Struct, frozen=True):
    """By what is looked."""

    http: HttpClient
    clock: Clock
    stalled: Callable[[float], float] = lambda _: 0.0
    """The longest stall of this process since a monotonic time: not the target's fault."""
    before: Callable[[str, Target], Sample | None] = lambda *_: None
    """The newest sample of a combined probe, which is its only memory."""
    again: frozenset[str] = frozenset()
    """Probes that tell more on a connection that is there already: their second sample counts."""


@contextlib.asynccontextmanager
async def opened(
    clock: Clock,
    stalled: Callable[[float], float],
    before: Callable[[str, Target], Sample | None],
    again: frozenset[str] = frozenset(),
) -> AsyncIterator[Eye]:
    """An eye with an HTTP client of its own."""
    http = HttpClient(by_hand=True)
    try:
        yield Eye(http, clock, stalled, before, again)
    finally:
        await http.close()


async def look(planned: InstancePlan, wanted: Wanted, eye: Eye, collectors: Sequence[Collector] = ()) -> Look:
    """Reach every wanted target of a plan once, and have ``collectors`` look at every target of their kinds.

    Never raises for a target's sake; each of the others waits for a hung one no longer than its deadlines.
    """
    found = Look()
    combined = [cycle for cycle in planned.combined if wanted(cycle.probe.name, cycle.target)]
    fed = {name for cycle in combined for name in cycle.probe.inputs}
    cycles = [
        cycle for cycle in planned.cycles if cycle.probe.name in fed or wanted(cycle.probe.name, cycle.reach.target)
    ]
    taken: list[Sample] = []
    for behind in (False, True):
        by_door: dict[str, list[Cycle]] = {}
        for cycle in cycles:
            if (cycle.reach.target.kind == "frontend") is behind:
                by_door.setdefault(_door(cycle.reach), []).append(cycle)
        asked = [_at(own, eye, collectors, found) for own in by_door.values()]
        if not behind and collectors:
            asked += [_beside(planned, by_door.keys(), eye, collectors, found)]
        taken += [sample for samples in await asyncio.gather(*asked) for sample in samples]
    for sample in taken:
        (found.samples if wanted(sample.probe, sample.target) else found.inputs).append(sample)
    newest = {(sample.probe, sample.target.node): sample for sample in taken if not sample.target.member}
    several: dict[str, tuple[Sample, ...]] = {}
    for sample in taken:
        if sample.target.member:
            several[sample.probe] = (*several.get(sample.probe, ()), sample)
    # A combined probe may be the input of none, so one pass is enough.
    for wanted_cycle in combined:
        found.samples.append(_combine(wanted_cycle.probe, wanted_cycle.target, planned.nodes, newest, several, eye))
    return found


def _door(reach: Reach) -> str:
    """What takes one connection at a time: a database server, else the target itself."""
    if reach.login is None or reach.target.kind == "frontend":
        return reach.target.key
    return reach.login.address


async def _at(cycles: Sequence[Cycle], eye: Eye, collectors: Sequence[Collector], found: Look) -> list[Sample]:
    """The probes and collectors of one door, one after the other, so that none waits within its own deadline."""
    sessions: dict[str, list[Cycle]] = {}
    for cycle in sorted(cycles, key=lambda cycle: cycle.probe.name != FIRST):
        sessions.setdefault(cycle.session, []).append(cycle)
    samples = []
    for own in sessions.values():
        first = own[0].reach
        session = Session(first.login, max(cycle.timeout for cycle in own)) if first.login else None
        try:
            for cycle in own:
                context = context_for(cycle.reach, cycle.timeout, eye.http, session)
                with kept() as steps:
                    sample = await take_sample(cycle.probe, context, cycle.timeout, eye.clock, eye.stalled)
                    if cycle.probe.name in eye.again and session is not None and session.warm:
                        sample = await take_sample(cycle.probe, context, cycle.timeout, eye.clock, eye.stalled)
                samples.append(sample)
                found.steps[cycle.probe.name, cycle.reach.target.key] = steps.taken
            if own[0].session == first.session_key:
                for reach in {cycle.reach.target.key: cycle.reach for cycle in own}.values():
                    await _collect(reach, eye, collectors, session, found)
        finally:
            if session is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await session.close()
                session.drop()
    return samples


async def _beside(
    planned: InstancePlan, doors: Set[str], eye: Eye, collectors: Sequence[Collector], found: Look
) -> list[Sample]:
    """Collectors on targets without a login that nobody samples in this look."""
    reaches = {
        reach.target.key: reach for reach in planned.reaches if reach.login is None and _door(reach) not in doors
    }
    await asyncio.gather(*(_collect(reach, eye, collectors, None, found) for reach in reaches.values()))
    return []


async def _collect(
    reach: Reach, eye: Eye, collectors: Sequence[Collector], session: Session | None, found: Look
) -> None:
    for collector in collectors:
        if reach.target.kind not in collector.kinds:
            continue
        if session is not None and not session.warm:
            text = "not asked: the server lets nobody in"
            found.snapshots[collector.name, reach.target.key] = Taken(eye.clock.wall(), error=text)
            continue
        if session is not None:
            session.outlives_cancels = True
        context = context_for(reach, COLLECTOR_SECONDS, eye.http, session)
        taken = await take(collector, context, COLLECTOR_SECONDS, eye.clock.wall())
        found.snapshots[collector.name, reach.target.key] = taken


def _combine(
    probe: Combined,
    target: Target,
    nodes: tuple[str, ...],
    newest: Mapping[tuple[str, str], Sample],
    several: Mapping[str, tuple[Sample, ...]],
    eye: Eye,
) -> Sample:
    samples = {key: sample for key, sample in newest.items() if key[0] in probe.inputs}
    own = samples.get((probe.inputs[0], target.node)) or next(iter(samples.values()), None)
    own = own or next(iter(several.get(probe.inputs[0], ())), None)
    at, mono = (own.at, own.mono) if own else (eye.clock.wall(), eye.clock.mono())
    return combine(probe, View(target, nodes, samples, at, mono, eye.before(probe.name, target), several=several))
