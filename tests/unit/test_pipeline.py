"""What becomes of a round: suppression, grace, severity, closing, restarts, and what holds over every history."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from probed.model import (
    Change,
    Comparison,
    Condition,
    EventState,
    Increase,
    Occurrence,
    Phase,
    Severity,
    Threshold,
)
from probed.probes import Combined, Measured, View
from probed.testing import settle
from probed.topology import causes, may_hide
from tests.unit.bench import INSTANCE, NA, OK, POLICIES, B, Bench, F, postgres

A, Z = "node-a", "node-b"
"""The primary and the replica."""

DB_A, DB_B = "database_unavailable node-a fatal", "database_unavailable node-b critical"
LAG, RECEIVER = "replication_lag_high node-b critical", "wal_receiver_interrupted node-b critical"
NO_LEADER = "no_leader postgres fatal"
ETCD_GONE = "etcd_unavailable etcd fatal"


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """What the pipeline logs of thousands of rounds is nobody's concern here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


# --- one watch


async def test_a_third_failure_in_a_row_opens_exactly_one_event() -> None:
    bench = Bench()
    assert [bench.round(db={Z: F}) for _ in range(5)] == [[], [], [f"opened {DB_B}"], [], []]


async def test_an_event_tells_what_happened_where_since_when_and_how_often() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={A: F})
    event = bench.event("database_unavailable", A)
    assert event.name == "Database access unavailable"
    assert event.target == postgres(A)
    assert event.state is EventState.OPEN
    assert event.opened_at == bench.clock.wall()
    assert event.first_failed_at == bench.clock.wall() - 10
    assert event.count == 3
    assert event.message == "3 of 3 samples in a row failed"
    assert event.labels == {"env": "prod"}
    assert event.observer == "bench"
    assert event.suggestion


async def test_the_samples_before_the_trigger_and_up_to_the_recovery_are_kept_with_the_event() -> None:
    bench = Bench()
    for said in (OK, F, F, F, OK, OK):
        bench.round(db={Z: said})
    opened, resolved = (change for commit in bench.ledger.commits for change in commit.changes)
    assert [sample.outcome for sample in opened.before] == [OK, F, F, F]
    assert [sample.outcome for sample in resolved.after] == [OK, F, F, F, OK, OK]


async def test_a_healthy_cluster_writes_nothing_once_its_leader_and_counters_are_known() -> None:
    bench = Bench()
    bench.round()
    before = len(bench.ledger.commits)
    for _ in range(100):
        bench.round()
    assert len(bench.ledger.commits) == before


async def test_an_event_and_the_streak_that_opened_it_are_one_commit() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F})
    commit = bench.ledger.commits[-1]
    assert [change.kind for change in commit.changes] == ["opened"]
    assert [streak.phase for streak in commit.streaks.values()] == [Phase.OPEN]


async def test_a_sample_of_nothing_that_is_watched_changes_nothing() -> None:
    bench = Bench()
    bench.accept([bench.sample("postgres_liveness", postgres("node-z"), F)] * 5)
    bench.pipeline.accept("elsewhere", [bench.sample("postgres_liveness", postgres(A), F)] * 5)
    assert bench.ledger.commits == []


# --- severity


async def test_a_failing_primary_is_fatal_and_a_failing_replica_alone_critical() -> None:
    bench = Bench()
    bench.round()
    for _ in range(3):
        bench.round(db={A: F, Z: F})
    assert bench.open() == [DB_A, DB_B]


async def test_before_any_leader_was_seen_every_server_is_taken_for_a_primary() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F}, leader=B)
    assert bench.open() == ["database_unavailable node-b fatal"]


async def test_the_severity_is_that_of_the_moment_when_it_began_to_fail() -> None:
    """The old primary dies, another takes over before the third failure: it was the primary that died."""
    bench = Bench()
    bench.round()
    bench.round(db={A: F})
    bench.round(db={A: F}, leader=Z)
    bench.round(db={A: F})
    assert DB_A in bench.open()


async def test_the_write_port_is_fatal_whoever_leads() -> None:
    bench = Bench(frontend=True)
    bench.round()
    for _ in range(3):
        bench.round(port=F)
    assert bench.open() == ["database_unavailable haproxy fatal"]


# --- consequences


async def test_a_consequence_under_an_open_cause_is_recorded_suppressed_with_its_cause() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F})
    for _ in range(2):
        bench.round(db={Z: F}, receiver={Z: 0.0})
    assert bench.open() == [DB_B, f"{RECEIVER} (suppressed)"]
    assert bench.event("wal_receiver_interrupted", Z).caused_by == bench.event("database_unavailable", Z).id
    assert bench.pipeline.suppressed == 1


