"""Every fault of the demo on the real cluster: the right event, once, in time, and nothing else; then its end."""

from __future__ import annotations

import asyncio
import time

import pytest

from probed.demo.faults import FAULTS
from probed.demo.lab import Lab
from tests.acceptance.watching import GRACE, INTERVAL, TIMEOUT, Json, Watcher, names, unix, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

TTL, LOOP_WAIT = 20.0, 2.0
"""Of the lab's Patroni."""


def within(count: int, *, interval: float = INTERVAL, patroni: float = 0.0, value: float = 0.0) -> float:
    """The promise: n intervals + timeout + 1 s, plus what Patroni, or the growth of the value, needs by itself."""
    return count * interval + TIMEOUT + 1.0 + patroni + value


FAILOVER = TTL + 2 * LOOP_WAIT + 10.0
SLOW = 10.0
"""Interval of the demo's policies on cache and size."""
BOUNDS = {
    "primary-kill": {"database_unavailable": within(3), "ha_switchover": within(1, patroni=FAILOVER)},
    "primary-freeze": {"database_unavailable": within(3), "ha_switchover": within(1, patroni=FAILOVER)},
    "replica-kill": {"database_unavailable": within(3)},
    "switchover": {"ha_switchover": within(1)},
    "replication-lag": {"replication_lag_high": within(2, value=30.0)},
    "wal-receiver": {"wal_receiver_interrupted": within(2)},
    "connections": {"connections_high": within(2)},
    "deadlocks": {"deadlocks_frequent": within(1)},
    "patroni-freeze": {"patroni_node_abnormal": within(2)},
    "etcd-kill": {"etcd_unavailable": within(3)},
    "haproxy-kill": {"haproxy_unavailable": within(3)},
    "no-leader": {"no_leader": within(2, patroni=2 * LOOP_WAIT)},
    # The cycle in which it begins may have been a good one for the most part.
    "cache-misses": {"cache_hit_ratio_low": within(3, interval=SLOW)},
    "slow-answers": {"ping_latency_high": within(2)},
    "runaway-job": {"capacity_high": within(1, interval=SLOW)},
    "oom-kill": {"oom_killed": within(1)},
    "gateway-amnesia": {"api_gateway_unavailable": within(3)},
    "auth-exit": {"auth_unavailable": within(3)},
    "rest-pool": {"rest_unavailable": within(3)},
    "realtime-freeze": {"realtime_unavailable": within(3)},
    "storage-exit": {"storage_unavailable": within(3)},
    "studio-error": {"studio_unavailable": within(3)},
    "meta-kill": {"component_abnormal": within(3)},
}
SEVERITIES = {
    "replica-kill": "critical",
    "database_unavailable": "fatal",
    "no_leader": "fatal",
    "etcd_unavailable": "fatal",
    "haproxy_unavailable": "fatal",
    "api_gateway_unavailable": "fatal",
    "deadlocks_frequent": "normal",
    "cache_hit_ratio_low": "normal",
    "ping_latency_high": "normal",
    "capacity_high": "normal",
    "studio_unavailable": "normal",
    "component_abnormal": "normal",
}
"""Of a fault, or of an event; all others are critical."""
OCCURRENCES = ("ha_switchover", "oom_killed")
POSTGRES, PATRONI = "PostgreSQL 18", "Patroni 4.1 with PostgreSQL 18"
SERVERS = {
    **dict.fromkeys(("primary-kill", "primary-freeze", "replica-kill"), POSTGRES),
    **dict.fromkeys(("replication-lag", "wal-receiver", "connections", "deadlocks"), POSTGRES),
    **dict.fromkeys(("cache-misses", "slow-answers", "runaway-job"), POSTGRES),
    **dict.fromkeys(("switchover", "patroni-freeze", "no-leader"), PATRONI),
    "etcd-kill": "etcd 3.5",
    "haproxy-kill": "HAProxy 2.6 or newer",
    "meta-kill": "postgres-meta 0.99.0",
}
"""What is real; everything else stands in as it was recorded."""
RECORDINGS = {
    "gateway-amnesia": "kong",
    "auth-exit": "auth",
    "rest-pool": "rest",
    "realtime-freeze": "realtime",
    "storage-exit": "storage",
    "studio-error": "studio",
}
TOGETHER = {
    "machine": ("cache-misses", "slow-answers", "runaway-job", "oom-kill"),
    "components": (*RECORDINGS, "meta-kill"),
}
"""Faults that have nothing to do with each other are caused at once: none may hide another."""
ALONE = {name: (name,) for name in BOUNDS if not any(name in names for names in TOGETHER.values())}


