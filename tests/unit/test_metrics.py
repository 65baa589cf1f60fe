"""The metrics: what is exported, what is not, and that Prometheus can read it."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import pytest_asyncio
from msgspec.structs import replace
from prometheus_client import Metric, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from probed.access.web_file import WebFile
from probed.config.settings import Instance
from probed.exposition import OPENMETRICS, PLAIN, SMALL, Writer
from probed.metrics import CATALOGUE, STALE_INTERVALS, Metrics
from probed.model import (
    CANARY,
    Comparison,
    Condition,
    HttpQuestion,
    Outcome,
    Question,
    Sample,
    Severity,
    SqlQuestion,
    TcpQuestion,
    Threshold,
)
from probed.probes import Combined
from probed.store import Member
from probed.testing import make_policy, make_sample
from probed.vitals import Trip
from probed.watches import Watch
from tests.unit.serving import HOSTILE, NOON, Stack, stack

Labels = frozenset[tuple[str, str]]

WHOLE: dict[str, Any] = {
    "etcd": [f"http://10.0.0.{number}:2379" for number in (1, 2, 3)],
    "haproxy": {"stats": "http://10.0.0.1:7000", "frontends": ["10.0.0.1:5000", "10.0.0.2:5000"]},
    "components": {
        name: {"url": f"http://10.0.0.1:{port}"}
        for port, name in enumerate(("kong", "auth", "rest", "realtime", "storage", "studio", "meta"), 8000)
    },
}
"""What an instance has beside its nodes, so that every policy that is on has something to watch."""
OWN: dict[str, Question] = {
    "http": HttpQuestion("http://10.0.0.9"),
    "tcp": TcpQuestion("10.0.0.9", 25),
    "sql": SqlQuestion("SELECT 1"),
}
"""What policies of users' own ask."""


WRITERS: WeakKeyDictionary[Metrics, Writer] = WeakKeyDictionary()


@pytest_asyncio.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Stack]:
    made = await stack(tmp_path, **WHOLE)
    made.metrics.expect_receivers(["hooks.example"])
    large = Threshold(Condition((Comparison("database_size_bytes", ">=", 1e9),)), 1)
    mine = make_policy(large, id="database_large", probe="database_size", severity=Severity.NORMAL, interval=300.0)
    made.policies = {**made.policies, mine.id: mine}
    for probe, question in OWN.items():
        policy = replace(make_policy(id=f"my_{probe}", probe=probe), question=question)
        made.policies = {**made.policies, policy.id: policy}
    made.watch(made.settings.instances[0])
    yield made
    await made.store.close()


def text_of(seen: Stack) -> str:
    """By one writer each, so that what it keeps from scrape to scrape is part of every test."""
    writer = WRITERS.setdefault(seen.metrics, Writer())
    return b"".join(writer.pieces(seen, openmetrics=False)).decode()


def scrape(seen: Stack) -> dict[str, dict[Labels, float]]:
    """Sample name -> labels -> value, as Prometheus would read them."""
    values: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text_of(seen)):
        for sample in family.samples:
            labels = frozenset((key, value) for key, value in sample.labels.items() if value)
            assert labels not in values.setdefault(sample.name, {}), f"{sample.name} {labels} stands there twice"
            values[sample.name][labels] = sample.value
    return values


def one(seen: Stack, name: str, **labels: str) -> float | None:
    """The value of the one series that has (at least) these labels."""
    wanted = set(labels.items())
    found = [value for having, value in scrape(seen).get(name, {}).items() if wanted <= having]
    assert len(found) <= 1, f"{name} {labels}: {len(found)} series"
    return found[0] if found else None


def fill(seen: Stack) -> None:
    """One observed sample with every reading that its probe can give, for every probe and target."""
    for entry in list(seen.pipeline.board.entries()):
        if entry.target.kind == "frontend":
            continue
        words: dict[str, Any] = {"leader": "node-a", "state": "running", "role": "primary"}
        readings = {name: words.get(name, 1.0) for name in seen.catalogue[entry.probe].readings}
        at, mono = seen.clock.wall(), seen.clock.mono()
        sample = Sample(entry.target, entry.probe, Outcome.OBSERVED, at, mono, 0.004, readings)
        seen.pipeline.accept("orders", [sample])