async def test_a_consequence_of_a_consequence_names_the_root() -> None:
    bench = Bench()
    for _ in range(8):
        bench.round(db={A: F}, receiver={Z: 0.0}, lag={Z: 99.0})
    assert bench.open() == [DB_A, f"{LAG} (suppressed)", f"{RECEIVER} (suppressed)"]
    root = bench.event("database_unavailable", A).id
    assert {bench.event(e, Z).caused_by for e in ("replication_lag_high", "wal_receiver_interrupted")} == {root}


async def test_while_a_cause_is_pending_its_consequence_does_not_open() -> None:
    bench = Bench(policies={**POLICIES, "database_unavailable": _counting(5)})
    for _ in range(4):
        assert bench.round(db={Z: F}, receiver={Z: 0.0}) == []
    assert bench.round(db={Z: F}, receiver={Z: 0.0}) == [f"opened {DB_B}"]


async def test_a_cause_that_cleared_while_pending_hides_nothing() -> None:
    """One failed liveness sample amid a real lag: the lag opens as soon as two samples of its own are in a row."""
    bench = Bench()
    assert bench.round(lag={Z: 99.0}) == []
    assert bench.round(lag={Z: 99.0}, db={Z: F}) == []
    assert bench.round(lag={Z: 99.0}) == [f"opened {LAG}"]


async def test_what_is_seen_only_while_a_cause_is_pending_is_not_counted() -> None:
    """A primary restarts within two slots; its replica reconnects one slot later. Nobody is told of the receiver."""
    bench = Bench()
    bench.round(db={A: F}, receiver={Z: 0.0})
    bench.round(db={A: F}, receiver={Z: 0.0})
    bench.round(receiver={Z: 0.0})
    bench.round()
    assert bench.told == []


async def test_a_cause_that_flaps_without_ever_opening_cannot_hide_an_event_for_ever() -> None:
    bench = Bench()
    for index in range(8):
        bench.round(lag={Z: 99.0}, db={Z: F if index % 2 else OK})
    assert bench.open() == [LAG]


async def test_after_the_cause_has_cleared_a_consequence_needs_fresh_samples_and_is_then_announced() -> None:
    bench = Bench()
    for _ in range(5):
        bench.round(db={Z: F}, receiver={Z: 0.0})
    assert bench.open() == [DB_B, f"{RECEIVER} (suppressed)"]
    assert bench.round(receiver={Z: 0.0}) == []
    assert bench.round(receiver={Z: 0.0}) == [f"resolved {DB_B}: recovered"]
    assert bench.round(receiver={Z: 0.0}) == [f"lifted {RECEIVER}"]
    assert bench.round(receiver={Z: 0.0}) == []
    assert bench.open() == [RECEIVER]


async def test_a_consequence_that_ends_with_its_cause_is_never_announced() -> None:
    bench = Bench()
    for _ in range(5):
        bench.round(db={Z: F}, receiver={Z: 0.0})
    for _ in range(4):
        bench.round()
    assert bench.open() == []
    assert [line for line in bench.told if "wal_receiver" in line] == [
        f"opened {RECEIVER} (suppressed)",
        f"resolved {RECEIVER} (suppressed): recovered",
    ]


async def test_a_cause_that_flaps_after_it_resolved_cannot_keep_a_consequence_hidden() -> None:
    bench = Bench()
    for _ in range(5):
        bench.round(db={Z: F}, lag={Z: 99.0})
    for index in range(10):
        bench.round(db={Z: F if index > 1 and index % 2 else OK}, lag={Z: 99.0})
    assert bench.open() == [LAG]


async def test_a_streak_counted_under_an_open_cause_does_not_open_when_the_cause_clears() -> None:
    bench = Bench(policies={**POLICIES, "replication_lag_high": _lagging(4)})
    for _ in range(6):
        bench.round(db={Z: F}, lag={Z: B})
    for _ in range(2):
        bench.round(lag={Z: 99.0})  # counted while the cause was still open
    assert [bench.round(lag={Z: 99.0}) for _ in range(3)] == [[], [], [f"opened {LAG}"]]


async def test_a_consequence_that_outlived_its_cause_is_itself_the_cause_of_what_comes_after() -> None:
    bench = Bench()
    for _ in range(5):
        bench.round(db={Z: F}, receiver={Z: 0.0})
    for _ in range(4):
        bench.round(receiver={Z: 0.0})
    for _ in range(3):
        bench.round(receiver={Z: 0.0}, lag={Z: 99.0})
    assert bench.open() == [f"{LAG} (suppressed)", RECEIVER]
    receiver = bench.event("wal_receiver_interrupted", Z)
    assert receiver.caused_by == bench.event("database_unavailable", Z).id
    assert bench.event("replication_lag_high", Z).caused_by == receiver.id


async def test_an_event_that_was_open_before_its_cause_stays_announced() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(lag={Z: 99.0})
    for _ in range(5):
        bench.round(lag={Z: 99.0}, db={Z: F})
    assert bench.open() == [DB_B, LAG]


