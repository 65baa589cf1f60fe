"""Reports to draw: an instance that is well, one that is not, a fleet, and what nobody hoped for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from probed.inspection import (
    Chart,
    Difference,
    Grade,
    Inspected,
    Item,
    NodeLine,
    Report,
    ReportState,
    Section,
    Series,
    Verdict,
    packing,
)
from probed.store.reports import InspectionRecord

NIGHT = 1_794_970_800.0
"""2026-11-18T03:00:00Z"""
ONE_ID, FLEET_ID = "019abc99-0000-7000-8000-00000000000f", "019abc98-0000-7000-8000-00000000000f"
"""Of what the page's stage has kept."""
DAY = 86400.0
CHOSEN = ("database_unavailable", "no_leader", "replication_lag_high", "connections_high", "cache_hit_ratio_low",
          "capacity_high", "etcd_unavailable", "ping_latency_high")  # fmt: skip


def series(label: str, level: float, swing: float, *, days: int = 7, number: int = 336, gap: bool = False) -> Series:
    """A reading every half hour that swings with the day."""
    step = days * DAY / number
    return Series(
        label,
        tuple(
            (NIGHT - days * DAY + index * step, round(level + swing * math.sin(index * step / DAY * 2 * math.pi), 3))
            for index in range(number)
            if not (gap and number * 0.4 < index < number * 0.55)
        ),
    )


def charts() -> tuple[Chart, ...]:
    return (
        Chart("capacity", "Disk usage", "percent", (series("node-a", 61, 3), series("node-b", 58, 2, gap=True)), 80.0),
        Chart("connections", "Connections", "percent", (series("node-a", 34, 20), series("node-b", 9, 4)), 80.0),
        Chart("lag", "Replication lag", "seconds", (series("node-b", 0.4, 0.4),), 30.0),
        Chart("hit_ratio", "Cache hit ratio", "percent", (series("orders", 99.1, 0.5), series("billing", 96, 2)), 90.0),
    )


FINE_EVENTS = {
    "database_unavailable": ("Database access unavailable", "logged in within 11 ms", ("node-a", "node-b")),
    "no_leader": ("HA cluster having no Leader", "node-a leads, timeline 7", ("",)),
    "connections_high": ("Number of database connections too high", "34 of 100 connections are used", ("node-a",)),
    "etcd_unavailable": ("etcd unavailable", "the member is healthy", ("etcd-1", "etcd-2", "etcd-3")),
    "ping_latency_high": ("Network latency too high", "answered within 0.4 ms", ("node-a", "node-b")),
}


def fine_items(instance: str = "orders") -> tuple[Item, ...]:
    return (
        *(
            Item(
                Section.EVENTS,
                event,
                title,
                f"{instance}/{node}/postgres" if node else instance,
                Verdict.PASS,
                finding,
                outcome="observed",
                evidence={"login_seconds": 0.011},
                severity="fatal",
            )
            for event, (title, finding, nodes) in FINE_EVENTS.items()
            for node in nodes
        ),
        Item(
            Section.EVENTS,
            "wal_receiver_interrupted",
            "WAL receiver interrupted",
            f"{instance}/node-a/postgres",
            Verdict.PASS,
            "a primary has no WAL receiver",
            outcome="not_applicable",
        ),
        *(
            Item(Section.HISTORY, event, title, instance, Verdict.PASS, "not triggered in 7 days", evidence={"triggers": 0})
            for event, (title, _, _) in FINE_EVENTS.items()
        ),
        Item(
            Section.ADVICE, "privileges", "Privileges of the monitoring role", instance, Verdict.PASS,
            "the role is a member of pg_monitor on every node",
        ),
        Item(
            Section.ADVICE, "failsafe_mode", "Patroni's failsafe mode", instance, Verdict.PASS, "failsafe_mode is on",
        ),
        Item(
            Section.TRENDS, "capacity", "Disk usage", f"{instance}/node-a", Verdict.PASS,
            "at this pace it is full in about 94 days", evidence={"used_pct": 64.0, "per_day_pct": 0.17, "full_in_seconds": 94 * DAY},
        ),
        Item(
            Section.SWITCHOVERS, "switchovers", "Leader changes", instance, Verdict.PASS,
            "one planned switchover in 7 days, no writes for at most 3.1 s",
            evidence={"planned": 1, "automatic_failover": 0, "longest_write_outage_seconds": 3.1, "last_at": NIGHT - 3 * DAY},
        ),
    )  # fmt: skip


BAD_ITEMS = (
    Item(
        Section.EVENTS, "replication_lag_high", "Primary/replica replication delay too high", "orders/node-b/postgres", Verdict.FAIL,
        "node-b has not replayed what the primary wrote 41 s ago (threshold 30 s)",
        "Is the WAL receiver streaming (else see that event)? Is replay paused, or held up by a long query on the replica "
        "(max_standby_streaming_delay)? Is the replica's disk or network saturated? A replica that never catches up may need patronictl reinit.",
        "observed", {"lag_seconds": 41.2, "lag_bytes": 91_226_112, "threshold_seconds": 30.0},
        ("019abc12-3456-7def-8123-456789abcdef",), "critical",
    ),
    Item(
        Section.EVENTS, "functions_unavailable", "Edge functions unavailable", "orders/node-a/functions", Verdict.WARN,
        "nobody knows: HTTP 401 with the configured token", "set bearer_token_file of functions to a token that may read /health",
        "blind",
    ),
    Item(
        Section.HISTORY, "deadlocks_frequent", "Frequent deadlocks", "orders", Verdict.WARN,
        "triggered 14 times in 7 days, twice as often as in the 7 days before; none is open",
        "Let every transaction lock rows in the same order; log_lock_waits tells who waits for whom.",
        evidence={"triggers": 14, "triggers_before": 7, "open": 0, "longest_seconds": 1260.0},
        events=tuple(f"019abc12-3456-7def-8123-4567{number:08}" for number in range(14)), severity="normal",
    ),
    Item(
        Section.ADVICE, "slots", "Inactive replication slots", "orders/node-a/postgres", Verdict.WARN,
        "the slot old_replica is inactive and holds back 12.4 GiB of WAL",
        "SELECT pg_drop_replication_slot('old_replica'); once nobody needs it; or set max_slot_wal_keep_size.",
        evidence={"slot": "old_replica", "retained_bytes": 13_314_398_617},
    ),
)  # fmt: skip