def _proofs(name: str) -> list[pytest.MarkDecorator]:
    if name == "oom-kill":
        return [pytest.mark.proves("oom_killed", written="memory.events of Linux 5.17 and later")]
    proof = {"server": SERVERS[name]} if name in SERVERS else {"recording": RECORDINGS[name]}
    return [pytest.mark.proves(event, **proof) for event in FAULTS[name].expects]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(faults, id=name, marks=[mark for fault in faults for mark in _proofs(fault)])
        for name, faults in {**ALONE, **TOGETHER}.items()
    ],
)
async def test_faults_make_their_events_appear_once_in_time_and_resolve_and_no_other(
    faults: tuple[str, ...], lab: Lab, watcher: Watcher
) -> None:
    if "haproxy-kill" in faults and lab.haproxy_write_address is None:
        pytest.skip("HAProxy is not installed")
    bounds = {event: (name, seconds) for name in faults for event, seconds in BOUNDS[name].items()}
    await until(watcher.healthy, 60, "the cluster to be healthy before the fault")
    broken = time.time()
    for name in faults:
        await FAULTS[name].break_(lab)
    done = time.time()
    expected = sorted(event for name in faults for event in FAULTS[name].expects)
    assert expected == sorted(bounds)

    async def all_there() -> bool:
        return set(expected) <= set(names(await watcher.announced(broken)))

    await until(all_there, max(seconds for _, seconds in bounds.values()) + 15, f"{expected}")
    # The other events had as much time as they would have needed.
    await asyncio.sleep(max(0.0, done + within(3) - time.time()))
    for name in faults:
        await FAULTS[name].heal(lab)
    await until(watcher.healthy, 90, "everything to resolve after the healing")

    events = await watcher.announced(broken)
    told = "\n".join(f"{event['opened_at']} {event['event']} {event['target']}: {event['message']}" for event in events)
    assert names(events) == expected, f"announced:\n{told}"
    for event in events:
        name, seconds = bounds[event["event"]]
        latency = unix(event["opened_at"]) - done
        assert latency <= seconds, f"{event['event']} came {latency:.1f} s after the fault"
        wanted = SEVERITIES.get(name) or SEVERITIES.get(event["event"], "critical")
        assert event["severity"] == wanted
        assert event["state"] == ("occurred" if event["event"] in OCCURRENCES else "resolved")
        assert event["message"] and event["suggestion"]
        if event["event"] == "ha_switchover":
            _tells_its_story(event["details"]["switchover"], CLASSES[name])
    held = [event for event in await watcher.events(broken) if event["suppressed"]]
    causes = {event["id"] for event in events}
    assert all(event["caused_by"] in causes for event in held), held


CLASSES = {"switchover": "planned", "primary-kill": "automatic_failover", "primary-freeze": "automatic_failover"}


def _tells_its_story(story: Json, kind: str) -> None:
    assert (story["class"], story["inferred"], story["scheduled"]) == (kind, False, False), story
    assert story["signals"] and story["new_timeline"] == story["old_timeline"] + 1
    assert {story["old_leader"], story["new_leader"]} == {"node1", "node2"}
    assert 0 < story["write_outage_seconds"] <= (4 * INTERVAL if kind == "planned" else FAILOVER + 2 * INTERVAL)
    assert story["lost_bytes"] is not None, "Patroni's history told it in the minute after"


async def test_an_idle_cluster_never_reports_lag_nor_anything_else(lab: Lab, watcher: Watcher) -> None:
    await until(watcher.healthy, 60 + GRACE, "the cluster to be healthy")
    begin = time.time()
    lags: list[float] = []
    while time.time() < begin + 45:
        instance = await watcher.instance()
        for node in instance["nodes"]:
            for target in node["targets"]:
                if target["probe"] == "replication_lag" and target["readings"]:
                    lags.append(target["readings"]["lag_seconds"])
        await asyncio.sleep(1)
    assert lags, "the lag was read"
    assert max(lags) < 2 * INTERVAL
    assert await watcher.events(begin) == []