async def test_a_fatal_is_hidden_behind_a_fatal() -> None:
    bench = Bench()
    bench.round()
    for _ in range(6):
        bench.round(db={A: F}, leader="")
    assert bench.open() == [DB_A, f"{NO_LEADER} (suppressed)"]


async def test_a_fatal_is_never_hidden_behind_a_lesser_event_nor_delayed_by_one() -> None:
    milder = replace(POLICIES["database_unavailable"], severity=Severity.CRITICAL)
    bench = Bench(policies={**POLICIES, "database_unavailable": milder})
    bench.round()
    assert bench.round(db={A: F}, leader="") == []
    assert bench.round(db={A: F}, leader="") == [f"opened {NO_LEADER}"]


async def test_a_replicas_outage_hides_its_own_receiver_and_not_that_of_another() -> None:
    bench = Bench(nodes=(A, Z, "node-c"))
    for _ in range(6):
        bench.round(db={Z: F}, receiver={Z: 0.0, "node-c": 0.0})
    assert f"{RECEIVER} (suppressed)" in bench.open()
    assert "wal_receiver_interrupted node-c critical" in bench.open()


async def test_a_write_port_without_a_leader_behind_it_is_a_consequence() -> None:
    bench = Bench(frontend=True)
    bench.round()
    for _ in range(7):
        bench.round(db={A: F}, leader="", port=F)
    assert "database_unavailable haproxy fatal (suppressed)" in bench.open()


async def test_a_leader_that_steps_down_for_want_of_etcd_is_a_consequence() -> None:
    """Without failsafe mode: etcd dies, the leader demotes itself two slots later, and the write port leads nowhere."""
    bench = Bench(frontend=True)
    bench.round()
    bench.round(etcd=F)
    for _ in range(8):
        bench.round(etcd=F, leader="", port=F, patroni_={A: 0.0})
    assert bench.open() == [
        "database_unavailable haproxy fatal (suppressed)",
        ETCD_GONE,
        f"{NO_LEADER} (suppressed)",
        "patroni_node_abnormal node-a critical (suppressed)",
    ]
    root = bench.event("etcd_unavailable").id
    assert {event.caused_by for event in bench.ledger.open_events if event.suppressed} == {root}
    for _ in range(4):
        bench.round()
    assert bench.open() == []
    assert [event.event for event in bench.ledger.events.values() if not event.suppressed] == ["etcd_unavailable"]


async def test_with_failsafe_mode_the_loss_of_etcd_is_that_alone() -> None:
    bench = Bench(frontend=True)
    for _ in range(8):
        bench.round(etcd=F)
    assert bench.open() == [ETCD_GONE]


async def test_without_etcd_the_death_of_the_primary_and_a_lagging_replica_are_told_all_the_same() -> None:
    bench = Bench()
    bench.round()
    for _ in range(4):
        bench.round(etcd=F)
    for _ in range(4):
        bench.round(etcd=F, lag={Z: 99.0})
    for _ in range(4):
        bench.round(etcd=F, db={A: F}, leader="")
    assert {DB_A, ETCD_GONE} <= set(bench.open())
    assert f"opened {LAG}" in bench.told


async def test_no_leader_that_goes_on_after_etcd_is_back_is_announced() -> None:
    bench = Bench()
    bench.round()
    for _ in range(6):
        bench.round(etcd=F, leader="")
    assert bench.open() == [ETCD_GONE, f"{NO_LEADER} (suppressed)"]
    told = [line for _ in range(6) for line in bench.round(leader="")]
    assert told == [f"resolved {ETCD_GONE}: recovered", f"lifted {NO_LEADER}"]


async def test_the_death_of_haproxy_hides_the_write_port_and_nothing_else() -> None:
    bench = Bench(frontend=True)
    bench.round()
    for _ in range(6):
        bench.round(haproxy=F, port=F, db={Z: F})
    assert bench.open() == [
        "database_unavailable haproxy fatal (suppressed)",
        DB_B,
        "haproxy_unavailable haproxy fatal",
    ]
    assert bench.event("database_unavailable").caused_by == bench.event("haproxy_unavailable").id


async def test_a_write_port_that_fails_while_haproxy_is_well_stands_for_itself() -> None:
    bench = Bench(frontend=True)
    for _ in range(3):
        bench.round(port=F, haproxy=B)
    assert bench.open() == ["database_unavailable haproxy fatal"]


async def test_an_occurrence_is_never_suppressed_nor_delayed() -> None:
    bench = Bench()
    bench.round()
    for _ in range(4):
        bench.round(db={A: F})
    assert bench.round(db={A: F}, leader=Z) == ["occurred ha_switchover postgres critical"]


