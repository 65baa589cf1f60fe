"""The metrics: the only module that names one; ``exposition`` writes them down for Prometheus.

``CATALOGUE`` is the whole list; a scrape exports what stands in it and nothing else. Values are read from the board and
the pipeline at the moment of the scrape, so that a metric cannot disagree with the status; only what has no other
memory (how many events, how late, how long a write took) is counted here.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from operator import add
from typing import Literal, Protocol

from msgspec import Struct, field

from probed.clock import Clock
from probed.model import CANARY, Policy
from probed.pipeline import Pipeline
from probed.store import Change
from probed.version import version
from probed.vitals import Refusal, Trip

STALE_INTERVALS = 3
"""A sample older than this many of its intervals says nothing about now: its series are dropped."""

PLACE = ("db_instance", "node", "component")
PROBE = (*PLACE, "probe")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Series(Struct, frozen=True):
    """One metric. ``reading`` names the (probe, reading) that it exports, if it exports one."""

    name: str
    type: Literal["gauge", "counter", "histogram", "info"]
    labels: tuple[str, ...]
    help: str
    reading: tuple[str, str] | None = None
    divisor: float = 1.0
    """From the reading's unit to the metric's: per cent to ratio."""
    lasting: float = 0.0
    """Seconds for which a reading stands that not every cycle yields."""
    fold: Callable[[float, float], float] = max
    """What several targets that share all labels come to (the frontends of one HAProxy): the worst, or the sum."""


def _reading(
    name: str,
    probe: str,
    reading: str,
    help_: str,
    *,
    type_: Literal["gauge", "counter"] = "gauge",
    divisor: float = 1.0,
    lasting: float = 0.0,
) -> Series:
    return Series(name, type_, PLACE, help_, (probe, reading), divisor, lasting)


CATALOGUE: tuple[Series, ...] = (
    Series("probed_probe_success", "gauge", PROBE,
           "1 when the newest cycle observed the target, 0 when the target failed; absent while nothing is known.",
           fold=min),
    Series("probed_probe_duration_seconds", "gauge", PROBE,
           "How long the newest cycle took; only of probes that reach out to a target."),
    Series("probed_probe_runs_total", "counter", (*PROBE, "outcome"), "Cycles by what they came to.", fold=add),
    Series("probed_probe_last_run_timestamp_seconds", "gauge", PROBE, "When the newest cycle started.", fold=min),
    _reading("probed_ping_latency_seconds", "postgres_liveness", "ping_seconds",
             "Round trip of one statement on the warm connection."),
    _reading("probed_login_seconds", "postgres_liveness", "login_seconds",
             "Fresh connection, authentication and one statement; the last one, made every 30 s.", lasting=60.0),
    _reading("probed_in_recovery", "postgres_stats", "in_recovery", "1 on a standby, 0 on a writable server."),
    _reading("probed_deadlocks_total", "postgres_stats", "deadlocks",
             "Deadlocks in all databases, as the server counts them.", type_="counter"),
    _reading("probed_connections_used", "connections", "connections_used", "Client sessions."),
    _reading("probed_connections_usable", "connections", "connections_usable",
             "Sessions that ordinary roles can have: max_connections without the reserved ones."),
    _reading("probed_connections_used_ratio", "connections", "connections_used_pct", "Used of usable sessions, 0 to 1.",
             divisor=100),
    _reading("probed_cache_hit_ratio", "cache_hit_ratio", "hit_ratio",
             "Blocks found in shared buffers of all blocks asked for since the last cycle, 0 to 1.", divisor=100),
    _reading("probed_replication_lag_seconds", "replication_lag", "lag_seconds",
             "For how long the primary has had WAL that this standby has not replayed."),
    _reading("probed_replication_lag_bytes", "replication_lag", "lag_bytes", "WAL that this standby has not replayed."),
    _reading("probed_wal_receiver_streaming", "wal_receiver", "wal_receiver_streaming",
             "1 while the standby's WAL receiver streams, 0 otherwise; absent on a primary."),
    _reading("probed_has_leader", "leader", "has_leader", "1 while the instance has a confirmed leader, 0 without."),
    _reading("probed_writable_nodes", "leader", "writable_nodes", "Servers that answered and are not in recovery."),
    _reading("probed_timeline", "leader", "timeline", "PostgreSQL's timeline on the leader."),
    _reading("probed_patroni_healthy", "patroni_member", "healthy",
             "1 while Patroni's state for the node is a healthy one, 0 otherwise."),
    _reading("probed_patroni_members", "patroni_cluster", "members", "Members in Patroni's list."),
    _reading("probed_patroni_paused", "patroni_cluster", "paused", "1 while the cluster is in maintenance mode."),
    Series("probed_etcd_healthy_members", "gauge", PLACE,
           "Members of etcd that are healthy by their own word; absent while none answers at all.",
           ("etcd_member", "healthy"), fold=add),
    _reading("probed_haproxy_sessions", "haproxy_stats", "sessions", "Current sessions over all frontends of HAProxy."),
    _reading("probed_haproxy_write_servers_up", "haproxy_stats", "write_servers_up",
             "Servers up in HAProxy's backend that leads to the primary; 1 is right."),
    _reading("probed_http_response_seconds", "http", "response_seconds",
             "From the question of a policy of your own (its id is the component) to the end of the answer."),
    _reading("probed_tcp_connect_seconds", "tcp", "connect_seconds",
             "Until the port of a policy of your own accepted a connection."),
    _reading("probed_sql_value", "sql", "value", "What the statement of a policy of your own returned, if a number."),
    _reading("probed_sql_statement_seconds", "sql", "statement_seconds", "How long that statement took."),
    _reading("probed_disk_used_bytes", "disk_usage", "used_bytes",
             "Used bytes of the fullest file system of a node's data, WAL and tablespaces."),
    _reading("probed_disk_free_bytes", "disk_usage", "free_bytes",
             "Bytes that ordinary processes can still write, on the one of these file systems that has the fewest."),
    _reading("probed_disk_used_ratio", "disk_usage", "used_pct",
             "Used of what ordinary processes can have, 0 to 1, on the fullest of these file systems.", divisor=100),
    _reading("probed_disk_inodes_used_ratio", "disk_usage", "inodes_used_pct",
             "Used inodes, 0 to 1, on the one of these file systems with the most.", divisor=100),
    _reading("probed_database_size_bytes", "database_size", "database_size_bytes",
             "Size of all databases as the server counts it; only while a policy uses it."),
    _reading("probed_database_wal_bytes", "database_size", "wal_size_bytes",
             "Size of the files in the server's WAL directory; only while a policy uses it."),
    _reading("probed_oom_kills_total", "oom", "oom_kills_total",
             "Processes that the kernel killed for lack of memory since probed first looked; goes on over restarts.",
             type_="counter"),
    Series("probed_event_active", "gauge", ("event", "severity", *PLACE),
           "1 while an event is open and not suppressed by its cause, also under a silence; 0 for all else watched."),
    Series("probed_events_total", "counter", ("event", "severity"),
           "Events that opened, occurred or outlived their cause ever, silenced or not; goes on over restarts."),
    Series("probed_event_suppressed_total", "counter", (),
           "Events recorded but not announced, because their cause was open; since the start."),
    Series("probed_silences_active", "gauge", (),
           "Silences that hold now: somebody does not want to be told of something."),
    Series("probed_notifications_total", "counter", ("receiver", "outcome"),
           "Notices by what became of them: delivered, failed (an attempt that will be repeated), refused, expired or "
           "dropped; since the start."),
    Series("probed_outbox_oldest_age_seconds", "gauge", (),
           "For how long the oldest notice that was not delivered yet has been owed; 0 when nothing is."),
    Series("probed_canary_age_seconds", "gauge", (),
           "How long ago the last canary came back, an event of probed's own that goes the way of an alarm; absent "
           "before the first, and where none is sent."),
    Series("probed_canary_round_trip_seconds", "gauge", (), "How long that canary took."),
    Series("probed_canary_overdue_seconds", "gauge", (),
           "For how long a canary has been missing: alarms may not arrive; 0 when the newest came back in time."),
    Series("probed_blind_targets", "gauge", (),
           "Pairs of probe and target that cannot be observed for a reason of ours, or have not been for 3 intervals."),
    Series("probed_build_info", "info", ("version",), "The version of probed."),
    Series("probed_config_last_reload_successful", "gauge", (),
           "1 when the last reload was applied, 0 when it was refused."),
    Series("probed_config_last_reload_success_timestamp_seconds", "gauge", (),
           "When the configuration in use was read."),
    Series("probed_web_config_last_reload_successful", "gauge", (),
           "1 when web.config_file is in use as it stands, 0 when its last state was refused; absent without one."),
    Series("probed_web_config_reloads_total", "counter", ("outcome",),
           "Changes of web.config_file, or of a file that it names, that were taken up (ok) or refused (failed)."),
    Series("probed_login_failures_total", "counter", ("reason",), "Wrong credentials: password or token."),
    Series("probed_scheduler_lateness_seconds", "histogram", (), "How long after its due time a cycle started."),
    Series("probed_scheduler_skipped_total", "counter", (), "Rounds that were due and did not start."),
    Series("probed_store_refusing_seconds", "gauge", (),
           "For how long the disk under the event store has taken nothing; 0 while it does."),
    Series("probed_store_lost_total", "counter", (),
           "Commits that no longer fitted into memory while the disk took nothing; since the start."),
    Series("probed_store_write_seconds", "histogram", (), "How long a transaction of the event store took."),
)  # fmt: skip
"""Every metric there is, in the order of the exposition."""


class Reloaded(Protocol):
    """A file that is read again when it changes."""

    @property
    def last_ok(self) -> bool: ...
    @property
    def reloads(self) -> Mapping[str, int]:
        """By ``ok`` and ``failed``."""
        ...


class Observed(Protocol):
    """What a scrape looks at; the daemon."""

    @property
    def metrics(self) -> Metrics: ...
    @property
    def policies(self) -> Mapping[str, Policy]: ...
    @property
    def pipeline(self) -> Pipeline: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def last_reload_ok(self) -> bool: ...
    @property
    def last_reload_at(self) -> float: ...
    @property
    def web_file(self) -> Reloaded | None: ...


Values = Mapping[tuple[str, ...], float]
"""Label values -> value."""

Buckets = tuple[list[tuple[str, float]], float]
"""([(upper bound, observations at or below it)], sum)"""


class Histogram(Struct):
    """Seconds sorted into ``BUCKETS``. Fed and read from any thread."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def observe(self, seconds: float, times: int = 1) -> None:
        with self.lock:
            self.counts[bisect_left(BUCKETS, seconds)] += times
            self.total += seconds * times

    def read(self) -> Buckets:
        with self.lock:
            counts, total = list(self.counts), self.total
        below = 0
        buckets = []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
            below += count
            buckets.append((bound, float(below)))
        return buckets, total


