"""Who depends on whom, derived from what the probes saw; decides which event is a consequence of which. Pure.

Nobody declares parents: the graph follows from probes, addresses and the leader of the moment, and is re-rooted when
it moves. Children are found by the probe they are judged on, so that users' own policies take part; causes are event
types.

    host ─> what runs on it        etcd ─> no leader, Patroni        primary ─> receiver ─> lag
    HAProxy, primary, no leader ─> write port, services               gateway ─> what is probed through it
    observer cut off ─> everything that is reached over a network
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from msgspec import Struct, field

from probed.model import Change, Occurrence, Policy, Severity, Target, Threshold
from probed.reachability import host_of

ISOLATED = "observer_isolated"
ETCD = "etcd_unavailable"
HAPROXY = "haproxy_unavailable"
GATEWAY = "api_gateway_unavailable"
DATABASE = "database_unavailable"
NO_LEADER = "no_leader"
PATRONI = "patroni_node_abnormal"
RECEIVER = "wal_receiver_interrupted"
SWITCHOVER = "ha_switchover"

Place = tuple[str, str]
"""(event type, node): where a cause would stand. The node is empty for what has none, such as etcd."""
WRITE_PORT: Place = (DATABASE, "*")
"""Where a database that is unavailable through HAProxy stands; no node is called so."""


class Shape(Struct, frozen=True):
    """What is known of an instance's topology."""

    nodes: tuple[str, ...] = ()
    leader: str = ""
    """The last certain leader; empty while none was ever seen."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Machine -> the only node whose database runs on it."""
    dark: frozenset[str] = frozenset()
    """Machines on which every target is failing."""
    gateways: frozenset[str] = frozenset()
    """Addresses (host:port) of the API gateway."""

    def is_replica(self, node: str) -> bool:
        return bool(node and self.leader) and node != self.leader


def hosts_of(databases: Mapping[str, str]) -> dict[str, str]:
    """Machine -> its node, from node -> address of its database, for machines that hold the database of one only."""
    machines = {node: host_of(address) for node, address in databases.items()}
    held = list(machines.values())
    return {host: node for node, host in machines.items() if host and held.count(host) == 1}


def _nothing(shape: Shape, target: Target) -> list[Place]:
    return []


def _on_its_server(_: Shape, target: Target) -> list[Place]:
    return [(DATABASE, target.node)]


def _on_its_host(shape: Shape, target: Target) -> list[Place]:
    """A machine that is down takes all of its services along; the event of its database stands for it."""
    host = host_of(target.address)
    node = shape.hosts.get(host, "")
    return [(DATABASE, node)] if node and host in shape.dark and node != target.node else []


def _on_the_leader(shape: Shape, target: Target) -> list[Place]:
    return [(DATABASE, shape.leader), (NO_LEADER, "")] if shape.leader != target.node else [(NO_LEADER, "")]


def _liveness(shape: Shape, target: Target) -> list[Place]:
    # The write port leads through HAProxy to the leader; a node's own liveness has no cause that we can see from here.
    if target.node:
        return _on_its_server(shape, target)
    # HAProxy asks Patroni who leads: without the leader's Patroni the port leads nowhere.
    return [(HAPROXY, ""), *_on_the_leader(shape, target), (PATRONI, shape.leader)]


def _receiver(shape: Shape, target: Target) -> list[Place]:
    return _on_its_server(shape, target) + _on_the_leader(shape, target)


def _lag(shape: Shape, target: Target) -> list[Place]:
    return [(DATABASE, target.node), (RECEIVER, target.node), *_on_the_leader(shape, target)]


def _patroni(_: Shape, target: Target) -> list[Place]:
    return [(DATABASE, target.node), (ETCD, "")]


def _no_leader(shape: Shape, _: Target) -> list[Place]:
    # Without etcd and without failsafe mode the leader demotes itself: nothing else is wrong.
    return [(DATABASE, shape.leader), (ETCD, "")]


def _component(shape: Shape, target: Target) -> list[Place]:
    through_the_gateway = urlsplit(target.address).netloc in shape.gateways
    return ([(GATEWAY, "")] if through_the_gateway else []) + _on_its_host(shape, target)


def _service(shape: Shape, target: Target) -> list[Place]:
    """Services live off the write path: some say so (PGRST codes), some end when they start without a database."""
    write_path = [*_on_the_leader(shape, target), (HAPROXY, ""), WRITE_PORT]
    return _component(shape, target) + write_path


_CAUSES: Mapping[str, Callable[[Shape, Target], list[Place]]] = {
    "postgres_liveness": _liveness,
    "postgres_stats": _on_its_server,
    "sql": _on_its_server,
    "connections": _on_its_server,
    "cache_hit_ratio": _on_its_server,
    "database_size": _on_its_server,
    "patroni_member": _patroni,
    "wal_receiver": _receiver,
    "replication_lag": _lag,
    "haproxy_stats": _on_its_host,
    "api_gateway": _on_its_host,
    "auth": _service,
    "rest": _service,
    "realtime": _service,
    "storage": _service,
    "studio": _component,
    "component": _component,
    "http": _component,
    "tcp": _component,
}

RANK = {ISOLATED: 0, ETCD: 1, DATABASE: 2, NO_LEADER: 3, HAPROXY: 4, PATRONI: 5, RECEIVER: 7, GATEWAY: 8}
"""Causes are judged before what may be their consequence; everything else comes after."""
_FRONTEND, _LAST = 6, 9

_WITHOUT_NODE = frozenset({ISOLATED, ETCD, HAPROXY, GATEWAY, NO_LEADER})
"""Causes without a node."""


def causes(shape: Shape, policy: Policy, target: Target) -> list[Place]:
    """Where the causes of an event of ``policy`` on ``target`` would stand, the most telling first."""
    rule = _no_leader if policy.probe == "leader" and _judges(policy, "has_leader") else _CAUSES.get(policy.probe)
    if rule is None:
        return []
    itself = place_of(policy, target)
    return [place for place in rule(shape, target) if place != itself and (place[1] or place[0] in _WITHOUT_NODE)]


def place_of(policy: Policy, target: Target) -> Place:
    """Where an event of ``policy`` on ``target`` stands, should it be a cause."""
    return WRITE_PORT if policy.id == DATABASE and not target.node else (policy.id, target.node)


def _judges(policy: Policy, reading: str) -> bool:
    rule = policy.detect
    return isinstance(rule, Threshold) and any(item.reading == reading for item in rule.when.comparisons)


POINTS = (Change, Occurrence)
"""Rules whose events are points in time: nothing hides them, and nothing resolves them."""


def is_occurrence(policy: Policy) -> bool:
    """Whether its events are points in time."""
    return isinstance(policy.detect, POINTS)


def may_hide(cause: Severity, consequence: Severity) -> bool:
    """A Fatal is never hidden behind a lesser event."""
    return consequence is not Severity.FATAL or cause is Severity.FATAL


def order(policy: Policy, target: Target) -> tuple[int, str, str]:
    """Sort key of the watches of one round: causes first, then by name, so that arrival never matters."""
    # A frontend's liveness is a consequence of the leader's, although both are judged by one policy.
    return (_FRONTEND if place_of(policy, target) == WRITE_PORT else RANK.get(policy.id, _LAST), policy.id, target.key)


def severity(policy: Policy, replica: bool) -> Severity:
    """The severity of an event of ``policy``, on a replica or not."""
    return policy.replica_severity if replica and policy.replica_severity is not None else policy.severity
