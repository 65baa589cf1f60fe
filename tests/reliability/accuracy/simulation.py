"""One seed: the product's rounds and pipeline on the scripted stack, faults as they come, and all that is recorded."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from msgspec.structs import replace

from probed.board import Board
from probed.config import settings
from probed.model import Policy
from probed.pipeline import Pipeline
from probed.policy.load import load
from probed.probes import AnyProbe, Context, Probe, catalogue
from probed.rounds import Pulse, Rounds
from probed.store import Change, Commit
from probed.watching import Cycle, InstancePlan, plan
from tests.reliability.accuracy.contract import RULES
from tests.reliability.accuracy.faults import FAILOVER, KINDS, Fault, schedule, switch
from tests.reliability.accuracy.stack import NODES, Session, Stack, described
from tests.reliability.accuracy.virtual import VirtualClock, VirtualLoop

INSTANCE = "orders"
GRACE = 60.0
WARM_UP, COOL_DOWN = 60.0, 400.0
APART = 60.0
"""Seconds between two faults that claim the same; 60 s policies and leaders want more."""


@dataclass(frozen=True, slots=True)
class Record:
    """A change as it became durable."""

    at: float
    change: Change


@dataclass(slots=True)
class Run:
    """What a seed came to."""

    seed: int
    faults: Sequence[Fault]
    policies: Mapping[str, Policy]
    records: list[Record] = field(default_factory=list)
    switchovers: list[tuple[float, str, str]] = field(default_factory=list)
    """(when, from, to), as they really were."""
    ended: float = 0.0


class _Ledger:
    """A store in memory: what is appended is durable at once."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def append(self, commit: Commit) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        self._run.records += [Record(loop.time(), change) for change in commit.changes]
        done: asyncio.Future[None] = loop.create_future()
        done.set_result(None)
        return done


def policies() -> Mapping[str, Policy]:
    """The shipped ones, all switched on, bound to the defaults of the contract."""
    readings = {name: frozenset(probe.readings) for name, probe in catalogue().items()}
    shipped = load(None, readings, settings.Defaults())
    return {name: replace(policy, enabled=True) for name, policy in shipped.items()}