async def test_deadlocks_counted_while_the_server_was_down_do_not_open_when_it_is_back() -> None:
    bench = Bench(policies={**POLICIES, "deadlocks_frequent": _deadlocks(resolve_count=1)})
    bench.round()
    for _ in range(3):
        bench.round(db={Z: F})
    bench.round(db={Z: F}, stats={Z: {"deadlocks": 9.0}})
    assert "deadlocks_frequent node-b normal (suppressed)" in bench.open()
    for _ in range(6):
        bench.round(stats={Z: {"deadlocks": 9.0}})
    assert bench.open() == []
    assert "lifted" not in " ".join(bench.told)


async def test_deadlocks_seen_while_a_cause_is_pending_are_told_when_it_clears() -> None:
    bench = Bench()
    bench.round()
    assert bench.round(db={Z: F}, stats={Z: {"deadlocks": 9.0}}) == []
    assert bench.round(stats={Z: {"deadlocks": 9.0}}) == ["opened deadlocks_frequent node-b normal"]


# --- switchover


async def test_another_leader_is_one_occurrence() -> None:
    bench = Bench()
    assert bench.round() == []
    assert bench.round(leader=Z) == ["occurred ha_switchover postgres critical"]
    assert bench.round() == []
    event = bench.event("ha_switchover")
    assert event.state is EventState.OCCURRED
    assert event.message == "node-b became the primary in place of node-a"


async def test_after_a_switchover_dependent_samples_are_inconclusive_for_the_grace() -> None:
    bench = Bench()
    bench.round()
    told = [bench.round(leader=Z, receiver={A: 0.0}, lag={A: 99.0}, patroni_={A: 0.0})]
    told += [bench.round(receiver={A: 0.0}, lag={A: 99.0}, patroni_={A: 0.0}) for _ in range(11)]
    assert told == [["occurred ha_switchover postgres critical"], *[[]] * 11]
    told = [bench.round(receiver={A: 0.0}, patroni_={A: 0.0}) for _ in range(2)]
    assert told == [
        [],
        ["opened patroni_node_abnormal node-a critical", "opened wal_receiver_interrupted node-a critical"],
    ]


async def test_the_grace_applies_within_the_very_round_that_saw_the_switchover() -> None:
    bench = Bench()
    bench.round(receiver={Z: 0.0})
    bench.round(receiver={Z: 0.0, A: 0.0}, leader=Z)
    assert bench.open() == []


async def test_availability_has_no_grace() -> None:
    bench = Bench()
    bench.round()
    bench.round(leader=Z)
    for _ in range(3):
        bench.round(db={Z: F})
    assert bench.open() == ["database_unavailable node-b fatal"]


async def test_a_switchover_makes_a_replicas_events_not_applicable_on_the_new_primary_even_within_the_grace() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(receiver={Z: 0.0})
    assert bench.round(leader=Z) == ["occurred ha_switchover postgres critical"]
    assert bench.round() == [f"resolved {RECEIVER}: not_applicable"]


async def test_the_first_leader_ever_seen_starts_no_grace() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(receiver={Z: 0.0})
    assert bench.open() == [RECEIVER]


# --- closing from outside


async def test_a_policy_that_is_switched_off_closes_its_open_event_as_disabled() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(lag={Z: 99.0})
    bench.change_policy("replication_lag_high", enabled=False)
    event = bench.event("replication_lag_high", Z)
    assert (event.state, event.resolve_reason) == (EventState.RESOLVED, "disabled")


async def test_a_policy_that_is_gone_closes_its_open_event_as_policy_removed() -> None:
    bench = Bench(policies={**POLICIES, "my_lag": replace(POLICIES["replication_lag_high"], id="my_lag")})
    for _ in range(2):
        bench.round(lag={Z: 99.0})
    bench.policies = POLICIES
    bench.bind()
    assert bench.event("my_lag", Z).resolve_reason == "policy_removed"
    assert bench.open() == [LAG]


async def test_a_rule_of_another_kind_closes_what_it_could_never_resolve_and_begins_anew() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(lag={Z: 99.0})
    bench.change_policy("replication_lag_high", detect=Increase("lag_seconds", 60.0, 5.0))
    event = bench.event("replication_lag_high", Z)
    assert (event.state, event.resolve_reason) == (EventState.RESOLVED, "policy_removed")
    assert bench.open() == []
    assert [bench.round(lag={Z: lag}) for lag in (99.0, 105.0)] == [[], [f"opened {LAG}"]]


async def test_a_node_that_is_gone_closes_its_open_events_as_target_removed() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F})
    bench.nodes = (A,)
    bench.bind()
    assert bench.event("database_unavailable", Z).resolve_reason == "target_removed"


async def test_an_instance_that_is_gone_closes_its_open_events_as_target_removed() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F})
    bench.pipeline.unbind(INSTANCE)
    assert bench.event("database_unavailable", Z).resolve_reason == "target_removed"
    assert bench.ledger.streaks == {}


