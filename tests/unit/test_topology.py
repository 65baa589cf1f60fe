"""Who depends on whom: derived from the probe that an event is judged on, and from the leader of the moment."""

from __future__ import annotations

from itertools import permutations

import pytest
from msgspec.structs import replace

from probed.model import Policy, Severity, Target
from probed.testing import make_policy
from probed.topology import WRITE_PORT, Shape, causes, hosts_of, may_hide, order, place_of, severity
from tests.unit.bench import CLUSTER, FRONTEND, POLICIES, SHIPPED, patroni, postgres

SHAPE = Shape(("node-a", "node-b"), leader="node-a")


def of(identity: str, target: Target, shape: Shape = SHAPE) -> list[tuple[str, str]]:
    return causes(shape, POLICIES[identity], target)


def test_a_replicas_lag_is_caused_by_its_server_its_receiver_the_primary_and_a_missing_leader() -> None:
    assert of("replication_lag_high", postgres("node-b")) == [
        ("database_unavailable", "node-b"),
        ("wal_receiver_interrupted", "node-b"),
        ("database_unavailable", "node-a"),
        ("no_leader", ""),
    ]


def test_a_replicas_receiver_is_caused_by_its_server_the_primary_and_a_missing_leader() -> None:
    assert of("wal_receiver_interrupted", postgres("node-b")) == [
        ("database_unavailable", "node-b"),
        ("database_unavailable", "node-a"),
        ("no_leader", ""),
    ]


@pytest.mark.parametrize(
    "identity, target",
    [
        ("connections_high", postgres("node-b")),
        ("deadlocks_frequent", postgres("node-b")),
        ("cache_hit_ratio_low", postgres("node-b")),
        ("ping_latency_high", postgres("node-b")),
    ],
)
def test_what_is_measured_on_a_server_is_caused_by_that_server(identity: str, target: Target) -> None:
    assert of(identity, target) == [("database_unavailable", "node-b")]


def test_a_server_has_no_cause_that_can_be_seen_from_here() -> None:
    assert of("database_unavailable", postgres("node-a")) == []
    assert of("database_unavailable", postgres("node-b")) == []


def test_a_member_of_patroni_is_caused_by_its_server_and_by_etcd() -> None:
    assert of("patroni_node_abnormal", patroni("node-b")) == [
        ("database_unavailable", "node-b"),
        ("etcd_unavailable", ""),
    ]


def test_a_write_port_is_caused_by_haproxy_by_the_leader_and_by_there_being_none() -> None:
    assert of("database_unavailable", FRONTEND) == [
        ("haproxy_unavailable", ""),
        ("database_unavailable", "node-a"),
        ("no_leader", ""),
        ("patroni_node_abnormal", "node-a"),
    ]


def test_a_missing_leader_is_caused_by_the_last_leaders_server_and_by_etcd() -> None:
    assert of("no_leader", CLUSTER) == [("database_unavailable", "node-a"), ("etcd_unavailable", "")]
    assert of("no_leader", CLUSTER, Shape(("node-a",), "")) == [("etcd_unavailable", "")]


def test_the_graph_is_rooted_anew_when_the_leader_moves() -> None:
    moved = Shape(("node-a", "node-b"), leader="node-b")
    assert ("database_unavailable", "node-b") in of("no_leader", CLUSTER, moved)
    assert ("database_unavailable", "node-b") in of("wal_receiver_interrupted", postgres("node-a"), moved)


KONG = Target("orders", "", "kong", "http://10.0.0.7:8000", kind="kong")
STACK = Shape(
    ("node-a", "node-b"),
    leader="node-a",
    hosts=hosts_of({"node-a": "10.0.0.1:5432", "node-b": "10.0.0.2:5432"}),
    gateways=frozenset({"10.0.0.7:8000"}),
)
WRITE_PATH = [("database_unavailable", "node-a"), ("no_leader", ""), ("haproxy_unavailable", ""), WRITE_PORT]


def component(name: str, url: str) -> Target:
    return Target("orders", "", name, url, kind=name)


def at(shape: Shape, identity: str, target: Target) -> list[tuple[str, str]]:
    return causes(shape, SHIPPED[identity], target)


@pytest.mark.parametrize("name", ["auth", "rest", "realtime", "storage"])
def test_a_service_lives_off_the_write_path(name: str) -> None:
    assert at(STACK, f"{name}_unavailable", component(name, "http://10.0.0.9:9999")) == WRITE_PATH


def test_a_gateway_and_what_needs_no_database_do_not() -> None:
    assert at(STACK, "api_gateway_unavailable", KONG) == []
    assert at(STACK, "studio_unavailable", component("studio", "http://10.0.0.9:3000")) == []
    assert at(STACK, "component_abnormal", component("component", "http://10.0.0.9:8080")) == []