def simulate(seed: int, faults: int) -> Run:
    """Run a seed from its first fault to long after its last. No other event loop may run in this thread."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        try:
            return runner.run(_simulate(seed, faults))
        finally:
            structlog.reset_defaults()


async def _simulate(seed: int, count: int) -> Run:
    shipped = policies()
    run = Run(seed, schedule(seed, count, [kind for kind in KINDS.values() if kind.policy in ("", *shipped)]), shipped)
    stack, clock = Stack(), VirtualClock()
    probes = _probes(stack)
    instance = settings.Instance.model_validate(described())
    planned = plan(instance, (), run.policies, probes, settings.Defaults())
    board = Board()
    pipeline = Pipeline(_Ledger(run), board, clock, observer="accuracy", switchover_grace=GRACE)
    for cycle in planned.cycles:
        board.expect(cycle.probe.name, cycle.reach.target, cycle.interval)
    for combined in planned.combined:
        board.expect(combined.probe.name, combined.target, combined.interval)
    pipeline.bind(INSTANCE, {}, planned.nodes, planned.watches, all_policies=run.policies)
    grids = _grids(planned, pipeline, stack, clock)
    await _Driver(run, stack).drive()
    run.ended = clock.mono()
    assert not any(grid.done() for grid in grids), "the rounds have ended by themselves"
    for grid in grids:
        grid.cancel()
    await asyncio.gather(*grids, return_exceptions=True)
    return run


def _probes(stack: Stack) -> Mapping[str, AnyProbe]:
    """The product's probes; three that reach for the kernel are the stack's."""
    known = dict(catalogue())
    for name, ask in (("disk_usage", stack.disk_usage), ("haproxy_stats", stack.haproxy_stats), ("oom", stack.oom)):
        probe = known[name]
        assert isinstance(probe, Probe)
        known[name] = replace(probe, run=ask)
    return known


def _grids(
    planned: InstancePlan, pipeline: Pipeline, stack: Stack, clock: VirtualClock
) -> Sequence[asyncio.Task[None]]:
    contexts: dict[tuple[str, str], Context] = {}
    sessions: dict[str, Session] = {}
    http = stack.http()

    def context_of(cycle: Cycle) -> Context:
        reach, target = cycle.reach, cycle.reach.target
        key = (cycle.probe.name, target.key)
        if key not in contexts:
            session: Any = None
            if reach.login is not None:  # probes of one node share it
                session = sessions.setdefault(target.key, Session(stack, target.node))
            doors: Any = http
            contexts[key] = Context(target, cycle.timeout, reach.urls, reach.path, doors, session, expect=reach.expect)
        return contexts[key]

    grids = [Rounds(planned, interval, pipeline, context_of, clock, Pulse()) for interval in planned.intervals]
    return [asyncio.create_task(rounds.run()) for rounds in grids]


class _Driver:
    """Begins faults and ends them, as the schedule and what they claim allow."""

    def __init__(self, run: Run, stack: Stack) -> None:
        self._run, self._stack = run, stack
        self._dice = random.Random(f"when {run.seed}")
        self._gap = self._dice.choice((10.0, 25.0, 50.0))
        """Mean seconds between two beginnings: some seeds are crowded, some are not."""
        self._claimed: dict[str, float] = {}
        """Claim -> until when nobody else may have it."""

    async def drive(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(WARM_UP)
        waiting = list(self._run.faults)
        async with asyncio.TaskGroup() as going:
            while waiting:
                await asyncio.sleep(self._dice.expovariate(1 / self._gap))
                fault = next((fault for fault in waiting if self._may_begin(fault)), None)
                if fault is None:
                    continue
                waiting.remove(fault)
                fault.start = loop.time()
                fault.end = fault.start + fault.length
                self._claim(fault)
                task = going.create_task(self._live(fault))
                del task  # the group owns it
        await asyncio.sleep(COOL_DOWN)

    def _claims(self, fault: Fault) -> list[str]:
        return [claim.replace("*", fault.node) for claim in fault.kind.claims]

    def _may_begin(self, fault: Fault) -> bool:
        now = asyncio.get_running_loop().time()
        if fault.kind.on == "replica" and fault.node == self._stack.leader:
            fault.node = fault.dice.choice([node for node in NODES if node != self._stack.leader])
        claims = self._claims(fault)
        if "calm" in claims and (
            self._stack.database or self._stack.patroni or self._stack.full or self._troubled(fault.node)
        ):
            return False
        return all(self._claimed.get(claim, 0.0) <= now for claim in claims)

    def _claim(self, fault: Fault) -> None:
        rule = RULES.get(fault.kind.policy, RULES["database_unavailable"])
        apart = max(APART, rule.resolves_within + rule.interval) + (120.0 if "leadership" in fault.kind.claims else 0.0)
        for claim in self._claims(fault):
            self._claimed[claim] = fault.end + apart

    def _troubled(self, node: str) -> bool:
        """Whether anything is wrong on a node that is to lead."""
        stack = self._stack
        tables = (stack.database, stack.patroni, stack.receiver, stack.frozen, stack.full)
        return any(node in table for table in tables)

    async def _live(self, fault: Fault) -> None:
        stack = self._stack
        fault.leader = stack.leader
        fault.own = (fault.kind.place(fault.node),) if fault.kind.policy else ()
        fault.consequences = frozenset(fault.kind.brings(fault)) - set(fault.own)
        fault.kind.begin(stack, fault)
        if fault.kind.name == "switchover":
            await asyncio.sleep(fault.dice.uniform(0.0, 4.0))
            self._switch(fault.node)
            fault.end = stack.now
            return
        if fault.kind.name == "machine" and fault.on_leader and fault.length > FAILOVER:
            await asyncio.sleep(FAILOVER)
            heirs = [node for node in NODES if node != fault.node and not self._troubled(node)]
            if heirs:
                self._switch(fault.dice.choice(heirs))
            await asyncio.sleep(fault.length - FAILOVER)
        else:
            await asyncio.sleep(fault.length)
        fault.kind.finish(stack, fault)

    def _switch(self, node: str) -> None:
        self._run.switchovers.append((self._stack.now, self._stack.leader, node))
        switch(self._stack, node)
