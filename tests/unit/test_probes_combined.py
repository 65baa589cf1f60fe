"""The combined probes over samples made by hand: what the servers and Patroni said in, readings out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from probed.leadership import Passage, Promotion
from probed.model import Outcome, Sample, Target
from probed.probes import Combined, View, catalogue
from probed.probes._patroni import ClusterMember, Scheduled, history_of, member_of, scheduled_of
from probed.probes.replication_lag import MAX_KEPT, MAX_RING
from probed.sampling import combine

PROBES = {name: probe for name, probe in catalogue().items() if isinstance(probe, Combined)}
OK, F, B, NA = Outcome.OBSERVED, Outcome.FAILED, Outcome.BLIND, Outcome.NOT_APPLICABLE

PRIMARY: Mapping[str, Any] = {
    "current_lsn": 1000.0, "timeline": "00000003", "replay_lsn": None, "receive_lsn": None, "replay_paused": None,
    "apply_delay": 0.0, "receiver_pid": None, "receiver_status": None, "received_tli": None, "latest_end_lsn": None,
    "system_identifier": "7", "started_at": 0.0, "may_read": True, "remedy": "", "backends": 10, "usable": 100,
    "client_backends": None,
}  # fmt: skip
STANDBY: Mapping[str, Any] = {
    **PRIMARY, "current_lsn": None, "timeline": None, "replay_lsn": 1000.0, "receive_lsn": 1000.0,
    "replay_paused": False, "receiver_pid": 77, "receiver_status": "streaming", "received_tli": 3,
    "latest_end_lsn": 1000.0,
}  # fmt: skip


class Instance:
    """Two nodes over time: what each probe last said, and the memory of the combined probe that is asked."""

    def __init__(self, probe: str, node: str = "", nodes: tuple[str, ...] = ("a", "b")) -> None:
        self.probe, self.nodes, self.mono = PROBES[probe], nodes, 0.0
        component = self.probe.component
        self.target = Target("orders", node, component, f"{node}:5432" if node else "")
        self.said: dict[tuple[str, str], Sample] = {}
        self.before: Sample | None = None
        self.kept: Mapping[str, Any] = {}
        self.written = 0
        self.booted = 0.0

    def say(
        self, probe: str, node: str, outcome: Outcome = OK, readings: Mapping[str, Any] | None = None, *,
        facts: Mapping[str, Any] | None = None, reason: str = "", kind: str = "", series: str = "",
    ) -> None:  # fmt: skip
        target = Target("orders", node, "postgres" if "postgres" in probe else "patroni", f"{node}:5432")
        if probe == "patroni_rest":
            target = Target("orders", node, "patroni", f"http://{node}:8008")
        self.said[probe, node] = Sample(
            target, probe, outcome, self.mono, self.mono, 0.0, readings or {}, reason, kind, series, facts or {}
        )

    def primary(self, node: str, **facts: Any) -> None:
        readings = {"in_recovery": 0.0, **facts.pop("readings", {})}
        self.say("postgres_stats", node, OK, readings, facts={**PRIMARY, **facts}, series=facts.get("series", "s"))

    def standby(self, node: str, **facts: Any) -> None:
        self.say("postgres_stats", node, OK, {"in_recovery": 1.0}, facts={**STANDBY, **facts})

    def stats(self, node: str, outcome: Outcome, kind: str = "", reason: str = "") -> None:
        self.say("postgres_stats", node, outcome, kind=kind, reason=reason)

    def rest(self, node: str, role: str = "replica", state: str = "running", **facts: Any) -> None:
        self.say(
            "patroni_rest", node, OK, {"role": role, "state": state}, facts={"pause": False, "name": node, **facts}
        )

    def silent(self, node: str, outcome: Outcome = F) -> None:
        self.say("patroni_rest", node, outcome, reason="connection refused", kind="refused")

    def cluster(self, **roles: str) -> None:
        members = tuple(
            ClusterMember(name, role, "running", name, 5432, f"http://{name}:8008", 3, None)
            for name, role in roles.items()
        )
        self.say("patroni_cluster", "", OK, {"members": float(len(members))}, facts={"members": members})

    def ask(self, after: float = 5.0) -> Sample:
        """The probe's sample of this cycle."""
        at = self.booted + self.mono
        view = View(self.target, self.nodes, dict(self.said), at, self.mono, self.before, kept=self.kept)
        self.before = combine(self.probe, view)
        keep = self.before.keep
        if keep is not None and keep != self.kept:
            self.kept, self.written = json.loads(json.dumps(keep)), self.written + 1
        self.mono += after
        return self.before

    def restart(self, after: float) -> None:
        """Another daemon, that nobody looked before it for so long: it has what was kept, and no more."""
        self.before, self.booted, self.mono = None, self.booted + self.mono + after, 0.0

    def reading(self, name: str, after: float = 5.0) -> Any:
        return self.ask(after).readings.get(name)


# --- who leads


def leader() -> Instance:
    return Instance("leader")


