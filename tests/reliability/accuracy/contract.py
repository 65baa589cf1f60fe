"""What the contract says of the 21 policies, in numbers: events.md, evaluators.md, and the bounds of reliability.md."""

from __future__ import annotations

from dataclasses import dataclass

Place = tuple[str, str]
"""(event type, target's key without the instance)"""

E = 0.5
"""Seconds of grace of every bound: the spread of a round, and the commit."""
T, TIMEOUT = 5.0, 2.0
SLOW = 60.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What events.md says of one policy: so many samples in a row, so often."""

    count: int
    interval: float = T
    window: float = 0.0
    """Seconds that it sums or compares over, before and after."""
    looks_back: bool = False
    """Judged by what happened between two cycles: the first may hold half a fault."""

    @property
    def opens_within(self) -> float:
        """D of reliability.md: from the fault to the committed event."""
        return (self.count + self.looks_back) * self.interval + TIMEOUT + E

    @property
    def resolves_within(self) -> float:
        """C: from the end of the fault to the committed resolution."""
        return self.window + (2 + self.looks_back) * self.interval + TIMEOUT + E

    @property
    def never_below(self) -> float:
        """A fault that is shorter cannot be in so many samples."""
        return (self.count - 1) * self.interval * (0.3 if self.looks_back else 1.0) - E


RULES = {
    "oom_killed": Rule(1),
    "database_unavailable": Rule(3),
    "api_gateway_unavailable": Rule(3),
    "ha_switchover": Rule(1),
    "no_leader": Rule(2),
    "replication_lag_high": Rule(2),
    "wal_receiver_interrupted": Rule(2),
    "patroni_node_abnormal": Rule(2),
    "etcd_unavailable": Rule(3),
    "connections_high": Rule(2),
    "deadlocks_frequent": Rule(1, window=SLOW),
    "cache_hit_ratio_low": Rule(2, SLOW, looks_back=True),
    "auth_unavailable": Rule(3),
    "rest_unavailable": Rule(3),
    "realtime_unavailable": Rule(3),
    "storage_unavailable": Rule(3),
    "component_abnormal": Rule(3),
    "ping_latency_high": Rule(2),
    "capacity_high": Rule(1, SLOW),
    "haproxy_unavailable": Rule(3),
    "studio_unavailable": Rule(3),
}

SERVICES = ("auth_unavailable", "rest_unavailable", "realtime_unavailable", "storage_unavailable")
"""What lives off the write path."""


def may_cause(policy: str) -> frozenset[str]:
    """Causes, and the causes of causes."""
    server = {"database_unavailable"}
    lead = {"database_unavailable", "no_leader", "etcd_unavailable"}
    match policy:
        case "replication_lag_high":
            return frozenset(lead | {"wal_receiver_interrupted"})
        case "wal_receiver_interrupted" | "no_leader":
            return frozenset(lead)
        case "patroni_node_abnormal":
            return frozenset(server | {"etcd_unavailable"})
        case "database_unavailable":
            return frozenset(lead | {"haproxy_unavailable"})
        case "connections_high" | "deadlocks_frequent" | "cache_hit_ratio_low" | "ping_latency_high":
            return frozenset(server)
        case _ if policy in SERVICES:
            return frozenset(lead | {"haproxy_unavailable", "api_gateway_unavailable"})
        case _:
            return frozenset({"api_gateway_unavailable"})
