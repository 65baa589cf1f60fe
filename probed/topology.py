"""Who depends on whom, derived from what the probes saw; decides which event is a consequence of which. Pure.

Nobody declares parents: the graph follows from probes and the leader of the moment, and is re-rooted when it moves.
Children are found by the probe they are judged on, so that users' own policies take part; causes are event types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from probed.model import Policy, Severity, Target

ETCD = "etcd_unavailable"
HAPROXY = "haproxy_unavailable"
DATABASE = "database_unavailable"
NO_LEADER = "no_leader"
RECEIVER = "wal_receiver_interrupted"
SWITCHOVER = "ha_switchover"

Place = tuple[str, str]
"""(event type, node): where a cause would stand. The node is empty for the instance as a whole."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of an instance's topology."""

    nodes: tuple[str, ...] = ()
    leader: str = ""
    """The last certain leader; empty while none was ever seen."""

    def is_replica(self, node: str) -> bool:
        return bool(node and self.leader) and node != self.leader


def _on_its_server(_: Shape, target: Target) -> list[Place]:
    return [(DATABASE, target.node)]


def _on_the_leader(shape: Shape, target: Target) -> list[Place]:
    return [(DATABASE, shape.leader), (NO_LEADER, "")] if shape.leader != target.node else [(NO_LEADER, "")]


def _liveness(shape: Shape, target: Target) -> list[Place]:
    # The write port leads through HAProxy to the leader; a node's own liveness has no cause that we can see from here.
    return _on_its_server(shape, target) if target.node else [(HAPROXY, ""), *_on_the_leader(shape, target)]


def _receiver(shape: Shape, target: Target) -> list[Place]:
    return _on_its_server(shape, target) + _on_the_leader(shape, target)


def _lag(shape: Shape, target: Target) -> list[Place]:
    return [(DATABASE, target.node), (RECEIVER, target.node), *_on_the_leader(shape, target)]


def _patroni(_: Shape, target: Target) -> list[Place]:
    return [(DATABASE, target.node), (ETCD, "")]


def _leader(shape: Shape, _: Target) -> list[Place]:
    # Without etcd and without failsafe mode the leader demotes itself: nothing else is wrong.
    return [(DATABASE, shape.leader), (ETCD, "")]


_CAUSES: Mapping[str, Callable[[Shape, Target], list[Place]]] = {
    "postgres_liveness": _liveness,
    "postgres_stats": _on_its_server,
    "connections": _on_its_server,
    "cache_hit_ratio": _on_its_server,
    "patroni_member": _patroni,
    "wal_receiver": _receiver,
    "replication_lag": _lag,
    "leader": _leader,
    "rest": _on_the_leader,
}

RANK = {ETCD: 0, HAPROXY: 0, DATABASE: 1, NO_LEADER: 2, RECEIVER: 3}
"""Causes are judged before what may be their consequence; everything else comes after."""

_OF_THE_INSTANCE = frozenset({ETCD, HAPROXY, NO_LEADER})
"""Causes without a node."""


def causes(shape: Shape, policy: Policy, target: Target) -> list[Place]:
    """Where the causes of an event of ``policy`` on ``target`` would stand, the most telling first."""
    rule = _CAUSES.get(policy.probe)
    if rule is None:
        return []
    itself = (policy.id, target.node)
    return [place for place in rule(shape, target) if place != itself and (place[1] or place[0] in _OF_THE_INSTANCE)]


def may_hide(cause: Severity, consequence: Severity) -> bool:
    """A Fatal is never hidden behind a lesser event."""
    return consequence is not Severity.FATAL or cause is Severity.FATAL


def order(policy: Policy, target: Target) -> tuple[int, str, str]:
    """Sort key of the watches of one round: causes first, then by name, so that arrival never matters."""
    # A frontend's liveness is a consequence of the leader's, although both are judged by one policy.
    rank = RANK.get(policy.id, 9)
    return (rank if target.node or policy.id != DATABASE else 4, policy.id, target.key)


def severity(policy: Policy, replica: bool) -> Severity:
    """The severity of an event of ``policy``, on a replica or not."""
    return policy.replica_severity if replica and policy.replica_severity is not None else policy.severity