def test_a_writable_server_that_patroni_lists_is_the_leader() -> None:
    seen = leader()
    seen.primary("a")
    seen.standby("b")
    seen.cluster(a="leader", b="replica")
    assert seen.ask().readings == {
        "has_leader": 1.0, "leader": "a", "timeline": 3.0, "writable_nodes": 1.0, "rival_primaries": 1.0,
    }  # fmt: skip


def test_without_patroni_the_only_writable_server_is_the_leader() -> None:
    seen = leader()
    seen.primary("a")
    seen.standby("b")
    assert seen.reading("leader") == "a"


def test_a_listed_leader_is_confirmed_by_its_own_rest_api_when_its_database_cannot_be_asked() -> None:
    seen = leader()
    seen.stats("a", B)
    seen.standby("b")
    seen.rest("a", "primary")
    seen.cluster(a="leader", b="replica")
    sample = seen.ask()
    assert (sample.readings["has_leader"], sample.readings["leader"], sample.readings["timeline"]) == (1.0, "a", 3.0)


def test_the_leader_of_a_standby_cluster_is_in_recovery_by_design() -> None:
    seen = leader()
    seen.standby("a")
    seen.standby("b")
    seen.cluster(a="standby_leader", b="replica")
    assert seen.ask().readings["leader"] == "a"


def test_a_crashed_leader_that_is_still_listed_is_none() -> None:
    """For up to its TTL a dead leader stays in the list, with state running."""
    seen = leader()
    seen.stats("a", F)
    seen.silent("a")
    seen.standby("b")
    seen.rest("b")
    seen.cluster(a="leader", b="replica")
    sample = seen.ask()
    assert (sample.readings["has_leader"], sample.reason) == (0.0, "a is listed as leader, but does not answer")
    assert "leader" not in sample.readings


def test_a_listed_leader_that_is_in_recovery_is_none_whatever_its_rest_api_says() -> None:
    seen = leader()
    seen.standby("a")
    seen.standby("b")
    seen.rest("a", "primary")
    seen.cluster(a="leader", b="replica")
    assert seen.reading("has_leader") == 0.0


@pytest.mark.parametrize("rest", ["silent", "blind", "unknown"])
def test_a_listed_leader_whose_database_we_cannot_log_in_to_is_not_refuted_by_a_silent_patroni(rest: str) -> None:
    """Blindness is ours: a wrong password and a hung Patroni are no proof that nobody leads."""
    seen = leader()
    seen.stats("a", B, "auth", "wrong password")
    seen.stats("b", B, "auth", "wrong password")
    if rest != "unknown":
        seen.silent("a", F if rest == "silent" else B)
    seen.cluster(a="leader", b="replica")
    sample = seen.ask()
    assert "has_leader" not in sample.readings
    assert "could be asked" in sample.reason


def test_a_listed_leader_whose_server_is_full_is_not_refuted_by_a_silent_patroni() -> None:
    seen = leader()
    seen.stats("a", F, "too_many_connections", "sorry, too many clients already")
    seen.silent("a")
    seen.standby("b")
    seen.cluster(a="leader", b="replica")
    assert "has_leader" not in seen.ask().readings


def test_a_listed_leader_whose_own_rest_api_says_replica_is_refuted() -> None:
    seen = leader()
    seen.stats("a", B)
    seen.rest("a", "replica")
    seen.cluster(a="leader", b="replica")
    assert seen.reading("has_leader") == 0.0


def test_patroni_listing_no_leader_and_no_server_writable_is_no_leader() -> None:
    seen = leader()
    seen.standby("a")
    seen.standby("b")
    seen.cluster(a="replica", b="replica")
    sample = seen.ask()
    assert (sample.readings, sample.reason) == (
        {"has_leader": 0.0, "writable_nodes": 0.0, "rival_primaries": 0.0},
        "Patroni lists no leader",
    )


def test_a_node_that_calls_itself_leader_and_that_we_cannot_log_in_to_leaves_the_question_open() -> None:
    seen = leader()
    seen.stats("a", B, "auth", "wrong password")
    seen.rest("a", "primary")
    seen.standby("b")
    seen.cluster(a="replica", b="replica")
    sample = seen.ask()
    assert "has_leader" not in sample.readings
    assert sample.reason == "Patroni lists no leader; a calls itself one, and its database cannot be asked"
    seen.standby("a")
    assert seen.reading("has_leader") == 0.0, "its database refutes it"


def test_with_patroni_silent_every_server_in_recovery_is_no_leader() -> None:
    seen = leader()
    seen.standby("a")
    seen.standby("b")
    seen.say("patroni_cluster", "", F)
    assert seen.reading("has_leader") == 0.0


def test_with_patroni_silent_one_server_that_cannot_be_asked_leaves_the_question_open() -> None:
    seen = leader()
    seen.standby("a")
    seen.stats("b", F)
    seen.say("patroni_cluster", "", F)
    sample = seen.ask()
    assert (sample.outcome, sample.kind) == (B, "no_input")


def test_losing_the_dcs_is_not_losing_the_leader() -> None:
    """etcd is gone and Patroni's /cluster with it; failsafe keeps the primary writable."""
    seen = leader()
    seen.primary("a")
    seen.standby("b")
    seen.rest("a", "primary")
    seen.say("patroni_cluster", "", F, kind="closed")
    sample = seen.ask()
    assert (sample.readings["has_leader"], sample.readings["leader"]) == (1.0, "a")


