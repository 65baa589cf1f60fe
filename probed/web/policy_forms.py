"""The form by which a policy is edited: what it holds, and the merge patch that it asks for. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from probed.api.problems import Refused
from probed.model import Policy
from probed.web import rules

Json = Mapping[str, Any]
ALSO = "also"
"""What the form has no field for, as JSON: of a change that was proposed."""
_SWITCH = {"on": True, "off": False}


def fields_of(policy: Policy) -> tuple[str, ...]:
    """What has a field of its own, in the order of the form."""
    return (*(f"params.{field.name}" for field in rules.rule(policy, 0).fields), "severity", "enabled", "reason")


def patch_of(policy: Policy, given: Mapping[str, str]) -> dict[str, Any]:
    """The merge patch that a form asks for: only what differs from what it was shown."""
    patch: dict[str, Any] = as_patch(given[ALSO]) if given.get(ALSO) else {}
    params = {
        field.name: number_or_text(given[f"params.{field.name}"])
        for field in rules.rule(policy, 0).fields
        if given.get(f"params.{field.name}", field.raw) != field.raw
    }
    if params:
        patch["params"] = {**patch.get("params", {}), **params}
    if given.get("severity", policy.severity.value) != policy.severity.value:
        patch["severity"] = given["severity"]
    switch = _SWITCH.get(given.get("enabled", ""), policy.enabled)
    if switch != policy.enabled:
        patch["enabled"] = switch
    return patch


def filled_in(policy: Policy, patch: Json) -> dict[str, str]:
    """What the form holds when a change is proposed."""
    given: dict[str, str] = {}
    rest = dict(patch)
    params = rest.pop("params", {})
    own = params if isinstance(params, Mapping) else {}
    for name, value in own.items():
        if name in policy.params and isinstance(value, int | float | str):
            given[f"params.{name}"] = value if isinstance(value, str) else f"{value:.15g}"
    left = {name: value for name, value in own.items() if f"params.{name}" not in given}
    if left or not isinstance(params, Mapping):
        rest["params"] = left or params
    if isinstance(rest.get("severity"), str):
        given["severity"] = rest.pop("severity")
    if isinstance(rest.get("enabled"), bool):
        given["enabled"] = "on" if rest.pop("enabled") else "off"
    if rest:
        given[ALSO] = json.dumps(rest)
    return given


def as_patch(text: str) -> dict[str, Any]:
    """A merge patch that stands in an address or a field. Refused when it is none."""
    try:
        patch = json.loads(text)
    except (ValueError, RecursionError):
        patch = None
    if not isinstance(patch, dict):
        raise Refused("bad-query", "expected a JSON object, as a proposal gives it")
    return patch


def number_or_text(text: str) -> float | str:
    """``30`` -> 30, ``0.5`` -> 0.5; anything else is a quantity (``100ms``), which the policy reads itself."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 and "." not in text else number