async def test_an_instance_that_went_while_the_daemon_was_down_is_closed_as_target_removed_and_forgotten() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F})
    bench.pipeline = bench.daemon(bench.ledger.recovered(10.0))
    bench.pipeline.forget_unknown(set())
    assert bench.event("database_unavailable", Z).resolve_reason == "target_removed"
    assert bench.ledger.streaks == {}


async def test_an_instance_that_is_configured_but_not_bound_yet_is_left_alone() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F})
    bench.pipeline = bench.daemon(bench.ledger.recovered(10.0))
    bench.pipeline.forget_unknown({INSTANCE})
    assert bench.open() == [DB_B]


async def test_a_reload_that_changes_nothing_keeps_streaks_and_open_events() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(db={Z: F}, lag={Z: 99.0})
    bench.bind()
    bench.round(db={Z: F}, lag={Z: 99.0})
    assert DB_B in bench.open()


async def test_a_policy_switched_off_and_on_again_starts_from_quiet_not_from_the_last_daemons_memory() -> None:
    bench = Bench()
    bench.round(stats={Z: {"deadlocks": 100.0}})
    for _ in range(2):
        bench.round(db={A: F}, stats={Z: {"deadlocks": 100.0}})
    bench.restart(5.0)
    for identity in ("database_unavailable", "deadlocks_frequent", "ha_switchover"):
        bench.change_policy(identity, enabled=False)
    bench.round(leader=Z)
    for identity in ("database_unavailable", "deadlocks_frequent", "ha_switchover"):
        bench.change_policy(identity, enabled=True)
    assert bench.round(db={A: F}, stats={Z: {"deadlocks": 200.0}}) == []
    assert bench.pipeline.instances[INSTANCE].shape.leader == Z


async def test_what_was_switched_off_while_the_daemon_was_down_is_forgotten() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(db={Z: F})
    bench.policies = {name: p for name, p in POLICIES.items() if name != "database_unavailable"}
    bench.restart(5.0)
    assert not [key for key in bench.ledger.streaks if key.startswith("database_unavailable")]


# --- restart


async def test_an_open_event_survives_a_restart_and_needs_its_recovery() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F})
    bench.restart(3_600.0)
    assert bench.open() == [DB_B]
    assert [bench.round() for _ in range(2)] == [[], [f"resolved {DB_B}: recovered"]]


async def test_a_pending_streak_survives_a_short_restart() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(db={Z: F})
    bench.restart(20.0)
    assert bench.round(db={Z: F}) == [f"opened {DB_B}"]


async def test_what_was_taken_up_at_one_start_is_still_stored_at_the_next() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(db={Z: F}, stats={Z: {"deadlocks": 7.0}})
    before = dict(bench.ledger.streaks)
    for _ in range(3):
        bench.restart(5.0)
    assert bench.ledger.streaks == before
    assert bench.round(db={Z: F}) == [f"opened {DB_B}"]


async def test_a_pending_streak_does_not_survive_a_long_absence() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(db={Z: F})
    bench.restart(61.0)
    assert [bench.round(db={Z: F}) for _ in range(3)] == [[], [], [f"opened {DB_B}"]]


async def test_the_absence_goes_on_until_an_instance_is_bound() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(db={Z: F})
    recovered = bench.ledger.recovered(5.0)
    bench.pipeline = bench.daemon(recovered)
    bench.clock.step(3_600.0)  # Patroni could not be asked who is there
    bench.bind()
    assert bench.round(db={Z: F}) == []


async def test_a_switchover_while_the_daemon_was_down_is_told_at_its_first_round() -> None:
    bench = Bench()
    bench.round()
    bench.restart(3_600.0)
    assert bench.round(leader=Z) == ["occurred ha_switchover postgres critical"]


async def test_the_grace_after_a_switchover_goes_on_over_a_restart() -> None:
    bench = Bench()
    bench.round()
    bench.round(leader=Z)
    bench.restart(10.0, new_boot=True)
    assert [bench.round(receiver={A: 0.0}) for _ in range(9)] == [[]] * 9
    assert [bench.round(receiver={A: 0.0}) for _ in range(2)] == [
        [],
        ["opened wal_receiver_interrupted node-a critical"],
    ]


async def test_after_a_restart_a_replica_is_still_known_to_be_one() -> None:
    bench = Bench()
    bench.round()
    bench.restart(10.0)
    for _ in range(3):
        bench.round(db={Z: F}, leader=B)
    assert bench.open() == [DB_B]


@pytest.mark.parametrize("new_boot", [False, True])
async def test_a_counter_goes_on_over_a_restart_also_on_another_monotonic_clock(new_boot: bool) -> None:
    bench = Bench()
    bench.round(stats={Z: {"deadlocks": 10.0}})
    bench.round(stats={Z: {"deadlocks": 12.0}})
    bench.restart(20.0, new_boot=new_boot)
    assert bench.round(stats={Z: {"deadlocks": 15.0}}) == ["opened deadlocks_frequent node-b normal"]