def test_with_patroni_silent_a_writable_server_leads_but_is_an_identity_only_by_its_own_rest_api() -> None:
    seen = leader()
    seen.primary("a")
    seen.silent("a")
    seen.say("patroni_cluster", "", F)
    sample = seen.ask()
    assert sample.readings["has_leader"] == 1.0
    assert "leader" not in sample.readings


def test_two_writable_servers_are_a_leader_but_no_identity() -> None:
    """Split brain must not be told as a switchover."""
    seen = leader()
    seen.primary("a")
    seen.primary("b")
    seen.cluster(a="leader", b="replica")
    sample = seen.ask()
    assert (sample.readings["has_leader"], sample.readings["writable_nodes"]) == (1.0, 2.0)
    assert "leader" not in sample.readings


def test_two_listed_leaders_are_no_identity() -> None:
    seen = leader()
    seen.primary("a")
    seen.cluster(a="leader", b="leader")
    assert "leader" not in seen.ask().readings


def test_while_patroni_still_lists_the_old_leader_the_new_one_is_no_identity_yet() -> None:
    seen = leader()
    seen.stats("a", F)
    seen.primary("b")
    seen.cluster(a="leader", b="replica")
    sample = seen.ask()
    assert sample.readings["has_leader"] == 1.0
    assert "leader" not in sample.readings


def test_when_nobody_answers_nothing_is_said() -> None:
    seen = leader()
    for node in "ab":
        seen.stats(node, F)
        seen.silent(node)
    seen.say("patroni_cluster", "", F)
    assert seen.ask().outcome is B
    assert leader().ask().outcome is B


def test_members_under_other_names_than_our_nodes_are_matched_by_name_door_or_address() -> None:
    for how in ("name", "door", "address"):
        seen = leader()
        seen.primary("a")
        seen.standby("b")
        if how == "name":
            seen.rest("a", "primary", name="pg-1")
        member = ClusterMember(
            "pg-1", "leader", "running", "a" if how == "address" else "elsewhere", 5432,
            "http://a:8008" if how == "door" else "http://elsewhere:8008", 3, None,
        )  # fmt: skip
        if how == "door":
            seen.silent("a")
        seen.say("patroni_cluster", "", OK, facts={"members": (member,)})
        assert seen.reading("leader") == "a", how


# --- a member of Patroni


def member() -> Instance:
    seen = Instance("patroni_member", "a")
    seen.cluster(a="leader", b="replica")
    return seen


@pytest.mark.parametrize("state", ["running", "streaming", "in archive recovery"])
def test_healthy_states_are_healthy(state: str) -> None:
    seen = member()
    seen.rest("a", "replica", state)
    assert seen.ask().readings == {"healthy": 1.0, "state": state}


@pytest.mark.parametrize("state", ["start failed", "crashed", "stopped", "unknown", "initdb failed", "stop failed"])
def test_bad_states_are_unhealthy_at_once(state: str) -> None:
    seen = member()
    seen.rest("a", "replica", state)
    sample = seen.ask()
    assert (sample.readings["healthy"], sample.reason) == (0.0, f'Patroni reports "{state}"')


def test_a_server_stopped_in_a_paused_cluster_is_as_its_operator_wants_it() -> None:
    seen = member()
    seen.rest("a", "replica", "stopped", pause=True)
    assert seen.reading("healthy") == 1.0


def test_a_silent_patroni_is_unhealthy_and_one_that_we_cannot_ask_is_blind() -> None:
    seen = member()
    seen.silent("a")
    assert seen.ask().readings == {"healthy": 0.0, "state": "silent"}
    seen.silent("a", B)
    assert seen.ask().outcome is B


def test_a_member_that_vanished_from_the_list_is_unhealthy() -> None:
    seen = member()
    seen.rest("a")
    seen.cluster(b="leader")
    sample = seen.ask()
    assert (sample.readings["healthy"], sample.reason) == (0.0, "the node is missing from Patroni's /cluster")


def test_an_empty_or_unavailable_list_says_nothing_about_a_member() -> None:
    seen = member()
    seen.rest("a")
    seen.cluster()
    assert seen.reading("healthy") == 1.0
    seen.say("patroni_cluster", "", F)
    assert seen.reading("healthy") == 1.0


def test_a_transitional_state_says_nothing_for_a_minute_and_is_unhealthy_then() -> None:
    seen = member()
    seen.rest("a", "replica", "starting")
    assert [seen.reading("healthy", after=20.0) for _ in range(5)] == [None, None, None, 0.0, 0.0]


def test_the_minute_of_a_transitional_state_goes_on_over_a_blind_sample_and_starts_anew_with_another_state() -> None:
    seen = member()
    seen.rest("a", "replica", "starting")
    seen.ask(after=50.0)
    seen.silent("a", B)
    seen.ask(after=10.0)
    seen.rest("a", "replica", "starting")
    assert seen.reading("healthy") == 0.0
    seen.rest("a", "replica", "running")
    seen.ask()
    seen.rest("a", "replica", "starting")
    assert seen.reading("healthy") is None


