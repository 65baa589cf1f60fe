"""What a daemon remembers of Patroni's members."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from probed.board import Board
from probed.config.settings import Instance
from probed.membership import Membership
from probed.model import Target
from probed.probes._http import HttpClient
from probed.probes._patroni import ClusterMember
from probed.store import Commit, Member
from probed.testing import make_sample

CLUSTER = Target("orders", "", "patroni", kind="patroni_cluster")
ONE = Member("orders", "pg-1", "10.0.0.1", 5432, "http://10.0.0.1:8008")
TWO = Member("orders", "pg-2", "10.0.0.2", 5432, "http://10.0.0.2:8008")


class Known:
    """A membership over a board, and everything that it had recorded."""

    def __init__(self) -> None:
        self.board, self.commits = Board(), list[Commit]()
        self.board.expect("patroni_cluster", CLUSTER, 5.0)
        self.members = Membership(self.board, HttpClient(), self.commits.append)

    def listed(self, *members: Member) -> None:
        rows = tuple(
            ClusterMember(member.name, "replica", "streaming", member.host, member.port, member.api_url, 1, 0)
            for member in members
        )
        self.board.put(make_sample(target=CLUSTER, probe="patroni_cluster", facts={"members": rows}))


@pytest.fixture
def known() -> Known:
    return Known()


def test_a_member_that_comes_is_recorded_once(known: Known) -> None:
    known.listed(ONE)
    assert known.members.learn("orders")
    assert not known.members.learn("orders")
    assert known.members.of("orders") == (ONE,)
    assert known.commits == [Commit(members=(ONE,))]


def test_a_member_that_moved_is_news(known: Known) -> None:
    moved = replace(ONE, host="10.9.9.9")
    known.members.recover([ONE])
    known.listed(moved)
    assert known.members.learn("orders")
    assert known.members.of("orders") == (moved,)


def test_a_member_that_vanishes_stays_until_a_reload_forgets_it(known: Known) -> None:
    known.members.recover([ONE, TWO])
    known.listed(ONE)
    assert not known.members.learn("orders")
    assert known.members.of("orders") == (ONE, TWO)
    known.members.forget_vanished()
    assert known.members.of("orders") == (ONE,)
    assert known.commits == [Commit(forgotten_members=(("orders", "pg-2"),))]


def test_a_reload_forgets_nobody_while_patroni_says_nothing(known: Known) -> None:
    known.members.recover([ONE, TWO])
    known.members.forget_vanished()
    assert known.members.of("orders") == (ONE, TWO)
    assert known.commits == []


def test_an_instance_with_a_name_keeps_it(known: Known) -> None:
    instance = Instance.model_validate({"name": "orders", "patroni": ["http://10.0.0.1:8008"]})
    assert known.members.named(instance).name == "orders"
