"""Deep questions: what a component says of its database is told beside the verdict, rarely, and never decides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from probed.clock import SystemClock
from probed.config import load
from probed.errors import ConfigError
from probed.model import Outcome
from probed.probes._deep import EVERY
from probed.probes._http import HttpClient
from probed.reaching import context_for
from probed.sampling import take_sample
from tests.hostile import HTTP, OK, Line, listening
from tests.leaks import unstarved
from tests.standin import recorded, standing_in
from tests.unit.components import PATIENT, declared, sampled

DEADLINE = 1.0


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture
def token(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    return {"deep": True, "bearer_token_file": str(path)}


@pytest.mark.parametrize(
    "component, state, told",
    [
        ("realtime", "healthy", ""),
        ("realtime", "database_down", "degraded: tenant realtime-dev: healthy is false, db_connected is false"),
        ("realtime", "wrong_token", "deep: {}/api/tenants/realtime-dev/health: HTTP 403: what the credentials name is refused"),
        ("storage", "healthy", ""),
        ("storage", "database_down", "degraded: /health says that it cannot use its database"),
        ("storage", "no_token", "deep: {}/health: HTTP 400: what bearer_token_file names is refused: Invalid Compact JWS"),
        ("meta", "healthy", ""),
        ("meta", "database_down", "degraded: {}/config/version: HTTP 500: connect ECONNREFUSED 127.0.0.1:56777"),
        ("meta", "database_full", "degraded: {}/config/version: HTTP 500: sorry, too many clients already"),
    ],
)  # fmt: skip
async def test_what_it_says_is_told_and_its_sample_is_observed(
    http: HttpClient, token: dict[str, Any], component: str, state: str, told: str
) -> None:
    async with standing_in(recorded(component)[state]) as peer:
        taken = await sampled(http, declared(component, peer.url, **token))
        assert (taken.outcome, taken.reason) == (Outcome.OBSERVED, told.format(peer.url))
        assert len(peer.requests) == 2
        without = await sampled(http, declared(component, peer.url))
        assert (without.outcome, without.reason, len(peer.requests)) == (Outcome.OBSERVED, "", 3)


@pytest.mark.parametrize(
    "state, told",
    [("healthy", ""), ("database_down", "degraded: {}/ready: HTTP 503: it connects, or loads its schema cache")],
)
async def test_postgrest_is_asked_at_its_admin_server(http: HttpClient, state: str, told: str) -> None:
    async with standing_in(recorded("rest_admin")[state]) as admin:
        cycle = declared("rest", "http://127.0.0.1:1", admin_url=admin.url, deep=True)
        taken = await sampled(http, cycle)
    assert (taken.outcome, taken.reason) == (Outcome.OBSERVED, told.format(admin.url))


async def test_a_tenant_that_is_not_there_is_ours_to_correct(http: HttpClient, token: dict[str, Any]) -> None:
    states = recorded("realtime")
    answers = {**states["healthy"].answers, **states["unknown_tenant"].answers}
    answers["GET /api/tenants/other/health"] = answers["GET /api/tenants/realtime-dev/health"]
    async with standing_in(type(states["healthy"])(True, answers)) as peer:
        taken = await sampled(http, declared("realtime", peer.url, tenant="other", **token))
    assert taken.reason.endswith("/api/tenants/other/health: HTTP 404: there is no tenant other")


async def test_a_database_that_hangs_costs_a_share_of_the_cycle_and_never_the_sample(http: HttpClient) -> None:
    async with standing_in(recorded("meta")["database_frozen"]) as peer:
        cycle = declared("meta", f"{peer.url}/health", deep=True)
        taken = await unstarved(lambda: sampled(http, cycle, DEADLINE))
    assert taken.outcome is Outcome.OBSERVED
    assert taken.reason == "degraded: /config/version: no answer within 0.3 s"
    assert taken.duration < DEADLINE


@pytest.mark.parametrize("name", HTTP)
async def test_a_hostile_answer_to_it_is_a_word_beside_and_no_more(http: HttpClient, name: str) -> None:
    async def healthy_at_first(line: Line) -> None:
        await line.request()
        body = b'{"date":"2026-11-22T07:34:04.307Z"}'
        await line.say(OK + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    seen: list[int] = []

    async def behave(line: Line) -> None:
        seen.append(1)
        await (healthy_at_first if len(seen) % 2 else HTTP[name])(line)

    async with listening(HTTP["accept_and_hang"]) as other, listening(behave, elsewhere=other.url) as peer:
        taken = await unstarved(lambda: sampled(http, declared("meta", peer.url, deep=True), 2.0))
        assert taken.outcome is Outcome.OBSERVED, taken
        assert taken.reason.startswith("degraded: ")
        assert taken.reason.isprintable()
        assert other.accepted == 0


async def test_it_is_asked_once_a_minute_and_its_word_stands_until_then(http: HttpClient) -> None:
    async with standing_in(recorded("meta")["database_down"]) as peer:
        cycle = declared("meta", peer.url, deep=True)
        context = context_for(cycle.reach, PATIENT, http)
        taken = [await take_sample(cycle.probe, context, PATIENT, SystemClock()) for _ in range(3)]
        assert {sample.reason for sample in taken} == {taken[0].reason}
        assert taken[0].reason.startswith("degraded: ")
        assert sum(b"/config/version" in request for request in peer.requests) == 1
        asked, _ = cast(tuple[float, str], context.memory["deep"])
        context.memory["deep"] = (asked - EVERY, "old")
        assert (await take_sample(cycle.probe, context, PATIENT, SystemClock())).reason == taken[0].reason
        assert sum(b"/config/version" in request for request in peer.requests) == 2


@pytest.mark.parametrize(
    "component, told",
    [
        ("auth: {url: 'http://x', deep: true}", "deep: is there for realtime, storage, rest, meta, and not together with expect_*"),
        ("meta: {url: 'http://x', deep: true, expect_status: [200]}", "deep: is there for"),
        ("rest: {url: 'http://x', deep: true}", "deep: needs PostgREST's admin server, whose /ready it asks: admin_url"),
        ("storage: {url: 'http://x', deep: true}", "deep: needs a token, without which storage says nothing: bearer_token_file"),
        ("realtime: {url: 'http://x', tenant: a}", "tenant: is used for realtime with deep: true only"),
    ],
)  # fmt: skip
def test_where_it_cannot_be_asked_is_told_with_its_place(tmp_path: Path, component: str, told: str) -> None:
    file = tmp_path / "probed.yml"
    file.write_text(f"instances:\n- name: a\n  components:\n    {component}\n")
    with pytest.raises(ConfigError) as error:
        load.load_file(file, environ={})
    (problem,) = error.value.problems
    assert f"{problem.path.rpartition('.')[2]}: {problem.message}".startswith(told)
    assert (problem.line, problem.column > 0) == (4, True)