async def test_a_suppressed_event_stays_suppressed_over_a_restart_until_it_is_met_afresh() -> None:
    bench = Bench()
    for _ in range(5):
        bench.round(db={Z: F}, receiver={Z: 0.0})
    bench.restart(10.0)
    assert bench.round(db={Z: F}, receiver={Z: 0.0}) == []
    assert [bench.round(receiver={Z: 0.0}) for _ in range(3)] == [
        [],
        [f"resolved {DB_B}: recovered"],
        [f"lifted {RECEIVER}"],
    ]


async def test_an_event_without_its_streak_is_open_all_the_same() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F})
    bench.ledger.streaks.clear()
    bench.restart(10.0)
    assert [bench.round() for _ in range(2)] == [[], [f"resolved {DB_B}: recovered"]]


async def test_a_streak_that_is_open_without_its_event_starts_anew() -> None:
    bench = Bench()
    for _ in range(3):
        bench.round(db={Z: F})
    bench.ledger.events.clear()
    bench.restart(10.0)
    assert [bench.round(db={Z: F}) for _ in range(3)] == [[], [], [f"opened {DB_B}"]]


# --- record, then announce


async def test_only_what_is_durable_is_announced() -> None:
    bench = Bench()
    for _ in range(2):
        bench.round(db={Z: F})
    bench.ledger.refuses = True
    bench.round(db={Z: F})
    await settle()
    assert bench.announced == []


async def test_every_durable_change_is_announced_in_its_order() -> None:
    bench = Bench()
    for said in (F, F, F, OK, OK):
        bench.round(db={Z: said})
    await settle()
    assert [change.kind for change in bench.announced] == ["opened", "resolved"]


async def test_a_store_that_refuses_does_not_stop_the_judging() -> None:
    bench = Bench()
    bench.ledger.refuses = True
    for _ in range(3):
        bench.round(db={Z: F})
    bench.ledger.refuses = False
    assert [bench.round() for _ in range(2)] == [[], [f"resolved {DB_B}: recovered"]]


# --- faster confirmation


async def test_a_pending_streak_asks_for_its_probe_at_its_confirm_interval() -> None:
    bench = Bench(policies={**POLICIES, "database_unavailable": replace(_counting(3), confirm_interval=1.0)})
    bench.round()
    assert bench.pipeline.confirming(INSTANCE) == {}
    bench.round(db={Z: F})
    assert bench.pipeline.confirming(INSTANCE) == {"postgres_liveness": 1.0}
    for _ in range(2):
        bench.round(db={Z: F})
    assert bench.pipeline.confirming(INSTANCE) == {}
    assert bench.pipeline.confirming("elsewhere") == {}


# --- whatever happens


SAID = st.sampled_from([OK, OK, OK, F, F, B])
ROUND = st.fixed_dictionaries(
    {
        "db": st.fixed_dictionaries({A: SAID, Z: SAID}),
        "lag": st.fixed_dictionaries({Z: st.sampled_from([0.0, 0.0, 99.0, 99.0, B, NA])}),
        "receiver": st.fixed_dictionaries({Z: st.sampled_from([1.0, 1.0, 0.0, 0.0, B, NA])}),
        "patroni_": st.fixed_dictionaries({A: st.sampled_from([1.0, 1.0, 0.0, B])}),
        "stats": st.fixed_dictionaries({Z: st.sampled_from([B, *({"deadlocks": float(n)} for n in (0, 3, 9))])}),
        "leader": st.sampled_from([None, None, None, A, Z, "", "", B]),
        "port": SAID,
        "etcd": SAID,
        "haproxy": SAID,
    }
)
DISTURBANCE = st.sampled_from([None] * 12 + ["restart", "reboot", "long absence", "reload", "off and on", "node away"])
HISTORY = st.lists(st.tuples(ROUND, DISTURBANCE), max_size=40)


def disturb(bench: Bench, what: str | None) -> None:
    match what:
        case "restart" | "reboot" | "long absence":
            bench.restart(600.0 if what == "long absence" else 7.0, new_boot=what == "reboot")
        case "reload":
            bench.bind()
        case "off and on":
            bench.change_policy("wal_receiver_interrupted", enabled=False)
            bench.change_policy("wal_receiver_interrupted", enabled=True)
        case "node away":
            bench.nodes = (A,)
            bench.bind()
            bench.nodes = (A, Z)
            bench.bind()


@settings(max_examples=40)
@given(HISTORY)
async def test_over_any_history_what_is_hidden_has_an_open_cause_that_may_hide_it(
    history: list[tuple[Any, str | None]],
) -> None:
    bench = Bench(frontend=True)
    for said, disturbance in history:
        disturb(bench, disturbance)
        before = set(bench.ledger.events)
        bench.round(**said)
        for identity in set(bench.ledger.events) - before:
            event = bench.ledger.events[identity]
            if event.suppressed:
                cause = bench.ledger.events[event.caused_by or ""]
                assert cause.state is EventState.OPEN
                # A cause may be hidden itself for as long as its own cause is gone and it has not been met afresh.
                root = bench.ledger.events.get(cause.caused_by or "")
                assert not cause.suppressed or (root is not None and root.state is not EventState.OPEN)
                assert may_hide(cause.severity, event.severity)
        _nothing_opened_under_a_cause(bench, before)