def test_building_a_replica_may_take_hours() -> None:
    seen = member()
    seen.rest("a", "replica", "creating replica")
    assert [seen.reading("healthy", after=3600 * 3) for _ in range(3)] == [None, None, 0.0]


def test_a_state_nobody_knows_says_nothing_for_ever() -> None:
    seen = member()
    seen.rest("a", "replica", "levitating")
    assert [seen.reading("healthy", after=1e6) for _ in range(3)] == [None] * 3


# --- the LSN clock


def lagging() -> Instance:
    seen = Instance("replication_lag", "b")
    seen.primary("a")
    seen.standby("b")
    return seen


def test_a_caught_up_replica_of_an_idle_primary_has_no_lag_however_long_it_idles() -> None:
    seen = lagging()
    assert [seen.reading("lag_seconds", after=600.0) for _ in range(20)] == [0.0] * 20
    assert seen.reading("lag_bytes") == 0.0


def test_a_cut_off_replica_grows_truthfully() -> None:
    seen = lagging()
    seen.ask()
    grown = []
    for index in range(1, 13):
        seen.primary("a", current_lsn=1000.0 + index)
        seen.standby("b", receiver_pid=None, receiver_status=None, latest_end_lsn=None)
        grown.append(seen.reading("lag_seconds"))
    assert grown == pytest.approx([5.0 * index for index in range(1, 13)])
    assert seen.reading("lag_bytes") == 12.0


def test_a_cut_off_replica_goes_on_growing_when_the_primary_falls_silent() -> None:
    seen = lagging()
    seen.ask()
    seen.primary("a", current_lsn=2000.0)
    seen.ask()
    seen.stats("a", F)
    seen.standby("b", receiver_pid=None, receiver_status=None, latest_end_lsn=None)
    assert [seen.reading("lag_seconds") for _ in range(3)] == pytest.approx([10.0, 15.0, 20.0])


def test_the_first_write_after_an_idle_hour_is_not_an_hour_of_lag() -> None:
    seen = lagging()
    seen.ask()
    for _ in range(720):
        seen.ask()
    seen.primary("a", current_lsn=33_000.0)
    assert seen.reading("lag_seconds") <= 5.0
    seen.standby("b", replay_lsn=33_000.0)
    assert seen.reading("lag_seconds") == 0.0


def test_a_replica_that_follows_at_a_distance_shows_that_distance() -> None:
    seen = lagging()
    shown = []
    for index in range(40):
        seen.primary("a", current_lsn=1000.0 + 10.0 * index)
        seen.standby("b", replay_lsn=1000.0 + 10.0 * max(0, index - 6))
        shown.append(seen.reading("lag_seconds"))
    assert shown[10:] == pytest.approx([30.0] * 30, abs=5.0)


def test_replay_that_catches_up_brings_the_lag_down() -> None:
    seen = lagging()
    seen.ask()
    for index in range(1, 11):
        seen.primary("a", current_lsn=1000.0 + 100 * index)
        seen.ask()
    seen.standby("b", replay_lsn=1950.0)
    assert seen.reading("lag_seconds") == pytest.approx(7.5, abs=5.0)
    seen.standby("b", replay_lsn=2000.0)
    assert seen.reading("lag_seconds") == 0.0


def test_a_paused_replica_lags_and_says_so() -> None:
    seen = lagging()
    seen.ask()
    seen.primary("a", current_lsn=2000.0)
    seen.standby("b", replay_paused=True, latest_end_lsn=2000.0)
    seen.ask(after=60.0)
    sample = seen.ask()
    assert sample.readings["lag_seconds"] == pytest.approx(65.0)
    assert sample.reason == "replay is paused on this standby"


def test_a_wanted_delay_is_subtracted() -> None:
    seen = lagging()
    seen.ask()
    seen.primary("a", current_lsn=2000.0)
    seen.standby("b", apply_delay=60.0)
    assert [seen.reading("lag_seconds", after=30.0) for _ in range(4)] == pytest.approx([0.0, 0.0, 5.0, 35.0])


def test_with_the_primary_unreadable_the_receivers_end_of_wal_stands_in() -> None:
    seen = lagging()
    seen.ask()
    seen.stats("a", B)
    seen.standby("b", latest_end_lsn=5000.0)
    seen.ask()
    sample = seen.ask()
    assert sample.readings["lag_bytes"] == 4000.0
    assert sample.readings["lag_seconds"] == pytest.approx(7.5, abs=2.5)


def test_with_the_primary_unreadable_and_no_receiver_a_caught_up_replica_says_nothing() -> None:
    seen = lagging()
    seen.ask()
    seen.stats("a", F)
    seen.standby("b", receiver_pid=None, receiver_status=None, latest_end_lsn=None)
    sample = seen.ask()
    assert (sample.outcome, dict(sample.readings)) == (OK, {})
    assert "cannot be read" in sample.reason


