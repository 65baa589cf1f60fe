"""Pages about what is detected: the policies, one policy; by forms edits, shadows, restoring and rolling back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from aiohttp import hdrs, web
from msgspec import Struct

from probed.api.problems import Refused, shown
from probed.api.query import Field
from probed.api.routing import Call, Route
from probed.model import Policy
from probed.policy.layers import BUILT_IN
from probed.store import DailyCount
from probed.strict_yaml import did_you_mean
from probed.web import forms, rules
from probed.web.desk import Desk
from probed.web.forms import FINE, Wrong
from probed.web.policy_forms import ALSO, as_patch, fields_of, filled_in, patch_of
from probed.web.rules import Rule

API = "/api/v1/policies"
ONE = f"{API}/{{id}}"
HISTORY, ROLLBACK, RESTORE = f"{API}/history", f"{API}/rollback", f"{ONE}/restore"
BACKTEST = f"{ONE}/backtest"
DAYS = 30
REVISIONS = SHADOWED = "20"
SHADOW = f"{ONE}/shadow"
PATCH = Field("patch", "A change to fill the form in with: a JSON merge patch, as a proposal gives it.")

Json = Mapping[str, Any]


class PoliciesPage(Struct, frozen=True):
    groups: Mapping[str, list[Rule]]
    origins: Mapping[str, str]
    exports: bool
    may_import: bool
    revisions: Sequence[Json] | None
    may_rollback: bool
    across: bool = True
    """Whether the history is of all policies."""


class PolicyPage(Struct, frozen=True):
    rule: Rule
    origin: str
    etag: str
    patched: bool
    """Whether anything was changed at run time."""
    may_edit: bool
    given: Mapping[str, str]
    """What the form holds, when it was refused."""
    wrong: Wrong
    revisions: Sequence[Json] | None
    may_preview: bool
    preview: Json | None
    """What the change in the form would have changed, by recorded samples."""
    may_shadow: bool
    shadow: Json | None
    """The changed version that runs beside it, and the newest of what that would have told."""
    may_rollback: bool = False
    across: bool = False

    @property
    def also(self) -> Json:
        """What of a proposed change has no field."""
        text = self.given.get(ALSO)
        return as_patch(text) if text else {}


def routes(desk: Desk) -> list[Route]:
    served = desk.served

    async def listing(call: Call) -> web.Response:
        groups = rules.table(served.policies, await _counts(call))
        listed = await _listed(call)
        page = PoliciesPage(
            groups,
            {policy.id: origin(policy, listed.get(policy.id)) for policy in served.policies.values()},
            desk.may(call, "GET", f"{API}/export"),
            desk.may(call, "POST", f"{API}/import"),
            await _revisions(call),
            desk.may(call, "POST", ROLLBACK),
        )
        return await desk.html(call, "policies.html", page)

    async def one(call: Call) -> web.Response:
        proposed = call.query[PATCH]
        given = filled_in(_policy(desk, call.path("id")), as_patch(proposed)) if proposed else {}
        return await show(call, given)

    async def show(
        call: Call,
        given: Mapping[str, str],
        wrong: Wrong = FINE,
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
            wrong,
            await _revisions(call, policy.id),
            desk.may(call, "POST", BACKTEST),
            preview,
            desk.may(call, "PUT", SHADOW),
            await _shadow(call, policy.id),
        )
        return await desk.html(call, "policy.html", page, status=422 if wrong else 200)

    async def edit(call: Call) -> web.Response:
        given = await desk.fields(call)
        policy = _policy(desk, call.path("id"))
        patch = patch_of(policy, given)
        try:
            if "preview" in given:
                preview = await desk.ask(call, "POST", BACKTEST, body={"patch": patch})
                return await show(call, given, preview=preview)
            if "shadow" in given:
                if not patch:
                    raise Refused("invalid", "nothing differs from the policy as it is: change a field first")
                await desk.ask(call, "PUT", SHADOW, body={"patch": patch, "reason": given.get("reason", "")})
            elif patch:
                body = {**patch, "reason": given.get("reason", "")}
                await desk.ask(call, "PATCH", ONE, body=body, said={hdrs.IF_MATCH: given.get("etag", "")})
        except Refused as refused:
            return await show(call, given, forms.wrong(refused, fields_of(policy)))
        return desk.seen(call, policy.id)

    async def restore(call: Call) -> web.Response:
        await desk.fields(call)
        await desk.ask(call, "POST", RESTORE, body={"reason": "restored on the page"})
        return desk.seen(call, f"../{_policy(desk, call.path('id')).id}")

    async def end_shadow(call: Call) -> web.Response:
        await desk.fields(call)
        await desk.ask(call, "DELETE", SHADOW)
        return desk.seen(call, f"../../{call.path('id')}")

    async def promote(call: Call) -> web.Response:
        await desk.fields(call)
        await desk.ask(call, "POST", f"{SHADOW}/promote")
        return desk.seen(call, f"../../{call.path('id')}")

    async def rollback(call: Call) -> web.Response:
        given = await desk.fields(call)
        version = given.get("version", "")
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0
        await desk.ask(call, "POST", ROLLBACK, body={"version": number, "reason": "rolled back on the page"})
        return desk.seen(call, "../policies")

    async def _shadow(call: Call, policy: str) -> Json | None:
        if policy not in served.shadowing.shadows or not desk.may(call, "GET", SHADOW):
            return None
        found: Json = await desk.ask(call, "GET", SHADOW, query={"limit": SHADOWED})
        return found

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
        desk.page("/policies/{id}", one, "One policy.", PATCH),
        desk.form("/policies/rollback", rollback, "Roll all policies back."),
        desk.form("/policies/{id}", edit, "Edit a policy."),
        desk.form("/policies/{id}/restore", restore, "Restore a policy to its files."),
        desk.form("/policies/{id}/shadow/end", end_shadow, "End the shadow of a policy."),
        desk.form("/policies/{id}/shadow/promote", promote, "Make the shadow's change an edit of the policy."),
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