def _nothing_opened_under_a_cause(bench: Bench, before: set[str]) -> None:
    """Every event that opened unsuppressed in this round has no cause that is open or pending."""
    state = bench.pipeline.instances[INSTANCE]
    watches = {(w.policy.id, w.target.node): w for w in state.watches if not w.target.member}
    for watch in state.watches:
        event = watch.event
        if event is None or event.id in before or event.suppressed:
            continue
        for place in causes(state.shape, watch.policy, watch.target):
            other = watches.get(place)
            if other is not None and may_hide(other.severity, watch.severity):
                assert other.event is None
                assert other.streak.phase is not Phase.PENDING


@settings(max_examples=40)
@given(HISTORY, st.integers())
async def test_the_order_in_which_samples_arrive_never_changes_the_result(
    history: list[tuple[Any, str | None]], seed: int
) -> None:
    ordered, shuffled = Bench(frontend=True), Bench(frontend=True, shuffle=random.Random(seed))
    for said, disturbance in history:
        for bench in (ordered, shuffled):
            disturb(bench, disturbance)
            bench.round(**said)
        assert shuffled.told == ordered.told
    assert shuffled.ledger.streaks == ordered.ledger.streaks


@settings(max_examples=40)
@given(HISTORY)
async def test_no_event_opens_before_its_count_of_conclusive_samples_in_a_row(
    history: list[tuple[Any, str | None]],
) -> None:
    """Never early, whatever restarts, reloads and causes do: checked against the samples, not against the streaks."""
    bench = Bench(frontend=True)
    seen: dict[tuple[str, str], list[bool]] = {}
    for said, disturbance in history:
        disturb(bench, disturbance)
        before = set(bench.ledger.events)
        bench.clock.step(5.0)
        samples = bench.samples(**said)
        for sample in samples:
            for policy in POLICIES.values():
                if policy.probe == sample.probe and isinstance(policy.detect, Threshold):
                    met = policy.detect.when.met_by(sample)
                    if met is not None:
                        seen.setdefault((policy.id, sample.target.key), []).append(met)
        bench.accept(samples)
        for identity in set(bench.ledger.events) - before:
            event = bench.ledger.events[identity]
            rule = POLICIES[event.event].detect
            if isinstance(rule, Threshold):
                assert seen[event.event, event.target.key][-rule.count :] == [True] * rule.count


@settings(max_examples=40)
@given(HISTORY)
async def test_whatever_happened_a_cluster_that_is_well_again_has_no_open_event(
    history: list[tuple[Any, str | None]],
) -> None:
    bench = Bench(frontend=True)
    for said, disturbance in history:
        disturb(bench, disturbance)
        bench.round(**said)
    for _ in range(40):
        bench.round()
    assert bench.open() == []
    assert not [key for key, text in bench.ledger.streaks.items() if '"pending"' in text or '"open"' in text]


@settings(max_examples=40)
@given(HISTORY)
async def test_whatever_happened_a_lasting_fault_without_a_cause_is_open_and_announced(
    history: list[tuple[Any, str | None]],
) -> None:
    """Never missed: nothing that happened before can hide a lag that lasts while everything else is well."""
    bench = Bench(frontend=True)
    for said, disturbance in history:
        disturb(bench, disturbance)
        bench.round(**said)
    for _ in range(20):
        bench.round(leader=A, lag={Z: 99.0})
    assert bench.open() == [LAG]


@settings(max_examples=40)
@given(HISTORY)
async def test_the_transitions_of_an_event_are_opened_then_perhaps_lifted_then_resolved(
    history: list[tuple[Any, str | None]],
) -> None:
    bench = Bench(frontend=True)
    for said, disturbance in history:
        disturb(bench, disturbance)
        bench.round(**said)
    kinds: dict[str, list[str]] = {}
    for commit in bench.ledger.commits:
        for change in commit.changes:
            kinds.setdefault(change.event.id, []).append(change.kind)
    for told in kinds.values():
        # Once at most, its cause becomes known later; a flapping one may be told only when it lasts.
        assert told.count("linked") <= 1
        assert told.count("told") <= 1
        told[:] = [kind for kind in told if kind not in ("linked", "told")]
    legal = {("opened",), ("opened", "resolved"), ("opened", "lifted"), ("opened", "lifted", "resolved"), ("occurred",)}
    assert {tuple(kind) for kind in kinds.values()} <= legal
    switchovers = [e for e in bench.ledger.events.values() if e.event == "ha_switchover"]
    assert all(before.value != after.value for before, after in pairwise(switchovers))