def test_another_timeline_starts_the_clock_anew() -> None:
    seen = lagging()
    seen.ask()
    seen.primary("a", current_lsn=9000.0)
    seen.ask(after=100.0)
    assert seen.reading("lag_seconds") > 100
    seen.primary("a", current_lsn=9000.0, timeline="00000004")
    assert seen.reading("lag_seconds") == 0.0


def test_another_primary_starts_the_clock_anew() -> None:
    seen = Instance("replication_lag", "b", ("a", "b", "c"))
    seen.primary("a", current_lsn=9000.0)
    seen.standby("b")
    seen.ask(after=100.0)
    assert seen.reading("lag_seconds") >= 100.0
    seen.standby("a")
    seen.primary("c", current_lsn=9000.0)
    assert seen.reading("lag_seconds") == 0.0


def test_a_writable_server_of_another_cluster_is_not_the_primary() -> None:
    seen = lagging()
    seen.primary("a", current_lsn=9_000_000.0, system_identifier="8")
    seen.standby("b", receiver_status=None, latest_end_lsn=None)
    assert "lag_seconds" not in seen.ask().readings


def test_a_replica_that_is_away_has_not_stopped_the_clock() -> None:
    seen = lagging()
    seen.ask()
    seen.stats("b", F, reason="no answer")
    for index in range(10):
        seen.primary("a", current_lsn=2000.0 + index)
        assert seen.ask().outcome is B
    seen.standby("b")
    assert seen.reading("lag_seconds") == pytest.approx(55.0, abs=5.0)


def test_the_clocks_memory_is_bounded_while_a_replica_lags_and_while_it_is_away() -> None:
    for away in (False, True):
        seen = lagging()
        seen.ask()
        for index in range(3 * MAX_RING):
            seen.primary("a", current_lsn=2000.0 + index)
            if away:
                seen.stats("b", F)
            seen.ask()
        assert seen.before is not None
        clock: Any = seen.before.facts["clock"]
        assert len(clock.marks) <= MAX_RING + 1
        seen.standby("b")
        assert seen.reading("lag_seconds") == pytest.approx(15.0 * MAX_RING, rel=0.02)


def test_a_replica_that_stands_still_has_not_caught_up_because_the_daemon_restarted() -> None:
    seen = lagging()
    seen.ask()
    for index in range(1, 9):
        seen.primary("a", current_lsn=1000.0 + index)
        seen.ask()
    seen.restart(after=12.0)
    assert seen.reading("lag_seconds") == pytest.approx(57.0)
    seen.primary("a", current_lsn=2000.0)
    assert seen.reading("lag_seconds") == pytest.approx(62.0)
    seen.stats("a", F)
    seen.standby("b", receiver_status=None, latest_end_lsn=None)
    seen.restart(after=12.0)
    assert seen.reading("lag_seconds") == pytest.approx(79.0)


def test_a_replica_that_follows_at_a_distance_shows_that_distance_also_after_a_restart_of_the_daemon() -> None:
    seen = lagging()
    for index in range(40):
        if index == 30:
            seen.restart(after=0.0)
        seen.primary("a", current_lsn=1000.0 + 10.0 * index)
        seen.standby("b", replay_lsn=1000.0 + 10.0 * max(0, index - 8))
        lag = seen.reading("lag_seconds")
        if index >= 30:
            assert 25.0 <= lag <= 45.0


def test_of_a_delay_that_began_while_no_daemon_looked_the_reading_is_a_lower_bound() -> None:
    seen = lagging()
    seen.ask()
    seen.restart(after=3600.0)
    seen.primary("a", current_lsn=2000.0)
    assert [seen.reading("lag_seconds") for _ in range(3)] == pytest.approx([0.0, 5.0, 10.0])


def test_a_replica_that_caught_up_while_no_daemon_looked_does_not_lag() -> None:
    for set_back in (0.0, -7200.0):
        seen = lagging()
        seen.ask()
        seen.primary("a", current_lsn=2000.0)
        for _ in range(4):
            seen.ask()
        assert seen.kept
        seen.restart(after=3600.0 + set_back)
        seen.primary("a", current_lsn=3000.0)
        seen.standby("b", replay_lsn=3000.0)
        assert seen.reading("lag_seconds") == 0.0
        assert not seen.kept


def test_the_clock_is_kept_only_while_a_replica_is_late_and_not_in_every_cycle() -> None:
    seen = lagging()
    for index in range(20):
        seen.primary("a", current_lsn=1000.0 + index)
        seen.standby("b", replay_lsn=1000.0 + index)
        seen.ask()
    assert seen.written == 0
    for index in range(720):
        seen.primary("a", current_lsn=2000.0 + index)
        seen.ask()
    assert seen.written <= 50
    assert len(seen.kept["marks"]) <= MAX_KEPT
    seen.restart(after=10.0)
    assert seen.reading("lag_seconds") == pytest.approx(3610.0, abs=5.0)
    seen.standby("b", replay_lsn=2360.0)  # half of it
    assert seen.reading("lag_seconds") == pytest.approx(1810.0, abs=300.0)


