"""What Patroni 3.0, 3.3, 4.0 and 4.1 answer, in shapes recorded from them, and the ways in which they do not answer."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from probed.clock import SystemClock
from probed.model import Outcome, Sample, Target
from probed.probes import Combined, Context, Probe, View, catalogue
from probed.probes._http import HttpClient
from probed.probes._patroni import ClusterMember, member_of
from probed.sampling import combine, take_sample
from tests import hostile
from tests.hostile import HTTP, answering, listening

PATIENT = 10.0
Json = dict[str, Any]

SENDERS = [
    {
        "usename": "replicator",
        "application_name": "node-b",
        "client_addr": "10.0.0.2",
        "state": "streaming",
        "sync_state": "async",
        "sync_priority": 0,
    }
]
PRIMARY_3_0: Json = {
    "state": "running",
    "postmaster_start_time": "2023-02-01 09:12:33.411245+00:00",
    "role": "master",
    "server_version": 150001,
    "xlog": {"location": 67395656},
    "timeline": 4,
    "replication": SENDERS,
    "dcs_last_seen": 1675242753,
    "database_system_identifier": "7195247349871235110",
    "patroni": {"version": "3.0.0", "scope": "demo"},
}
REPLICA_3_0: Json = {
    "state": "running",
    "postmaster_start_time": "2023-02-01 09:12:35.211245+00:00",
    "role": "replica",
    "server_version": 150001,
    "xlog": {
        "received_location": 67395656,
        "replayed_location": 67395656,
        "replayed_timestamp": "2023-02-01 09:20:01.120000+00:00",
        "paused": False,
    },
    "timeline": 4,
    "dcs_last_seen": 1675242753,
    "database_system_identifier": "7195247349871235110",
    "patroni": {"version": "3.0.0", "scope": "demo"},
}
REPLICA_3_3: Json = REPLICA_3_0 | {
    "replication_state": "streaming",
    "pending_restart": True,
    "pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "200"}},
    "tags": {"clonefrom": True},
    "patroni": {"version": "3.3.2", "scope": "demo", "name": "node-b"},
}
PRIMARY_4_0: Json = PRIMARY_3_0 | {
    "role": "primary",
    "server_version": 160004,
    "patroni": {"version": "4.0.0", "scope": "demo", "name": "node-a"},
}
REPLICA_4_1: Json = REPLICA_3_0 | {
    "server_version": 180001,
    "latest_end_lsn": 67395656,
    "replication_state": "streaming",
    "quorum_standby": True,
    "patroni": {"version": "4.1.4", "scope": "demo", "name": "node-b"},
}
STANDBY_LEADER_4_0: Json = REPLICA_4_1 | {
    "role": "standby_leader",
    "patroni": {"version": "4.0.7", "scope": "demo", "name": "node-a"},
}
# While PostgreSQL cannot be asked: from memory, with HTTP status 503.
STOPPED: Json = {
    "state": "start failed",
    "role": "replica",
    "dcs_last_seen": 1675242753,
    "patroni": {"version": "4.0.0", "scope": "demo", "name": "node-b"},
}


def member(name: str, number: int, role: str, state: str, **more: Any) -> Json:
    row: Json = {
        "name": name,
        "role": role,
        "state": state,
        "api_url": f"http://10.0.0.{number}:8008/patroni",
        "host": f"10.0.0.{number}",
        "port": 5432,
        "timeline": 4,
    }
    return row | more


CLUSTER_3_0: Json = {
    "members": [
        member("node-a", 1, "leader", "running"),
        member("node-b", 2, "replica", "running", lag=0),
        member("node-c", 3, "sync_standby", "running", lag=16384, tags={"nofailover": True}),
    ],
    "scope": "demo",
}
CLUSTER_3_3: Json = {
    "members": [
        member("node-a", 1, "leader", "running", pending_restart=True),
        member("node-b", 2, "replica", "streaming", lag=0),
        member("node-c", 3, "replica", "start failed", lag="unknown"),
    ],
    "scope": "demo",
    "pause": True,
    "scheduled_switchover": {"at": "2026-11-23T03:00:00+00:00", "from": "node-a", "to": "node-b"},
}
LOCATIONS = {
    "lsn": "0/4046000",
    "receive_lsn": "0/4046000",
    "replay_lsn": "0/4046000",
    "receive_lag": 0,
    "replay_lag": 0,
}
UNKNOWN = dict.fromkeys(("lag", "lsn", "receive_lag", "receive_lsn", "replay_lag", "replay_lsn"), "unknown")
CLUSTER_4_1: Json = {
    "members": [
        member("node-a", 1, "leader", "running"),
        member("node-b", 2, "quorum_standby", "streaming", lag=0, **LOCATIONS),
        {"name": "node-c", "role": "replica", "state": "creating replica", "api_url": "http://10.0.0.3:8008/patroni"}
        | {"host": "10.0.0.3", "port": 5432}
        | UNKNOWN,
    ],
    "scope": "demo",
}
STANDBY_CLUSTER_4_0: Json = {
    "members": [
        member("node-a", 1, "standby_leader", "streaming"),
        member("node-b", 2, "replica", "in archive recovery", lag="unknown"),
    ],
    "scope": "demo",
}
WITHOUT_LEADER: Json = {"members": [member("node-b", 2, "replica", "running", lag=0)], "scope": "demo"}


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


async def ask(
    http: HttpClient, name: str, *urls: str, memory: dict[str, object] | None = None, deadline: float = PATIENT
) -> Sample:
    probe = catalogue()[name]
    assert isinstance(probe, Probe)
    node = "" if name == "patroni_cluster" else "node-b"
    context = Context(Target("orders", node, "patroni", urls[0]), deadline, urls, _http=http, memory=memory or {})
    if memory is not None:
        context.memory = memory
    return await take_sample(probe, context, deadline, SystemClock())


async def answered(http: HttpClient, name: str, payload: Json, status: bytes = b"200 OK") -> Sample:
    """The sample of a probe whose Patroni answers ``payload``, as its server does: HTTP/1.0, then the connection closes."""
    body = json.dumps(payload).encode()
    head = b"HTTP/1.0 " + status + b"\r\nServer: BaseHTTP/0.6 Python/3.11\r\nContent-Type: application/json\r\n\r\n"
    async with listening(hostile.saying(head + body)) as peer:
        return await ask(http, name, peer.url)


def members(sample: Sample) -> Mapping[str, ClusterMember]:
    assert sample.outcome is Outcome.OBSERVED, sample.reason
    found = cast(tuple[ClusterMember, ...], sample.facts["members"])
    assert sample.readings["members"] == float(len(found))
    return {one.name: one for one in found}


# --- /patroni -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload, role, name",
    [
        (PRIMARY_3_0, "primary", None),
        (REPLICA_3_0, "replica", None),
        (REPLICA_3_3, "replica", "node-b"),
        (PRIMARY_4_0, "primary", "node-a"),
        (REPLICA_4_1, "replica", "node-b"),
        (STANDBY_LEADER_4_0, "standby_leader", "node-a"),
    ],
)
async def test_a_running_node_of_each_version_is_read_alike(
    http: HttpClient, payload: Json, role: str, name: str | None
) -> None:
    sample = await answered(http, "patroni_rest", payload)
    assert sample.outcome is Outcome.OBSERVED
    assert sample.readings == {"state": "running", "role": role, "timeline": 4.0}
    assert (sample.facts["name"], sample.facts["pause"]) == (name, False)


async def test_a_stopped_node_answers_503_and_its_body_decides(http: HttpClient) -> None:
    sample = await answered(http, "patroni_rest", STOPPED, b"503 Service Unavailable")
    assert (sample.outcome, sample.readings["state"]) == (Outcome.OBSERVED, "start failed")
    assert "timeline" not in sample.readings


async def test_a_node_in_pause_and_one_without_a_timeline_are_read(http: HttpClient) -> None:
    sample = await answered(http, "patroni_rest", REPLICA_4_1 | {"pause": True, "timeline": None})
    assert sample.facts["pause"] is True
    assert "timeline" not in sample.readings


# --- /cluster -----------------------------------------------------------------------------------------------------


async def test_a_cluster_of_patroni_3_0_has_its_leader_members_and_lags(http: HttpClient) -> None:
    found = members(await answered(http, "patroni_cluster", CLUSTER_3_0))
    assert {name: (one.role, one.state, one.lag, one.leads) for name, one in found.items()} == {
        "node-a": ("leader", "running", None, True),
        "node-b": ("replica", "running", 0, False),
        "node-c": ("sync_standby", "running", 16384, False),
    }
    assert found["node-b"] == ClusterMember(
        "node-b", "replica", "running", "10.0.0.2", 5432, "http://10.0.0.2:8008", 4, 0
    )  # fmt: skip


async def test_a_paused_cluster_of_patroni_3_3_with_an_unknown_lag_is_read(http: HttpClient) -> None:
    sample = await answered(http, "patroni_cluster", CLUSTER_3_3)
    found = members(sample)
    assert (sample.readings["paused"], sample.facts["pause"], sample.facts["scope"]) == (1.0, True, "demo")
    assert (found["node-c"].state, found["node-c"].lag) == ("start failed", None)


async def test_a_cluster_of_patroni_4_1_with_a_replica_being_built_is_read(http: HttpClient) -> None:
    sample = await answered(http, "patroni_cluster", CLUSTER_4_1)
    found = members(sample)
    assert sample.readings["paused"] == 0.0
    assert (found["node-b"].role, found["node-b"].lag) == ("quorum_standby", 0)
    assert (found["node-c"].timeline, found["node-c"].lag) == (None, None)


async def test_a_standby_cluster_has_a_leader_and_a_cluster_without_one_has_none(http: HttpClient) -> None:
    found = members(await answered(http, "patroni_cluster", STANDBY_CLUSTER_4_0))
    assert [one.name for one in found.values() if one.leads] == ["node-a"]
    found = members(await answered(http, "patroni_cluster", WITHOUT_LEADER))
    assert [one.name for one in found.values() if one.leads] == []


async def test_a_member_that_vanished_from_the_list_is_abnormal_and_others_are_well(http: HttpClient) -> None:
    rest = await answered(http, "patroni_rest", REPLICA_3_3)
    for payload, healthy in ((CLUSTER_3_3, 1.0), ({**CLUSTER_3_3, "members": CLUSTER_3_3["members"][:1]}, 0.0)):
        cluster = await answered(http, "patroni_cluster", payload)
        probe = catalogue()["patroni_member"]
        assert isinstance(probe, Combined)
        seen = {("patroni_rest", "node-b"): rest, ("patroni_cluster", ""): cluster}
        target = Target("orders", "node-b", "patroni")
        sample = combine(probe, View(target, ("node-a", "node-b"), seen, 0.0, 0.0))
        assert sample.readings["healthy"] == healthy, sample.reason


@pytest.mark.parametrize(
    "row, kept",
    [
        ({"name": ""}, False),
        ({"name": 7}, False),
        ({}, False),
        ("node-a", False),
        (None, False),
        ({"name": "node-a"}, True),
        (member("node-a", 1, "leader", "running", port="5432", timeline="4", lag=True), True),
        (member("node-a", 1, "leader", "running", port=10**15, timeline=-1, lag=-1), True),
        (member("node-a", 1, "leader", "running", host="/tmp", api_url="file:///etc/passwd"), True),
        (member("node-a", 1, "leader", "running", host="10.0.0.1,evil", api_url="http://[::1"), True),
        (member("node-a", 1, "leader", "running", host=["10.0.0.1"], api_url="http://x:99999/"), True),
    ],
)
def test_implausible_members_lose_what_is_implausible_and_never_raise(row: object, kept: bool) -> None:
    found = member_of(row)
    assert (found is not None) is kept
    if found is not None:
        assert (found.name, found.port, found.lag) == ("node-a", 5432, None)
        assert found.timeline in (None, 4)
        assert found.host in ("", "10.0.0.1")
        assert found.api_url in ("", "http://10.0.0.1:8008")


def test_credentials_and_paths_of_a_members_address_are_dropped() -> None:
    found = member_of({"name": "n", "api_url": "https://user:secret@[fe80::1]:8008/patroni?key=1"})
    assert found is not None
    assert (found.api_url, found.host) == ("https://[fe80::1]:8008", "fe80::1")


async def test_hostile_names_are_one_printable_line_and_a_name_counts_once(http: HttpClient) -> None:
    rows = [{"name": "a\n\x1b[31m\u202eb" + "x" * 500}, {"name": "twice"}, {"name": "twice"}]
    found = members(await answered(http, "patroni_cluster", {"members": rows + [{}] * 200, "scope": ["x"]}))
    assert len(found) == 2
    assert all(name.isprintable() and len(name) <= 200 for name in found)


# --- who is asked, and who is asked next --------------------------------------------------------------------------


async def test_a_connection_closed_without_an_answer_is_a_failed_sample_and_no_missing_leader(http: HttpClient) -> None:
    # Patroni's answer to /cluster while the DCS is away.
    async with listening(HTTP["close_after_request"]) as one, listening(HTTP["close_after_request"]) as two:
        sample = await ask(http, "patroni_cluster", one.url, two.url)
    assert (sample.outcome, sample.kind) == (Outcome.FAILED, "closed")
    assert "members" not in sample.facts


async def test_the_next_member_is_asked_while_the_first_hangs_and_preferred_from_then_on(http: HttpClient) -> None:
    memory: dict[str, object] = {}
    body = json.dumps(CLUSTER_4_1).encode()
    async with listening(HTTP["accept_and_hang"]) as hung, listening(answering(body)) as well:
        sample = await ask(http, "patroni_cluster", hung.url, well.url, memory=memory, deadline=6.0)
        assert sample.outcome is Outcome.OBSERVED
        assert 6.0 / 3 <= sample.duration < 6.0
        assert (hung.accepted, well.accepted) == (1, 1)
        for _ in range(3):
            sample = await ask(http, "patroni_cluster", hung.url, well.url, memory=memory)
            assert sample.outcome is Outcome.OBSERVED
            assert sample.duration < PATIENT / 3
        assert hung.accepted == 1


@pytest.mark.parametrize(
    "first",
    [HTTP["close_after_request"], HTTP["redirect_to_itself"], answering(b"{}", b"HTTP/1.1 500 Oops\r\n")],
    ids=["closed", "redirect", "500"],
)
async def test_the_next_member_is_asked_at_once_when_the_first_fails(
    http: HttpClient, first: hostile.Behaviour
) -> None:
    async with listening(first) as failing, listening(answering(json.dumps(CLUSTER_4_1).encode())) as well:
        refused = f"http://127.0.0.1:{hostile.refusing()}"
        sample = await ask(http, "patroni_cluster", refused, failing.url, well.url, deadline=30.0)
        assert sample.outcome is Outcome.OBSERVED
        assert sample.duration < 30.0 / 4


async def test_when_all_members_hang_the_deadline_ends_every_question(http: HttpClient) -> None:
    async with listening(HTTP["accept_and_hang"]) as one, listening(HTTP["slow_headers"]) as two:
        sample = await ask(http, "patroni_cluster", one.url, two.url, deadline=0.3)
        assert (sample.outcome, sample.kind) == (Outcome.FAILED, "timeout")
        assert asyncio.all_tasks() - {asyncio.current_task()} <= _servers()
        for _ in range(100):
            if one.open == two.open == 0:
                break
            await asyncio.sleep(0.02)
        assert (one.open, two.open, one.most_open, two.most_open) == (0, 0, 1, 1)


def _servers() -> set[asyncio.Task[Any]]:
    """The tasks of the hostile peers themselves."""
    return {task for task in asyncio.all_tasks() if "serve" in repr(task.get_coro())}


async def test_answers_that_fail_in_the_same_moment_are_all_looked_at(
    http: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps(CLUSTER_4_1).encode()
    for _ in range(10):
        async with listening(HTTP["accept_and_hang"]) as hung:
            release = asyncio.Event()

            async def late(line: hostile.Line, release: asyncio.Event = release) -> None:
                await line.request()
                await release.wait()

            async def late_and_well(line: hostile.Line, release: asyncio.Event = release) -> None:
                await line.request()
                await release.wait()
                await line.say(hostile.OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

            async with listening(late) as failing, listening(late_and_well) as well:
                asyncio.get_running_loop().call_later(0.12, release.set)
                sample = await ask(http, "patroni_cluster", failing.url, well.url, hung.url, deadline=0.4)
                assert sample.outcome is Outcome.OBSERVED or sample.kind == "lag"
    gc.collect()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_patronis_own_way_to_close_each_connection_never_fails_a_sample(http: HttpClient) -> None:
    head = b"HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11\r\nContent-Type: application/json\r\n\r\n"
    async with listening(hostile.saying(head + json.dumps(REPLICA_4_1).encode())) as peer:
        for _ in range(50):
            assert (await ask(http, "patroni_rest", peer.url)).outcome is Outcome.OBSERVED
        assert (peer.accepted, len(peer.requests)) == (50, 50)