async def test_an_occurrence_rule_tells_each_sample_above_zero() -> None:
    oom = replace(POLICIES["connections_high"], id="oom_killed", detect=Occurrence("kills"), switchover_grace=False)
    bench = Bench(policies={"oom_killed": oom})
    told = [bench.accept([bench.sample("connections", postgres(A), {"kills": n})]) for n in (0.0, 2.0, 0.0)]
    assert told == [[], ["occurred oom_killed node-a critical"], []]
    assert bench.event("oom_killed", A).count == 2


async def test_an_occurrence_is_told_in_the_words_of_its_probe() -> None:
    oom = replace(POLICIES["connections_high"], id="oom_killed", detect=Occurrence("kills"), switchover_grace=False)
    bench = Bench(policies={"oom_killed": oom})
    sample = bench.sample("connections", postgres(A), {"kills": 1.0})
    bench.accept([replace(sample, reason="the kernel killed postgres (pid 7)")])
    assert bench.event("oom_killed", A).message == "the kernel killed postgres (pid 7)"


async def test_what_a_probe_keeps_is_committed_with_the_events_of_its_round_and_only_when_it_changed() -> None:
    oom = replace(POLICIES["connections_high"], id="oom_killed", detect=Occurrence("kills"), switchover_grace=False)
    bench = Bench(policies={"oom_killed": oom})
    for kills, total in ((0.0, 1), (0.0, 1), (2.0, 3), (0.0, 3)):
        sample = bench.sample("connections", postgres(A), {"kills": kills})
        bench.accept([replace(sample, keep={"total": total})])
    place = ("connections", postgres(A).key)
    told = [(dict(commit.kept), len(commit.changes)) for commit in bench.ledger.commits]
    assert told == [({place: {"total": 1}}, 0), ({place: {"total": 3}}, 1)]
    assert bench.pipeline.kept("connections", postgres(A)) == {"total": 3}


async def test_what_was_kept_of_a_target_that_is_not_probed_any_more_is_forgotten() -> None:
    bench = Bench()
    for node in (A, Z):
        bench.accept([replace(bench.sample("connections", postgres(node), {}), keep={"total": 1})])
    gone, stays = ("connections", postgres(A).key), ("connections", postgres(Z).key)
    bench.pipeline.keep_only({stays})
    assert bench.ledger.commits[-1].kept == {gone: None}
    assert bench.pipeline.kept("connections", postgres(A)) == {}
    assert bench.pipeline.kept("connections", postgres(Z)) == {"total": 1}


async def test_a_combined_probe_finds_in_its_next_cycle_what_it_kept() -> None:
    bench = Bench()
    found: list[dict[str, object]] = []

    def counting(view: View) -> Measured:
        found.append(dict(view.kept))
        return Measured({}, keep={"n": len(found)})

    probe = Combined("counting", counting, "node", "postgres", ("connections",), {}, "")
    for _ in range(2):
        bench.pipeline.accept(INSTANCE, [], [(probe, postgres(A))])
    assert found == [{}, {"n": 1}]


async def test_an_identity_rule_of_ones_own_is_told_like_a_switchover() -> None:
    mine = replace(POLICIES["ha_switchover"], id="my_change", detect=Change("leader"))
    bench = Bench(policies={**POLICIES, "my_change": mine})
    bench.round()
    assert len(bench.round(leader=Z)) == 2


def _counting(count: int) -> Any:
    return replace(POLICIES["database_unavailable"], detect=Threshold(Condition(), count))


def _lagging(count: int) -> Any:
    when = Condition((Comparison("lag_seconds", ">=", 30.0),))
    return replace(POLICIES["replication_lag_high"], detect=Threshold(when, count))


def _deadlocks(resolve_count: int) -> Any:
    return replace(POLICIES["deadlocks_frequent"], detect=Increase("deadlocks", 60.0, 5.0, resolve_count))


@settings(max_examples=40)
@given(HISTORY)
async def test_the_recovery_of_every_announced_event_is_announced_and_of_no_other(
    history: list[tuple[Any, str | None]],
) -> None:
    bench = Bench(frontend=True)
    for said, disturbance in history:
        disturb(bench, disturbance)
        bench.round(**said)
    for _ in range(40):
        bench.round()
    told: dict[str, list[str]] = {}
    for commit in bench.ledger.commits:
        for change in commit.changes:
            if change.announced:
                told.setdefault(change.event.id, []).append(change.kind)
    for event in bench.ledger.events.values():
        kinds = [kind for kind in told.get(event.id, []) if kind not in ("linked", "amended")]
        if event.state is EventState.OCCURRED:
            assert kinds == ["occurred"]
        else:
            assert kinds in ([], ["opened", "resolved"], ["lifted", "resolved"], ["told", "resolved"]), kinds