def test_a_primary_does_not_lag_and_forgets_the_clock_it_had_as_a_replica() -> None:
    seen = lagging()
    seen.ask()
    seen.primary("b")
    sample = seen.ask()
    assert (sample.outcome, sample.facts) == (NA, {})


def test_a_replica_that_has_replayed_nothing_is_blind() -> None:
    seen = lagging()
    seen.standby("b", replay_lsn=None)
    assert seen.ask().outcome is B


@given(
    st.lists(
        st.tuples(
            st.integers(0, 300),
            st.integers(0, 40),
            st.sampled_from([OK, OK, OK, OK, F, B]),
            st.sampled_from([False, False, False, True]),
        ),
        max_size=60,
    )
)
def test_over_any_course_the_lag_is_at_most_the_time_since_the_replica_was_last_caught_up(
    course: list[tuple[int, int, Outcome, bool]],
) -> None:
    """Never a lag that cannot be: not negative, not without bytes behind, not older than the last moment of equality."""
    seen, written, replayed, equal = lagging(), 1000.0, 1000.0, 0.0
    seen.ask()
    for rise, behind, outcome, restarted in course:
        if restarted:
            seen.restart(after=10.0)
        written += rise
        replayed = max(replayed, written - 10.0 * behind)
        if replayed >= written:
            equal = seen.booted + seen.mono
        seen.primary("a", current_lsn=written)
        if outcome is not OK:
            seen.stats("a", outcome)
        seen.standby("b", replay_lsn=replayed, latest_end_lsn=written)
        now = seen.booted + seen.mono
        readings = seen.ask().readings
        lag = readings.get("lag_seconds", 0.0)
        assert isinstance(lag, float)
        assert 0.0 <= lag <= now - equal + 5.0
        if lag:
            assert readings["lag_bytes"] > 0  # type: ignore[operator]


# --- the WAL receiver


def receiving() -> Instance:
    seen = Instance("wal_receiver", "b")
    seen.standby("b")
    return seen


def test_a_streaming_receiver_streams_also_on_an_idle_primary() -> None:
    seen = receiving()
    assert [seen.reading("wal_receiver_streaming") for _ in range(5)] == [1.0] * 5


@pytest.mark.parametrize("status", ["stopped", "starting", "waiting", "restarting", "stopping", "connecting"])
def test_every_other_status_is_not_streaming(status: str) -> None:
    seen = receiving()
    seen.standby("b", receiver_status=status)
    sample = seen.ask()
    assert (sample.readings["wal_receiver_streaming"], sample.reason) == (0.0, f"the WAL receiver is {status}")


def test_no_receiver_process_is_not_streaming() -> None:
    seen = receiving()
    seen.standby("b", receiver_pid=None, receiver_status=None, latest_end_lsn=None)
    assert seen.reading("wal_receiver_streaming") == 0.0


def test_a_receiver_that_is_started_again_and_again_does_not_stream() -> None:
    """Up to PostgreSQL 18 it says streaming before it has connected."""
    seen = receiving()
    seen.ask()
    streaming = []
    for pid in (78, 79, 80):
        seen.standby("b", receiver_pid=pid)
        streaming.append(seen.reading("wal_receiver_streaming"))
    assert streaming == [0.0, 0.0, 0.0]
    assert seen.reading("wal_receiver_streaming") == 1.0


def test_a_receiver_that_was_started_again_and_has_received_something_streams() -> None:
    seen = receiving()
    seen.ask()
    seen.standby("b", receiver_pid=78, latest_end_lsn=1001.0)
    assert seen.reading("wal_receiver_streaming") == 1.0


def test_a_receiver_that_is_caught_between_two_of_its_attempts_streams_neither_then_nor_in_the_next_one() -> None:
    seen = receiving()
    seen.ask()
    streaming = []
    for pid in (None, 78, None, None, 79):
        if pid is None:
            seen.standby("b", receiver_pid=None, receiver_status=None, latest_end_lsn=None)
        else:
            seen.standby("b", receiver_pid=pid)
        streaming.append(seen.reading("wal_receiver_streaming"))
    assert streaming == [0.0] * 5
    assert seen.reading("wal_receiver_streaming") == 1.0, "it has kept its process for a cycle"


def test_a_reconnect_is_seen_over_a_blind_cycle() -> None:
    seen = receiving()
    seen.ask()
    seen.stats("b", F)
    assert seen.ask().outcome is B
    seen.standby("b", receiver_pid=78)
    assert seen.reading("wal_receiver_streaming") == 0.0


def test_a_receiver_that_is_not_back_yet_after_a_restart_of_the_primary_says_nothing_for_ten_seconds() -> None:
    seen = receiving()
    seen.primary("a", started_at=100.0)
    seen.standby("b")
    assert seen.reading("wal_receiver_streaming") == 1.0
    seen.mono += 5
    seen.primary("a", started_at=200.0)
    for passed, said in ((0.0, None), (5.0, None), (10.0, 0.0), (15.0, 0.0)):
        seen.mono = 5.0 + passed
        seen.standby("b", receiver_pid=None, receiver_status=None)
        assert seen.reading("wal_receiver_streaming") == said