class Metrics:
    """The counters that nothing else remembers, and how everything is shown. Hooks are cheap and never raise."""

    def __init__(self) -> None:
        self._version = version()
        self._lateness, self._writes = Histogram(), Histogram()
        self._skipped = 0
        self._suppressed = 0
        self._events: Counter[tuple[str, str]] = Counter()
        self._notifications: Counter[tuple[str, str]] = Counter()
        self.oldest_owed: Callable[[], float] = lambda: 0.0
        """Asked at each scrape for the age of the oldest notice that is owed, in seconds."""
        self.refusal: Callable[[], Refusal] = Refusal
        """Asked at each scrape how the disk under the store fares."""
        self.trip: Callable[[], Trip] = Trip
        """Asked at each scrape how the canary fares."""
        self._logins: Counter[str] = Counter({"password": 0, "token": 0})

    # --- hooks --------------------------------------------------------------------------------------------

    def restore(self, counts: Mapping[tuple[str, str, str], int]) -> None:
        """Go on from what the store knows: ``Store.counts()``, by (event, severity, instance). Once, at the start."""
        for (event, severity, _), number in counts.items():
            self._events[event, severity] += number

    def late(self, seconds: float, cycles: int) -> None:
        """So many cycles started this long after their due time."""
        self._lateness.observe(seconds, cycles)

    def skipped(self, number: int) -> None:
        """So many rounds were due and did not start."""
        self._skipped += number

    def login_failed(self, via: str) -> None:
        """Wrong credentials: ``password`` or ``token``."""
        self._logins[via] += 1

    def wrote(self, seconds: float) -> None:
        """A transaction took this long. Called by the store's writer thread."""
        self._writes.observe(seconds)

    def announced(self, change: Change) -> None:
        """A change of an event became durable; for ``Pipeline.on_announce``."""
        event = change.event
        if change.kind not in ("opened", "occurred", "lifted") or event.canary:
            return
        if event.suppressed:
            self._suppressed += 1
        else:
            self._events[event.event, event.severity.value] += 1

    def expect_receivers(self, names: Iterable[str]) -> None:
        """Show these receivers from the start: 0 says more than a series that is not there yet."""
        for name in names:
            for outcome in ("delivered", "failed"):
                self._notifications[name, outcome] += 0

    def notified(self, receiver: str, outcome: str, notices: int = 1) -> None:
        """So many notices were sent to a receiver, or given up."""
        self._notifications[receiver, outcome] += notices

    # --- scrape -------------------------------------------------------------------------------------------

    def own(self, observed: Observed) -> Mapping[str, Values]:
        """What concerns no single target, by metric."""
        silencing = observed.pipeline.silencing
        return {
            "probed_events_total": self._counted(observed.policies.values()),
            "probed_event_suppressed_total": {(): self._suppressed},
            "probed_silences_active": {(): silencing.active(observed.clock.wall(), observed.clock.mono())},
            "probed_notifications_total": dict(sorted(self._notifications.items())),
            "probed_outbox_oldest_age_seconds": {(): self.oldest_owed()},
            "probed_build_info": {(self._version,): 1.0},
            "probed_config_last_reload_successful": {(): float(observed.last_reload_ok)},
            "probed_config_last_reload_success_timestamp_seconds": {(): observed.last_reload_at},
            "probed_scheduler_skipped_total": {(): self._skipped},
            "probed_login_failures_total": {(via,): number for via, number in self._logins.items()},
            **_of_web_file(observed.web_file),
            **_of_canary(self.trip()),
            **_of_disk(self.refusal()),
        }

    def histograms(self) -> Mapping[str, Buckets]:
        return {
            "probed_scheduler_lateness_seconds": self._lateness.read(),
            "probed_store_write_seconds": self._writes.read(),
        }

    def _counted(self, policies: Iterable[Policy]) -> Values:
        """Events so far, and a zero for each that an enabled policy may yet bring."""
        counted: dict[tuple[str, ...], float] = {key: float(number) for key, number in self._events.items()}
        for policy in policies:
            for severity in (policy.severity, policy.replica_severity):
                if policy.enabled and severity is not None and policy.id != CANARY:
                    counted.setdefault((policy.id, severity.value), 0.0)
        return dict(sorted(counted.items()))


def _of_web_file(file: Reloaded | None) -> Mapping[str, Values]:
    if file is None:
        return {}
    return {
        "probed_web_config_last_reload_successful": {(): float(file.last_ok)},
        "probed_web_config_reloads_total": {(outcome,): float(number) for outcome, number in file.reloads.items()},
    }


def _of_disk(refusal: Refusal) -> Mapping[str, Values]:
    # Below a second it is how long writing takes, which has a metric of its own.
    return {
        "probed_store_refusing_seconds": {(): refusal.seconds if refusal.seconds >= 1.0 else 0.0},
        "probed_store_lost_total": {(): float(refusal.lost)},
    }


def _of_canary(trip: Trip) -> Mapping[str, Values]:
    known = {
        "probed_canary_age_seconds": trip.age_seconds,
        "probed_canary_round_trip_seconds": trip.round_trip_seconds,
        "probed_canary_overdue_seconds": trip.overdue_seconds,
    }
    return {name: {(): value} for name, value in known.items() if value is not None}
