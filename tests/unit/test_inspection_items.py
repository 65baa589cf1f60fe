"""What an inspection makes of what it saw: items, consequences, history, trends, advice, grades, differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from probed.config.settings import Defaults
from probed.inspection import Item, Section, Verdict
from probed.inspection import history as past
from probed.inspection import trends as trending
from probed.inspection.advice import advice
from probed.inspection.comparing import differences
from probed.inspection.configured import Configured, Server
from probed.inspection.grading import graded, in_order
from probed.inspection.judging import Seen, judged
from probed.inspection.tracing import Trace, quantile, slope, thinned
from probed.model import Event, EventState, Outcome, Policy, Sample, Severity, Target
from probed.policy import load
from probed.probes import catalogue
from probed.store import LeadershipRecord
from probed.topology import Shape

NOW = 1_795_003_200.0
POLICIES: Mapping[str, Policy] = load.load(
    None, {name: frozenset(probe.readings) for name, probe in catalogue().items()}, Defaults()
)
SHAPE = Shape(("node-a", "node-b"), "node-a")


def target(node: str, component: str = "postgres") -> Target:
    return Target("orders", node, component, kind=component)


def seen(
    policy: str,
    node: str = "node-a",
    outcome: Outcome = Outcome.OBSERVED,
    *,
    reason: str = "",
    event: Event | None = None,
    severity: Severity | None = None,
    **readings: float,
) -> Seen:
    known = POLICIES[policy]
    where = target(node)
    sample = Sample(where, known.probe, outcome, NOW, 5.0, readings=readings, reason=reason)
    return Seen(known, where, sample, event, severity or known.severity)


def opened(policy: str, node: str, **more: Any) -> Event:
    known = POLICIES[policy]
    return Event(
        f"id-{policy}", policy, known.name, known.severity, EventState.OPEN, target(node), NOW - 60, "it failed", **more
    )


def items(*watches: Seen, shape: Shape = SHAPE) -> dict[str, Item]:
    """By event and node."""
    known = {watch.event.id: watch.event for watch in watches if watch.event}
    return {f"{item.id}/{item.target.split('/')[1]}": item for item in judged(watches, shape, known)}


# --- events ------------------------------------------------------------------------------------------------------


def test_a_condition_that_is_met_fails_and_a_normal_one_warns() -> None:
    found = items(
        seen("connections_high", connections_used_pct=91.234),
        seen("ping_latency_high", ping_seconds=0.25),
    )
    high, slow = found["connections_high/node-a"], found["ping_latency_high/node-a"]
    assert (high.verdict, slow.verdict) == (Verdict.FAIL, Verdict.WARN)
    assert high.finding == "connections_used_pct is 91.2 %, at or above 80.0 %"
    assert high.evidence == {"connections_used_pct": 91.0, "usage_pct": 80.0}
    assert high.suggestion == POLICIES["connections_high"].suggestion


@pytest.mark.parametrize("one, other", [(3.1, 11.9), (24.0, 39.0), (61.0, 79.0)])
def test_what_is_well_is_told_in_steps_that_noise_does_not_climb(one: float, other: float) -> None:
    first, second = (
        items(seen("connections_high", connections_used_pct=value))["connections_high/node-a"] for value in (one, other)
    )
    assert first.verdict is Verdict.PASS
    assert first == second


def test_a_hit_ratio_is_told_from_below() -> None:
    found = items(seen("cache_hit_ratio_low", hit_ratio=98.7, blocks=50_000.0, up_seconds=9000.0))
    assert found["cache_hit_ratio_low/node-a"].finding == "hit_ratio is at least 95.0 %, its threshold 90.0 %"


def test_blindness_warns_with_its_reason_and_what_does_not_apply_passes() -> None:
    found = items(
        seen("connections_high", outcome=Outcome.BLIND, reason="needs more privileges; run: GRANT …"),
        seen("replication_lag_high", outcome=Outcome.NOT_APPLICABLE, reason="a primary does not lag"),
    )
    blind, absent = found["connections_high/node-a"], found["replication_lag_high/node-a"]
    assert (blind.verdict, blind.finding) == (Verdict.WARN, "cannot be seen: needs more privileges; run: GRANT …")
    assert (absent.verdict, absent.outcome) == (Verdict.PASS, "not_applicable")


def test_consequences_name_their_cause_and_do_not_fail() -> None:
    found = items(
        seen("replication_lag_high", "node-b", lag_seconds=99.0),
        seen("wal_receiver_interrupted", "node-b", wal_receiver_streaming=0.0),
        seen("database_unavailable", "node-a", Outcome.FAILED, reason="refused"),
        seen("connections_high", "node-a", Outcome.FAILED, reason="refused"),
    )
    assert found["database_unavailable/node-a"].verdict is Verdict.FAIL
    for name in ("replication_lag_high/node-b", "wal_receiver_interrupted/node-b", "connections_high/node-a"):
        assert found[name].verdict is Verdict.WARN
        assert found[name].finding.endswith("a consequence of database_unavailable on orders/node-a/postgres")
        assert found[name].suggestion == "see database_unavailable on orders/node-a/postgres"


def test_a_fatal_consequence_of_something_lesser_still_fails() -> None:
    receiver = seen("wal_receiver_interrupted", "node-b", wal_receiver_streaming=0.0)
    database = seen("database_unavailable", "node-b", Outcome.FAILED, reason="refused")
    found = items(replace(database, severity=Severity.FATAL), receiver, shape=replace(SHAPE, leader="node-b"))
    assert found["database_unavailable/node-b"].verdict is Verdict.FAIL


def test_an_open_event_counts_although_the_condition_is_not_met_at_this_moment() -> None:
    event = opened("connections_high", "node-a")
    item = items(seen("connections_high", event=event, connections_used_pct=10.0))["connections_high/node-a"]
    assert item.verdict is Verdict.FAIL
    assert item.events == (event.id,)
    assert item.finding == "it failed; open since 2026-11-18 11:59:00 UTC; not so at this very moment"


def test_a_suppressed_event_names_the_one_that_explains_it() -> None:
    cause = opened("etcd_unavailable", "")
    event = opened("patroni_node_abnormal", "node-a", suppressed=True, caused_by=cause.id)
    watch = seen("patroni_node_abnormal", event=event, healthy=0.0)
    [item] = judged([watch], SHAPE, {cause.id: cause, event.id: event})
    assert item.verdict is Verdict.WARN
    assert item.finding.endswith("a consequence of etcd_unavailable on orders/postgres")


def test_what_only_several_samples_can_tell_is_judged_by_its_open_events() -> None:
    quiet = items(seen("deadlocks_frequent", deadlocks=5.0))["deadlocks_frequent/node-a"]
    event = opened("deadlocks_frequent", "node-a")
    loud = items(seen("deadlocks_frequent", event=event, deadlocks=5.0))["deadlocks_frequent/node-a"]
    assert (quiet.verdict, loud.verdict) == (Verdict.PASS, Verdict.WARN)
    assert "one look alone cannot tell" in quiet.finding


# --- history -----------------------------------------------------------------------------------------------------


def test_history_tells_the_worst_day_and_what_flaps() -> None:
    policy = POLICIES["connections_high"]
    newest = tuple(replace(opened(policy.id, "node-a"), id=str(number), flapping=number < 3) for number in range(5))
    triggers = past.Triggers({"2026-11-17": 4, "2026-11-18": 1}, newest)
    item = past.triggered("orders", policy, triggers, 7)
    assert item.verdict is Verdict.WARN
    assert item.finding == (
        "triggered 5 times in 7 days, at most 4 times on one day (2026-11-17), 3 of the newest 5 flapping"
    )
    assert item.evidence == {"triggers": 5, "most_per_day": 4, "flapping": 3}
    assert item.events == ("0", "1", "2", "3", "4")
    assert past.triggered("orders", policy, past.Triggers(), 1).finding == "not triggered in the last day"


def passage(kind: str, outage: float, new: str = "node-b") -> LeadershipRecord:
    details = {
        "class": kind, "old_leader": "node-a", "new_leader": new, "write_outage_seconds": outage, "lost_bytes": None,
    }  # fmt: skip
    return LeadershipRecord("orders", NOW, details)


def test_planned_switchovers_pass_and_failovers_warn_with_their_price() -> None:
    planned = past.switchovers("orders", [passage("planned", 2.0)], 7, ["id"])
    assert (planned.verdict, planned.events) == (Verdict.PASS, ("id",))
    both = past.switchovers("orders", [passage("planned", 2.0), passage("automatic_failover", 31.5)], 7, [])
    assert both.verdict is Verdict.WARN
    assert both.finding == (
        "2 switchovers in 7 days (1 automatic failover, 1 planned), no writes for at most 33.5 s in all, "
        "31.5 s at the longest"
    )
    assert past.switchovers("orders", [passage("restart", 3.0, "node-a")], 7, []).verdict is Verdict.PASS


# --- trends ------------------------------------------------------------------------------------------------------


def trace(probe: str, reading: str, **more: Any) -> Trace:
    given = {
        "first_at": NOW - 7 * 86_400, "last_at": NOW, "samples": 5000, "worst": 0.0, "newest": 0.0, "quantiles": {},
        "slope": None, "also": {}, "points": ((NOW - 3600, 1.0), (NOW, 2.0)), **more,
    }  # fmt: skip
    return Trace(probe, reading, "orders/node-a/host", "orders", "node-a", **given)


def disk(days: float) -> Item:
    """A disk that is full in so many days."""
    free = 100e9
    [item] = trending.items([trace("disk_usage", "free_bytes", newest=free, slope=-free / (days * 86_400))], POLICIES)
    return item


def test_a_disk_is_judged_by_when_it_is_full() -> None:
    assert [disk(days).verdict for days in (5.5, 12.0, 200.0)] == [Verdict.FAIL, Verdict.WARN, Verdict.PASS]
    assert disk(12.0).finding == (
        "at this pace it is full in about 10 days: 93.1 GiB are free, and 7.8 GiB go each day"
    )
    assert disk(12.0).evidence == {"days_to_full": 10.0}
    assert disk(100_000.0).finding == "the free space does not shrink"


def test_too_little_recording_says_so_and_passes() -> None:
    short = trace("disk_usage", "free_bytes", newest=1e9, slope=-1e6, first_at=NOW - 3600)
    few = trace("connections", "connections_used_pct", samples=20, quantiles={"0.5": 99.0, "0.95": 99.0})
    for item in trending.items([short, few], POLICIES):
        assert item.verdict is Verdict.PASS
        assert item.finding.startswith("not enough is recorded to tell")


def test_percentiles_are_held_against_the_policies_thresholds() -> None:
    full = trace(
        "connections", "connections_used_pct", worst=97.0, quantiles={"0.5": 41.0, "0.95": 84.0},
        also={"connections_usable": 97.0},
    )  # fmt: skip
    late = trace("replication_lag", "lag_seconds", quantiles={"0.5": 0.4, "0.95": 12.0, "0.99": 61.0})
    high, lag = trending.items([full, late], POLICIES)
    assert (high.verdict, lag.verdict) == (Verdict.WARN, Verdict.PASS)
    assert high.finding == (
        "at most 45 % half of the time, 85 % for 95 % of it, 100 % at the most of 97 that ordinary roles can have"
    )
    assert lag.evidence == {"lag_p50_seconds": 0.0, "lag_p95_seconds": 20.0, "lag_p99_seconds": 100.0}
    [chart] = trending.charts([full], POLICIES)
    assert (chart.unit, chart.threshold, chart.series[0].label) == ("percent", 80.0, "node-a")


def test_quantiles_slopes_and_thinning_are_what_they_say() -> None:
    assert [quantile(list(range(1, 101)), share) for share in (0.0, 0.5, 0.95, 1.0)] == [1, 50, 95, 100]
    line = [(float(at), 100.0 - 2 * at) for at in range(50)]
    line[20] = (20.0, 1e9)  # one wild hour decides nothing
    assert slope(line) == -2.0
    assert slope(line[:1]) is None
    assert thinned(line, 5, low=True)[0] == (9.0, 82.0)
    assert len(thinned(line, 7, low=False)) <= 7


# --- advice ------------------------------------------------------------------------------------------------------

SOUND = {
    "server_version": "18.1 (Debian)", "max_wal_senders": "10", "max_replication_slots": "10", "data_checksums": "on",
    "max_slot_wal_keep_size": "20GB", "wal_keep_size": "0", "fsync": "on", "full_page_writes": "on",
    "max_standby_streaming_delay": "30s", "hot_standby_feedback": "off", "reserved_connections": "3",
    "max_connections": "100",
}  # fmt: skip
ROLE = {"name": "probed", "superuser": False, "pg_monitor": True, "use_reserved": True}
SLOT = {"slot_name": "node_b", "slot_type": "physical", "active": True, "retained_bytes": 0.0, "wal_status": "reserved"}
PATRONI = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10, "failsafe_mode": True}


def server(
    node: str = "node-a", *, recovery: bool = False, role: Any = None, slots: Any = None, **settings: str
) -> Server:
    return Server(
        node, f"orders/{node}/postgres", {**SOUND, **settings}, {**ROLE, **(role or {})},
        slots=(SLOT,) if slots is None else tuple(slots), in_recovery=recovery,
    )  # fmt: skip


def advised(*servers: Server, now: float = NOW, etcd: int = 3, patroni: Any = None) -> list[Item]:
    """What does not pass."""
    given = servers or (server(),)
    given = given if len(given) > 1 else (*given, server("node-b", recovery=True))
    found = Configured("orders", given, PATRONI if patroni is None else patroni or None, "orders/patroni", etcd)
    return [item for item in advice(found, now) if item.verdict is not Verdict.PASS]


def test_a_sound_configuration_has_nothing_to_be_advised() -> None:
    assert advised() == []


@pytest.mark.parametrize(
    "item, verdict, remedy, how",
    [
        ("privileges", "warn", 'GRANT pg_monitor TO "probed";', {"role": {"pg_monitor": False}}),
        ("privileges", "warn", "NOSUPERUSER", {"role": {"superuser": True}}),
        ("reserved_connections", "warn", "reserved_connections=3", {"reserved_connections": "0"}),
        ("reserved_connections", "warn", "GRANT pg_use_reserved_connections", {"role": {"use_reserved": False}}),
        ("wal_senders", "warn", "max_wal_senders=10", {"max_wal_senders": "2"}),
        ("slots", "warn", "max_replication_slots=10", {"max_replication_slots": "1"}),
        ("slots", "fail", "patronictl reinit", {"slots": [{**SLOT, "wal_status": "lost"}]}),
        (
            "slots", "warn", "pg_drop_replication_slot('old')",
            {"slots": [SLOT, {**SLOT, "slot_name": "old", "active": False, "retained_bytes": 5e9}]},
        ),
        ("slot_wal_limit", "warn", "max_slot_wal_keep_size=20GB", {"max_slot_wal_keep_size": "-1"}),
        ("wal_kept", "warn", "wal_keep_size=1GB", {"slots": []}),
        ("checksums", "warn", "pg_checksums --enable", {"data_checksums": "off"}),
        ("durability", "fail", "postgresql.parameters.fsync=on", {"fsync": "off"}),
        ("standby_queries", "warn", "max_standby_streaming_delay=30s", {"max_standby_streaming_delay": "-1"}),
        ("end_of_life", "warn", "plan the upgrade", {"server_version": "13.22"}),
    ],
)  # fmt: skip
def test_each_weakness_of_a_server_is_told_with_its_remedy(
    item: str, verdict: str, remedy: str, how: dict[str, Any]
) -> None:
    found = {one.id: one for one in advised(server(**how)) if one.target == "orders/node-a/postgres"}
    assert found[item].verdict == verdict
    assert remedy in found[item].suggestion


def test_a_slot_of_a_member_that_is_away_is_patronis_to_mind() -> None:
    away = {**SLOT, "active": False, "retained_bytes": 5e9}
    assert advised(server(slots=[away])) == []


@pytest.mark.parametrize(
    "item, says, how",
    [
        ("failsafe_mode", "demotes itself", {"patroni": {**PATRONI, "failsafe_mode": False}}),
        ("paused", "nobody is promoted", {"patroni": {**PATRONI, "pause": True}}),
        ("timing", "costs the primary its lock", {"patroni": {**PATRONI, "ttl": 20}}),
        (
            "synchronous_mode", "writes stop when it does",
            {"patroni": {**PATRONI, "synchronous_mode": True, "synchronous_mode_strict": True}},
        ),
        ("synchronous_mode", "no standby is synchronous", {"patroni": {**PATRONI, "synchronous_mode": True}}),
        ("etcd_members", "1 member bears the loss of none", {"etcd": 1}),
        ("etcd_members", "4 members bear the loss of 1", {"etcd": 4}),
    ],
)  # fmt: skip
def test_each_weakness_of_the_cluster_is_told(item: str, says: str, how: dict[str, Any]) -> None:
    [found] = advised(**how)
    assert (found.id, found.verdict) == (item, Verdict.WARN)
    assert says in found.finding


def test_nodes_of_different_versions_and_standbys_with_less_are_told() -> None:
    standby = server("node-b", recovery=True, server_version="18.0", max_connections="50")
    found = {item.id: item for item in advised(server(), standby)}
    assert found.keys() == {"versions", "standby_limits"}
    assert found["standby_limits"].finding.startswith("max_connections is 50 on node-b and 100 on node-a")


def test_nothing_is_advised_of_what_is_not_there() -> None:
    alone = Configured("orders", (server(),), None)
    ids = {item.id for item in advice(alone, NOW)}
    assert not ids & {"failsafe_mode", "synchronous_mode", "timing", "etcd_members", "wal_senders", "standby_limits"}
    weak = [item for item in advice(replace(alone, servers=(server(fsync="off"),)), NOW) if item.verdict == "fail"]
    assert weak[0].suggestion == "ALTER SYSTEM SET fsync = 'on'; SELECT pg_reload_conf();"


def test_the_last_fixes_of_a_version_are_told_half_a_year_ahead() -> None:
    [item] = [
        one for one in advised(server(server_version="15.9"), now=1_825_000_000.0) if one.target.endswith("a/postgres")
    ]
    assert (item.id, item.verdict) == ("end_of_life", Verdict.WARN)
    assert item.finding == "PostgreSQL 15.9: version 15 gets its last fixes on 2027-11-11"


# --- grades and differences --------------------------------------------------------------------------------------


def item(section: Section, verdict: Verdict, severity: str = "", name: str = "x") -> Item:
    return Item(section, name, name.upper(), "orders", verdict, "so", severity=severity)


@pytest.mark.parametrize(
    "grade, section, verdict, severity",
    [
        ("A", Section.EVENTS, Verdict.PASS, "fatal"),
        ("B", Section.ADVICE, Verdict.WARN, ""),
        ("B", Section.TRENDS, Verdict.WARN, ""),
        ("C", Section.HISTORY, Verdict.WARN, "fatal"),
        ("C", Section.EVENTS, Verdict.WARN, "normal"),
        ("C", Section.SWITCHOVERS, Verdict.WARN, ""),
        ("D", Section.EVENTS, Verdict.FAIL, "critical"),
        ("D", Section.TRENDS, Verdict.FAIL, ""),
        ("E", Section.EVENTS, Verdict.FAIL, "fatal"),
    ],
)
def test_the_grade_is_that_of_the_worst_item(grade: str, section: Section, verdict: Verdict, severity: str) -> None:
    passing = item(Section.EVENTS, Verdict.PASS)
    assert graded([passing, item(section, verdict, severity)])[0] == grade


def test_the_grade_names_what_decides_it() -> None:
    items_ = [item(Section.EVENTS, Verdict.FAIL, "critical", name) for name in ("x", "y")]
    assert graded(in_order(items_)) == ("D", "X (orders) fails and 1 more")


def test_items_stand_by_section_the_worst_first() -> None:
    mixed = [
        item(Section.ADVICE, Verdict.WARN),
        item(Section.EVENTS, Verdict.PASS),
        item(Section.EVENTS, Verdict.FAIL, "critical", "b"),
        item(Section.EVENTS, Verdict.FAIL, "fatal", "c"),
    ]
    assert [(one.section, one.id) for one in in_order(mixed)] == [
        ("events", "c"), ("events", "b"), ("events", "x"), ("advice", "x"),
    ]  # fmt: skip


def test_differences_are_of_verdicts_and_of_events_that_both_were_about() -> None:
    def of(verdict: Verdict, *names: str) -> list[Item]:
        chosen = [item(Section.HISTORY, Verdict.PASS, name=name) for name in names]
        return [*chosen, *(item(Section.EVENTS, verdict, "critical", name) for name in names)]

    advice_ = item(Section.ADVICE, Verdict.WARN, name="failsafe")
    found = differences([*of(Verdict.FAIL, "x", "y"), advice_], of(Verdict.PASS, "x", "z"))
    assert [(one.id, one.before, one.now) for one in found] == [("x", "fail", "pass"), ("failsafe", "warn", None)]
    moved = replace(item(Section.EVENTS, Verdict.FAIL, "critical"), finding="91 %")
    history = item(Section.HISTORY, Verdict.PASS)
    assert differences([history, moved], [history, replace(moved, finding="92 %")]) == ()
