"""Every component in every recorded state comes to the right outcome; no hostile peer gets more than its own sample."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from probed.config import components
from probed.model import Outcome
from probed.probes import component as component_probe
from probed.probes._http import HttpClient
from tests.hostile import HTTP, OK, Line, answering, elsewhere, listening, refusing
from tests.leaks import nothing_for_the_collector
from tests.standin import recorded, standing_in
from tests.unit.components import declared, sampled

DEADLINE = 0.3
"""Of cycles that are to run into it."""

OBSERVED = "observed"


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


# component, recorded state -> "observed", or the kind of failure
VERDICTS = [
    ("auth", "healthy", OBSERVED),
    ("auth", "starting", "refused"),
    ("auth", "frozen", "timeout"),
    ("auth", "request_timeout", "status"),
    ("auth", "another_service", "body"),
    ("rest", "healthy", OBSERVED),
    ("rest", "healthy_without_openapi", OBSERVED),
    ("rest", "healthy_without_anonymous_role", OBSERVED),
    ("rest", "database_down", "state"),
    ("rest", "database_internal_client_error", "state"),
    ("rest", "starting", "state"),
    ("rest", "database_frozen", "timeout"),
    ("rest", "full", "state"),
    ("rest", "recovered_between_two_requests", OBSERVED),
    ("realtime", "healthy", OBSERVED),
    ("realtime", "database_down", OBSERVED),
    ("realtime", "wrong_token", OBSERVED),
    ("realtime", "unknown_tenant", "status"),
    ("realtime", "frozen", "timeout"),
    ("realtime", "starting", "refused"),
    ("storage", "healthy", OBSERVED),
    ("storage", "database_down", OBSERVED),
    ("storage", "no_token", OBSERVED),
    ("storage", "another_service", "status"),
    ("storage", "frozen", "timeout"),
    ("storage", "starting", "refused"),
    ("studio", "healthy", OBSERVED),
    ("studio", "healthy_older", OBSERVED),
    ("studio", "behind_the_gateway", OBSERVED),
    ("studio", "moved", "redirect"),
    ("studio", "broken", "status"),
    ("studio", "frozen", "timeout"),
    ("studio", "starting", "refused"),
    ("kong", "healthy", OBSERVED),
    ("kong", "healthy_without_status_ready", OBSERVED),
    ("kong", "healthy_without_headers", OBSERVED),
    ("kong", "consumer_refused", OBSERVED),
    ("kong", "route_is_open", OBSERVED),
    ("kong", "upstream_says_404", OBSERVED),
    ("kong", "config_lost", "config_lost"),
    ("kong", "upstream_refused", OBSERVED),
    ("kong", "upstream_hangs", OBSERVED),
    ("kong", "upstream_has_no_name", OBSERVED),
    ("kong", "unexpected_error", "status"),
    ("kong", "draining", OBSERVED),
    ("kong", "status_hangs", OBSERVED),
    ("kong", "frozen", "timeout"),
    ("kong", "starting", "refused"),
    ("envoy", "healthy", OBSERVED),
    ("envoy", "config_lost", "config_lost"),
    ("envoy", "upstream_says_404", OBSERVED),
    ("envoy", "upstream_refused", OBSERVED),
    ("envoy", "overloaded", "status"),
    ("envoy", "draining", OBSERVED),
    ("envoy", "starting", "status"),
    ("meta", "healthy", OBSERVED),
    ("meta", "database_down", OBSERVED),
    ("meta", "database_frozen", OBSERVED),
    ("meta", "database_full", OBSERVED),
    ("meta", "another_service", "body"),
    ("meta", "another_version", "status"),
    ("meta", "frozen", "timeout"),
    ("meta", "starting", "refused"),
    ("functions", "healthy", OBSERVED),
    ("functions", "healthy_verifying_tokens", OBSERVED),
    ("functions", "healthy_example_main", "status"),
    ("functions", "boot_failure", "status"),
    ("functions", "frozen", "timeout"),
    ("functions", "starting", "refused"),
]


def as_declared(component: str) -> tuple[str, dict[str, Any]]:
    return ("kong", {"type": "envoy"}) if component == "envoy" else (component, {})


@pytest.mark.parametrize("component, state, verdict", VERDICTS, ids=str)
async def test_a_recorded_state_comes_to_its_verdict(
    http: HttpClient, component: str, state: str, verdict: str
) -> None:
    name, more = as_declared(component)
    async with standing_in(recorded(component)[state]) as peer:
        cycle = declared(name, peer.url, **more)
        sample = await sampled(http, cycle, DEADLINE if verdict == "timeout" else 10.0)
    expected = Outcome.OBSERVED if verdict == OBSERVED else Outcome.FAILED
    assert (sample.outcome, sample.kind or OBSERVED) == (expected, verdict), sample.reason
    assert set(sample.readings) <= set(cycle.probe.readings)


def test_every_recorded_state_has_its_verdict() -> None:
    for component in ("auth", "rest", "realtime", "storage", "studio", "kong", "envoy", "meta", "functions"):
        assert {state for name, state, _ in VERDICTS if name == component} == set(recorded(component)), component


async def test_a_shallow_probe_asks_for_nothing_but_its_own_path(http: HttpClient) -> None:
    for component, asked in (
        ("auth", b"GET /health "), ("rest", b"HEAD / "), ("realtime", b"GET /healthcheck "),
        ("storage", b"GET /status "), ("studio", b"GET /api/platform/profile "), ("kong", b"GET /auth/v1/health "),
        ("meta", b"GET /health "), ("functions", b"GET / "),
    ):  # fmt: skip
        async with standing_in(recorded(component)["healthy"]) as peer:
            assert (await sampled(http, declared(component, peer.url))).outcome is Outcome.OBSERVED
            (request,) = peer.requests
            assert request.startswith(asked)
            assert b"authorization" not in request.lower()
            assert b"apikey" not in request.lower()


async def test_the_version_is_read_where_it_is_told(http: HttpClient) -> None:
    async with standing_in(recorded("auth")["healthy"]) as peer:
        assert (await sampled(http, declared("auth", peer.url))).readings == {
            "http_status": 200.0,
            "version": "v2.186.0",
        }


@pytest.mark.parametrize(
    "state, told",
    [("database_down", "PGRST000"), ("starting", "PGRST002"), ("full", "PGRST003")],
)
async def test_the_code_of_postgrest_is_in_the_reason(http: HttpClient, state: str, told: str) -> None:
    async with standing_in(recorded("rest")[state]) as peer:
        assert told in (await sampled(http, declared("rest", peer.url))).reason


@pytest.mark.parametrize(
    "state, verdict",
    [
        ("healthy", OBSERVED), ("database_down", OBSERVED), ("main_port_dead", "status"), ("frozen", "timeout"),
        ("another_service", "status"), ("database_failed_at_start", "refused"),
    ],
)  # fmt: skip
async def test_the_admin_server_of_postgrest_decides_where_it_is_declared(
    http: HttpClient, state: str, verdict: str
) -> None:
    async with standing_in(recorded("rest_admin")[state]) as admin, listening(HTTP["accept_and_hang"]) as main:
        cycle = declared("rest", main.url, admin_url=admin.url)
        sample = await sampled(http, cycle, DEADLINE if verdict == "timeout" else 10.0)
        assert (sample.kind or OBSERVED) == verdict, sample.reason
        assert main.accepted == 0


@pytest.mark.parametrize(
    "component, state, told",
    [
        ("kong", "healthy", ""),
        ("kong", "draining", "admin: draining"),
        ("kong", "healthy_without_status_ready", "admin: HTTP 404"),
        ("kong", "status_hangs", "admin: no answer"),
        ("envoy", "healthy", ""),
        ("envoy", "draining", "admin: DRAINING"),
    ],
)
async def test_the_admin_door_of_a_gateway_only_annotates(
    http: HttpClient, component: str, state: str, told: str
) -> None:
    name, more = as_declared(component)
    async with standing_in(recorded(component)[state]) as peer:
        sample = await sampled(http, declared(name, peer.url, admin_url=peer.url, **more), 2.0)
        assert (sample.outcome, sample.reason) == (Outcome.OBSERVED, told)
        refused = f"http://127.0.0.1:{refusing()}"
        sample = await sampled(http, declared(name, peer.url, admin_url=refused, **more), 2.0)
        assert sample.outcome is Outcome.OBSERVED
        assert "admin: " in sample.reason
        assert "refused" in sample.reason
        sample = await sampled(http, declared(name, refused, admin_url=peer.url, **more), 2.0)
        assert (sample.outcome, sample.kind) == (Outcome.FAILED, "refused")


@pytest.mark.parametrize(
    "state, verdict",
    [
        ("healthy", OBSERVED), ("upstream_refused", OBSERVED), ("upstream_has_no_name", OBSERVED),
        ("route_is_open", OBSERVED), ("config_lost", "config_lost"), ("unexpected_error", "status"),
    ],
)  # fmt: skip
async def test_a_generic_gateway_is_judged_without_its_headers(http: HttpClient, state: str, verdict: str) -> None:
    async with standing_in(recorded("kong")[state]) as peer:
        sample = await sampled(http, declared("edge", peer.url, type="generic"))
        assert (sample.kind or OBSERVED) == verdict, sample.reason


@pytest.mark.parametrize("status", [b"502 Bad Gateway", b"503 Service Unavailable", b"504 Gateway Timeout"])
async def test_a_5xx_without_the_gateways_headers_is_the_gateways_fault(http: HttpClient, status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\nServer: awselb/2.0\r\n"
    async with listening(answering(b"{}", head)) as peer:
        sample = await sampled(http, declared("kong", peer.url))
        assert (sample.outcome, sample.kind) == (Outcome.FAILED, "status")


async def test_another_server_on_the_gateways_port_is_no_gateway(http: HttpClient) -> None:
    for head, body in ((OK, b'{"hello": "world"}'), (b"HTTP/1.1 404 Not Found\r\n", b"<html>not found</html>")):
        async with listening(answering(body, head)) as peer:
            assert (await sampled(http, declared("kong", peer.url))).outcome is Outcome.FAILED


@pytest.mark.parametrize("name", ["imgproxy", "logflare", "vector", "supavisor"])
async def test_the_presets_know_path_and_status(http: HttpClient, name: str) -> None:
    states = recorded("small")
    async with standing_in(states[name]) as peer:
        for declared_as in ({}, {"type": name}):
            sample = await sampled(http, declared(name if not declared_as else "mine", peer.url, **declared_as))
            assert sample.outcome is Outcome.OBSERVED, sample.reason
    async with standing_in(states["supavisor_database_down"]) as peer:
        assert (await sampled(http, declared("supavisor", peer.url))).kind == "status"


def test_the_presets_of_the_probe_are_those_of_the_settings() -> None:
    assert tuple(component_probe.PRESETS) == components.PRESETS


async def test_an_address_with_a_path_is_asked_as_it_stands(http: HttpClient) -> None:
    async with standing_in(recorded("meta")["database_down"]) as peer:
        sample = await sampled(http, declared("meta", f"{peer.url}/config/version"))
        assert (sample.outcome, sample.kind) == (Outcome.FAILED, "status")
        assert (await sampled(http, declared("meta", f"{peer.url}/health"))).outcome is Outcome.OBSERVED


@pytest.mark.parametrize(
    "state, outcome", [("healthy", Outcome.OBSERVED), ("database_down", Outcome.FAILED)]
)  # fmt: skip
async def test_a_body_is_asserted_where_http_200_hides_trouble(http: HttpClient, state: str, outcome: Outcome) -> None:
    async with standing_in(recorded("storage")[state]) as peer:
        cycle = declared("storage", f"{peer.url}/health", expect_json={"healthy": True})
        assert (await sampled(http, cycle)).outcome is outcome
    async with standing_in(recorded("realtime")[state]) as peer:
        url = f"{peer.url}/api/tenants/realtime-dev/health"
        sample = await sampled(http, declared("realtime", url, expect_json={"data": {"healthy": True}}))
        assert sample.outcome is outcome
        assert sample.reason == "" or "data.healthy is false, expected true" in sample.reason


BODY = b'{"a": {"b": [1, 2], "c": null, "t": true}, "n": 1, "s": "x.y"}'


@pytest.mark.parametrize(
    "expected, kind",
    [
        ({"n": 1}, ""),
        ({"n": 1.0}, ""),
        ({"n": True}, "body"),
        ({"n": "1"}, "body"),
        ({"s": "x.y"}, ""),
        ({"s.y": 1}, "body"),
        ({"a": {"t": True}}, ""),
        ({"a": {"t": 1}}, "body"),
        ({"a": {"b": [1, 2]}}, ""),
        ({"a": {"b": [2, 1]}}, "body"),
        ({"a": {"c": None}}, ""),
        ({"a": {"d": None}}, "body"),
        ({"a": 5}, "body"),
        ({"n": {"x": 1}}, "body"),
        ({"a": {"t": True}, "n": 2}, "body"),
    ],
)
async def test_the_values_named_must_be_there_and_others_may(
    http: HttpClient, expected: dict[str, Any], kind: str
) -> None:
    async with listening(answering(BODY)) as peer:
        assert (await sampled(http, declared("mine", f"{peer.url}/x", expect_json=expected))).kind == kind


@pytest.mark.parametrize(
    "expected, status, kind",
    [
        ({}, b"200 OK", ""),
        ({}, b"204 No Content", ""),
        ({}, b"302 Found", "redirect"),
        ({}, b"404 Not Found", "status"),
        ({"expect_status": [302]}, b"302 Found", ""),
        ({"expect_status": [200, 404]}, b"404 Not Found", ""),
        ({"expect_status": [404]}, b"200 OK", "status"),
        ({"expect_body": "a.c"}, b"200 OK", "body"),
        ({"expect_body": "abc"}, b"200 OK", ""),
        ({"expect_body": "abc"}, b"500 Oops", "status"),
        ({"expect_body": "abc", "expect_status": [500]}, b"500 Oops", ""),
    ],
)
async def test_what_is_expected_of_a_component_decides(
    http: HttpClient, expected: dict[str, Any], status: bytes, kind: str
) -> None:
    body = b"" if status.startswith(b"204") else b"xxabcxx"
    async with listening(answering(body, b"HTTP/1.1 " + status + b"\r\n")) as peer:
        assert (await sampled(http, declared("mine", f"{peer.url}/x", **expected))).kind == kind


async def test_a_tcp_component_is_only_connected_to(http: HttpClient) -> None:
    async with listening(HTTP["accept_and_hang"]) as peer:
        cycle = declared("pooler", f"tcp://127.0.0.1:{peer.port}")
        assert (await sampled(http, cycle)).outcome is Outcome.OBSERVED
        assert (await sampled(http, declared("pooler", f"tcp://localhost:{peer.port}"))).outcome is Outcome.OBSERVED
        assert peer.requests == []
    with nothing_for_the_collector():
        sample = await sampled(http, declared("pooler", f"tcp://127.0.0.1:{refusing()}"))
    assert (sample.outcome, sample.kind) == (Outcome.FAILED, "refused")
    sample = await sampled(http, declared("pooler", "tcp://no-such-host.invalid:1"))
    assert (sample.outcome, sample.kind) == (Outcome.BLIND, "dns")


async def test_a_query_of_an_address_is_asked_and_not_shown(http: HttpClient) -> None:
    async with listening(answering(b"", b"HTTP/1.1 500 Oops\r\n")) as peer:
        cycle = declared("mine", f"{peer.url}/x?key=s3cret")
        sample = await sampled(http, cycle)
        assert b"GET /x?key=s3cret " in peer.requests[0]
        assert "s3cret" not in sample.reason + cycle.reach.target.address


# --- hostile peers

HANGING = {"accept_and_hang", "slow_headers", "slow_body", "hang_in_body"}
NO_BODY_ASKED = {name for name in HTTP if name.startswith("json")} | {
    "slow_body", "hang_in_body", "endless_body", "endless_chunks", "endless_tiny_chunks", "gzip_bomb", "short_length",
    "long_length", "two_lengths", "negative_length", "bad_chunk", "reset_in_body",
}  # fmt: skip
"""What an honest answer to HEAD may look like, up to its body."""
PROBES: dict[str, dict[str, Any]] = {
    "kong": {}, "auth": {}, "rest": {}, "realtime": {}, "storage": {}, "studio": {}, "meta": {},
    "mine": {"expect_json": {"healthy": True}},
}  # fmt: skip


@pytest.mark.parametrize("name", HTTP)
async def test_a_hostile_peer_fails_its_own_sample_in_time(http: HttpClient, name: str) -> None:
    deadline = DEADLINE if name in HANGING else 10.0
    async with listening(HTTP["accept_and_hang"]) as other, listening(HTTP[name], elsewhere=other.url) as peer:
        cycles = {component: declared(component, peer.url, **more) for component, more in PROBES.items()}
        if name == "json_empty":
            # An empty answer is what storage's status is.
            del cycles["storage"]
        for _ in range(2):
            samples = await asyncio.gather(*(sampled(http, cycle, deadline) for cycle in cycles.values()))
            for component, sample in zip(cycles, samples, strict=True):
                assert sample.outcome is Outcome.FAILED, (component, sample)
                assert sample.duration < 2 * deadline
                assert sample.reason.isprintable()
                assert len(sample.reason) <= 500
                if component == "rest" and name in NO_BODY_ASKED:
                    # HEAD sees no body: what gives the peer away is that it is not PostgREST.
                    assert "PostgREST" in sample.reason or sample.kind in ("protocol", "timeout", "too_large")
                elif name.startswith("redirect"):
                    assert sample.kind == "redirect"
                elif name in HANGING:
                    assert sample.kind == "timeout"
        assert other.accepted == 0


async def test_a_service_that_speaks_before_it_is_asked_is_dropped(http: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.say(b"220 mail.example ESMTP\r\n")
        await line.hang()

    async with listening(behave) as peer:
        for component, more in PROBES.items():
            sample = await sampled(http, declared(component, peer.url, **more), DEADLINE)
            assert (sample.outcome, sample.kind) == (Outcome.FAILED, "protocol")


@pytest.mark.parametrize("name", ["endless_body", "endless_answers", "endless_headers", "huge_header", "gzip_bomb"])
async def test_fifty_flooding_peers_at_once_cost_little_memory(http: HttpClient, name: str) -> None:
    with elsewhere(name) as port:
        url = f"http://127.0.0.1:{port}"
        cycles = [
            *(declared(component, url, **PROBES[component]) for component in ("rest", "auth", "kong", "mine")),
            declared("pooler", f"tcp://127.0.0.1:{port}"),
        ]
        await asyncio.gather(*(sampled(http, cycle) for cycle in cycles))
        before = resident()
        peak = asyncio.create_task(highest(before))
        await asyncio.gather(*(sampled(http, cycle, 60.0) for cycle in cycles * 10))
        peak.cancel()
        assert await peak - before < 20 * 2**20


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def highest(peak: int) -> int:
    """The most memory seen until cancelled."""
    try:
        while True:
            peak = max(peak, resident())
            await asyncio.sleep(0.002)
    except asyncio.CancelledError:
        return peak


async def test_no_probe_leaves_a_descriptor_or_a_task_behind() -> None:
    async with listening(HTTP["accept_and_hang"]) as hanging, standing_in(recorded("kong")["status_hangs"]) as kong:
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            http = HttpClient()
            cycles = [declared(component, hanging.url, **more) for component, more in PROBES.items()]
            await asyncio.gather(*(sampled(http, cycle, 0.05) for cycle in cycles))
            await sampled(http, declared("kong", kong.url, admin_url=kong.url), 0.5)
            await sampled(http, declared("kong", hanging.url, admin_url=hanging.url), 0.05)
            await sampled(http, declared("pooler", f"tcp://127.0.0.1:{hanging.port}"))
            await http.close()
        for _ in range(1000):
            if not hanging.open and not kong.open:
                break
            await asyncio.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        assert asyncio.all_tasks() == {asyncio.current_task()}