def watch(seen: Stack, policy: str, node: str = "") -> Watch:
    watches = seen.pipeline.instances["orders"].watches
    return next(watch for watch in watches if watch.policy.id == policy and watch.target.node == node)


# --- the catalogue ------------------------------------------------------------------------------------------


def test_every_metric_has_a_well_formed_name_type_labels_and_help() -> None:
    names = [series.name for series in CATALOGUE]
    assert len(set(names)) == len(names)
    for series in CATALOGUE:
        assert re.fullmatch(r"probed_[a-z]+(_[a-z]+)*", series.name)
        assert series.help.endswith(".") and len(series.help) > 10
        assert (series.type == "counter") == series.name.endswith("_total")
        allowed = {
            "db_instance", "node", "component", "probe", "event", "severity", "outcome", "reason", "receiver", "version",
        }  # fmt: skip
        assert set(series.labels) <= allowed, "never instance or job, which Prometheus renames"
        assert not series.name.endswith(("_pct", "_ms", "_percent"))


async def test_every_exported_reading_is_one_that_its_probe_declares(seen: Stack) -> None:
    for series in CATALOGUE:
        if series.reading is not None:
            probe, reading = series.reading
            assert reading in seen.catalogue[probe].readings


async def test_a_full_scrape_exports_what_the_catalogue_names_and_nothing_else(seen: Stack, tmp_path: Path) -> None:
    fill(seen)
    (tmp_path / "web-config.yml").touch()
    seen.web_file = WebFile(tmp_path / "web-config.yml", lambda _: [], seen.clock)
    seen.metrics.trip = lambda: Trip(overdue_seconds=0.0, age_seconds=90.0, round_trip_seconds=0.1)
    exported = set()
    for name in scrape(seen):
        base = re.sub("_(bucket|sum|count)$", "", name)
        exported.add(name if name in {series.name for series in CATALOGUE} else base)
    assert exported == {series.name for series in CATALOGUE}


async def test_the_reading_of_a_users_own_policy_is_not_exported(seen: Stack) -> None:
    seen.sample("postgres_stats", "node-a", in_recovery=0.0, my_own=3.0)
    assert "my_own" not in text_of(seen)


