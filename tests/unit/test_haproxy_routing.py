"""HAProxy's routing against Patroni's leader, over recorded statistics and members made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from probed.config.settings import Defaults, Instance
from probed.model import Outcome, Sample, Target
from probed.probes import Combined, View, catalogue
from probed.probes._haproxy import SERVER, Row, rows, write_backend
from probed.probes._patroni import ClusterMember, member_of
from probed.sampling import combine
from probed.watching import plan
from tests.standin import recorded

OK, B, F, NA = Outcome.OBSERVED, Outcome.BLIND, Outcome.FAILED, Outcome.NOT_APPLICABLE
PROBE = catalogue()["haproxy_routing"]
assert isinstance(PROBE, Combined)
HAPROXY = Target("orders", "", "haproxy")


def statistics(state: str) -> tuple[Row, ...]:
    answer = recorded("haproxy")[state].answers["GET /;csv"]
    assert answer is not None
    return rows(answer.partition(b"\r\n\r\n")[2].decode(), "here")


def member(name: str, role: str, state: str = "running", host: str = "") -> ClusterMember:
    row = {
        "name": name,
        "role": role,
        "state": state,
        "host": host or name,
        "port": 5432,
        "api_url": f"http://{name}:8008",
    }
    found = member_of(row)
    assert found is not None
    return found


def sample(probe: str, node: str = "", outcome: Outcome = OK, address: str = "", **facts: Any) -> Sample:
    readings = {"in_recovery": facts.pop("in_recovery")} if "in_recovery" in facts else {}
    return Sample(Target("orders", node, address=address), probe, outcome, 0.0, 0.0, readings=readings, facts=facts)


def of_haproxy(found: Sequence[Row]) -> Sample:
    return sample("haproxy_stats", rows=tuple(found), write_backend=write_backend(found))


class Routing:
    """The combined probe over time, with its memory."""

    def __init__(self) -> None:
        self.before: Sample | None = None

    def look(self, *samples: Sample, nodes: tuple[str, ...] = ("node1", "node2")) -> Sample:
        assert isinstance(PROBE, Combined)
        said = {(item.probe, item.target.node): item for item in samples}
        self.before = combine(PROBE, View(HAPROXY, nodes, said, 0.0, 0.0, self.before))
        return self.before


def cluster(leader: str, **more: Any) -> Sample:
    roles = {name: "leader" if name == leader else "replica" for name in ("node1", "node2")}
    return sample("patroni_cluster", members=tuple(member(name, role, **more) for name, role in roles.items()))


def test_the_one_server_that_is_up_is_the_leaders() -> None:
    taken = Routing().look(of_haproxy(statistics("healthy")), cluster("node1"))
    assert (taken.outcome, taken.readings, taken.reason) == (OK, {"agrees": 1.0, "disagreeing_samples": 0.0}, "")
    assert (taken.facts["leader"], taken.facts["leads_to"]) == ("node1", ("node1",))


@pytest.mark.parametrize(
    "state, leader, told",
    [
        ("healthy", "node2", "stale routing for 4 samples: primary leads to node1, while node2 (server node2) leads"),
        ("no_primary", "node2", "primary leads to nobody for 4 samples, while node2 leads; HAProxy calls its server node2 (DOWN, L7STS)"),
        ("two_primaries", "node1", "primary leads to node2 as well for 4 samples, while node1 alone leads"),
    ],
)  # fmt: skip
def test_a_disagreement_is_a_reading_at_once_and_told_when_it_lasts(state: str, leader: str, told: str) -> None:
    routing, said = Routing(), (of_haproxy(statistics(state)), cluster(leader))
    seen = [routing.look(*said) for _ in range(4)]
    assert [item.readings["agrees"] for item in seen] == [0.0] * 4
    assert [item.readings["disagreeing_samples"] for item in seen] == [1.0, 2.0, 3.0, 4.0]
    assert [item.reason for item in seen] == ["", "", "", told]
    routing.look(of_haproxy(statistics(state)))  # a round that says nothing of the leader
    assert routing.look(*said).readings["disagreeing_samples"] == 5.0
    agreed = routing.look(of_haproxy(statistics("healthy")), cluster("node1"))
    assert (agreed.readings, agreed.reason) == ({"agrees": 1.0, "disagreeing_samples": 0.0}, "")


@pytest.mark.parametrize(
    "names, addresses, agrees",
    [
        (("s1", "s2"), ("10.0.0.1:5432", "10.0.0.2:5432"), 1.0),
        (("node2", "node1"), ("10.0.0.1:5432", "10.0.0.2:5432"), 1.0),  # the address beats the name
        (("s1", "s2"), ("10.0.0.1:6432", "10.0.0.2:6432"), 1.0),  # a pooler on the same machine
        (("node1", "node2"), ("", ""), 1.0),
        (("s1", "s2"), ("10.0.0.2:5432", "10.0.0.1:5432"), 0.0),
        (("s1", "s2"), ("10.0.0.1:6432", "10.0.0.1:6433"), None),
        (("s1", "s2"), ("", ""), None),
    ],
)
def test_servers_are_told_apart_by_address_name_or_host_and_never_guessed(
    names: tuple[str, str], addresses: tuple[str, str], agrees: float | None
) -> None:
    one, two = (
        Row("primary", name, SERVER, status, "", 0, 0, address=address)
        for name, status, address in zip(names, ("UP", "DOWN"), addresses, strict=True)
    )
    members = (member("node1", "leader", host="10.0.0.1"), member("node2", "replica", host="10.0.0.2"))
    taken = Routing().look(of_haproxy([one, two]), sample("patroni_cluster", members=members))
    assert taken.readings.get("agrees") == agrees
    assert taken.outcome is OK
    if agrees is None:
        assert "stats show-legends" in taken.reason


def test_a_node_named_otherwise_than_its_member_goes_by_both_names() -> None:
    stats = sample("postgres_stats", "left", address="node1:5432", in_recovery=0.0)
    taken = Routing().look(of_haproxy(statistics("healthy")), cluster("node1"), stats, nodes=("left", "right"))
    assert (taken.readings["agrees"], taken.facts["leader"]) == (1.0, "left")


def test_without_patroni_the_one_writable_server_leads() -> None:
    one = sample("postgres_stats", "node1", address="node1:5432", in_recovery=0.0)
    two = sample("postgres_stats", "node2", address="node2:5432", in_recovery=1.0)
    healthy = of_haproxy(statistics("healthy"))
    assert Routing().look(healthy, one, two).readings["agrees"] == 1.0
    writable = replace(two, readings={"in_recovery": 0.0})
    assert Routing().look(healthy, one, writable).kind == "no_input"


@pytest.mark.parametrize(
    "haproxy, patroni, outcome",
    [
        (sample("haproxy_stats", outcome=F), cluster("node1"), B),
        (of_haproxy(statistics("healthy")), sample("patroni_cluster", outcome=F), B),
        (of_haproxy(statistics("healthy")), cluster("nobody"), B),
        (of_haproxy(statistics("healthy")), cluster("node2", state="starting"), B),
        (sample("haproxy_stats"), cluster("node1"), NA),
    ],
)
def test_what_is_not_known_is_no_disagreement(haproxy: Sample, patroni: Sample, outcome: Outcome) -> None:
    assert Routing().look(haproxy, patroni).outcome is outcome


def test_it_is_computed_only_where_there_is_a_haproxy() -> None:
    def computed(**parts: Any) -> bool:
        instance = Instance.model_validate({"name": "orders", "patroni": ["http://a"], **parts})
        found = plan(instance, (), {}, catalogue(), Defaults())
        return "haproxy_routing" in {cycle.probe.name for cycle in found.combined}

    assert not computed()
    assert computed(haproxy={"stats": "http://x:7000"})
