"""Where things are heading, by what is recorded: items and charts of traces. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probed.inspection import Chart, Item, Section, Series, Verdict
from probed.inspection.rounding import down_to, nice_up, to_five
from probed.inspection.tracing import Trace, Wanted
from probed.model import Policy, Reading
from probed.quantity import human_bytes, human_seconds

DAY = 86_400.0
LEAST_SECONDS, LEAST_SAMPLES = 3600.0, 100
"""Of recording, before percentiles say anything."""
LEAST_DISK_SECONDS = DAY
"""Of recording, before a disk's future is told by its past."""
FULL_SOON_DAYS, FULL_LATER_DAYS = 7.0, 30.0
STEADY_SHARE = 0.005
"""A disk that has lost less than this share of its free space over all of the time is steady."""

DISK, CONNECTIONS, LAG, HITS = "disk_usage", "connections", "replication_lag", "cache_hit_ratio"
_TITLES: Mapping[str, str] = {
    DISK: "Free disk space",
    CONNECTIONS: "Connections in use",
    LAG: "Replication lag",
    HITS: "Cache hit ratio",
}
_UNITS: Mapping[str, str] = {DISK: "bytes", CONNECTIONS: "percent", LAG: "seconds", HITS: "percent"}
_JUDGED_BY: Mapping[str, tuple[str, str]] = {
    CONNECTIONS: ("connections_high", "usage_pct"),
    LAG: ("replication_lag_high", "lag_threshold_sec"),
    HITS: ("cache_hit_ratio_low", "hit_ratio_threshold"),
}
"""Probe -> the policy and its parameter that say what is too much."""


def wanted(policies: Mapping[str, Policy]) -> tuple[Wanted, ...]:
    """What the recording is asked for."""
    traffic = _parameter(policies, "cache_hit_ratio_low", "min_blocks") or 0.0
    return (
        Wanted(DISK, "free_bytes", low=True, slope=True),
        Wanted(CONNECTIONS, "connections_used_pct", quantiles=(0.5, 0.95), also=("connections_usable",)),
        Wanted(LAG, "lag_seconds", quantiles=(0.5, 0.95, 0.99)),
        Wanted(HITS, "hit_ratio", low=True, quantiles=(0.05,), only_above=("blocks", traffic)),
    )


def items(traces: Sequence[Trace], policies: Mapping[str, Policy]) -> list[Item]:
    """One for each trace."""
    return [_ITEMS[trace.probe](trace, _threshold(trace.probe, policies)) for trace in traces]


def charts(traces: Sequence[Trace], policies: Mapping[str, Policy]) -> tuple[Chart, ...]:
    """One for each kind of trace, with a line for each target."""
    found = []
    for probe, title in _TITLES.items():
        lines = sorted((trace for trace in traces if trace.probe == probe), key=lambda trace: trace.target)
        if lines:
            series = tuple(Series(line.node or line.target, tuple(line.points)) for line in lines)
            found.append(Chart(probe, title, _UNITS[probe], series, _threshold(probe, policies)))
    return tuple(found)


def unread(instance: str, error: str) -> Item:
    """In place of all, when the recording cannot be read."""
    return Item(
        Section.TRENDS, "recording", "Recorded samples", instance, Verdict.WARN, error,
        "see the daemon's log; storage.samples says where and how long samples are kept",
    )  # fmt: skip


def _disk(trace: Trace, _: float | None) -> Item:
    if trace.last_at - trace.first_at < LEAST_DISK_SECONDS or trace.slope is None:
        return _too_little(trace, LEAST_DISK_SECONDS)
    lost = -trace.slope * (trace.last_at - trace.first_at)
    free = human_bytes(trace.newest)
    if lost <= STEADY_SHARE * trace.newest:
        return _item(trace, Verdict.PASS, "the free space does not shrink")
    days = down_to(trace.newest / -trace.slope / DAY)
    evidence: dict[str, Reading | None] = {"days_to_full": days}
    if days >= FULL_LATER_DAYS:
        when = "in more than a year" if days >= 365 else f"in {days:g} days or more"
        return _item(trace, Verdict.PASS, f"at this pace it is full {when}", evidence=evidence)
    when = "within a day" if days < 1 else f"in about {days:g} {'day' if days == 1 else 'days'}"
    told = f"at this pace it is full {when}: {free} are free, and {human_bytes(-trace.slope * DAY)} go each day"
    advice = (
        "find what grows: WAL that a slot or the archiver holds back, logs, temporary files, tables; "
        "enlarge the volume before it is full, because a full one stops the server"
    )
    verdict = Verdict.FAIL if days < FULL_SOON_DAYS else Verdict.WARN
    return _item(trace, verdict, told, advice, evidence)


