"""Every fault of the demo on the real cluster: the right event, once, in time, and nothing else; then its end."""

from __future__ import annotations

import asyncio
import time

import pytest

from probed.demo.faults import FAULTS
from probed.demo.lab import Lab
from tests.acceptance.watching import GRACE, INTERVAL, TIMEOUT, Watcher, names, unix, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

TTL, LOOP_WAIT = 20.0, 2.0
"""Of the lab's Patroni."""


def within(count: int, *, patroni: float = 0.0, value: float = 0.0) -> float:
    """The promise: n intervals + timeout + 1 s, plus what Patroni, or the growth of the value, needs by itself."""
    return count * INTERVAL + TIMEOUT + 1.0 + patroni + value


FAILOVER = TTL + 2 * LOOP_WAIT + 10.0
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
}
SEVERITIES = {
    ("primary-kill", "database_unavailable"): "fatal",
    ("primary-freeze", "database_unavailable"): "fatal",
    ("replica-kill", "database_unavailable"): "critical",
    ("deadlocks", "deadlocks_frequent"): "normal",
    ("etcd-kill", "etcd_unavailable"): "fatal",
    ("haproxy-kill", "haproxy_unavailable"): "fatal",
}


@pytest.mark.parametrize("name", list(BOUNDS))
async def test_a_fault_makes_its_events_appear_once_in_time_and_no_other(name: str, lab: Lab, watcher: Watcher) -> None:
    if name == "haproxy-kill" and lab.haproxy_write_address is None:
        pytest.skip("HAProxy is not installed")
    fault, bounds = FAULTS[name], BOUNDS[name]
    await until(watcher.healthy, 60, "the cluster to be healthy before the fault")
    broken = time.time()
    await fault.break_(lab)
    done = time.time()
    expected = sorted(fault.expects)

    async def all_there() -> bool:
        return set(expected) <= set(names(await watcher.announced(broken)))

    await until(all_there, max(bounds.values()) + 15, f"{expected}")
    # The other events had as much time as they would have needed.
    await asyncio.sleep(max(0.0, done + within(3) - time.time()))
    await fault.heal(lab)
    await until(watcher.healthy, 90, "everything to resolve after the healing")

    events = await watcher.announced(broken)
    told = "\n".join(f"{event['opened_at']} {event['event']} {event['target']}: {event['message']}" for event in events)
    assert names(events) == expected, f"announced:\n{told}"
    for event in events:
        latency = unix(event["opened_at"]) - done
        assert latency <= bounds[event["event"]], f"{event['event']} came {latency:.1f} s after the fault"
        wanted = SEVERITIES.get((name, event["event"]), "critical")
        assert event["severity"] == wanted
        assert event["state"] == ("occurred" if event["event"] == "ha_switchover" else "resolved")
        assert event["message"] and event["suggestion"]
    held = [event for event in await watcher.events(broken) if event["suppressed"]]
    causes = {event["id"] for event in events}
    assert all(event["caused_by"] in causes for event in held), held


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
