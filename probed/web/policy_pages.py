"""Pages about what is detected: the policies, one policy; editing, restoring and rolling back by forms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from aiohttp import hdrs, web

from probed.api.problems import Refused, shown
from probed.api.routing import Call, Route
from probed.model import Policy
from probed.policy.layers import BUILT_IN
from probed.store import DailyCount
from probed.strict_yaml import did_you_mean
from probed.web import rules
from probed.web.desk import Desk
from probed.web.rules import Rule

API = "/api/v1/policies"
ONE = f"{API}/{{id}}"
HISTORY, ROLLBACK, RESTORE = f"{API}/history", f"{API}/rollback", f"{ONE}/restore"
BACKTEST = f"{ONE}/backtest"
DAYS = 30
REVISIONS = "20"
_SWITCH = {"on": True, "off": False}
_RECOVERABLE = frozenset({"invalid", "refused-by-rule", "stale", "bad-body", "conflict", "too-many"})
"""Refusals that are told in the form; others are a page."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PoliciesPage:
    groups: Mapping[str, list[Rule]]
    origins: Mapping[str, str]
    exports: bool
    revisions: Sequence[Json] | None
    may_rollback: bool
    across: bool = True
    """Whether the history is of all policies."""


@dataclass(frozen=True, slots=True)
class PolicyPage:
    rule: Rule
    origin: str
    etag: str
    patched: bool
    """Whether anything was changed at run time."""
    may_edit: bool
    given: Mapping[str, str]
    """What the form holds, when it was refused."""
    problems: Sequence[Mapping[str, object]]
    revisions: Sequence[Json] | None
    may_preview: bool
    preview: Json | None
    """What the change in the form would have changed, by recorded samples."""
    may_rollback: bool = False
    across: bool = False

    @property
    def known_paths(self) -> frozenset[str]:
        """What has a field of its own."""
        return frozenset({f"params.{each.name}" for each in self.rule.fields} | {"severity", "enabled", "reason"})


def routes(desk: Desk) -> list[Route]:
    served = desk.served

    async def listing(call: Call) -> web.Response:
        groups = rules.table(served.policies, await _counts(call))
        listed = await _listed(call)
        page = PoliciesPage(
            groups,
            {policy.id: origin(policy, listed.get(policy.id)) for policy in served.policies.values()},
            desk.may(call, "GET", f"{API}/export"),
            await _revisions(call),
            desk.may(call, "POST", ROLLBACK),
        )
        return await desk.html(call, "policies.html", page)

    async def one(call: Call) -> web.Response:
        return await show(call, {}, ())

    async def show(
        call: Call,
        given: Mapping[str, str],
        problems: Sequence[Mapping[str, object]],
        preview: Json | None = None,
    ) -> web.Response:
        policy = _policy(desk, call.path("id"))
        triggers = sum(count.count for count in await _counts(call) if count.event == policy.id)
        found = await desk.answer(call, "GET", ONE)
        detail: Json = json.loads(found.text or "{}") if isinstance(found, web.Response) else {}
        page = PolicyPage(
            rules.rule(policy, triggers),
            origin(policy, detail),
            found.headers.get(hdrs.ETAG, ""),
            bool(detail.get("patch")),
            desk.may(call, "PATCH", ONE),
            given,
            problems,
            await _revisions(call, policy.id),
            desk.may(call, "POST", BACKTEST),
            preview,
        )
        return await desk.html(call, "policy.html", page, status=422 if problems else 200)

    async def edit(call: Call) -> web.Response:
        given = await desk.fields(call)
        policy = _policy(desk, call.path("id"))
        patch = patch_of(policy, given)
        try:
            if "preview" in given:
                return await show(call, given, (), await desk.ask(call, "POST", BACKTEST, body={"patch": patch}))
            if patch:
                body = {**patch, "reason": given.get("reason", "")}
                await desk.ask(call, "PATCH", ONE, body=body, said={hdrs.IF_MATCH: given.get("etag", "")})
        except Refused as refused:
            if refused.kind not in _RECOVERABLE:
                raise
            return await show(call, given, refused.errors or [{"path": "", "detail": refused.detail}])
        return desk.seen(call, policy.id)

    async def restore(call: Call) -> web.Response:
        await desk.fields(call)
        await desk.ask(call, "POST", RESTORE, body={"reason": "restored on the page"})
        return desk.seen(call, f"../{_policy(desk, call.path('id')).id}")

    async def rollback(call: Call) -> web.Response:
        given = await desk.fields(call)
        version = given.get("version", "")
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0
        await desk.ask(call, "POST", ROLLBACK, body={"version": number, "reason": "rolled back on the page"})
        return desk.seen(call, "../policies")

    async def _counts(call: Call) -> list[DailyCount]:
        return list(await served.store.daily(call.now - DAYS * 86400, call.now + 1, "UTC"))

    async def _listed(call: Call) -> Mapping[str, Json]:
        answer = await desk.ask(call, "GET", API, query={"limit": "1000"})
        return {item["id"]: item for item in answer["items"]}

    async def _revisions(call: Call, policy: str = "") -> Sequence[Json] | None:
        if not desk.may(call, "GET", HISTORY):
            return None
        only = {"policy": policy} if policy else {}
        items: Sequence[Json] = (await desk.ask(call, "GET", HISTORY, query={"limit": REVISIONS, **only}))["items"]
        return items

    return [
        desk.page("/policies", listing, "The policies."),
        desk.page("/policies/{id}", one, "One policy."),
        desk.form("/policies/rollback", rollback, "Roll all policies back."),
        desk.form("/policies/{id}", edit, "Edit a policy."),
        desk.form("/policies/{id}/restore", restore, "Restore a policy to its files."),
    ]


def _policy(desk: Desk, wanted: str) -> Policy:
    policy = desk.served.policies.get(wanted)
    if policy is None:
        hint = did_you_mean(wanted[:100], sorted(desk.served.policies))
        raise Refused("not-found", f"no policy has the id {shown(wanted)}{hint}")
    return policy


def origin(policy: Policy, listed: Json | None) -> str:
    """``built-in``, ``lag.yaml``, ``edited``: the topmost layer that gave something to it."""
    if listed is not None and "patch" in listed.get("layers", ()):
        return "edited at run time"
    path = PurePath(policy.source)
    return "built-in" if path.is_relative_to(BUILT_IN) else path.name


def patch_of(policy: Policy, given: Mapping[str, str]) -> dict[str, Any]:
    """The merge patch that a form asks for: only what differs from what it was shown."""
    patch: dict[str, Any] = {}
    params = {
        field.name: number_or_text(given[f"params.{field.name}"])
        for field in rules.rule(policy, 0).fields
        if given.get(f"params.{field.name}", field.raw) != field.raw
    }
    if params:
        patch["params"] = params
    if given.get("severity", policy.severity.value) != policy.severity.value:
        patch["severity"] = given["severity"]
    switch = _SWITCH.get(given.get("enabled", ""), policy.enabled)
    if switch != policy.enabled:
        patch["enabled"] = switch
    return patch


def number_or_text(text: str) -> float | str:
    """``30`` -> 30, ``0.5`` -> 0.5; anything else is a quantity (``100ms``), which the policy reads itself."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 and "." not in text else number