async def test_promtool_finds_nothing_to_complain_about_in_a_full_scrape(seen: Stack) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH; install Debian's package prometheus")
    fill(seen)
    await seen.outage("node-b")
    result = subprocess.run(
        [promtool, "check", "metrics"], input=text_of(seen), capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# --- probes -------------------------------------------------------------------------------------------------


async def test_nothing_is_said_of_a_target_before_its_first_sample(seen: Stack) -> None:
    values = scrape(seen)
    for name in ("probed_probe_success", "probed_probe_duration_seconds", "probed_probe_last_run_timestamp_seconds"):
        assert name not in values
    assert not any(name.startswith("probed_ping") for name in values)


async def test_cycles_are_counted_from_zero_for_every_outcome(seen: Stack) -> None:
    labels = {"node": "node-a", "component": "postgres", "probe": "postgres_liveness", "db_instance": "orders"}
    before = {outcome: one(seen, "probed_probe_runs_total", outcome=outcome.value, **labels) for outcome in Outcome}
    seen.sample("postgres_liveness", "node-a")
    seen.sample("postgres_liveness", "node-a", Outcome.BLIND, kind="auth")
    after = {outcome: one(seen, "probed_probe_runs_total", outcome=outcome.value, **labels) for outcome in Outcome}
    assert before == dict.fromkeys(Outcome, 0.0)
    assert after == {**before, Outcome.OBSERVED: 1.0, Outcome.BLIND: 1.0}


@pytest.mark.parametrize(
    "outcome, success",
    [(Outcome.OBSERVED, 1.0), (Outcome.FAILED, 0.0), (Outcome.BLIND, None), (Outcome.NOT_APPLICABLE, None)],
)
async def test_success_is_one_or_zero_and_absent_when_nothing_is_known(
    seen: Stack, outcome: Outcome, success: float | None
) -> None:
    seen.sample("postgres_liveness", "node-a", outcome)
    assert one(seen, "probed_probe_success", node="node-a") == success
    assert one(seen, "probed_probe_duration_seconds", node="node-a") == 0.004
    assert one(seen, "probed_probe_last_run_timestamp_seconds", node="node-a") == NOON


async def test_readings_come_in_base_units(seen: Stack) -> None:
    seen.sample("connections", "node-a", connections_used=41.0, connections_usable=97.0, connections_used_pct=41.0)
    seen.sample("disk_usage", "node-a", used_bytes=1e10, free_bytes=3e10, used_pct=25.0, inodes_used_pct=1.0)
    assert one(seen, "probed_connections_used_ratio", node="node-a") == 0.41
    assert one(seen, "probed_connections_used", node="node-a") == 41
    assert one(seen, "probed_disk_used_ratio", component="host") == 0.25
    assert one(seen, "probed_disk_used_bytes", component="host") == 1e10


async def test_a_reading_that_is_missing_or_not_finite_has_no_series(seen: Stack) -> None:
    seen.sample("postgres_liveness", "node-a", ping_seconds=0.001)
    assert one(seen, "probed_ping_latency_seconds", node="node-a") == 0.001
    seen.sample("postgres_liveness", "node-a")
    assert one(seen, "probed_ping_latency_seconds", node="node-a") is None
    for value in (float("nan"), float("inf"), float("-inf")):
        seen.sample("postgres_liveness", "node-a", ping_seconds=value)
        assert one(seen, "probed_ping_latency_seconds", node="node-a") is None


async def test_a_failed_cycle_takes_the_readings_of_the_last_good_one_away(seen: Stack) -> None:
    seen.sample("postgres_liveness", "node-a", ping_seconds=0.001, login_seconds=0.01)
    seen.sample("postgres_liveness", "node-a", Outcome.FAILED, kind="refused")
    assert one(seen, "probed_ping_latency_seconds", node="node-a") is None
    assert one(seen, "probed_login_seconds", node="node-a") is None


async def test_the_last_login_stands_between_two_logins_and_not_longer_than_two_of_their_intervals(seen: Stack) -> None:
    seen.sample("postgres_liveness", "node-a", login_seconds=0.02)
    for passed in range(5, 60, 5):
        seen.clock.step(5)
        seen.sample("postgres_liveness", "node-a", ping_seconds=0.001)
        assert one(seen, "probed_login_seconds", node="node-a") == 0.02, f"after {passed} s"
    seen.clock.step(10)
    seen.sample("postgres_liveness", "node-a", ping_seconds=0.001)
    assert one(seen, "probed_login_seconds", node="node-a") is None


async def test_a_sample_older_than_three_intervals_is_dropped_and_its_target_counts_as_blind(seen: Stack) -> None:
    seen.sample("postgres_liveness", "node-a", ping_seconds=0.001)
    seen.clock.step(STALE_INTERVALS * 5)
    assert one(seen, "probed_ping_latency_seconds", node="node-a") == 0.001
    assert one(seen, "probed_blind_targets") == 0
    seen.clock.step(0.1)
    assert one(seen, "probed_ping_latency_seconds", node="node-a") is None
    assert one(seen, "probed_probe_success", node="node-a") is None
    assert one(seen, "probed_probe_runs_total", node="node-a", probe="postgres_liveness", outcome="observed") == 1
    assert one(seen, "probed_blind_targets") == 1


async def test_blind_targets_counts_what_is_blind_for_a_reason_of_ours_and_not_its_consequences(seen: Stack) -> None:
    seen.sample("postgres_stats", "node-a", Outcome.BLIND, kind="auth", reason="password authentication failed")
    for probe in ("connections", "replication_lag", "wal_receiver"):
        seen.sample(probe, "node-a", Outcome.BLIND, kind="no_input", reason="postgres_stats: …")
    seen.sample("postgres_stats", "node-b", Outcome.FAILED, kind="refused")
    assert one(seen, "probed_blind_targets") == 1


async def test_a_duration_is_exported_only_for_probes_that_reach_out(seen: Stack) -> None:
    fill(seen)
    probes = {dict(labels)["probe"] for labels in scrape(seen)["probed_probe_duration_seconds"]}
    assert probes
    assert not [name for name in probes if isinstance(seen.catalogue[name], Combined)]


async def test_the_write_ports_of_one_haproxy_share_a_series_that_shows_the_worst(seen: Stack) -> None:
    ports = [entry.target for entry in seen.pipeline.board.entries() if entry.target.kind == "frontend"]
    assert [target.component for target in ports] == ["haproxy", "haproxy"]
    at, mono = seen.clock.wall(), seen.clock.mono()
    samples = [
        make_sample(outcome, target=target, at=at, mono=mono)
        for target, outcome in zip(ports, (Outcome.FAILED, Outcome.OBSERVED), strict=True)
    ]
    seen.pipeline.accept("orders", samples)
    where = {"component": "haproxy", "probe": "postgres_liveness"}
    assert one(seen, "probed_probe_success", **where) == 0
    assert one(seen, "probed_probe_runs_total", outcome="failed", **where) == 1
    assert one(seen, "probed_probe_runs_total", outcome="observed", **where) == 1


async def test_the_healthy_members_of_etcd_are_counted_over_all_of_them(seen: Stack) -> None:
    members = [entry.target for entry in seen.pipeline.board.entries() if entry.probe == "etcd_member"]
    at, mono = seen.clock.wall(), seen.clock.mono()
    said: list[tuple[Outcome, dict[str, float]]] = [
        (Outcome.OBSERVED, {"healthy": 1.0}), (Outcome.OBSERVED, {"healthy": 0.0}), (Outcome.FAILED, {})
    ]  # fmt: skip
    samples = [
        Sample(target, "etcd_member", outcome, at, mono, readings=readings)
        for target, (outcome, readings) in zip(members, said, strict=True)
    ]
    seen.pipeline.accept("orders", samples)
    assert one(seen, "probed_etcd_healthy_members") == 1
    assert one(seen, "probed_probe_success", probe="etcd_member") == 0


# --- events -------------------------------------------------------------------------------------------------


async def test_every_watch_of_an_enabled_policy_is_there_with_zero_from_the_start(seen: Stack) -> None:
    active = scrape(seen)["probed_event_active"]
    assert set(active.values()) == {0.0}
    watched = {dict(labels)["event"] for labels in active}
    # Canaries count for nothing, and where nobody is told of events there is no receiver to watch.
    of_receivers = {"notification_failed"}
    assert watched == {policy.id for policy in seen.policies.values() if policy.enabled} - {CANARY} - of_receivers
    counted = {dict(labels)["event"] for labels in scrape(seen)["probed_events_total"]}
    assert counted == watched | of_receivers


async def test_an_open_event_is_active_until_it_resolves_and_is_counted_once(seen: Stack) -> None:
    where = {"event": "database_unavailable", "node": "node-a", "db_instance": "orders", "component": "postgres"}
    await seen.outage("node-a")
    assert one(seen, "probed_event_active", **where) == 1
    assert one(seen, "probed_event_active", **{**where, "node": "node-b"}) == 0
    assert one(seen, "probed_events_total", event="database_unavailable", severity="fatal") == 1
    for _ in range(2):
        seen.clock.step(5)
        seen.sample("postgres_liveness", "node-a")
    await seen.settle()
    assert one(seen, "probed_event_active", **where) == 0
    assert one(seen, "probed_events_total", event="database_unavailable", severity="fatal") == 1


async def test_a_suppressed_event_is_neither_active_nor_counted_until_it_outlives_its_cause(seen: Stack) -> None:
    seen.sample("leader", has_leader=1.0, leader="node-a", timeline=1.0)
    await seen.outage("node-a")
    for _ in range(3):
        seen.clock.step(5)
        seen.sample("wal_receiver", "node-b", wal_receiver_streaming=0.0)
    await seen.settle()
    assert watch(seen, "wal_receiver_interrupted", "node-b").event is not None
    assert one(seen, "probed_event_active", event="wal_receiver_interrupted", node="node-b") == 0
    assert one(seen, "probed_events_total", event="wal_receiver_interrupted") == 0
    assert one(seen, "probed_event_suppressed_total") == 1
    for _ in range(2):
        seen.clock.step(5)
        seen.sample("postgres_liveness", "node-a")
    for _ in range(3):
        seen.clock.step(5)
        seen.sample("wal_receiver", "node-b", wal_receiver_streaming=0.0)
    await seen.settle()
    assert one(seen, "probed_event_active", event="wal_receiver_interrupted", node="node-b") == 1
    assert one(seen, "probed_events_total", event="wal_receiver_interrupted") == 1
    assert one(seen, "probed_event_suppressed_total") == 1


async def test_the_event_counter_goes_on_over_a_restart_where_the_store_left_it(tmp_path: Path) -> None:
    first = await stack(tmp_path)
    await first.outage("node-a")
    await first.store.close()
    again = await stack(tmp_path)
    again.metrics.restore(await again.store.counts())
    assert one(again, "probed_events_total", event="database_unavailable", severity="fatal") == 1
    await again.outage("node-b")
    assert one(again, "probed_events_total", event="database_unavailable", severity="fatal") == 2
    await again.store.close()


# --- itself -------------------------------------------------------------------------------------------------


async def test_lateness_and_store_writes_are_histograms_that_count_from_any_thread(seen: Stack) -> None:
    for seconds in (0.0, 0.001, 0.009, 0.01, 0.3, 100.0):
        seen.metrics.late(seconds, 1)

    def write() -> None:
        for _ in range(500):
            seen.metrics.wrote(0.002)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one(seen, "probed_scheduler_lateness_seconds_bucket", le="0.001") == 2
    assert one(seen, "probed_scheduler_lateness_seconds_bucket", le="0.01") == 4
    assert one(seen, "probed_scheduler_lateness_seconds_bucket", le="+Inf") == 6
    assert one(seen, "probed_scheduler_lateness_seconds_count") == 6
    assert one(seen, "probed_store_write_seconds_count") == 2000
    assert one(seen, "probed_store_write_seconds_sum") == pytest.approx(4.0)


async def test_skipped_rounds_and_the_last_reload_are_told(seen: Stack) -> None:
    seen.metrics.skipped(2)
    seen.metrics.skipped(1)
    seen.last_reload_ok = False
    assert one(seen, "probed_scheduler_skipped_total") == 3
    assert one(seen, "probed_config_last_reload_successful") == 0
    assert one(seen, "probed_config_last_reload_success_timestamp_seconds") == NOON - 60


# --- the exposition -----------------------------------------------------------------------------------------


async def test_openmetrics_is_given_to_who_asks_for_it_without_created_series(seen: Stack) -> None:
    fill(seen)
    written = await Writer().write(seen, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert written.content_type == OPENMETRICS
    families = openmetrics_families(written.body.decode())  # type: ignore[no-untyped-call]
    names = {sample.name for family in families for sample in family.samples}
    assert "probed_events_total" in names
    assert not [name for name in names if name.endswith("_created")]


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/html", "application/openmetrics-text;version=x", "application/openmetrics-text;version=1.x.0",
     "text/plain;version=1.0.0abc", "application/openmetrics-text;version=١.٠.٠;escaping=\udcff", "," * 500],
)  # fmt: skip
async def test_whatever_is_asked_for_something_readable_is_given(seen: Stack, accept: str) -> None:
    written = await Writer().write(seen, accept)
    assert written.content_type == PLAIN
    assert list(text_string_to_metric_families(written.body.decode()))


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2"
)


