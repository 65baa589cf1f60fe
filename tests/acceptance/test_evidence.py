"""What is kept with events of a real cluster: the time before, the time after, and what could not be had."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from probed.demo.faults import FAULTS
from probed.demo.lab import Lab
from tests.acceptance.watching import INTERVAL, Json, Watcher, configure, unix, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

CANARY = "Zq7hunter2x"


async def event_of(watcher: Watcher, since: float, name: str, seconds: float = 60.0) -> Json:
    async def found() -> Json | None:
        return next((event for event in await watcher.events(since) if event["event"] == name), None)

    event = await until(found, seconds, name)
    assert event is not None
    return event


async def evidence_of(
    watcher: Watcher, event: Mapping[str, str], collector: str, moment: str = "trigger", seconds: float = 30.0
) -> list[Json]:
    """All of one collector about one moment, once there is one taken after it."""

    async def complete() -> list[Json]:
        detail = await watcher.get(f"/api/v1/events/{event['id']}")
        items = [i for i in detail["evidence"] if (i["collector"], i["moment"]) == (collector, moment)]
        return items if any(item["when"] == "after" for item in items) else []

    return await until(complete, seconds, f"{collector} at the {moment}")


async def test_a_killed_primary_leaves_what_was_before_what_is_after_and_why_the_rest_is_missing(
    lab: Lab, watcher: Watcher
) -> None:
    await until(watcher.healthy, 60, "the cluster to be healthy")
    await asyncio.sleep(3 * INTERVAL)  # a slow machine may need some rounds until one is quick enough for a snapshot
    leader = await lab.leader()
    broken = time.time()
    await FAULTS["primary-kill"].break_(lab)
    try:
        event = await event_of(watcher, broken, "database_unavailable")
        activity = await evidence_of(watcher, event, "postgres_activity")
        cluster = await evidence_of(watcher, event, "patroni_cluster")
        [pressure] = await evidence_of(watcher, event, "pressure")
        switchover = await event_of(watcher, broken, "ha_switchover", 60)
        history = await evidence_of(watcher, switchover, "patroni_history", "recovery", 60)
    finally:
        await FAULTS["primary-kill"].heal(lab)
    await until(watcher.healthy, 90, "everything to resolve")

    began = unix(event["first_failed_at"])
    assert [item["when"] for item in activity] == ["before"] * (len(activity) - 1) + ["after"]
    assert len(activity) > 1 and all(unix(item["taken_at"]) < began for item in activity[:-1])
    assert activity[0]["data"]["clients"] >= 1
    assert "refused" in activity[-1]["error"]
    assert cluster[0]["when"] == "before" and unix(cluster[0]["taken_at"]) < began
    roles = {row["name"]: row["role"] for row in cluster[0]["data"]["members"]}
    assert roles[str(leader)] == "leader"
    assert "data" in cluster[-1]
    assert "cpu" in pressure["data"], "the demo's nodes are local: what the machine felt is there"
    assert history[-1]["data"]["switches"][-1]["leader"] != leader

    again = await evidence_of(watcher, event, "postgres_replication", "recovery")
    returned = next(item for item in again if item["target"] == f"orders/{leader}/postgres")
    assert returned["data"]["in_recovery"] is True and unix(returned["data"]["started_at"]) > broken
    detail = await watcher.get(f"/api/v1/events/{event['id']}")
    assert len(json.dumps(detail["evidence"])) < 300_000


async def test_no_secret_and_no_literal_is_in_any_evidence(lab: Lab, watcher: Watcher) -> None:
    await until(watcher.healthy, 90, "the cluster to be healthy")
    leader = await lab.leader()
    broken = time.time()
    session = await lab.connect(str(leader))
    try:
        await session.execute(f"BEGIN; SELECT '{CANARY}', 42424242, $x${CANARY}$x$ /* {CANARY} */")
        await FAULTS["connections"].break_(lab)
        event = await event_of(watcher, broken, "connections_high")
        *_, activity = await evidence_of(watcher, event, "postgres_activity")
    finally:
        await FAULTS["connections"].heal(lab)
        await session.close()
    texts = [row.get("query", "") for row in activity["data"]["oldest_transactions"]]
    assert "BEGIN; SELECT ?, ?, ?" in texts
    await until(watcher.healthy, 90, "everything to resolve")
    for item in await watcher.events(0):
        detail = json.dumps(await watcher.get(f"/api/v1/events/{item['id']}"))
        for secret in (CANARY, "42424242"):
            assert secret not in detail
    assert CANARY not in watcher.log.read_text()


async def test_evidence_that_a_kill_interrupted_is_taken_by_the_next_daemon(
    lab: Lab, place: Path, watcher: Watcher
) -> None:
    await until(watcher.healthy, 90, "the cluster to be healthy")
    own = Watcher(configure(place / "killed", lab))
    await own.start()
    try:
        await until(own.healthy, 30, "a healthy picture")
        broken = time.time()
        # A frozen server makes its collectors wait for their deadline: time enough to be killed meanwhile.
        await FAULTS["primary-freeze"].break_(lab)
        event = await event_of(own, broken, "database_unavailable")
        await own.kill()
        killed = time.time()
        await own.start()
        activity = await evidence_of(own, event, "postgres_activity")
        assert unix(activity[-1]["taken_at"]) > killed
        assert activity[0]["when"] == "before"
    finally:
        await FAULTS["primary-freeze"].heal(lab)
        assert await own.stop() == 0
    await until(watcher.healthy, 90, "everything to resolve")
