"""The order of things within a round: a node's probes take turns on one connection, and the ping has the first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from msgspec.structs import replace

from probed import cadence
from probed.config.settings import Defaults, Instance
from probed.model import Sample
from probed.pipeline import Pipeline
from probed.probes import Context, Readings, catalogue
from probed.probes._http import HttpClient
from probed.reaching import context_for
from probed.rounds import Pulse, Rounds
from probed.testing import FakeClock, settle
from probed.watching import Cycle, InstancePlan, plan
from tests.unit.bench import SHIPPED

NODES = 3
SETTINGS: dict[str, Any] = {
    "name": "orders",
    "nodes": [{"name": f"node{number}", "postgres": {"host": f"10.0.0.{number}"}} for number in range(NODES)],
}


class Judge:
    """What a round hands its samples to."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def kept(self, *_: object) -> dict[str, object]:
        return {}

    def accept(self, instance: str, samples: Sequence[Sample], combined: object) -> None:
        self.samples += samples


def recorded(found: InstancePlan, order: list[tuple[str, str]]) -> InstancePlan:
    """The same plan with probes that only note when it is their turn."""

    def noting(cycle: Cycle) -> Cycle:
        async def run(context: Context) -> Readings:
            order.append((context.target.node, cycle.probe.name))
            return {}

        return replace(cycle, probe=replace(cycle.probe, run=run))

    return replace(found, cycles=tuple(noting(cycle) for cycle in found.cycles))


async def test_the_ping_is_the_first_on_its_connection_in_every_round() -> None:
    order: list[tuple[str, str]] = []
    instance, clock, judge, http = Instance.model_validate(SETTINGS), FakeClock(), Judge(), HttpClient()
    found = recorded(plan(instance, (), SHIPPED, catalogue(), Defaults()), order)
    try:
        rounds = Rounds(
            found, 5.0, cast(Pipeline, judge), lambda cycle: context_for(cycle.reach, 2.0, http), clock, Pulse()
        )
        for number in range(5):
            running = asyncio.create_task(rounds.round(clock.mono() + 0.1, number))
            await settle()
            # Timers that are due at the same moment go off in no particular order.
            clock._sleepers.reverse()
            await clock.move(5.0)
            await running
    finally:
        await http.close()
    for node in (f"node{number}" for number in range(NODES)):
        turns = [probe for name, probe in order if name == node]
        assert turns == ["postgres_liveness", "postgres_stats"] * 5
    assert len(judge.samples) == len(order)


async def test_the_nodes_start_first_the_probes_of_one_in_one_slot_and_the_components_after_them() -> None:
    components = {f"c{number}": {"url": f"http://10.0.1.{number}"} for number in range(40)}
    instance, clock, http = Instance.model_validate(SETTINGS | {"components": components}), FakeClock(), HttpClient()
    started: dict[str, set[float]] = {}

    def noting(cycle: Cycle) -> Cycle:
        async def run(context: Context) -> Readings:
            started.setdefault(context.target.node or context.target.key, set()).add(clock.mono())
            return {}

        return replace(cycle, probe=replace(cycle.probe, run=run))

    found = plan(instance, (), SHIPPED, catalogue(), Defaults())
    found = replace(found, cycles=tuple(noting(cycle) for cycle in found.cycles))
    judge = cast(Pipeline, Judge())
    rounds = Rounds(found, 5.0, judge, lambda cycle: context_for(cycle.reach, 2.0, http), clock, Pulse())
    due = clock.mono() + 0.1
    running = asyncio.create_task(rounds.round(due, 0))
    for _ in range(100):
        await clock.move(0.005)
    await running
    await http.close()
    assert all(len(times) == 1 for times in started.values())
    at = {place: round(min(times) - due, 6) for place, times in started.items()}
    nodes = {f"node{number}" for number in range(NODES)}
    assert {at[node] for node in nodes} == {0.0}
    starts = [sum(begun == slot for place, begun in at.items() if place not in nodes) for slot in (0.005, 0.01, 0.015)]
    assert starts == [cadence.BUNDLE, 40 - cadence.BUNDLE, 0]
