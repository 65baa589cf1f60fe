"""One cause, one event, on the real cluster with three etcd members: what may be announced, and what stands under it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import pytest_asyncio

from probed.demo.lab import Lab
from tests.acceptance.watching import GRACE, INTERVAL, TIMEOUT, Json, Watcher, names, unix, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

WINDOW = 3 * INTERVAL + TIMEOUT + 1.0
"""By then the slowest event has opened."""


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def calm(lab: Lab, watcher: Watcher) -> AsyncIterator[None]:
    """Healthy before, healthy again after, the grace of the last switchover over."""
    await until(watcher.healthy, 120, "a healthy cluster")
    recent = await watcher.events(time.time() - GRACE, event="ha_switchover")
    if recent:
        await asyncio.sleep(max(0.0, unix(recent[-1]["opened_at"]) + GRACE - time.time()))
    yield
    await until(watcher.healthy, 120, "everything to resolve after the healing")


async def told(watcher: Watcher, since: float) -> tuple[list[str], list[Json]]:
    """(names of what was announced, what was held back)."""
    events = await watcher.events(since)
    return names([event for event in events if not event["suppressed"]]), [e for e in events if e["suppressed"]]


async def announced(watcher: Watcher, since: float, *expected: str, seconds: float) -> None:
    async def all_there() -> bool:
        return set(expected) <= set((await told(watcher, since))[0])

    await until(all_there, seconds, f"{expected}")


def stand_under(held: list[Json], cause: Json, *allowed: str) -> None:
    assert {event["event"] for event in held} <= set(allowed), held
    assert {event["caused_by"] for event in held} <= {cause["id"]}, held


async def ask_patroni(lab: Lab, method: str, path: str, body: Json, node: str | None = None) -> tuple[int, str]:
    node = node or await lab.leader() or next(iter(lab.nodes))
    url = f"{lab.nodes[node].patroni_url}{path}"
    async with aiohttp.ClientSession() as http, http.request(method, url, json=body) as answer:
        return answer.status, await answer.text()


async def one(watcher: Watcher, since: float, name: str) -> Json:
    [event] = [event for event in await watcher.announced(since) if event["event"] == name]
    return event


async def switchover_of(watcher: Watcher, since: float) -> Json:
    event = await one(watcher, since, "ha_switchover")
    return dict(event["details"]["switchover"])


# --- planned work


async def test_a_scheduled_switchover_is_known_from_patronis_calendar(lab: Lab, watcher: Watcher) -> None:
    begin, leader = time.time(), await lab.leader()
    other = next(name for name in lab.nodes if name != leader)
    at = (datetime.now(UTC) + timedelta(seconds=15)).isoformat()
    order = {"leader": leader, "candidate": other, "scheduled_at": at}
    assert (await ask_patroni(lab, "POST", "/switchover", order))[0] == 202
    await announced(watcher, begin, "ha_switchover", seconds=45)
    story = await switchover_of(watcher, begin)
    assert (story["class"], story["confidence"], story["scheduled"]) == ("planned", "high", True)
    assert (story["old_leader"], story["new_leader"]) == (leader, other)
    assert (await told(watcher, begin))[0] == ["ha_switchover"]


async def test_a_planned_restart_of_postgresql_is_no_event_and_is_recorded(lab: Lab, watcher: Watcher) -> None:
    begin = time.time()
    assert (await ask_patroni(lab, "POST", "/restart", {}))[0] == 200
    await asyncio.sleep(WINDOW)
    assert await watcher.events(begin) == []
    page = await watcher.get("/api/v1/leadership", since="-2m")
    assert page["items"][0]["class"] == "restart"
    assert page["items"][0]["old_leader"] == page["items"][0]["new_leader"] == await lab.leader()


async def test_a_paused_cluster_and_one_dead_etcd_member_of_three_are_no_event(lab: Lab, watcher: Watcher) -> None:
    begin = time.time()
    assert (await ask_patroni(lab, "PATCH", "/config", {"pause": True}))[0] == 200
    await lab.kill_etcd(2)
    try:
        await asyncio.sleep(WINDOW + INTERVAL)
        assert await watcher.events(begin) == []
        instance = await watcher.instance()
        assert instance["paused"] is True
        targets = instance["targets"]
        assert any(t["readings"].get("paused") == 1.0 for t in targets if t["probe"] == "patroni_cluster")
        assert any("degraded" in t["reason"] for t in targets if t["probe"] == "etcd_quorum")
    finally:
        await lab.start_etcd(2)
        await eventually(lambda: ask_patroni(lab, "PATCH", "/config", {"pause": None}))


# --- failures


async def test_a_replica_that_is_cut_off_under_writes_is_one_event_with_its_lag_under_it(
    lab: Lab, watcher: Watcher
) -> None:
    from probed.demo.faults import FAULTS

    begin, fault = time.time(), FAULTS["wal-receiver"]
    await fault.break_(lab)
    try:
        async with writing(lab):

            async def lagging() -> bool:
                return "replication_lag_high" in {event["event"] for event in (await told(watcher, begin))[1]}

            await until(lagging, 30 + WINDOW + 10, "the lag to reach its threshold")
        cause = await one(watcher, begin, "wal_receiver_interrupted")
        names_, held = await told(watcher, begin)
        assert names_ == ["wal_receiver_interrupted"]
        stand_under(held, cause, "replication_lag_high")
    finally:
        await fault.heal(lab)


@contextlib.asynccontextmanager
async def writing(lab: Lab) -> AsyncIterator[None]:
    """Some rows a second on the leader, while the block runs."""
    leader = await lab.leader()
    assert leader is not None

    async def write() -> None:
        async with lab.session(leader) as connection:
            await connection.execute("CREATE TABLE IF NOT EXISTS cut_off (at timestamptz DEFAULT now(), filler text)")
            while True:
                await connection.execute("INSERT INTO cut_off (filler) SELECT repeat('x', 1000)")
                await asyncio.sleep(0.5)

    writer = asyncio.create_task(write())
    try:
        yield
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def test_a_dead_patroni_beside_a_living_replica_is_that_and_nothing_else(lab: Lab, watcher: Watcher) -> None:
    begin, leader = time.time(), await lab.leader()
    replica = next(name for name in lab.nodes if name != leader)
    await lab.kill_patroni(replica)
    try:
        await announced(watcher, begin, "patroni_node_abnormal", seconds=WINDOW)
        await asyncio.sleep(20 + WINDOW)  # its entry leaves the list after the ttl, and nothing more comes of it
        assert await told(watcher, begin) == (["patroni_node_abnormal"], [])
    finally:
        await lab.start_patroni(replica)


async def test_a_primary_that_goes_on_without_its_patroni_ends_in_two_primaries_and_both_are_named(
    lab: Lab, watcher: Watcher
) -> None:
    begin, leader = time.time(), await lab.leader()
    assert leader is not None
    await lab.kill_patroni(leader)
    try:
        await announced(watcher, begin, "patroni_node_abnormal", seconds=WINDOW)
        patroni = await one(watcher, begin, "patroni_node_abnormal")
        await announced(watcher, begin, "split_brain", seconds=60)
        split = await one(watcher, begin, "split_brain")
        assert split["severity"] == "fatal"
        assert all(node in split["message"] for node in lab.nodes)
        names_, held = await told(watcher, begin)
        # Clients of the write port really are without a primary, until HAProxy has found the new one.
        assert set(names_) - {"database_unavailable"} == {"patroni_node_abnormal", "split_brain"}
        ports = [event for event in await watcher.announced(begin) if event["event"] == "database_unavailable"]
        assert all(event["node"] is None and event["caused_by"] == patroni["id"] for event in ports)
        assert held == []
    finally:
        await lab.start_patroni(leader)
    await announced(watcher, begin, "ha_switchover", seconds=60)
    story = await switchover_of(watcher, begin)
    assert story["class"] == "automatic_failover"
    assert story["old_leader"] == leader


# --- etcd


async def test_without_any_etcd_and_without_failsafe_the_missing_leader_stands_under_etcd(
    lab: Lab, watcher: Watcher
) -> None:
    begin, dead = time.time(), len(lab.etcd_urls)
    await asyncio.gather(*(lab.kill_etcd(index) for index in range(dead)))
    try:
        await announced(watcher, begin, "etcd_unavailable", seconds=WINDOW + 5)

        async def no_leader() -> bool:
            return "no_leader" in {event["event"] for event in (await told(watcher, begin))[1]}

        await until(no_leader, 30, "the leader to step down")
        await asyncio.sleep(WINDOW)
        cause = await one(watcher, begin, "etcd_unavailable")
        names_, held = await told(watcher, begin)
        assert names_ == ["etcd_unavailable"]
        stand_under(
            held, cause, "no_leader", "patroni_node_abnormal", "database_unavailable", "wal_receiver_interrupted"
        )
    finally:
        for index in range(dead):
            await lab.start_etcd(index)
    await until(watcher.healthy, 120, "everything to resolve")
    assert (await told(watcher, begin))[0] == ["etcd_unavailable"]


async def test_with_failsafe_mode_the_loss_of_all_of_etcd_is_that_alone(lab: Lab, watcher: Watcher) -> None:
    assert (await ask_patroni(lab, "PATCH", "/config", {"failsafe_mode": True}))[0] == 200
    await asyncio.sleep(2 * INTERVAL)  # Patroni reads it in its next loop
    begin, leader = time.time(), await lab.leader()
    try:
        await asyncio.gather(*(lab.kill_etcd(index) for index in range(3)))
        try:
            await announced(watcher, begin, "etcd_unavailable", seconds=WINDOW + 5)
            await asyncio.sleep(20 + WINDOW)
            names_, held = await told(watcher, begin)
            assert names_ == ["etcd_unavailable"]
            assert "no_leader" not in {event["event"] for event in held}
            assert (await watcher.instance())["leader"] == leader
        finally:
            for index in range(3):
                await lab.start_etcd(index)
        await until(watcher.healthy, 120, "etcd to be back")
    finally:
        await eventually(lambda: ask_patroni(lab, "PATCH", "/config", {"failsafe_mode": None}))


async def eventually(ask: Callable[[], Awaitable[tuple[int, str]]]) -> None:
    async def done() -> bool:
        return (await ask())[0] == 200

    await until(done, 30, "Patroni to take the change")


# --- the observer itself


async def test_a_daemon_that_was_stopped_for_twenty_seconds_tells_the_gap_and_blames_nobody(
    lab: Lab, watcher: Watcher
) -> None:
    import signal

    begin = time.time()
    watcher.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(20)
    watcher.process.send_signal(signal.SIGCONT)
    await announced(watcher, begin, "monitoring_gap", seconds=15)
    await asyncio.sleep(WINDOW)
    assert await told(watcher, begin) == (["monitoring_gap"], [])
    [gap] = (await watcher.get("/api/v1/gaps", since="-2m"))["items"]
    assert 18 <= gap["seconds"] <= 30
    assert gap["reason"] == "stalled"