def _connections(trace: Trace, limit: float | None) -> Item:
    if _is_short(trace):
        return _too_little(trace, LEAST_SECONDS)
    half, most, worst = to_five(trace.quantiles["0.5"]), to_five(trace.quantiles["0.95"]), to_five(trace.worst)
    evidence: dict[str, Reading | None] = {
        "connections_used_p50_pct": half, "connections_used_p95_pct": most, "connections_used_max_pct": worst,
    }  # fmt: skip
    usable = trace.also.get("connections_usable")
    evidence |= {"connections_usable": usable} if usable is not None else {}
    of = f" of {usable:.0f} that ordinary roles can have" if usable is not None else ""
    told = f"at most {half:g} % half of the time, {most:g} % for 95 % of it, {worst:g} % at the most{of}"
    over = limit is not None and trace.quantiles["0.95"] >= limit
    advice = "let a pooler hold the connections, or raise max_connections while the server has the memory"
    return _item(trace, Verdict.WARN if over else Verdict.PASS, told, advice if over else "", evidence)


def _lag(trace: Trace, limit: float | None) -> Item:
    if _is_short(trace):
        return _too_little(trace, LEAST_SECONDS)
    shares = {name: nice_up(_noise(trace.quantiles[share])) for name, share in _LAG_SHARES.items()}
    told = "at most " + ", ".join(
        f"{human_seconds(value)} {_OF_THE_TIME[name]}" if value else f"nothing {_OF_THE_TIME[name]}"
        for name, value in shares.items()
    )
    evidence: dict[str, Reading | None] = {f"lag_{name}_seconds": value for name, value in shares.items()}
    over = limit is not None and trace.quantiles["0.95"] >= limit
    advice = (
        "the standby does not keep up, so a failover loses or waits: look for long queries on it "
        "(max_standby_streaming_delay), slow disks and a narrow network"
    )
    return _item(trace, Verdict.WARN if over else Verdict.PASS, told, advice if over else "", evidence)


_LAG_SHARES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}
_OF_THE_TIME = {"p50": "half of the time", "p95": "for 95 % of it", "p99": "for 99 % of it"}


def _noise(lag: float) -> float:
    """Less than an interval or so is the grain of sampling."""
    return 0.0 if lag < 10.0 else lag


def _hits(trace: Trace, limit: float | None) -> Item:
    if _is_short(trace):
        return _too_little(trace, LEAST_SECONDS)
    low = trace.quantiles["0.05"]
    shown = 100.0 - to_five(100.0 - low)
    told = f"at least {shown:g} % for 95 % of the time that had traffic"
    over = limit is not None and low < limit
    advice = (
        "see which tables are read from disk (pg_statio_user_tables); shared_buffers, an index, or a report of its own"
    )
    return _item(
        trace, Verdict.WARN if over else Verdict.PASS, told, advice if over else "", {"hit_ratio_p5_pct": shown}
    )


_ITEMS = {DISK: _disk, CONNECTIONS: _connections, LAG: _lag, HITS: _hits}


def _is_short(trace: Trace) -> bool:
    return trace.last_at - trace.first_at < LEAST_SECONDS or trace.samples < LEAST_SAMPLES


def _too_little(trace: Trace, seconds: float) -> Item:
    hours = seconds / 3600
    need = "a day" if hours >= 24 else "an hour"
    return _item(trace, Verdict.PASS, f"not enough is recorded to tell: less than {need} of samples that count")


def _item(
    trace: Trace,
    verdict: Verdict,
    finding: str,
    suggestion: str = "",
    evidence: Mapping[str, Reading | None] | None = None,
) -> Item:
    return Item(
        Section.TRENDS, trace.probe, _TITLES[trace.probe], trace.target, verdict, finding, suggestion,
        evidence=dict(evidence or {}),
    )  # fmt: skip


def _threshold(probe: str, policies: Mapping[str, Policy]) -> float | None:
    named = _JUDGED_BY.get(probe)
    return _parameter(policies, *named) if named is not None else None


def _parameter(policies: Mapping[str, Policy], policy_id: str, name: str) -> float | None:
    policy = policies.get(policy_id)
    value = policy.params.get(name) if policy is not None else None
    return float(value) if isinstance(value, float | int) else None