def test_another_primary_is_no_restart_of_the_one_before() -> None:
    seen = receiving()
    seen.primary("a", started_at=100.0)
    seen.standby("b")
    seen.ask()
    seen.mono += 5
    seen.primary("c", started_at=200.0)
    seen.nodes = ("a", "b", "c")
    seen.standby("a")
    seen.standby("b", receiver_pid=None, receiver_status=None)
    assert seen.reading("wal_receiver_streaming") == 0.0


def test_without_pg_monitor_the_receiver_is_hidden_and_the_grant_is_told() -> None:
    seen = receiving()
    seen.standby("b", may_read=False, remedy="run: GRANT pg_monitor …", receiver_status=None)
    sample = seen.ask()
    assert (sample.outcome, sample.kind, sample.reason) == (B, "privilege", "run: GRANT pg_monitor …")


def test_a_primary_has_no_receiver() -> None:
    seen = receiving()
    seen.primary("b")
    assert seen.ask().outcome is NA


# --- the cache hit ratio


def cached() -> Instance:
    return Instance("cache_hit_ratio", "a")


def blocks(seen: Instance, hit: float | None, read: float | None, **facts: Any) -> Sample:
    readings = {name: value for name, value in (("blocks_hit", hit), ("blocks_read", read)) if value is not None}
    seen.primary("a", readings=readings, **facts)
    return seen.ask(after=60.0)


def test_the_hit_ratio_is_that_of_the_last_cycle_and_not_of_the_servers_life() -> None:
    seen = cached()
    assert "hit_ratio" not in blocks(seen, 1e9, 0.0).readings
    readings = blocks(seen, 1e9 + 20_000, 20_000.0).readings
    assert (readings["hit_ratio"], readings["blocks"]) == (50.0, 40_000.0)


def test_a_cycle_without_traffic_has_no_bad_ratio() -> None:
    seen = cached()
    blocks(seen, 100.0, 100.0)
    readings = blocks(seen, 100.0, 100.0).readings
    assert (readings["hit_ratio"], readings["blocks"]) == (100.0, 0.0)


@pytest.mark.parametrize("hit, read, series", [(50.0, 200.0, "s"), (200.0, 50.0, "s"), (200.0, 200.0, "other")])
def test_a_reset_a_crash_or_a_restart_starts_anew(hit: float, read: float, series: str) -> None:
    seen = cached()
    blocks(seen, 100.0, 100.0)
    assert "hit_ratio" not in blocks(seen, hit, read, series=series).readings
    assert "hit_ratio" in blocks(seen, hit + 10, read, series=series).readings


def test_the_ratio_goes_on_over_a_blind_cycle() -> None:
    seen = cached()
    blocks(seen, 100.0, 100.0)
    seen.stats("a", F)
    assert seen.ask(after=60.0).outcome is B
    assert blocks(seen, 400.0, 200.0).readings["hit_ratio"] == 75.0


def test_a_promoted_server_is_warm_only_some_time_after_its_promotion() -> None:
    seen = cached()
    seen.standby("a")
    seen.said["postgres_stats", "a"] = Sample(
        seen.target, "postgres_stats", OK, seen.mono, seen.mono, 0.0,
        {"in_recovery": 1.0, "blocks_hit": 1.0, "blocks_read": 1.0}, series="s", facts=STANDBY,
    )  # fmt: skip
    assert seen.ask(after=3600.0).readings["up_seconds"] == 0.0
    assert blocks(seen, 2.0, 2.0).readings["up_seconds"] == 0.0
    seen.stats("a", B)
    seen.ask(after=60.0)
    assert blocks(seen, 3.0, 3.0).readings["up_seconds"] == 120.0


def test_counters_that_are_not_there_give_no_ratio() -> None:
    seen = cached()
    assert blocks(seen, None, 5.0).readings == {}


# --- connections


def crowd(**facts: Any) -> Sample:
    seen = Instance("connections", "a")
    seen.primary("a", **facts)
    return seen.ask()


def test_used_connections_are_a_share_of_what_ordinary_roles_can_have() -> None:
    assert crowd(backends=40, usable=80).readings == {
        "connections_used": 40.0, "connections_usable": 80.0, "connections_used_pct": 50.0
    }  # fmt: skip


def test_the_exact_number_of_client_sessions_is_preferred_where_it_was_taken() -> None:
    assert crowd(backends=79, client_backends=60, usable=80).readings["connections_used_pct"] == 75.0
    assert crowd(backends=79, client_backends=0, usable=80).readings["connections_used_pct"] == 0.0


def test_a_server_without_usable_slots_is_full() -> None:
    assert crowd(usable=0).readings["connections_used_pct"] == 100.0


def test_a_login_refused_for_want_of_a_slot_is_a_hundred_per_cent() -> None:
    seen = Instance("connections", "a")
    seen.stats("a", F, "too_many_connections", "a:5432: sorry, too many clients already")
    assert seen.ask().readings == {"connections_used_pct": 100.0}


