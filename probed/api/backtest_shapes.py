"""What is told of replays, as ``backtest_schemas`` promises; reports come as plain data from ``backtest.beside``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probed.api import backtest_schemas as schemas
from probed.api.shapes import instant, number
from probed.policy import words
from probed.shadowing import Shadowing
from probed.shadows import Shadow, ShadowEvent


def backtest(report: Mapping[str, Any], patch: Mapping[str, Any]) -> schemas.Backtest:
    targets = [_target(item) for item in report["targets"]]
    return {
        "policy": report["policy"],
        "patch": dict(patch),
        "since": instant(report["since"]),
        "until": instant(report["until"]),
        "samples": report["samples"],
        "present": figures(report["present"]),
        "changed": figures(report["changed"]),
        "kept": sum(target["kept"] for target in targets),
        "gained": sum(target["gained_count"] for target in targets),
        "lost": sum(target["lost_count"] for target in targets),
        "moved": sum(target["moved_count"] for target in targets),
        "targets": targets,
        "notes": list(report["notes"]),
    }


def figures(found: Mapping[str, Any]) -> schemas.Figures:
    return {
        "events": found["events"],
        "flaps": found["flaps"],
        "short": found["short"],
        "open_seconds": found["open_seconds"],
        "detect_seconds": found["detect_seconds"],
        "detect_seconds_max": found["detect_seconds_max"],
    }


def told(one: Mapping[str, Any]) -> schemas.Told:
    value = one["value"]
    return {
        "opened_at": instant(one["opened_at"]),
        "first_failed_at": instant(one["first_failed_at"]),
        "resolved_at": instant(one["resolved_at"]),
        "occurred": one["occurred"],
        "count": one["count"],
        "value": value if isinstance(value, str) else number(value),
        "flapping": one["flapping"],
    }


def _target(item: Mapping[str, Any]) -> schemas.BacktestTarget:
    return {
        "target": item["target"],
        "samples": item["samples"],
        "first_at": instant(item["first_at"] or None),
        "last_at": instant(item["last_at"] or None),
        "present": figures(item["present"]),
        "changed": figures(item["changed"]),
        "kept": item["kept"],
        "gained_count": item["gained_count"],
        "gained": [told(one) for one in item["gained"]],
        "lost_count": item["lost_count"],
        "lost": [told(one) for one in item["lost"]],
        "moved_count": item["moved_count"],
        "moved": [{"present": told(present), "changed": told(changed)} for present, changed in item["moved"]],
    }


def shadow(shadowing: Shadowing, shadow: Shadow) -> schemas.Shadow:
    policy = shadowing.policies.get(shadow.policy)
    problem = shadowing.problems.get(shadow.policy)
    if policy is not None and not policy.enabled:
        problem = 'the policy is disabled: lay the shadow with {"enabled": true} as well'
    return {
        "policy": shadow.policy,
        "patch": dict(shadow.patch),
        "created_at": instant(shadow.created_at),
        "author": shadow.author,
        "reason": shadow.reason,
        "rule": None if policy is None else words.rule(policy),
        "problem": problem,
    }


def shadow_event(event: ShadowEvent) -> schemas.ShadowEvent:
    return {
        "target": event.target,
        "opened_at": instant(event.opened_at),
        "first_failed_at": instant(event.first_failed_at),
        "resolved_at": instant(event.resolved_at),
        "resolve_reason": event.resolve_reason or None,
        "occurred": event.occurred,
        "count": event.count,
        "value": event.value if isinstance(event.value, str) else number(event.value),
    }