@pytest.mark.parametrize(
    "accept, content_type",
    [
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.5", PLAIN),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", PLAIN),
        ("application/openmetrics-text; q=0", PLAIN),
    ],
)  # fmt: skip
async def test_the_format_is_the_one_that_is_preferred(seen: Stack, accept: str, content_type: str) -> None:
    assert (await Writer().write(seen, accept)).content_type == content_type


@pytest.mark.parametrize("accept_encoding", ["gzip", "deflate, gzip;q=0.5", "GZIP"])
async def test_it_is_compressed_for_who_can_read_that(seen: Stack, accept_encoding: str) -> None:
    plain = await Writer().write(seen)
    written = await Writer().write(seen, accept_encoding=accept_encoding)
    assert written.zipped and gzip.decompress(written.body) == plain.body
    assert not (await Writer().write(seen, accept_encoding="br, gzip;q=0")).zipped


async def test_the_reference_library_reads_both_formats_and_would_write_the_same_series(seen: Stack) -> None:
    fill(seen)
    seen.sample("postgres_liveness", "node-b", Outcome.FAILED, reason='a "quoted"\\ line\nand another', kind="refused")

    class Read:
        def __init__(self, families: Iterable[Metric]) -> None:
            self.families = list(families)

        def collect(self) -> Iterable[Metric]:
            return self.families

    def series(families: Iterable[Metric]) -> set[tuple[str, Labels, float]]:
        return {(s.name, frozenset(s.labels.items()), s.value) for family in families for s in family.samples}

    plain = Read(text_string_to_metric_families(text_of(seen)))
    openmetrics = Read(openmetrics_families((await Writer().write(seen, OPENMETRICS)).body.decode()))  # type: ignore[no-untyped-call]
    assert series(text_string_to_metric_families(generate_latest(plain).decode())) == series(plain.families)
    assert series(openmetrics.families) == series(plain.families)
    assert len(series(plain.families)) > 100


