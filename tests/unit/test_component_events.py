"""Every event of a component opens after three failures against its recorded answers, and resolves after two good ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from probed.model import EventState, Outcome, Severity
from probed.probes._http import HttpClient
from probed.reaching import context_for
from probed.sampling import take_sample
from probed.store import EventQuery
from probed.watching import plan
from tests.hostile import refusing
from tests.standin import State, recorded, standing_in
from tests.unit.serving import Stack, stack

PATIENT = 10.0


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


class Watched:
    """One component on one port, as the daemon watches it."""

    def __init__(self, made: Stack, http: HttpClient, name: str, port: int) -> None:
        self._made, self._http, self._port = made, http, port
        instance = made.settings.instances[0]
        planned = plan(instance, (), made.policies, made.catalogue, made.settings.defaults)
        (self._cycle,) = (cycle for cycle in planned.cycles if cycle.reach.target.component == name)
        self.judged = [policy.id for policy, target in planned.watches if target == self._cycle.reach.target]

    async def cycles(self, state: State, count: int) -> list[tuple[str, EventState]]:
        """So many cycles against the component in ``state``; then (event, state) of everything in the list."""
        async with standing_in(state, port=self._port):
            for _ in range(count):
                self._made.clock.step(5)
                context = context_for(self._cycle.reach, PATIENT, self._http)
                deadline = 0.3 if None in state.answers.values() else PATIENT
                sample = await take_sample(self._cycle.probe, context, deadline, self._made.clock)
                assert sample.outcome is not Outcome.BLIND, sample.reason
                self._made.pipeline.accept("orders", [sample])
        await self._made.settle()
        found = await self._made.store.events(EventQuery())
        return [(event.event, event.state) for event in found]


EVENTS: list[tuple[str, str, dict[str, Any], str, str, str, Severity]] = [
    ("kong", "kong", {}, "config_lost", "api_gateway_unavailable", "config", Severity.FATAL),
    ("kong", "kong", {}, "starting", "api_gateway_unavailable", "refused", Severity.FATAL),
    ("edge", "envoy", {"type": "envoy"}, "config_lost", "api_gateway_unavailable", "config", Severity.FATAL),
    ("auth", "auth", {}, "starting", "auth_unavailable", "refused", Severity.CRITICAL),
    ("rest", "rest", {}, "database_down", "rest_unavailable", "PGRST000", Severity.CRITICAL),
    ("realtime", "realtime", {}, "starting", "realtime_unavailable", "refused", Severity.CRITICAL),
    ("storage", "storage", {}, "another_service", "storage_unavailable", "404", Severity.CRITICAL),
    ("studio", "studio", {}, "broken", "studio_unavailable", "500", Severity.NORMAL),
    ("meta", "meta", {}, "another_service", "component_abnormal", "date", Severity.NORMAL),
    ("functions", "functions", {}, "boot_failure", "component_abnormal", "500", Severity.NORMAL),
]


@pytest.mark.parametrize(
    "name, product, more, broken, event, told, severity",
    [pytest.param(*row, marks=pytest.mark.proves(row[4], recording=row[1]), id=f"{row[0]}-{row[3]}") for row in EVENTS],
)
async def test_three_failures_open_the_event_and_two_answers_resolve_it(
    http: HttpClient, tmp_path: Path, name: str, product: str, more: dict[str, Any], broken: str, event: str, told: str,
    severity: Severity,
) -> None:  # fmt: skip
    states, port = recorded(product), refusing()
    made = await stack(tmp_path, components={name: {"url": f"http://127.0.0.1:{port}", **more}})
    try:
        watched = Watched(made, http, name, port)
        assert watched.judged == [event]
        assert await watched.cycles(states["healthy"], 2) == []
        assert await watched.cycles(states[broken], 2) == []
        assert await watched.cycles(states["healthy"], 1) == []
        assert await watched.cycles(states[broken], 3) == [(event, EventState.OPEN)]
        (opened,) = await made.store.events(EventQuery())
        assert (opened.target.key, opened.severity, opened.suppressed) == (f"orders/{name}", severity, False)
        assert told in opened.message
        assert await watched.cycles(states["healthy"], 1) == [(event, EventState.OPEN)]
        assert await watched.cycles(states["healthy"], 1) == [(event, EventState.RESOLVED)]
    finally:
        await made.store.close()


async def test_every_component_has_an_event_of_its_own(http: HttpClient, tmp_path: Path) -> None:
    states, ports = recorded("meta"), {"meta": refusing(), "other": refusing()}
    components = {name: {"url": f"http://127.0.0.1:{port}/health"} for name, port in ports.items()}
    made = await stack(tmp_path, components=components)
    try:
        for name, port in ports.items():
            await Watched(made, http, name, port).cycles(states["starting"], 3)
        assert {event.target.key for event in await made.store.events(EventQuery())} == {"orders/meta", "orders/other"}
    finally:
        await made.store.close()


async def test_a_database_that_is_down_explains_the_services_that_live_off_it_and_no_other(
    http: HttpClient, tmp_path: Path
) -> None:
    ports = {"rest": refusing(), "auth": refusing(), "studio": refusing()}
    components = {name: {"url": f"http://127.0.0.1:{port}"} for name, port in ports.items()}
    made = await stack(tmp_path, components=components)
    try:
        made.sample("leader", has_leader=1.0, leader="node-a")
        await made.outage("node-a")
        for name, port in ports.items():
            # The auth service migrates when it starts: without a database it ends, and never listens.
            state = recorded(name)["database_down" if name == "rest" else "starting" if name == "auth" else "broken"]
            await Watched(made, http, name, port).cycles(state, 3)
        found = {event.event: event for event in await made.store.events(EventQuery())}
        for service in ("rest_unavailable", "auth_unavailable"):
            assert found[service].caused_by == found["database_unavailable"].id
            assert found[service].suppressed
        assert found["studio_unavailable"].caused_by is None
    finally:
        await made.store.close()
