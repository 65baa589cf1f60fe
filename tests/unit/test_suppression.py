"""One cause, one event: isolation of the observer, causes known late, machines that are down, and flapping."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from msgspec.structs import replace

from probed.leadership import Passage, Promotion
from probed.model import EventState, Policy, Reading, Severity, Threshold
from probed.store import LeadershipRecord
from probed.testing import settle
from tests.unit.bench import CLUSTER, INSTANCE, OK, POLICIES, SHIPPED, SILENT, Bench, F, Said

A, Z = "node-a", "node-b"
ISOLATED = "observer_isolated bench fatal"
DB_A, DB_B = "database_unavailable node-a fatal", "database_unavailable node-b critical"
LAG, RECEIVER = "replication_lag_high node-b critical", "wal_receiver_interrupted node-b critical"


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def rounds(bench: Bench, number: int, **said: object) -> list[str]:
    """So many rounds, the observer looking around after each; what changed."""
    told = []
    for _ in range(number):
        told += bench.round(**said)  # type: ignore[arg-type]
        told += bench.look_around()
    return told


CUT: dict[str, object] = {
    "db": {A: SILENT, Z: SILENT}, "stats": {A: SILENT, Z: SILENT}, "leader": F, "port": SILENT, "haproxy": SILENT,
    "patroni_": {A: SILENT, Z: SILENT}, "lag": {Z: SILENT}, "receiver": {Z: SILENT},
}  # fmt: skip


def cut_off_bench() -> Bench:
    """Two nodes that run on machines of their own, and HAProxy; all sampled once."""
    bench = Bench(frontend=True, policies=dict(POLICIES))
    # What is computed from others' samples says nothing of the network.
    for entry in bench.pipeline.board.entries(INSTANCE):
        entry.computed = entry.probe in ("connections", "patroni_member", "replication_lag", "wal_receiver")
    rounds(bench, 1)
    return bench


async def test_what_waits_for_a_cause_that_waits_itself_is_not_announced_before_either() -> None:
    bench = Bench()
    rounds(bench, 1)
    gone: dict[str, object] = {"etcd": F, "leader": "", "receiver": {Z: 0.0}}
    told = rounds(bench, 6, **gone)
    assert told[0] == "opened etcd_unavailable etcd fatal"
    assert sorted(told[1:]) == ["opened no_leader postgres fatal (suppressed)", f"opened {RECEIVER} (suppressed)"]


# --- isolation


async def test_an_observer_that_is_cut_off_tells_that_and_nothing_of_its_targets() -> None:
    bench = cut_off_bench()
    assert rounds(bench, 2, **CUT) == [f"opened {ISOLATED}"]
    told = rounds(bench, 4, **CUT)
    assert {line.split()[0] for line in told} == {"opened"}
    assert all(line.endswith("(suppressed)") for line in told)
    assert f"opened {DB_A} (suppressed)" in told
    isolation = next(event for event in bench.ledger.open_events if event.event == "observer_isolated")
    assert {event.caused_by for event in bench.ledger.open_events if event is not isolation} == {isolation.id}


async def test_when_the_network_is_back_everything_resolves_and_nothing_is_announced_late() -> None:
    bench = cut_off_bench()
    rounds(bench, 6, **CUT)
    rounds(bench, 4)
    assert bench.open() == []
    assert [event.event for event in bench.ledger.events.values() if not event.suppressed] == ["observer_isolated"]


async def test_what_is_really_down_when_the_network_is_back_is_announced_then() -> None:
    bench = cut_off_bench()
    rounds(bench, 6, **CUT)
    told = rounds(bench, 6, db={A: F})
    assert f"lifted {DB_A}" in told
    assert DB_A in bench.open()


async def test_a_cut_of_a_moment_opens_nothing() -> None:
    bench = cut_off_bench()
    assert rounds(bench, 1, **CUT) == []
    assert rounds(bench, 4) == []


async def test_samples_taken_while_cut_off_do_not_count_before_isolation_is_sure() -> None:
    bench = cut_off_bench()
    rounds(bench, 1, db={A: F})
    for _ in range(3):
        bench.round(**CUT)  # type: ignore[arg-type]
    assert bench.open() == [], "neither an outage nor, without the observer's own look, an isolation"


async def test_silence_of_half_of_the_machines_is_an_outage() -> None:
    bench = cut_off_bench()
    rounds(bench, 3, db={A: SILENT}, stats={A: SILENT}, patroni_={A: SILENT})
    assert bench.open() == [DB_A]


async def test_machines_that_refuse_are_down_and_the_observer_sees_it() -> None:
    bench = cut_off_bench()
    refused: Said = (F, "refused")
    rounds(bench, 3, db={A: refused, Z: refused}, haproxy=refused, port=refused)
    assert {DB_A, DB_B, "haproxy_unavailable haproxy fatal"} <= set(bench.open())


# --- causes known late


async def test_what_opened_before_its_cause_was_known_is_linked_to_it_and_stays_announced() -> None:
    bench = Bench(policies={**POLICIES, "replication_lag_high": _eager("replication_lag_high")})
    bench.round()
    assert bench.round(lag={Z: 99.0}, receiver={Z: OK}) == [f"opened {LAG}"]
    told = [line for _ in range(2) for line in bench.round(lag={Z: 99.0}, receiver={Z: 0.0})]
    assert told == [f"opened {RECEIVER}", f"linked {LAG}"]
    lag = bench.event("replication_lag_high", Z)
    assert lag.caused_by == bench.event("wal_receiver_interrupted", Z).id
    assert not lag.suppressed
    assert bench.round(lag={Z: 99.0}, receiver={Z: 0.0}) == [], "once"


async def test_a_cause_that_began_long_after_an_event_did_not_bring_it_about() -> None:
    bench = Bench()
    for _ in range(10):
        bench.round(lag={Z: 99.0})
    for _ in range(4):
        bench.round(lag={Z: 99.0}, receiver={Z: 0.0})
    assert bench.event("replication_lag_high", Z).caused_by is None


# --- flapping


async def test_what_comes_and_goes_is_told_as_flapping_once_and_recorded_every_time() -> None:
    bench = Bench()
    for _ in range(5):
        for said in (F, F, F, OK, OK):
            bench.round(db={Z: said})
    await settle()
    events = [event for event in bench.ledger.events.values() if event.event == "database_unavailable"]
    assert len(events) == 5
    assert [event.flapping for event in events] == [False, False, True, True, True]
    assert [event.quiet for event in events] == [False, False, True, True, True], "told 5 s x 10 before"
    told = [change.kind for change in bench.announced if change.announced]
    assert told == ["opened", "resolved", "opened", "resolved"]
    assert events[2].message.endswith("flapping: 5 changes within 10 minutes")


async def test_a_turn_of_a_flapping_event_that_lasts_is_told_after_five_minutes() -> None:
    bench = Bench()
    for _ in range(2):
        for said in (F, F, F, OK, OK):
            bench.round(db={Z: said})
    told = [line for _ in range(63) for line in bench.round(db={Z: F})]
    assert told == [f"opened {DB_B}", f"told {DB_B}"]
    bench.round()
    bench.round()
    await settle()
    assert [change.kind for change in bench.announced if change.announced][-2:] == ["told", "resolved"]


async def test_after_ten_quiet_minutes_an_event_no_longer_flaps() -> None:
    bench = Bench()
    for _ in range(3):
        for said in (F, F, F, OK, OK):
            bench.round(db={Z: said})
    for _ in range(121):
        bench.round()
    for _ in range(3):
        bench.round(db={Z: F})
    assert not bench.event("database_unavailable", Z).flapping


async def test_flapping_is_remembered_over_a_restart() -> None:
    bench = Bench()
    for _ in range(2):
        for said in (F, F, F, OK, OK):
            bench.round(db={Z: said})
    bench.restart(5.0)
    for _ in range(3):
        bench.round(db={Z: F})
    event = bench.event("database_unavailable", Z)
    assert (event.flapping, event.quiet) == (True, False), "told at once: who was told of the last one is not known"


# --- switchovers with their story


def handover(bench: Bench, leader: str, passage: Passage | None, series: str = "", *history: Promotion) -> list[str]:
    """A round in which the leader is ``leader``, with what the probe says of how it got there."""
    bench.clock.step(5.0)
    bench.leader = leader
    readings: dict[str, Reading] = {"has_leader": 1.0, "leader": leader}
    sample = bench.sample("leader", CLUSTER, readings, {"passage": passage, "history": history}, series)
    return bench.accept([sample])


PASSAGE = Passage("automatic_failover", "high", ("node-a fell silent",), A, Z, 3, 4, write_outage_seconds=21.5)


async def test_a_switchover_tells_its_class_its_price_and_the_signals() -> None:
    bench = Bench()
    bench.round()
    assert handover(bench, Z, PASSAGE) == ["occurred ha_switchover postgres critical"]
    event = bench.event("ha_switchover")
    assert event.message == (
        "node-b became the primary in place of node-a: automatic failover, confidence high; "
        "no writes for at most 21.5 s"
    )
    assert event.details["switchover"] == PASSAGE.as_details()


async def test_every_passage_is_recorded_also_those_that_are_no_event() -> None:
    bench = Bench()
    bench.round()
    restart = Passage("restart", "high", (), A, A, 3, 3, write_outage_seconds=5.0)
    assert handover(bench, A, restart) == []
    handover(bench, Z, PASSAGE)
    recorded = [record for commit in bench.ledger.commits for record in commit.leadership]
    assert [record.details["class"] for record in recorded] == ["restart", "automatic_failover"]
    assert isinstance(recorded[0], LeadershipRecord)
    assert recorded[0].instance == INSTANCE


async def test_a_switchover_that_nobody_saw_is_told_as_inferred() -> None:
    bench = Bench()
    handover(bench, A, None, "7/3")
    bench.restart(600.0)
    history = Promotion(3, 1000, "2026-11-22T10:00:00Z", Z)
    assert handover(bench, Z, None, "7/4", history) == ["occurred ha_switchover postgres critical"]
    details = bench.event("ha_switchover").details["switchover"]
    assert isinstance(details, dict)
    assert (details["inferred"], details["switchovers"]) == (True, 1)
    assert "it happened while nobody looked" in bench.event("ha_switchover").message
    recorded = [record for commit in bench.ledger.commits for record in commit.leadership]
    assert [record.details for record in recorded] == [details]


async def test_a_leadership_that_went_and_came_back_unseen_is_told_once() -> None:
    bench = Bench()
    handover(bench, A, None, "7/3")
    bench.restart(600.0)
    history = (Promotion(3, 1000, "", Z), Promotion(4, 2000, "", A))
    assert handover(bench, A, None, "7/5", *history) == ["occurred ha_switchover postgres critical"]
    assert handover(bench, A, None, "7/5", *history) == []
    details = bench.event("ha_switchover").details["switchover"]
    assert isinstance(details, dict)
    assert details["switchovers"] == 2


async def test_another_database_system_in_the_same_place_is_not_compared() -> None:
    bench = Bench()
    handover(bench, A, None, "7/3")
    bench.restart(600.0)
    handover(bench, Z, None, "8/1", Promotion(3, 1000, "", Z))
    assert "switchover" not in bench.event("ha_switchover").details


async def test_what_becomes_known_of_a_switchover_in_the_minute_after_is_added_to_its_event() -> None:
    bench = Bench()
    bench.round()
    handover(bench, Z, PASSAGE)
    at = bench.clock.wall()
    known = replace(PASSAGE, lost_bytes=700.0)
    bench.clock.step(5.0)
    readings: dict[str, Reading] = {"has_leader": 1.0, "leader": Z}
    told = bench.accept([bench.sample("leader", CLUSTER, readings, {"settled": (at, known)})])
    assert told == ["amended ha_switchover postgres critical"]
    event = bench.event("ha_switchover")
    assert event.message.endswith("no writes for at most 21.5 s; at least 700 bytes of WAL lost")
    assert event.message.count("automatic failover") == 1
    assert [record.at for commit in bench.ledger.commits for record in commit.leadership] == [at, at]


async def test_a_leadership_that_moves_a_third_time_within_ten_minutes_flaps_and_every_move_is_announced() -> None:
    bench = Bench()
    bench.round()
    for leader in (Z, A, Z):
        handover(bench, leader, replace(PASSAGE, new_leader=leader))
    await settle()
    told = [change.event for change in bench.announced if change.announced]
    assert [event.flapping for event in told] == [False, False, True]
    assert "the leadership flaps: 3 switchovers within 10 minutes: automatic failover" in told[-1].message
    for _ in range(121):
        bench.round()
    handover(bench, A, replace(PASSAGE, new_leader=A))
    assert not bench.event("ha_switchover").flapping


# --- two primaries


async def test_two_primaries_are_fatal_and_hidden_by_nothing() -> None:
    bench = Bench(policies={**POLICIES, "split_brain": SHIPPED["split_brain"]})
    bench.round()
    for _ in range(3):
        bench.round(etcd=F)
    rivals = {"has_leader": 1.0, "writable_nodes": 2.0, "rival_primaries": 2.0}
    told = [line for _ in range(2) for line in bench.round(etcd=F, leader=rivals)]
    assert told == ["opened split_brain postgres fatal"]
    event = bench.event("split_brain")
    assert (event.severity, event.state, event.suppressed) == (Severity.FATAL, EventState.OPEN, False)
    assert bench.pipeline.instances[INSTANCE].shape.leader == A, "nobody is picked"


def _eager(identity: str) -> Policy:
    """The policy with a count of one."""
    policy = POLICIES[identity]
    assert isinstance(policy.detect, Threshold)
    return replace(policy, detect=replace(policy.detect, count=1))