async def test_a_fleets_scrape_gives_others_their_turn_as_soon_as_its_time_is_over(seen: Stack) -> None:
    for number in range(40):
        seen.watch(
            Instance.model_validate({"name": f"fleet-{number}", "patroni": [f"http://10.1.0.{number}:8008"], **WHOLE})
        )
    entries = list(seen.pipeline.board.entries())
    assert len(entries) > 300
    whole = list(Writer(piece_seconds=3600.0).pieces(seen, openmetrics=False))
    pieces = list(Writer(piece_seconds=0.0).pieces(seen, openmetrics=False))
    assert b"" not in whole
    assert pieces.count(b"") >= len(entries)  # after each look at the clock
    assert b"".join(pieces) == b"".join(whole)
    assert max(map(len, pieces)) < 2 * SMALL


@pytest.mark.parametrize("text", [*HOSTILE, "half a surrogate \ud800", "\udfff"])
async def test_hostile_names_and_reasons_cannot_forge_a_series(seen: Stack, text: str) -> None:
    before = {name: len(series) for name, series in scrape(seen).items() if "orders" in str(series)}
    name = f"node{text}"
    instance = Instance.model_validate({"name": "billing", "patroni": ["http://10.0.0.9:8008"]})
    seen.watch(instance, [Member("billing", name, "10.0.0.9", 5432, "http://10.0.0.9:8008")])
    seen.sample("postgres_liveness", name, Outcome.FAILED, reason=text, kind="refused", instance="billing")
    seen.sample("patroni_rest", name, instance="billing", state=text, role=text)
    shown = name.encode("utf-8", "replace").decode()
    values = scrape(seen)
    key = {("db_instance", "billing"), ("node", shown), ("component", "postgres"), ("probe", "postgres_liveness")}
    assert values["probed_probe_success"][frozenset(key)] == 0.0
    nodes = {dict(labels).get("node") for labels in values["probed_probe_runs_total"]}
    assert nodes == {None, "node-a", "node-b", "watcher", shown}
    for series, number in before.items():
        assert len([labels for labels in values[series] if ("db_instance", "billing") not in labels]) >= number
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in values} <= {series.name for series in CATALOGUE}
