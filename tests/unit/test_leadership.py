"""How an instance came by its leader: the class by its signals, the price, and what nobody saw."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from probed.leadership import Look, Passage, Promotion, Term, missed, passage

WELL = Look(at=0.0, mono=0.0, writable=True, database="well", patroni="running", listed=True, paused=False, scheduled=False)  # fmt: skip
GONE = replace(WELL, writable=False, database="failed", patroni="silent")


def term(*troubled: Look, lsn: float = 5000.0) -> Term:
    """node-a led and took writes until 100; then came these looks, 5 s apart."""
    led = Term("node-a", 3, 1000.0, lsn, 100.0, 100.0, (replace(WELL, at=100.0, mono=100.0),))
    for index, look in enumerate(troubled):
        led = led.seen(replace(look, at=105.0 + 5 * index, mono=105.0 + 5 * index))
    return led


def successor(mono: float, leader: str = "node-b", timeline: int = 4) -> Term:
    return Term(leader, timeline, 2000.0, 5100.0, mono, mono)


def found(led: Term, new: Term, last: Look, *history: Promotion) -> Passage:
    result = passage(led, new, last, history)
    assert result is not None
    return result


def test_an_orderly_handover_is_planned() -> None:
    last = replace(WELL, writable=False, database="failed", patroni="stopped")
    it = found(term(), successor(105.0), last)
    assert (it.kind, it.confidence, it.scheduled) == ("planned", "medium", False)
    assert it.signals == (
        'Patroni of node-a answers, its state is "stopped"',
        "node-a took writes at the look before",
        "nobody could write for at most 5.0 s",
    )


def test_a_primary_whose_patroni_died_and_that_went_on_beside_its_successor_was_failed_over() -> None:
    alone = replace(WELL, patroni="silent")
    rival = replace(alone, rival=True, lsn=9000.0)
    last = replace(WELL, writable=False, database="failed", patroni="starting")
    it = found(term(alone, alone, alone, rival, rival), successor(130.0), last, Promotion(3, 5000, "", "node-b"))
    assert (it.kind, it.write_outage_seconds, it.lost_bytes) == ("automatic_failover", None, 4000.0)
    assert it.signals[:2] == (
        "node-a and another server took writes at the same time, in 2 cycles",
        "Patroni of node-a was silent, for 5 cycles",
    )


def test_what_stood_in_the_calendar_is_planned_whatever_else_is_seen() -> None:
    it = found(term(replace(GONE, scheduled=True), GONE, GONE, GONE), successor(125.0), GONE)
    assert (it.kind, it.confidence, it.scheduled) == ("planned", "high", True)


def test_a_leader_that_failed_and_fell_silent_was_failed_over() -> None:
    it = found(term(GONE, GONE, GONE, GONE, replace(GONE, listed=False)), successor(130.0), replace(GONE, listed=False))
    assert (it.kind, it.confidence) == ("automatic_failover", "high")
    assert it.write_outage_seconds == 30.0
    assert it.signals[0] == "the database of node-a had failed 5 cycles before"
    assert "Patroni of node-a does not answer" in it.signals
    assert "node-a has left Patroni's list" in it.signals


def test_a_frozen_database_beside_a_patroni_that_answers_was_failed_over_less_certainly() -> None:
    frozen = replace(GONE, patroni="running")
    it = found(term(frozen, frozen, frozen, frozen), successor(125.0), frozen)
    assert (it.kind, it.confidence) == ("automatic_failover", "medium")


def test_while_patroni_was_paused_only_a_person_promotes() -> None:
    paused = replace(GONE, paused=True)
    assert found(term(paused, paused), successor(115.0), paused).kind == "manual_failover"


def test_after_minutes_without_a_leader_it_was_hardly_patroni_by_itself() -> None:
    it = found(term(*[GONE] * 30), successor(260.0), GONE)
    assert (it.kind, it.confidence) == ("manual_failover", "low")


def test_the_same_node_on_a_new_timeline_was_promoted_in_place_and_no_role_changed() -> None:
    it = found(term(GONE), successor(110.0, "node-a"), WELL)
    assert (it.kind, it.role_changed) == ("self_promotion", False)


def test_the_same_node_and_timeline_with_another_start_time_is_a_restart() -> None:
    it = found(term(GONE), successor(110.0, "node-a", timeline=3), WELL)
    assert (it.kind, it.role_changed, it.write_outage_seconds) == ("restart", False, 10.0)


def test_a_term_that_goes_on_is_no_passage() -> None:
    led = term()
    assert passage(led, replace(led, writable_mono=105.0, lsn=9000.0), WELL, ()) is None
    assert passage(led, replace(led, started_at=None), WELL, ()) is None


@pytest.mark.parametrize("written, lost", [(5000.0, 500.0), (4500.0, 0.0), (4000.0, 0.0)])
def test_what_the_old_leader_wrote_beyond_the_end_of_its_timeline_is_lost(written: float, lost: float) -> None:
    it = found(term(GONE, lsn=written), successor(125.0), GONE, Promotion(3, 4500, "", "node-b"))
    assert it.lost_bytes == lost
    assert ("bytes of WAL lost" in str(it)) is (lost > 0)


def test_without_the_history_nothing_is_said_of_a_loss() -> None:
    assert found(term(GONE), successor(125.0), GONE).lost_bytes is None


def test_the_outage_counts_from_the_last_look_at_which_it_took_writes() -> None:
    standing = replace(WELL, writable=False)
    led = term(standing).seen(replace(WELL, at=110.0, mono=110.0))
    assert found(led, successor(120.0), GONE).write_outage_seconds == 10.0


def test_a_message_tells_class_confidence_and_price_in_one_line() -> None:
    it = found(term(GONE, GONE, GONE), successor(120.0), GONE, Promotion(3, 4500, "", "node-b"))
    assert str(it) == (
        "automatic failover, confidence high; no writes for at most 20.0 s; at least 500 bytes of WAL lost"
    )


HISTORY = (
    Promotion(3, 4500, "2026-11-22T10:00:00Z", "node-b"),
    Promotion(4, 4600, "2026-11-22T10:05:00Z", "node-a"),
)


def test_a_leadership_that_went_and_came_back_while_nobody_looked_is_told_once_with_how_often() -> None:
    it = missed("node-a", 3, "node-a", 5, HISTORY)
    assert it is not None
    assert (it.kind, it.confidence, it.inferred, it.switchovers) == ("unknown", "low", True, 2)
    assert "timeline 3 ended at 2026-11-22T10:00:00Z, node-b led the next" in it.signals[0]


def test_a_promotion_in_place_while_nobody_looked_is_no_switchover() -> None:
    history = (Promotion(3, 4500, "", "node-a"), Promotion(4, 4600, "", ""))
    assert missed("node-a", 3, "node-a", 5, history) is None


def test_another_leader_than_the_last_known_one_is_a_switchover_also_without_a_history() -> None:
    it = missed("node-a", 3, "node-b", 4, ())
    assert it is not None
    assert (it.inferred, it.switchovers, it.signals) == (True, 1, ())


def test_details_are_plain_json() -> None:
    import json

    details = found(term(GONE), successor(125.0), GONE).as_details()
    assert json.loads(json.dumps(details)) == details
    assert details["class"] == "automatic_failover"
    assert "kind" not in details
