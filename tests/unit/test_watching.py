"""The plan: what is probed, how to get at it, how often, and what is judged by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from probed.config.settings import Defaults, Instance
from probed.model import Policy
from probed.policy.load import load
from probed.probes import Combined, Probe, catalogue
from probed.store import Member
from probed.watching import TIMEOUT_SHARE, InstancePlan, plan

CATALOGUE = catalogue()
SHIPPED = load(None, {name: frozenset(probe.readings) for name, probe in CATALOGUE.items()}, Defaults())


def planned(
    settings: dict[str, Any], members: tuple[Member, ...] = (), policies: dict[str, Policy] | None = None
) -> InstancePlan:
    instance = Instance.model_validate({"name": "orders", **settings})
    return plan(instance, members, SHIPPED if policies is None else policies, CATALOGUE, Defaults())


def node(name: str, number: int, **parts: Any) -> dict[str, Any]:
    return {"name": name, "postgres": {"host": f"10.0.0.{number}"}, "patroni": f"http://10.0.0.{number}:8008", **parts}


TWO: dict[str, Any] = {"postgres": {"user": "eye", "port": 5433}, "nodes": [node("a", 1), node("b", 2)]}
MEMBER = Member("orders", "c", "10.0.0.3", 5434, "http://10.0.0.3:8008")


def reached(found: InstancePlan) -> set[tuple[str, str]]:
    """(kind, key) of everything that is reached."""
    return {(reach.target.kind, reach.target.key) for reach in found.reaches}


def policies(**changes: dict[str, Any]) -> dict[str, Policy]:
    return {name: replace(policy, **changes.get(name, {})) for name, policy in SHIPPED.items()}


# --- what is reached


def test_declared_nodes_are_reached_by_what_they_declare_and_nothing_else() -> None:
    assert reached(planned(TWO)) == {
        ("postgres", "orders/a/postgres"), ("postgres", "orders/b/postgres"), ("patroni", "orders/a/patroni"),
        ("patroni", "orders/b/patroni"), ("patroni_cluster", "orders/patroni"),
    }  # fmt: skip
    assert reached(planned({"nodes": [{"name": "a", "postgres": {}}]})) == {("postgres", "orders/a/postgres")}


def test_a_disk_is_probed_only_on_the_node_where_probed_runs() -> None:
    disk = {"disk": {"path": "/data"}}
    found = planned({"nodes": [node("a", 1, local=True, **disk), node("b", 2, **disk)]})
    (reach,) = [reach for reach in found.reaches if reach.target.kind == "disk"]
    assert (reach.target.key, reach.path) == ("orders/a/host", Path("/data"))


def test_a_login_is_the_nodes_own_over_the_instances_over_the_defaults() -> None:
    found = planned({**TWO, "nodes": [node("a", 1), {"name": "b", "postgres": {"port": 6000, "user": "me"}}]})
    logins = {r.target.node: r.login for r in found.reaches if r.target.kind == "postgres"}
    a, b = logins["a"], logins["b"]
    assert a is not None
    assert b is not None
    assert (a.host, a.port, a.user, a.database, a.sslmode) == ("10.0.0.1", 5433, "eye", "postgres", "prefer")
    assert (b.host, b.port, b.user) == ("127.0.0.1", 6000, "me")


def test_a_write_port_is_reached_at_its_own_address_whatever_the_nodes_port_is() -> None:
    found = planned({**TWO, "haproxy": {"frontends": ["10.0.0.9:5000", "[::1]:5001"]}})
    reaches = [reach for reach in found.reaches if reach.target.kind == "frontend"]
    assert [(r.login.host, r.login.port, r.login.user) for r in reaches if r.login] == [
        ("10.0.0.9", 5000, "eye"), ("::1", 5001, "eye")
    ]  # fmt: skip
    assert [reach.target.key for reach in reaches] == ["orders/haproxy/10.0.0.9:5000", "orders/haproxy/[::1]:5001"]


def test_every_address_of_etcd_is_a_member_and_they_have_one_verdict() -> None:
    urls = ["http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"]
    found = planned({"etcd": urls})
    assert [(reach.target.member, reach.urls) for reach in found.reaches] == [(url, (url,)) for url in urls]
    computed = {(cycle.probe.name, cycle.target.key) for cycle in found.combined}
    assert computed == {("etcd_quorum", "orders/etcd"), ("blindness", "orders/observer")}
    judged = {(policy.id, target.key) for policy, target in found.watches}
    assert judged == {("etcd_unavailable", "orders/etcd"), ("probe_blind", "orders/observer")}


@pytest.mark.parametrize(
    "declared, address, urls, path, doors",
    [
        ({"stats": "http://h:7000/;csv"}, "http://h:7000/;csv", ("http://h:7000/;csv",), None, ()),
        ({"stats": "http://h/ha?stats"}, "http://h/ha", ("http://h/ha?stats",), None, ()),
        ({"stats": "unix:/run/h.sock", "frontends": ["h:5000"]}, "unix:/run/h.sock", (), Path("/run/h.sock"),
         (("h", 5000),)),
        ({"frontends": ["h:5000", "[::1]:5001"]}, "h:5000, [::1]:5001", (), None, (("h", 5000), ("::1", 5001))),
    ],
    ids=["csv", "query", "socket", "ports"],
)  # fmt: skip
def test_haproxy_is_one_target_reached_by_its_statistics_and_its_ports(
    declared: dict[str, Any], address: str, urls: tuple[str, ...], path: Path | None, doors: tuple[Any, ...]
) -> None:
    found = planned({"haproxy": declared})
    (reach,) = [reach for reach in found.reaches if reach.target.kind == "haproxy"]
    assert (reach.target.key, reach.target.address) == ("orders/haproxy", address)
    assert (reach.urls, reach.path, reach.doors) == (urls, path, doors)
    assert ("haproxy_unavailable", "orders/haproxy") in {(policy.id, target.key) for policy, target in found.watches}


def test_a_discovered_member_is_reached_at_its_own_address_with_the_instances_login() -> None:
    found = planned({**TWO, "nodes": [], "patroni": ["http://10.0.0.3:8008"]}, (MEMBER,))
    (postgres,) = [reach for reach in found.reaches if reach.target.kind == "postgres"]
    assert postgres.login is not None
    assert (postgres.login.host, postgres.login.port, postgres.login.user) == ("10.0.0.3", 5434, "eye")
    assert ("patroni", "orders/c/patroni") in reached(found)
    assert found.nodes == ("c",)


@pytest.mark.parametrize(
    "declared",
    [
        {"name": "c", "postgres": {"host": "elsewhere"}},
        {"name": "x", "patroni": "http://10.0.0.3:8008"},
        {"name": "x", "postgres": {"host": "10.0.0.3", "port": 5434}},
    ],
    ids=["name", "door", "address"],
)
def test_a_member_that_is_a_declared_node_is_not_probed_twice(declared: dict[str, Any]) -> None:
    found = planned({"nodes": [declared], "patroni": ["http://10.0.0.3:8008"]}, (MEMBER,))
    assert found.nodes == (declared["name"],)


def test_a_node_that_declares_only_what_is_on_this_machine_is_reached_as_its_member() -> None:
    host = {"name": "c", "local": True, "disk": {"path": "/data"}, "oom": {}}
    found = planned({"nodes": [host], "patroni": ["http://10.0.0.3:8008"]}, (MEMBER,))
    assert reached(found) == {
        ("disk", "orders/c/host"), ("oom", "orders/c/host"), ("postgres", "orders/c/postgres"),
        ("patroni", "orders/c/patroni"), ("patroni_cluster", "orders/patroni"),
    }  # fmt: skip
    assert found.nodes == ("c",)


def test_every_known_patroni_can_answer_for_the_cluster() -> None:
    found = planned({**TWO, "patroni": ["http://10.0.0.1:8008", "http://vip:8008"]}, (MEMBER,))
    (cluster,) = [reach for reach in found.reaches if reach.target.kind == "patroni_cluster"]
    assert cluster.urls == (
        "http://10.0.0.1:8008", "http://vip:8008", "http://10.0.0.2:8008", "http://10.0.0.3:8008"
    )  # fmt: skip


def test_before_the_first_member_is_known_only_the_cluster_is_asked() -> None:
    found = planned({"patroni": ["http://vip:8008"]})
    assert reached(found) == {("patroni_cluster", "orders/patroni")}
    assert found.nodes == ()


def test_no_address_carries_a_password() -> None:
    with pytest.raises(ValidationError, match="credentials do not belong"):
        planned({"patroni": ["http://u:secret@h:8008"]})


# --- how often


def test_probes_are_sampled_at_the_shortest_interval_of_the_policies_that_need_them() -> None:
    found = planned(TWO, policies=policies(connections_high={"interval": 1.0}))
    intervals = {cycle.probe.name: cycle.interval for cycle in found.cycles}
    assert intervals["postgres_stats"] == 1.0
    assert intervals["postgres_liveness"] == 5.0


def test_a_policy_that_is_off_does_not_set_the_pace_while_another_is_on() -> None:
    found = planned(TWO, policies=policies(ping_latency_high={"interval": 0.5}))
    assert {c.interval for c in found.cycles if c.probe.name == "postgres_liveness"} == {5.0}
    found = planned(TWO, policies=policies(ping_latency_high={"interval": 0.5, "enabled": True}))
    assert {c.interval for c in found.cycles if c.probe.name == "postgres_liveness"} == {0.5}


def test_a_probe_whose_policies_are_all_off_is_sampled_for_its_metrics() -> None:
    disk = node("a", 1, local=True, disk={"path": "/data"})
    found = planned({"nodes": [disk]})
    assert {c.interval for c in found.cycles if c.probe.name == "disk_usage"} == {60.0}
    assert not [policy for policy, _ in found.watches if policy.id == "capacity_high"]


def test_a_deadline_never_reaches_into_the_next_cycle() -> None:
    found = planned(TWO, policies=policies(connections_high={"interval": 0.2, "timeout": 0.15}))
    for cycle in found.cycles:
        assert cycle.timeout <= TIMEOUT_SHARE * cycle.interval


def test_a_slow_combination_is_made_in_every_so_many_rounds_of_its_inputs() -> None:
    found = planned(TWO, policies=policies(cache_hit_ratio_low={"enabled": True}))
    every = {cycle.probe.name: (cycle.home, cycle.interval, cycle.every) for cycle in found.combined}
    assert every["cache_hit_ratio"] == (5.0, 60.0, 12)
    assert every["leader"] == (5.0, 5.0, 1)


def test_an_interval_that_no_round_hits_exactly_is_made_at_the_nearest() -> None:
    found = planned(TWO, policies=policies(cache_hit_ratio_low={"enabled": True, "interval": 7.0}))
    assert {c.every for c in found.combined if c.probe.name == "cache_hit_ratio"} == {1}


# --- what is judged


def test_every_enabled_policy_judges_every_target_that_its_probe_samples() -> None:
    found = planned(TWO)
    judged = {(policy.id, target.key) for policy, target in found.watches}
    assert judged == {
        ("no_leader", "orders/postgres"), ("ha_switchover", "orders/postgres"), ("split_brain", "orders/postgres"),
        ("probe_blind", "orders/observer"),
        *((event, f"orders/{n}/postgres") for n in "ab" for event in
          ("database_unavailable", "connections_high", "replication_lag_high", "wal_receiver_interrupted")),
        *(("patroni_node_abnormal", f"orders/{n}/patroni") for n in "ab"),
    }  # fmt: skip


def test_a_write_port_is_judged_by_its_availability_and_not_by_its_ping() -> None:
    found = planned(
        {**TWO, "haproxy": {"frontends": ["10.0.0.9:5000"]}}, policies=policies(ping_latency_high={"enabled": True})
    )
    assert {policy.id for policy, target in found.watches if target.kind == "frontend"} == {"database_unavailable"}


def test_a_standalone_server_is_watched_without_patroni() -> None:
    found = planned({"nodes": [{"name": "a", "postgres": {}}]})
    assert {policy.id for policy, _ in found.watches} >= {"database_unavailable", "no_leader", "connections_high"}
    assert "patroni_node_abnormal" not in {policy.id for policy, _ in found.watches}


def test_every_watch_has_its_probe_sampled_or_combined_on_its_target() -> None:
    found = planned({**TWO, "haproxy": {"frontends": ["10.0.0.9:5000"]}}, (MEMBER,))
    sampled = {(cycle.probe.name, cycle.reach.target.key) for cycle in found.cycles}
    sampled |= {(cycle.probe.name, cycle.target.key) for cycle in found.combined}
    assert {(policy.probe, target.key) for policy, target in found.watches} <= sampled
    assert len(found.watches) == len({(policy.id, target.key) for policy, target in found.watches})


def test_every_combination_has_the_inputs_that_it_names() -> None:
    for probe in CATALOGUE.values():
        if isinstance(probe, Combined):
            assert all(isinstance(CATALOGUE[name], Probe) for name in probe.inputs)


def test_the_same_settings_give_the_same_plan() -> None:
    assert planned(TWO, (MEMBER,)) == planned(TWO, (MEMBER,))