def test_what_is_probed_through_the_gateway_is_caused_by_it() -> None:
    through = component("studio", "http://10.0.0.7:8000/project/default")
    assert at(STACK, "studio_unavailable", through) == [("api_gateway_unavailable", "")]
    assert at(STACK, "auth_unavailable", component("auth", "http://10.0.0.7:8000"))[0] == (
        "api_gateway_unavailable",
        "",
    )


def test_a_machine_that_is_down_explains_what_runs_on_it_and_one_that_is_up_does_not() -> None:
    on_a, haproxy = component("studio", "http://10.0.0.1:3000"), Target("orders", "", "haproxy", "http://10.0.0.1:7000")
    dark = replace(STACK, dark=frozenset({"10.0.0.1"}))
    assert at(STACK, "studio_unavailable", on_a) == []
    assert at(dark, "studio_unavailable", on_a) == [("database_unavailable", "node-a")]
    assert at(dark, "haproxy_unavailable", haproxy) == [("database_unavailable", "node-a")]
    assert at(dark, "studio_unavailable", component("studio", "http://10.0.0.2:3000")) == []


def test_nodes_that_share_a_machine_do_not_stand_for_it() -> None:
    assert hosts_of({"a": "127.0.0.1:5432", "b": "127.0.0.1:5433", "c": "10.0.0.3:5432", "d": "/run/pg"}) == {
        "10.0.0.3": "c"
    }


def test_two_primaries_are_nobodys_consequence() -> None:
    assert at(STACK, "split_brain", CLUSTER) == []


def test_disk_usage_has_no_cause() -> None:
    policy = make_policy(id="capacity_high", probe="disk_usage")
    assert causes(SHAPE, policy, Target("orders", "node-a", "host", kind="disk")) == []


def test_a_policy_of_ones_own_takes_part_by_its_probe() -> None:
    own = make_policy(id="my_lag", probe="replication_lag")
    assert causes(SHAPE, own, postgres("node-b")) == of("replication_lag_high", postgres("node-b"))
    mine = make_policy(id="my_ping", probe="postgres_liveness")
    assert causes(SHAPE, mine, postgres("node-b")) == [("database_unavailable", "node-b")]


def test_a_fatal_is_hidden_by_a_fatal_only() -> None:
    hides = {(c, e) for c in Severity for e in Severity if may_hide(c, e)}
    assert hides == {(c, e) for c in Severity for e in Severity} - {
        (Severity.CRITICAL, Severity.FATAL),
        (Severity.NORMAL, Severity.FATAL),
    }


def test_every_cause_is_judged_before_everything_that_it_may_cause() -> None:
    somewhere = Target("orders", "", "etcd")
    watches: list[tuple[Policy, Target]] = [
        (policy, target)
        for policy in SHIPPED.values()
        for target in (postgres("node-a"), postgres("node-b"), patroni("node-b"), CLUSTER, somewhere, FRONTEND)
        if (policy.probe == "leader") == (target is CLUSTER) and (target is not FRONTEND or "database" in policy.id)
    ]
    for leader in ("node-a", "node-b", ""):
        shape = Shape(("node-a", "node-b"), leader)
        ordered = sorted(watches, key=lambda watch: order(*watch))
        for index, (policy, target) in enumerate(ordered):
            for event, node in causes(shape, policy, target):
                later = [place_of(p, t) for p, t in ordered[index:]]
                assert (event, node) not in later, f"{event} on {node} is judged after {policy.id} on {target.key}"


def test_the_order_of_watches_does_not_depend_on_how_they_were_declared() -> None:
    watches = [(POLICIES["no_leader"], CLUSTER), (POLICIES["database_unavailable"], postgres("node-a")),
               (POLICIES["database_unavailable"], FRONTEND), (POLICIES["connections_high"], postgres("node-a"))]  # fmt: skip
    assert len({tuple(p.id for p, _ in sorted(some, key=lambda w: order(*w))) for some in permutations(watches)}) == 1


def test_the_severity_on_a_replica_is_its_own_when_the_policy_has_one() -> None:
    database, lag = POLICIES["database_unavailable"], POLICIES["replication_lag_high"]
    assert [severity(database, replica) for replica in (False, True)] == [Severity.FATAL, Severity.CRITICAL]
    assert [severity(lag, replica) for replica in (False, True)] == [Severity.CRITICAL, Severity.CRITICAL]


def test_a_node_is_a_replica_only_when_another_is_known_to_lead() -> None:
    assert not Shape(("node-a",), "").is_replica("node-a")
    assert not SHAPE.is_replica("node-a")
    assert SHAPE.is_replica("node-b")
    assert not SHAPE.is_replica("")
