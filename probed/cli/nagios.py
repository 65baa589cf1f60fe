"""Samples as the one line and exit code that Nagios, Icinga and their relatives expect of a plugin. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probed.model import Comparison, Outcome, Policy, Sample, Severity, Threshold
from probed.probes import AnyProbe
from probed.redaction import visible

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_GRAVITY = (OK, WARNING, UNKNOWN, CRITICAL)
"""Of several targets the gravest counts: what is known to be bad before what is not known."""


def line(probe: AnyProbe, samples: Sequence[Sample], policies: Mapping[str, Policy]) -> tuple[str, int]:
    """(one line with perfdata, exit code). One sample is judged by the conditions of the enabled policies on it."""
    judged = [(sample, *_judge(sample, policies)) for sample in samples]
    code = max((code for _, code, _ in judged), key=_GRAVITY.index, default=UNKNOWN)
    bad = [f"{_name(sample)}: {why}" for sample, own, why in judged if own != OK]
    told = "; ".join(bad) or f"{len(samples)} observed"
    perfdata = " ".join(item for sample in samples for item in _perfdata(probe, sample, policies, len(samples) > 1))
    text = f"PROBED {WORDS[code]} - {probe.name}: {visible(told).replace('|', '/')}"
    return (f"{text} | {perfdata}" if perfdata else text), code


def _judge(sample: Sample, policies: Mapping[str, Policy]) -> tuple[int, str]:
    if sample.outcome is Outcome.FAILED:
        return CRITICAL, sample.reason or "failed"
    if sample.outcome is Outcome.BLIND:
        return UNKNOWN, sample.reason or "blind"
    worst, why = OK, ""
    for policy in _bound(sample, policies):
        assert isinstance(policy.detect, Threshold)
        if policy.detect.when.met_by(sample):
            code = WARNING if policy.severity is Severity.NORMAL else CRITICAL
            if code > worst:
                worst, why = code, policy.name + (f" ({sample.reason})" if sample.reason else "")
    return worst, why


def _bound(sample: Sample, policies: Mapping[str, Policy]) -> list[Policy]:
    return [
        policy
        for policy in policies.values()
        if policy.enabled
        and policy.probe == sample.probe
        and policy.judges(sample.target)
        and isinstance(policy.detect, Threshold)
    ]


def _perfdata(probe: AnyProbe, sample: Sample, policies: Mapping[str, Policy], several: bool) -> list[str]:
    limits: dict[str, tuple[Comparison, Severity]] = {}
    for policy in _bound(sample, policies):
        assert isinstance(policy.detect, Threshold)
        for comparison in policy.detect.when.comparisons[:1]:
            limits[comparison.reading] = (comparison, policy.severity)
    items = []
    for reading, value in sample.readings.items():
        if isinstance(value, str):
            continue
        label = f"{_name(sample)}/{reading}" if several else reading
        label = visible(label).replace("'", "").replace("=", "_")
        counter = "(counter)" in probe.readings.get(reading, "")
        items.append(f"'{label}'={value:.12g}{_unit(reading, counter)}{_limit(limits.get(reading))}")
    return items


def _limit(limit: tuple[Comparison, Severity] | None) -> str:
    """``;warn;crit`` in the plugins' range notation: ``n:`` alarms below n, ``n`` above it."""
    if limit is None or limit[0].op in ("==", "!="):
        return ""
    comparison, severity = limit
    span = f"{comparison.value:.12g}" + (":" if comparison.op.startswith("<") else "")
    return f";{span}" if severity is Severity.NORMAL else f";;{span}"


def _unit(reading: str, counter: bool) -> str:
    if counter:
        return "c"
    for ending, unit in (("_seconds", "s"), ("_bytes", "B"), ("_pct", "%"), ("_ratio", "%")):
        if reading.endswith(ending):
            return unit
    return ""


def _name(sample: Sample) -> str:
    return sample.target.node or sample.target.member or sample.target.key