SWITCHOVERS = Item(
    Section.SWITCHOVERS, "switchovers", "Leader changes", "orders", Verdict.WARN,
    "2 automatic failovers in 7 days; the longest time without writes was 22.9 s",
    "Read the evidence of both: a primary that dies twice a week has a reason of its own.",
    evidence={"planned": 0, "automatic_failover": 2, "longest_write_outage_seconds": 22.9, "lost_bytes": 0, "last_at": NIGHT - DAY},
    events=("019abc12-3456-7def-8123-456789abcde0", "019abc12-3456-7def-8123-456789abcde1"), severity="critical",
)  # fmt: skip

NODES = (
    NodeLine("node-a", "leader", "16.4", "pass"),
    NodeLine("node-b", "replica", "16.4", "fail"),
)
DIFFERENCES = (
    Difference(
        Section.EVENTS, "replication_lag_high", "Primary/replica replication delay too high", "orders/node-b/postgres",
        Verdict.PASS, Verdict.FAIL, "the delay was 0.2 s and is 41 s",
    ),
    Difference(Section.ADVICE, "failsafe_mode", "Patroni's failsafe mode", "orders", Verdict.WARN, Verdict.PASS, "failsafe_mode was turned on"),
    Difference(Section.ADVICE, "slots", "Inactive replication slots", "orders/node-a/postgres", None, Verdict.WARN, "old_replica is inactive"),
    Difference(Section.EVENTS, "studio_unavailable", "Studio unavailable", "orders/node-a/studio", Verdict.PASS, None, "it is not declared any more"),
)  # fmt: skip


def by_section(items: Sequence[Item]) -> tuple[Item, ...]:
    """As a report holds them."""
    order = list(Section)
    return tuple(
        sorted(items, key=lambda item: (order.index(item.section), item.verdict.rank, item.title, item.target))
    )


def well(instance: str = "billing") -> Inspected:
    """Nothing is wrong, and nothing changed."""
    return Inspected(
        instance,
        {"env": "prod"},
        Grade.A,
        "Everything that was looked at is as it should be.",
        tuple(replace(node, state="pass") for node in NODES),
        by_section(fine_items(instance)),
        charts(),
        1.4,
        compared_with="019abc00-0000-7000-8000-000000000001",
        compared_at=NIGHT - DAY,
    )


def ill(instance: str = "orders", events: Sequence[str] = ()) -> Inspected:
    """With every verdict, in every section; its items are about these events, if any are given."""
    bad = [replace(item, events=tuple(events[:14]) if events and item.events else item.events) for item in BAD_ITEMS]
    turns = replace(SWITCHOVERS, events=tuple(events[:2]) if events else SWITCHOVERS.events)
    return Inspected(
        instance,
        {"env": "prod", "team": "shop"},
        Grade.D,
        "A replica is behind by more than it may be: a failover now would lose or delay writes.",
        NODES,
        by_section((*bad, turns, *(item for item in fine_items() if item.section != Section.SWITCHOVERS))),
        charts(),
        2.1,
        compared_with="019abc00-0000-7000-8000-000000000001",
        compared_at=NIGHT - DAY,
        differences=DIFFERENCES,
    )


def report(*instances: Inspected, **more: object) -> Report:
    made = Report(
        id=ONE_ID,
        name="nightly",
        observer="watcher",
        version="0.1.0",
        author="schedule",
        state=ReportState.DONE,
        began_at=NIGHT,
        ended_at=NIGHT + 3.5,
        days=7,
        zone="Europe/Berlin",
        chosen=CHOSEN,
        instances=instances,
    )
    return replace(made, **more)


def kept(made: Report) -> InspectionRecord:
    """As the store has it."""
    return packing.record(made, made.name, tuple(packing.packed(one) for one in made.instances))


def fleet(number: int, *, drawn: bool = True) -> Report:
    """So many instances, worst first: a tenth fails, a tenth warns. ``drawn``: with charts."""
    made = []
    for index in range(number):
        name = f"db-{index:03}"
        one = well(name)
        if index < number / 10:
            one = replace(ill(), instance=name)
        elif index < number / 5:
            late = replace(
                fine_items(name)[0], verdict=Verdict.WARN, finding="the login took 900 ms", suggestion="look at DNS"
            )
            one = replace(
                one,
                grade=Grade.C,
                grade_reason="One thing needs a look within days.",
                items=by_section((late, *fine_items(name)[1:])),
            )
        made.append(one if drawn else replace(one, charts=()))
    return report(*made)
