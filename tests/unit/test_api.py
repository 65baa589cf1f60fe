"""The HTTP API over real sockets, on a real store and pipeline."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import pwd
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import pytest_asyncio
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from probed.api import app, guarding, listening
from probed.api.app import serve
from probed.board import Entry
from probed.errors import ConfigError, Problem
from probed.incidents import new_id
from probed.leadership import Passage
from probed.model import Event, EventState, Evidence, Moment, Outcome, Policy, Severity, Side, Target
from probed.store import Change, Commit, GapRecord, LeadershipRecord, Member
from tests.unit.serving import HOSTILE, NOON, Stack, free_port, stack

Json = dict[str, Any]

EVENT_KEYS = [
    "id", "event", "name", "severity", "state", "instance", "node", "component", "target", "opened_at",
    "first_failed_at", "resolved_at", "resolve_reason", "count", "value", "threshold", "message", "suggestion",
    "policy_version", "observer", "fingerprint", "caused_by", "suppressed", "acked_by", "labels",
    "flapping", "details", "silenced", "silenced_by",
]  # fmt: skip
"""interface.md, section 4, "Shapes"; the last line is ours beyond it."""


class Api:
    """A served stack, and clients for both of its doors."""

    def __init__(self, seen: Stack, address: str, path: Path) -> None:
        self.seen, self.address, self.path = seen, address, path

    async def ask(
        self, path: str, *, method: str = "GET", by_socket: bool = False, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        connector = aiohttp.UnixConnector(str(self.path)) if by_socket else aiohttp.TCPConnector()
        base = "http://localhost" if by_socket else f"http://{self.address}"
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.request(method, base + path, headers=headers) as response,
        ):
            return response.status, response.headers, await response.read()

    async def get(self, path: str) -> Any:
        status, headers, body = await self.ask(path)
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8"), body
        return json.loads(body)

    async def refused(self, path: str, status: int, **more: Any) -> Json:
        """The problem that the answer is."""
        got, headers, body = await self.ask(path, **more)
        assert (got, headers["Content-Type"].partition(";")[0]) == (status, "application/problem+json"), body
        problem: Json = json.loads(body)
        assert problem["status"] == status
        assert problem["type"] and problem["title"] and problem["detail"]
        return problem

    async def raw(self, sent: bytes) -> bytes:
        """What a client that writes its own bytes gets, until the connection is closed."""
        host, port = self.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer


@pytest_asyncio.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Stack]:
    made = await stack(tmp_path)
    yield made
    await made.store.close()


@pytest_asyncio.fixture
async def api(seen: Stack, place: Path) -> AsyncIterator[Api]:
    address, path = f"127.0.0.1:{free_port()}", place / "probed.sock"
    close = await serve(seen, addresses=[address], socket_path=path)
    yield Api(seen, address, path)
    await close()


def entry_of(seen: Stack, probe: str, node: str = "") -> Entry:
    entries = seen.pipeline.board.entries("orders")
    return next(entry for entry in entries if entry.probe == probe and entry.target.node == node)


def target_of(status: Json, probe: str, node: str | None = None) -> Json:
    [instance] = status["instances"]
    targets = instance["targets"]
    if node is not None:
        targets = next(item for item in instance["nodes"] if item["name"] == node)["targets"]
    return next(dict(target) for target in targets if target["probe"] == probe)


def an_event(number: int, at: float, **more: Any) -> Event:
    target = Target("orders", "node-a", "postgres", member=f"m{number}")
    event = Event(
        id=new_id(at),
        event="deadlocks_frequent",
        name="Frequent deadlocks",
        severity=Severity.NORMAL,
        state=EventState.OCCURRED,
        target=target,
        opened_at=at,
        message="deadlocks rose by 5",
    )
    return replace(event, **more)


async def record(seen: Stack, events: Sequence[Event]) -> None:
    changes = tuple(Change(event, "opened", event.opened_at) for event in events)
    await seen.store.append(Commit(changes=changes))


# --- operations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_socket", [False, True])
async def test_healthy_and_ready_answer_plainly_over_both_doors(api: Api, by_socket: bool) -> None:
    for path, text in (("/-/healthy", b"ok\n"), ("/-/ready", b"ready\n")):
        status, headers, body = await api.ask(path, by_socket=by_socket)
        assert (status, body, headers["Content-Type"]) == (200, text, "text/plain; charset=utf-8")
        status, _, body = await api.ask(path, method="HEAD", by_socket=by_socket)
        assert (status, body) == (200, b"")


async def test_a_daemon_that_does_not_do_its_work_is_healthy_and_not_ready_and_tells_nobody_why(api: Api) -> None:
    api.seen.reasons.append("the store cannot write: /var/lib/probed: disk full")
    status, _, body = await api.ask("/-/ready")
    assert (status, body) == (503, b"not ready\n")
    assert (await api.ask("/-/healthy"))[0] == 200


async def test_metrics_are_served_in_the_format_and_encoding_that_was_asked_for(api: Api) -> None:
    _, headers, body = await api.ask("/metrics", headers={"Accept-Encoding": "identity"})
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Content-Encoding" not in headers
    assert "probed_build_info" in {family.name for family in text_string_to_metric_families(body.decode())}
    accept = {"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"}
    _, headers, body = await api.ask("/metrics", headers=accept)
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b"# EOF\n")


async def test_scrapes_at_the_same_time_all_get_a_whole_answer(api: Api) -> None:
    answers = await asyncio.gather(*(api.ask("/metrics", headers={"Accept-Encoding": ""}) for _ in range(20)))
    assert len({body for _, _, body in answers}) == 1


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_reload_over_tcp_is_refused_with_both_remedies(api: Api, method: str) -> None:
    problem = await api.refused("/-/reload", 403, method=method)
    assert "UNIX socket" in problem["detail"] and "SIGHUP" in problem["detail"]
    assert str(api.path) not in problem["detail"]
    assert api.seen.reloads == 0


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_reload_over_the_socket_is_done(api: Api, method: str) -> None:
    status, _, body = await api.ask("/-/reload", method=method, by_socket=True)
    assert (status, body, api.seen.reloads) == (200, b"reloaded\n", 1)


async def test_a_reload_is_audited_under_the_name_of_the_user_at_the_socket(api: Api) -> None:
    await api.ask("/-/reload", method="POST", by_socket=True)
    _, _, body = await api.ask("/api/v1/audit", by_socket=True)
    (item,) = json.loads(body)["items"]
    user = pwd.getpwuid(os.getuid()).pw_name
    assert (item["who"], item["via"], item["client"], item["action"]) == (
        f"local:{user}", "socket", None, "daemon.reload"
    )  # fmt: skip


async def test_the_audit_log_is_not_for_readers(api: Api) -> None:
    problem = await api.refused("/api/v1/audit", 403)
    assert "UNIX socket" in problem["detail"]


async def test_a_reload_of_bad_files_lists_every_problem_with_its_place(api: Api) -> None:
    api.seen.bad_files = ConfigError(
        [
            Problem("/etc/probed/probed.yml", 'unknown key "nod"; did you mean "nodes"?', 7, 3, "instances[0].nod"),
            Problem("/etc/probed/policies.d", "expected a directory"),
        ]
    )
    problem = await api.refused("/-/reload", 500, method="POST", by_socket=True)
    assert problem["errors"] == [
        {
            "where": "/etc/probed/probed.yml",
            "line": 7,
            "column": 3,
            "path": "instances[0].nod",
            "message": 'unknown key "nod"; did you mean "nodes"?',
        },
        {
            "where": "/etc/probed/policies.d",
            "line": None,
            "column": None,
            "path": "",
            "message": "expected a directory",
        },
    ]
    assert "probed.yml:7:3" in problem["detail"]


# --- status -------------------------------------------------------------------------------------------------


async def test_the_status_before_the_first_sample_waits_and_claims_nothing(api: Api) -> None:
    status = await api.get("/api/v1/status")
    assert list(status) == ["observer", "instances", "self"]
    assert (status["self"]["state"], status["self"]["open_events"]) == ("waiting", [])
    [orders] = status["instances"]
    assert list(orders) == ["name", "labels", "state", "leader", "paused", "nodes", "targets", "open_events"]
    assert (orders["name"], orders["labels"], orders["leader"]) == ("orders", {"env": "prod"}, None)
    assert orders["open_events"] == []
    assert [(node["name"], node["role"], node["state"]) for node in orders["nodes"]] == [
        ("node-a", None, "waiting"),
        ("node-b", None, "waiting"),
    ]
    assert orders["state"] == "waiting"
    assert target_of(status, "postgres_liveness", "node-a") == {
        "component": "postgres",
        "probe": "postgres_liveness",
        "address": "10.0.0.1:5432",
        "outcome": None,
        "since": None,
        "last_sample_at": None,
        "readings": {},
        "reason": "",
    }


async def test_a_target_shows_its_newest_sample_and_since_when_its_outcome_is_what_it_is(api: Api) -> None:
    seen = api.seen
    seen.sample("postgres_liveness", "node-a", ping_seconds=0.0004)
    seen.clock.step(5.25)
    seen.sample("postgres_liveness", "node-a", ping_seconds=float("nan"), login_seconds=0.01, reason="alive, but full")
    target = target_of(await api.get("/api/v1/status"), "postgres_liveness", "node-a")
    assert target["outcome"] == "observed"
    assert target["since"] == "2026-11-18T12:00:00.000Z"
    assert target["last_sample_at"] == "2026-11-18T12:00:05.250Z"
    assert target["readings"] == {"ping_seconds": None, "login_seconds": 0.01}
    assert target["reason"] == "alive, but full"


async def state_of(api: Api, node: str | None = None) -> str:
    [orders] = (await api.get("/api/v1/status"))["instances"]
    if node is None:
        return str(orders["state"])
    return next(str(item["state"]) for item in orders["nodes"] if item["name"] == node)


async def test_the_state_is_the_worst_word_and_blind_never_looks_like_ok(api: Api) -> None:
    seen = api.seen
    seen.sample("postgres_liveness", "node-a")
    assert (await state_of(api), await state_of(api, "node-b")) == ("ok", "waiting")
    seen.sample("wal_receiver", "node-a", Outcome.NOT_APPLICABLE)
    assert await state_of(api, "node-a") == "ok"
    seen.sample("postgres_stats", "node-a", Outcome.BLIND, kind="auth")
    assert (await state_of(api, "node-a"), await state_of(api)) == ("blind", "blind")
    seen.sample("patroni_rest", "node-a", Outcome.FAILED, kind="refused")
    assert (await state_of(api, "node-a"), await state_of(api)) == ("failing", "failing")
    await seen.outage("node-b")
    assert (await state_of(api, "node-a"), await state_of(api, "node-b")) == ("failing", "fatal")
    assert await state_of(api) == "fatal"


async def test_a_target_that_was_not_sampled_for_three_intervals_is_blind(api: Api) -> None:
    api.seen.sample("postgres_liveness", "node-a")
    api.seen.clock.step(15)
    assert await state_of(api, "node-a") == "ok"
    api.seen.clock.step(0.1)
    assert (await state_of(api, "node-a"), await state_of(api)) == ("blind", "blind")


async def test_what_only_does_not_apply_is_blind(api: Api) -> None:
    for entry in api.seen.pipeline.board.entries():
        if entry.target.node == "node-b":
            api.seen.sample(entry.probe, "node-b", Outcome.NOT_APPLICABLE)
    assert await state_of(api, "node-b") == "blind"


async def test_a_suppressed_event_shows_in_the_state_too(api: Api) -> None:
    seen = api.seen
    seen.sample("leader", has_leader=1.0, leader="node-a", timeline=1.0)
    await seen.outage("node-a")
    for _ in range(3):
        seen.clock.step(5)
        seen.sample("wal_receiver", "node-b", wal_receiver_streaming=0.0)
    await seen.settle()
    [orders] = (await api.get("/api/v1/status"))["instances"]
    assert [(node["name"], node["state"]) for node in orders["nodes"]] == [("node-a", "fatal"), ("node-b", "critical")]
    suppressed = await api.get("/api/v1/events?suppressed=true")
    assert [event["event"] for event in suppressed["items"]] == ["wal_receiver_interrupted"]
    assert len(orders["open_events"]) == 2 and suppressed["items"][0]["id"] in orders["open_events"]


async def test_an_instance_that_discovery_has_not_answered_for_is_shown(api: Api) -> None:
    target = Target("billing", "", "patroni", "http://10.0.0.9:8008", kind="patroni_cluster")
    api.seen.pipeline.board.expect("patroni_cluster", target, 5.0)
    status = await api.get("/api/v1/status")
    billing = next(item for item in status["instances"] if item["name"] == "billing")
    assert (billing["state"], billing["nodes"], len(billing["targets"])) == ("waiting", [], 1)


@pytest.mark.parametrize(
    "stats, rest, expected",
    [
        ({"in_recovery": 0.0}, None, "primary"),
        ({"in_recovery": 1.0}, None, "replica"),
        ({"in_recovery": 1.0}, {"role": "standby_leader", "state": "running"}, "standby_leader"),
        ({"in_recovery": 1.0}, {"role": "primary", "state": "running"}, "replica"),
        (Outcome.FAILED, {"role": "primary", "state": "running"}, None),
        (Outcome.BLIND, {"role": "primary", "state": "running"}, "primary"),
        (Outcome.BLIND, {"role": "sync_standby", "state": "streaming"}, "replica"),
        (Outcome.BLIND, {"role": "primary", "state": "stopped"}, None),
        (None, {"role": "quorum_standby", "state": "running"}, "replica"),
        (None, None, None),
    ],
)
async def test_a_nodes_role_is_the_servers_own_word_and_else_its_patronis(
    api: Api, stats: Json | Outcome | None, rest: Json | None, expected: str | None
) -> None:
    if isinstance(stats, dict):
        api.seen.sample("postgres_stats", "node-a", **stats)
    elif stats is not None:
        api.seen.sample("postgres_stats", "node-a", stats)
    if rest is not None:
        api.seen.sample("patroni_rest", "node-a", **rest)
    [orders] = (await api.get("/api/v1/status"))["instances"]
    assert orders["nodes"][0]["role"] == expected
    api.seen.clock.step(16)
    [orders] = (await api.get("/api/v1/status"))["instances"]
    assert orders["nodes"][0]["role"] is None, "an old sample says nothing"


async def test_the_leader_is_named_only_while_there_is_one(api: Api) -> None:
    async def leader() -> Any:
        return (await api.get("/api/v1/status"))["instances"][0]["leader"]

    api.seen.sample("leader", has_leader=1.0, leader="node-a")
    assert await leader() == "node-a"
    api.seen.sample("leader", has_leader=1.0)
    assert await leader() == "node-a", "there is one, and its name is disputed: the last certain one"
    api.seen.sample("leader", has_leader=0.0)
    assert await leader() is None
    api.seen.sample("leader", outcome=Outcome.BLIND, kind="no_input")
    assert await leader() is None


# --- events -------------------------------------------------------------------------------------------------


async def test_an_event_has_exactly_the_promised_fields(api: Api) -> None:
    await api.seen.outage("node-a", reason="connection refused")
    answer = await api.get("/api/v1/events")
    assert list(answer) == ["items", "next_cursor"]
    [event] = answer["items"]
    assert list(event) == EVENT_KEYS
    policy = api.seen.policies["database_unavailable"]
    watch = next(watch for watch in api.seen.pipeline.instances["orders"].watches if watch.event is not None)
    assert watch.event is not None
    assert event == {
        "id": watch.event.id,
        "event": "database_unavailable",
        "name": policy.name,
        "severity": "fatal",
        "state": "open",
        "instance": "orders",
        "node": "node-a",
        "component": "postgres",
        "target": "orders/node-a/postgres",
        "opened_at": "2026-11-18T12:00:15.000Z",
        "first_failed_at": "2026-11-18T12:00:05.000Z",
        "resolved_at": None,
        "resolve_reason": None,
        "count": 3,
        "value": None,
        "threshold": None,
        "message": "3 of 3 samples in a row failed: connection refused",
        "suggestion": policy.suggestion,
        "policy_version": 1,
        "observer": "watcher",
        "fingerprint": watch.event.fingerprint,
        "caused_by": None,
        "suppressed": False,
        "acked_by": None,
        "labels": {"env": "prod"},
        "flapping": False,
        "details": {},
        "silenced": False,
        "silenced_by": None,
    }


async def test_how_the_leadership_went_on_is_listed_newest_first_also_what_was_no_event(api: Api) -> None:
    passed = Passage("automatic_failover", "high", ("node-a fell silent",), "node-a", "node-b", 3, 4)
    records = tuple(
        LeadershipRecord(instance, NOON + at, passed.as_details()) for instance, at in (("orders", 1), ("billing", 2))
    )
    await api.seen.store.append(Commit(leadership=records))
    api.seen.clock.step(10)
    items = (await api.get("/api/v1/leadership"))["items"]
    assert [item["instance"] for item in items] == ["billing", "orders"]
    assert items[1] == {"instance": "orders", "at": "2026-11-18T12:00:01.000Z", **passed.as_details()}
    assert [i["instance"] for i in (await api.get("/api/v1/leadership?instance=orders"))["items"]] == ["orders"]
    assert (await api.get("/api/v1/leadership?until=-1h"))["items"] == []
    # What becomes known later replaces what was known before.
    known = replace(passed, lost_bytes=700.0)
    await api.seen.store.append(Commit(leadership=(LeadershipRecord("orders", NOON + 1, known.as_details()),)))
    items = (await api.get("/api/v1/leadership?instance=orders"))["items"]
    assert [item["lost_bytes"] for item in items] == [700.0]


async def test_leaderships_and_gaps_are_told_page_by_page_each_once(api: Api) -> None:
    passed = Passage("automatic_failover", "high", ("node-a fell silent",), "node-a", "node-b", 3, 4).as_details()
    # Several at one moment: a cursor tells them apart.
    passages = tuple(LeadershipRecord(name, NOON - at, passed) for at in range(3) for name in ("billing", "orders"))
    gaps = tuple(GapRecord(NOON - 50 - at, NOON - 40 - at // 2, "watcher", "stalled") for at in range(5))
    await api.seen.store.append(Commit(leadership=passages, gaps=gaps))
    api.seen.clock.step(10)
    for path, expected in (("leadership", 6), ("gaps", 5)):
        whole = (await api.get(f"/api/v1/{path}"))["items"]
        assert len(whole) == expected
        paged, more = list[object](), ""
        while more is not None:
            page = await api.get(f"/api/v1/{path}?limit=2" + (f"&cursor={more}" if more else ""))
            assert len(page["items"]) <= 2
            paged, more = [*paged, *page["items"]], page["next_cursor"]
        assert paged == whole


async def test_times_in_which_nobody_looked_are_listed_when_they_reach_into_the_span(api: Api) -> None:
    await api.seen.store.append(Commit(gaps=(GapRecord(NOON - 100, NOON - 40, "watcher", "stopped"),)))
    api.seen.clock.step(10)
    assert (await api.get("/api/v1/gaps"))["items"] == [
        {
            "began_at": "2026-11-18T11:58:20.000Z",
            "ended_at": "2026-11-18T11:59:20.000Z",
            "seconds": 60.0,
            "observer": "watcher",
            "reason": "stopped",
        }
    ]
    assert len((await api.get("/api/v1/gaps?since=-1m"))["items"]) == 1
    assert (await api.get("/api/v1/gaps?since=-30s"))["items"] == []


async def test_empty_places_are_null_and_numbers_are_numbers_or_null(api: Api) -> None:
    target = Target("orders")
    first = replace(an_event(0, NOON - 2), target=target, value=30.5, threshold=30.0)
    second = replace(an_event(1, NOON - 1), target=target, value="node-b", event="ha_switchover")
    third = replace(an_event(2, NOON), target=target, value=float("nan"), threshold=float("inf"))
    await record(api.seen, [first, second, third])
    items = (await api.get("/api/v1/events"))["items"]
    assert [(item["value"], item["threshold"]) for item in items] == [(None, None), (None, None), (30.5, 30.0)]
    assert {(item["node"], item["component"]) for item in items} == {(None, None)}


async def test_one_event_comes_with_its_samples_and_consequences(api: Api) -> None:
    seen = api.seen
    seen.sample("leader", has_leader=1.0, leader="node-a", timeline=1.0)
    seen.sample("postgres_liveness", "node-a", ping_seconds=float("inf"))
    await seen.outage("node-a")
    for _ in range(3):
        seen.clock.step(5)
        seen.sample("wal_receiver", "node-b", wal_receiver_streaming=0.0)
    for _ in range(2):
        seen.clock.step(5)
        seen.sample("postgres_liveness", "node-a", ping_seconds=0.001)
    await seen.settle()
    items = {item["event"]: item for item in (await api.get("/api/v1/events"))["items"]}
    detail = await api.get(f"/api/v1/events/{items['database_unavailable']['id']}")
    assert list(detail) == [*EVENT_KEYS, "samples", "evidence", "deliveries", "consequences", "history"]
    assert (detail["state"], detail["resolve_reason"]) == ("resolved", "recovered")
    assert detail["resolved_at"] == "2026-11-18T12:00:40.000Z"
    before, after = detail["samples"]["before"], detail["samples"]["after"]
    assert [sample["outcome"] for sample in before] == ["observed", "failed", "failed", "failed"]
    assert before[0]["readings"] == {"ping_seconds": None}
    assert before[1] == {
        "at": "2026-11-18T12:00:05.000Z",
        "outcome": "failed",
        "readings": {},
        "reason": "connection refused",
        "duration_ms": 4.0,
    }
    assert after[-1]["at"] == "2026-11-18T12:00:40.000Z"
    assert (detail["evidence"], detail["deliveries"]) == ([], [])
    assert detail["consequences"] == [items["wal_receiver_interrupted"]["id"]]
    assert items["wal_receiver_interrupted"]["caused_by"] == detail["id"]


async def test_an_event_delivers_its_evidence_and_the_reasons_for_what_is_missing(api: Api) -> None:
    at = api.seen.clock.wall()
    event = an_event(1, at)
    before = Evidence("patroni_node", "orders/node-a/patroni", at - 5, Side.BEFORE, Moment.TRIGGER, '{"state": "ok"}')
    after = Evidence("pressure", "", at, Side.AFTER, Moment.TRIGGER, error="probed does not run on node-a")
    await record(api.seen, [event])
    await api.seen.store.append(Commit(evidence={event.id: [before, after]}))
    detail = await api.get(f"/api/v1/events/{event.id}")
    assert detail["evidence"] == [
        {
            "collector": "patroni_node",
            "target": "orders/node-a/patroni",
            "taken_at": "2026-11-18T11:59:55.000Z",
            "when": "before",
            "moment": "trigger",
            "data": {"state": "ok"},
        },
        {
            "collector": "pressure",
            "target": None,
            "taken_at": "2026-11-18T12:00:00.000Z",
            "when": "after",
            "moment": "trigger",
            "error": "probed does not run on node-a",
        },
    ]


async def test_an_unknown_event_is_not_found(api: Api) -> None:
    problem = await api.refused("/api/v1/events/0193-nope", 404)
    assert '"0193-nope"' in problem["detail"]


async def test_every_filter_of_the_list_filters(api: Api) -> None:
    open_ = {"state": EventState.OPEN, "event": "database_unavailable", "severity": Severity.FATAL}
    old = an_event(1, NOON - 7200)
    other = replace(an_event(2, NOON - 3600), target=Target("billing", "node-x", "postgres"))
    held = an_event(3, NOON - 1800, suppressed=True, caused_by="x", severity=Severity.CRITICAL)
    fatal = an_event(4, NOON - 60, **open_)
    await record(api.seen, [old, other, held, fatal])

    async def found(query: str) -> list[str]:
        return [item["id"] for item in (await api.get(f"/api/v1/events?{query}"))["items"]]

    assert await found("") == [fatal.id, held.id, other.id, old.id], "newest first"
    assert await found("instance=billing") == [other.id]
    assert await found("event=database_unavailable") == [fatal.id]
    assert await found("severity=critical") == [held.id]
    assert await found("state=open") == [fatal.id]
    assert await found("state=occurred&instance=orders&suppressed=false") == [old.id]
    assert await found("suppressed=true") == [held.id]
    assert await found("since=-45m") == [fatal.id, held.id]
    assert await found("since=-90m&until=-45m") == [other.id]
    assert await found("until=2026-11-18T10:30:00Z") == [old.id]
    assert await found("until=2026-11-18T11:30:00%2B01:00") == [old.id]
    assert await found("until=2026-11-18T11:30:00+01:00") == [old.id], "a plus that was not encoded"
    assert await found("since=2026-11-18t11:00:00.000z&limit=2") == [fatal.id, held.id], "since is inclusive"
    assert await found("until=2026-11-18T11:00:00Z") == [old.id], "until is exclusive"
    assert await found("instance=nowhere") == []


@pytest.mark.parametrize("limit", [1, 3, 25, 26, 1000])
async def test_pages_follow_each_other_without_gap_or_double(api: Api, limit: int) -> None:
    events = [an_event(number, NOON + number) for number in range(25)]
    await record(api.seen, events)
    got: list[str] = []
    path: str | None = f"/api/v1/events?limit={limit}"
    while path is not None:
        page = await api.get(path)
        assert 0 < len(page["items"]) <= limit
        got += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        path = f"/api/v1/events?limit={limit}&cursor={cursor}" if cursor else None
        # What opens meanwhile is newer than every page to come.
        await record(api.seen, [an_event(99, NOON + 1000 + len(got))])
    assert got == [event.id for event in reversed(events)]


async def test_a_page_has_a_hundred_events_unless_told_otherwise(api: Api) -> None:
    await record(api.seen, [an_event(number, NOON + number) for number in range(101)])
    page = await api.get("/api/v1/events")
    assert len(page["items"]) == 100 and page["next_cursor"]


@pytest.mark.parametrize(
    "query, path, says",
    [
        ("limit=0", "limit", 'expected a whole number from 1 to 1000, got "0"'),
        ("limit=1001", "limit", "from 1 to 1000"),
        ("limit=-1", "limit", 'got "-1"'),
        ("limit=ten", "limit", 'got "ten"'),
        ("limit=1.5", "limit", 'got "1.5"'),
        ("limit=１", "limit", "expected a whole number"),
        ("limit=99999999999999999999", "limit", "expected a whole number"),
        ("limit=", "limit", "expected 1 to 200 printable characters"),
        ("limit=1&limit=2", "limit", "expected it once, got it 2 times"),
        ("state=opened", "state", 'expected open, resolved or occurred, got "opened"; did you mean "open"?'),
        ("state=OPEN", "state", "expected open, resolved or occurred"),
        ("severity=warning", "severity", 'expected fatal, critical or normal, got "warning"'),
        ("severity=critcal", "severity", 'did you mean "critical"?'),
        ("suppressed=yes", "suppressed", 'expected true or false, got "yes"'),
        ("suppressed=1", "suppressed", "expected true or false"),
        ("since=yesterday", "since", "expected a time such as 2026-11-22T10:00:00Z or -24h"),
        ("since=-24", "since", "-24h"),
        ("since=24h", "since", "-24h"),
        ("since=2026-11-18", "since", "expected a time"),
        ("since=2026-11-18T10:00:00", "since", "expected a time"),
        ("since=2026-02-30T10:00:00Z", "since", "expected a time"),
        ("since=2026-11-18T25:00:00Z", "since", "expected a time"),
        ("until=1763460000", "until", "expected a time"),
        ("since=-1h&until=-2h", "since", "expected a time before until"),
        ("cursor=x", "cursor", "expected the next_cursor of an earlier answer"),
        ("cursor=cG9saWNpZXM6YQ", "cursor", "expected the next_cursor"),
        ("cursor=%F0%9F%90%98", "cursor", "expected the next_cursor"),
        ("instance=a%0Ab", "instance", "printable"),
        ("instance=" + "a" * 201, "instance", "1 to 200"),
        ("event=%ff%fe", "event", None),
        ("sate=open", "sate", 'unknown parameter; did you mean "state"?'),
        ("Limit=5", "Limit", 'did you mean "limit"?'),
        (
            "zzz=1",
            "zzz",
            "known here: active_since, cursor, event, format, instance, limit, severity, silenced, silenced_by, since, state",
        ),
    ],
)
async def test_a_bad_query_is_refused_naming_the_parameter_and_what_was_expected(
    api: Api, query: str, path: str, says: str | None
) -> None:
    if says is None:
        # Bytes that are no UTF-8 reach us as they were written; they name no event, and break nothing.
        assert (await api.get(f"/api/v1/events?{query}"))["items"] == []
        return
    problem = await api.refused(f"/api/v1/events?{query}", 400)
    [error] = problem["errors"]
    assert error["path"] == path
    assert says in error["detail"]
    assert path in problem["detail"]


@pytest.mark.parametrize(
    "listing, key",
    [
        ("notifications", "x"),
        ("notifications", "9" * 19),
        ("policy-history", "-1"),
        ("samples", "١"),
        ("shadow", "soon orders/node-a/postgres"),
    ],
)
async def test_a_cursor_of_the_right_listing_with_a_key_that_it_never_gives_is_refused_as_any_other(
    api: Api, listing: str, key: str
) -> None:
    path = {"policy-history": "policies/history", "shadow": "policies/no_leader/shadow"}.get(listing, listing)
    forged = base64.urlsafe_b64encode(f"{listing}:{key}".encode()).decode().rstrip("=")
    problem = await api.refused(f"/api/v1/{path}?cursor={forged}", 400)
    [error] = problem["errors"]
    assert error == {
        "path": "cursor",
        "detail": f'expected the next_cursor of an earlier answer, got "{forged}"',
    }


async def test_all_problems_of_a_query_come_at_once(api: Api) -> None:
    problem = await api.refused("/api/v1/events?limit=0&state=x&colour=red", 400)
    assert [error["path"] for error in problem["errors"]] == ["limit", "state", "colour"]


async def test_a_route_without_parameters_says_so(api: Api) -> None:
    problem = await api.refused("/api/v1/status?limit=1", 400)
    assert problem["errors"] == [{"path": "limit", "detail": "unknown parameter; this route takes none"}]


async def test_triggers_are_counted_per_day_of_the_wanted_zone(api: Api) -> None:
    late = datetime(2026, 11, 17, 23, 30, tzinfo=UTC).timestamp()
    await record(api.seen, [an_event(1, late), an_event(2, late + 60), an_event(3, NOON)])
    utc = await api.get("/api/v1/events/daily")
    assert utc == {
        "tz": "UTC",
        "items": [
            {"date": date, "event": "deadlocks_frequent", "instance": "orders", "severity": "normal", "count": count}
            for date, count in (("2026-11-18", 1), ("2026-11-17", 2))
        ],
    }
    berlin = await api.get("/api/v1/events/daily?tz=Europe/Berlin")
    assert berlin["tz"] == "Europe/Berlin"
    assert [(item["date"], item["count"]) for item in berlin["items"]] == [("2026-11-18", 3)]
    assert (await api.get("/api/v1/events/daily?since=-1m&until=2026-11-19T00:00:00Z"))["items"][0]["count"] == 1


async def test_days_go_thirty_whole_days_back_unless_told_otherwise(api: Api) -> None:
    first = datetime(2026, 10, 20, tzinfo=UTC).timestamp()
    await record(api.seen, [an_event(1, first - 1), an_event(2, first)])
    assert [item["date"] for item in (await api.get("/api/v1/events/daily"))["items"]] == ["2026-10-20"]
    assert len((await api.get("/api/v1/events/daily?since=-60d"))["items"]) == 2
    ended = await api.get("/api/v1/events/daily?until=2026-10-20T00:00:00Z")
    assert [item["date"] for item in ended["items"]] == ["2026-10-19"]


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "a" * 200, "%00"])
async def test_an_unknown_zone_is_refused(api: Api, zone: str) -> None:
    problem = await api.refused(f"/api/v1/events/daily?tz={zone}", 400)
    assert [error["path"] for error in problem["errors"]] == ["tz"]


async def test_every_time_that_can_be_written_is_answered(api: Api) -> None:
    for text in ("-" + "9" * 190 + "d", "0001-01-01T00:00:00%2B23:59", "9999-12-31T23:59:59-23:59", "-0s"):
        assert (await api.ask(f"/api/v1/events?since={text}"))[0] == 200, text
        for name in ("since", "until"):
            assert (await api.ask(f"/api/v1/events/daily?{name}={text}&tz=Asia/Kolkata"))[0] in (200, 400), text


# --- policies -----------------------------------------------------------------------------------------------


async def test_policies_are_listed_in_pages_and_shown_one_by_one(api: Api) -> None:
    answer = await api.get("/api/v1/policies")
    assert answer["next_cursor"] is None
    assert [item["id"] for item in answer["items"]] == sorted(api.seen.policies)
    first = await api.get("/api/v1/policies?limit=5")
    rest = await api.get(f"/api/v1/policies?cursor={first['next_cursor']}")
    assert first["items"] + rest["items"] == answer["items"]
    one = await api.get("/api/v1/policies/replication_lag_high")
    assert {key: one[key] for key in one.keys() - {"origin", "patch"}} in answer["items"]


async def test_a_policy_shows_its_rule_in_words_and_as_in_its_file(api: Api) -> None:
    lag = await api.get("/api/v1/policies/replication_lag_high")
    assert lag["params"] == {"lag_threshold_sec": 30.0, "sample_count": 2.0}
    assert lag["detect"] == {
        "type": "threshold",
        "when": "lag_seconds >= lag_threshold_sec",
        "count": 2,
        "resolve_when": None,
        "resolve_count": 2,
        "max_gap": 5,
    }
    assert "lag_seconds" in lag["rule"]
    assert (lag["enabled"], lag["severity"], lag["version"]) == (True, "critical", 1)
    liveness = await api.get("/api/v1/policies/database_unavailable")
    assert (liveness["detect"]["when"], liveness["replica_severity"]) == ("failed", "critical")
    assert (await api.get("/api/v1/policies/ha_switchover"))["detect"] == {"type": "change", "reading": "leader"}
    deadlocks = await api.get("/api/v1/policies/deadlocks_frequent")
    assert deadlocks["detect"]["window"] == 60.0


async def test_an_unknown_policy_is_not_found_with_the_name_that_was_meant(api: Api) -> None:
    problem = await api.refused("/api/v1/policies/replication_lag_hgih", 404)
    assert 'did you mean "replication_lag_high"?' in problem["detail"]


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nope", "/api/v1/event", "/api/v1/events/", "/api/v1", "/-/quit", "/..%2f..%2fetc"])
async def test_an_unknown_route_is_a_problem_that_names_known_ones(api: Api, path: str) -> None:
    problem = await api.refused(path, 404)
    assert "/api/v1/" in problem["detail"] or "/-/" in problem["detail"]


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("POST", "/api/v1/events", "GET, HEAD"),
        ("DELETE", "/api/v1/events/x", "GET, HEAD"),
        ("GET", "/-/reload", "POST, PUT"),
        ("HEAD", "/-/reload", "POST, PUT"),
        ("OPTIONS", "/metrics", "GET, HEAD"),
        ("PUT", "/api/v1/policies/no_leader", "GET, HEAD, PATCH"),
        ("TRACE", "/-/healthy", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(api: Api, method: str, path: str, allowed: str) -> None:
    for by_socket in (False, True):
        status, headers, body = await api.ask(path, method=method, by_socket=by_socket)
        assert (status, headers["Allow"]) == (405, allowed)
        assert method == "HEAD" or json.loads(body)["type"] == "urn:probed:method-not-allowed"


class _Bug(Mapping[str, Policy]):
    def __getitem__(self, key: str) -> Policy:
        raise RuntimeError("SELECT secret FROM /etc/probed/password")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("SELECT secret FROM /etc/probed/password")

    def __len__(self) -> int:
        return 1


async def test_a_bug_of_ours_is_an_id_and_no_traceback(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.seen.policies = _Bug()
    cast(Any, api.seen.editor.library).policies = api.seen.policies
    for path in ("/api/v1/policies", "/api/v1/policies/x", "/metrics"):
        problem = await api.refused(path, 500)
        assert len(problem["id"]) == 16
        text = json.dumps(problem)
        assert not [word for word in ("Traceback", "RuntimeError", "SELECT", "/etc", ".py") if word in text]
        told = capsys.readouterr()
        assert problem["id"] in told.out + told.err
    assert (await api.ask("/-/healthy"))[0] == 200


async def test_a_store_that_cannot_be_read_is_unavailable_and_tells_neither_path_nor_sql(
    api: Api, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "probed.db") as other:
        other.execute("DROP TABLE event")
    other.close()
    problem = await api.refused("/api/v1/events", 503)
    assert problem["id"]
    assert not [word for word in ("no such table", "probed.db", str(tmp_path)) if word in json.dumps(problem)]


async def test_an_answer_that_takes_too_long_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "ANSWER_SECONDS", 0.05)

    async def never(_: object) -> list[Event]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(api.seen.store, "events", never)
    assert (await api.refused("/api/v1/status", 503))["type"] == "urn:probed:timeout"


async def test_every_answer_carries_the_security_headers_and_names_no_software(api: Api) -> None:
    for path, method in (
        ("/-/healthy", "GET"),
        ("/metrics", "GET"),
        ("/api/v1/status", "GET"),
        ("/nope", "GET"),
        ("/api/v1/events?limit=0", "GET"),
        ("/-/reload", "POST"),
    ):
        _, headers, _ = await api.ask(path, method=method)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "probed"


@pytest.mark.parametrize("text", HOSTILE)
async def test_what_a_hostile_peer_says_comes_through_as_the_same_text_and_nothing_more(api: Api, text: str) -> None:
    api.seen.sample("postgres_liveness", "node-a", Outcome.FAILED, reason=text, kind="refused")
    await record(api.seen, [an_event(1, NOON, message=text, labels={"env": text})])
    assert target_of(await api.get("/api/v1/status"), "postgres_liveness", "node-a")["reason"] == text
    _, headers, body = await api.ask("/api/v1/events")
    assert body.isascii() and b"\n" not in body.rstrip(b"\n")
    [event] = json.loads(body)["items"]
    assert (event["message"], event["labels"]) == (text, {"env": text})
    assert "X-Injected" not in headers


@pytest.mark.parametrize("poison", [{"name": "half \ud800"}, {"port": 10**30}])
async def test_what_the_store_cannot_write_is_lost_alone(api: Api, poison: Json) -> None:
    member = Member(**{"instance": "orders", "name": "n", "host": "h", "port": 1, "api_url": "u", **poison})
    bad = api.seen.store.append(Commit(members=(member,)))
    await api.seen.outage("node-a")
    assert bad.exception() is not None
    assert len((await api.get("/api/v1/events"))["items"]) == 1


# --- doors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host, status",
    [
        ("127.0.0.1", 200), ("127.0.0.1:7432", 200), ("localhost", 200), ("LOCALHOST:80", 200), ("localhost.", 200),
        ("127.0.0.2", 200), ("[::1]", 200), ("[::1]:7432", 200), ("probed.localhost", 200),
        ("evil.example", 421), ("evil.example:7432", 421), ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421), ("10.0.0.1", 421), ("169.254.169.254", 421), ("[::ffff:10.0.0.1]", 421),
        ("xlocalhost", 421), ("0.0.0.0", 421),
        ("2130706433", 421), ("[]", 421), ("", 421),
    ],
)  # fmt: skip
async def test_a_loopback_listener_answers_only_to_names_of_this_machine(api: Api, host: str, status: int) -> None:
    request = f"GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = await api.raw(request.encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_over_the_socket_every_host_name_is_right(api: Api) -> None:
    status, _, _ = await api.ask("/-/healthy", by_socket=True, headers={"Host": "evil.example"})
    assert status == 200


async def test_an_address_that_others_reach_answers_to_any_name(seen: Stack) -> None:
    address = f"0.0.0.0:{free_port()}"
    close = await serve(seen, addresses=[address], socket_path=None)
    status, _, _ = await Api(seen, address, Path()).ask("/-/healthy", headers={"Host": "probed.example"})
    await close()
    assert status == 200


async def test_the_socket_has_mode_0660_and_goes_when_the_daemon_goes(seen: Stack, place: Path) -> None:
    path = place / "probed.sock"
    close = await serve(seen, addresses=[], socket_path=path)
    assert path.stat().st_mode & 0o777 == 0o660
    assert (await Api(seen, "", path).ask("/-/healthy", by_socket=True))[0] == 200
    await close()
    assert not path.exists()


async def test_the_socket_of_a_daemon_that_was_killed_is_replaced(seen: Stack, place: Path) -> None:
    path = place / "probed.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    close = await serve(seen, addresses=[], socket_path=path)
    assert (await Api(seen, "", path).ask("/-/healthy", by_socket=True))[0] == 200
    await close()


async def test_the_socket_of_a_daemon_that_lives_is_left_alone(api: Api) -> None:
    with pytest.raises(ConfigError) as error:
        await serve(api.seen, addresses=[], socket_path=api.path)
    assert "in use by another probed" in str(error.value)
    assert (await api.ask("/-/healthy", by_socket=True))[0] == 200


async def test_closing_leaves_the_socket_of_a_daemon_that_has_taken_over(seen: Stack, place: Path) -> None:
    path = place / "probed.sock"
    close = await serve(seen, addresses=[], socket_path=path)
    path.rename(place / "moved")
    path.write_text("somebody else's")
    await close()
    assert path.read_text() == "somebody else's"


async def test_a_path_that_is_no_place_for_a_socket_is_refused_with_the_remedy(seen: Stack, place: Path) -> None:
    (place / "file").write_text("precious")
    for path, says in (
        (place / "file", "is no socket"),
        (place / "missing" / "probed.sock", "does not exist; create it"),
        (place / ("x" * 120), "can have 107; set web.socket to a shorter one"),
    ):
        with pytest.raises(ConfigError) as error:
            await serve(seen, addresses=[], socket_path=path)
        [problem] = error.value.problems
        assert problem.where == "web.socket" and says in problem.message
    assert (place / "file").read_text() == "precious"


async def test_a_socket_path_of_107_bytes_works(seen: Stack, place: Path) -> None:
    path = place / ("x" * (107 - len(os.fsencode(place)) - 1))
    close = await serve(seen, addresses=[], socket_path=path)
    assert (await Api(seen, "", path).ask("/-/healthy", by_socket=True))[0] == 200
    await close()


async def test_every_door_that_cannot_be_had_is_named_and_then_none_is_open(seen: Stack, place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy, free = taken.getsockname()[1], free_port()
        addresses = [f"127.0.0.1:{free}", f"127.0.0.1:{busy}", "192.0.2.1:7432", "no.such.host.invalid:7432"]
        with pytest.raises(ConfigError) as error:
            await serve(seen, addresses=addresses, socket_path=place / "missing" / "probed.sock")
    problems = [str(problem) for problem in error.value.problems]
    assert len(problems) == 4
    assert problems[0].startswith(f"web.listen: 127.0.0.1:{busy} is in use by another program")
    assert "web.listen or --web.listen-address" in problems[0]
    assert "192.0.2.1:7432 is no address of this machine" in problems[1]
    assert "no.such.host.invalid:7432 cannot be resolved" in problems[2]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", free)


async def test_several_addresses_and_ipv6_are_served_by_one_daemon(seen: Stack) -> None:
    addresses = [f"127.0.0.1:{free_port()}", f"[::1]:{free_port()}", f"localhost:{free_port()}"]
    close = await serve(seen, addresses=addresses, socket_path=None)
    for address in addresses:
        assert (await Api(seen, address, Path()).ask("/-/healthy"))[0] == 200
    await close()


async def test_a_flood_of_connections_leaves_the_socket_open_to_administration(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 5)
    host, port = api.address.split(":")
    flood = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
    await api.ask("/-/healthy", by_socket=True)  # so that all of them have been accepted
    assert (await api.raw(b"GET /-/healthy HTTP/1.1\r\n")).startswith(b"HTTP/1.1 503 ")
    assert (await api.ask("/-/healthy", by_socket=True))[0] == 200
    for _, writer in flood:
        writer.close()
        await writer.wait_closed()
    assert (await api.ask("/-/healthy"))[0] == 200


async def test_a_client_that_never_ends_its_headers_is_cut_off(seen: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "IDLE_SECONDS", 0.2)
    address = f"127.0.0.1:{free_port()}"
    close = await serve(seen, addresses=[address], socket_path=None)
    slow = Api(seen, address, Path())
    assert await slow.raw(b"") == b""
    assert await slow.raw(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nX-Slow: ") == b""
    await close()


async def test_stopping_ends_idle_connections_at_once(seen: Stack) -> None:
    address = f"127.0.0.1:{free_port()}"
    close = await serve(seen, addresses=[address], socket_path=None)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address}/-/healthy") as response:
            await response.read()
        await asyncio.wait_for(close(), 1)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /\xff\xfe?x=\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/events?event=\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/events/\xed\xa0\x80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;version=\xff\r\nConnection: close\r\n\r\n",
        b"GET /-/healthy HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n",
        b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nConnection: close\r\n\r\nx",
        b"GET * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
)
async def test_garbage_is_answered_without_a_server_error_and_the_next_request_is_served(api: Api, sent: bytes) -> None:
    answer = await api.raw(sent)
    assert answer[9:10] in (b"4", b"2", b""), answer[:200]
    assert b"Traceback" not in answer
    assert (await api.ask("/-/healthy"))[0] == 200


def test_what_the_daemon_imports_before_it_serves_holds_no_web_server() -> None:
    code = "import sys, probed.api.served, probed.metrics; print('aiohttp' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