@pytest.mark.parametrize("text", ['too many connections for role "probed"', 'too many connections for database "x"'])
def test_our_own_roles_limit_says_nothing_of_the_server(text: str) -> None:
    seen = Instance("connections", "a")
    seen.stats("a", F, "too_many_connections", text)
    assert seen.ask().outcome is B


def test_without_pg_monitor_the_number_of_connections_is_not_guessed() -> None:
    sample = crowd(may_read=False, remedy="run: GRANT …")
    assert (sample.outcome, sample.kind) == (B, "privilege")


# --- all of them


@pytest.mark.parametrize("name", sorted(PROBES))
@pytest.mark.parametrize("outcome", [F, B])
def test_without_its_input_a_combined_probe_never_fails_a_target(name: str, outcome: Outcome) -> None:
    seen = Instance(name, "a" if PROBES[name].scope == "node" else "")
    assert seen.ask().outcome in (OK, B)
    for node in "ab":
        seen.stats(node, outcome, reason="no answer")
        seen.silent(node, outcome)
    seen.say("patroni_cluster", "", outcome)
    assert seen.ask().outcome in (OK, B)


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters())),
        lambda inner: st.dictionaries(
            st.sampled_from(["name", "role", "state", "host", "port", "api_url", "timeline", "lag"]), inner
        ),
        max_leaves=10,
    )
)
def test_whatever_patroni_lists_becomes_a_plain_member_or_none(row: object) -> None:
    found = member_of(row)
    if found is not None:
        assert found.name
        assert "/" not in found.name
        assert found.name.encode("utf-8")
        assert 1 <= found.port <= 65535


# --- how the leadership goes on


def rivals() -> Instance:
    seen = leader()
    seen.primary("a", current_lsn=5000.0)
    seen.standby("b")
    seen.rest("a", "primary")
    seen.rest("b")
    seen.cluster(a="leader", b="replica")
    seen.ask()
    return seen


def test_two_writable_servers_of_one_system_are_rivals_and_both_are_named() -> None:
    seen = rivals()
    seen.silent("a")
    seen.primary("b", timeline="00000004")
    seen.cluster(b="leader")
    sample = seen.ask()
    assert sample.readings["rival_primaries"] == 2.0
    assert sample.reason == "split brain: a (timeline 3) and b (timeline 4) take writes at the same time"


def test_two_writable_servers_of_different_systems_are_none() -> None:
    seen = rivals()
    seen.primary("b", system_identifier="8")
    assert seen.reading("rival_primaries") == 1.0


def test_a_new_leader_comes_with_how_it_got_there_once() -> None:
    seen = rivals()
    for _ in range(4):
        seen.stats("a", F)
        seen.silent("a")
        seen.ask()
    seen.primary("b", timeline="00000004")
    seen.cluster(b="leader")
    passage = seen.ask().facts["passage"]
    assert isinstance(passage, Passage)
    assert (passage.kind, passage.old_leader, passage.new_leader) == ("automatic_failover", "a", "b")
    assert (passage.old_timeline, passage.new_timeline, passage.write_outage_seconds) == (3, 4, 25.0)
    assert seen.ask().facts["passage"] is None


def test_what_the_history_tells_later_is_added_once() -> None:
    seen = rivals()
    seen.stats("a", F)
    seen.silent("a")
    seen.ask()
    seen.primary("b", timeline="00000004")
    seen.cluster(b="leader")
    assert "settled" not in seen.ask().facts
    cluster = seen.said["patroni_cluster", ""]
    seen.said["patroni_cluster", ""] = replace(
        cluster, facts={**cluster.facts, "history": (Promotion(3, 4200, "", "b"),)}
    )
    at, passage = cast(tuple[float, Passage], seen.ask().facts["settled"])
    assert passage.lost_bytes == 800.0
    assert at == 10.0
    assert "settled" not in seen.ask().facts


def test_the_certain_leader_brings_its_system_and_timeline_for_a_later_daemon() -> None:
    assert rivals().ask().series == "7/3"


@pytest.mark.parametrize(
    "row, line",
    [
        ([3, 67109248, "no recovery target specified", "2026-11-22T10:00:00+00:00", "b"],
         Promotion(3, 67109248, "2026-11-22T10:00:00+00:00", "b")),
        ([3, 67109248, "no recovery target specified"], Promotion(3, 67109248, "", "")),
        ([3], None), (["3", 1], None), ("text", None), (None, None), ([True, 1], None), ([3, -1], None),
    ],
)  # fmt: skip
def test_a_line_of_patronis_history_is_read_whole_or_not_at_all(row: object, line: Promotion | None) -> None:
    assert history_of([row]) == (() if line is None else (line,))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_whatever_patroni_answers_is_a_history_and_a_calendar_or_none(answer: object) -> None:
    assert isinstance(history_of(answer), tuple)
    assert scheduled_of({"at": answer, "from": answer, "to": answer}) is None or isinstance(answer, str)
    assert scheduled_of(answer) is None


def test_a_switchover_in_patronis_calendar_is_read() -> None:
    said = {"at": "2026-11-22T10:00:00+01:00", "from": "a", "to": "b"}
    assert scheduled_of(said) == Scheduled(1795338000.0, "a", "b")
