"""``/api/v1/policies/{id}/shadow``: a changed version of a policy that runs beside it and tells nobody."""

from __future__ import annotations

from typing import Any

import structlog
from aiohttp import web
from pydantic import Field

from probed.api import backtest_schemas as schemas
from probed.api import backtest_shapes as shapes
from probed.api import policy_schemas, policy_shapes
from probed.api.answers import as_json
from probed.api.backtests import tried
from probed.api.policies import Reason, known
from probed.api.problems import Refused
from probed.api.query import cursor, limit
from probed.api.revising import revised
from probed.api.routing import Call, Route
from probed.api.schemas import Page
from probed.api.served import Served
from probed.api.shapes import page
from probed.model import Role
from probed.policy.library import Library
from probed.revisions import RevisionKind
from probed.shadows import Shadow, ShadowChanges
from probed.store import Commit, EventQuery
from probed.strict_yaml import Strict

_log = structlog.get_logger(__name__)


def _key(cursor: str) -> tuple[float, str]:
    """(opened_at, target) after which a page begins."""
    opened_at, _, target = cursor.partition(" ")
    return float(opened_at), target


PATH = "/api/v1/policies/{id}/shadow"
LIMIT = limit()
CURSOR = cursor("shadow", _key)
MAX_COUNTED = 10_000
"""Events of the live policy that are counted beside its shadow's."""


class Laying(Strict):
    patch: dict[str, Any] = Field(min_length=1, description="A JSON merge patch, as for an edit of the policy.")
    reason: Reason = ""


class Promoting(Strict):
    reason: Reason = ""


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        found = [shapes.shadow(served.shadowing, shadow) for _, shadow in sorted(served.shadowing.shadows.items())]
        return as_json(page(found, None))

    async def one(call: Call) -> web.Response:
        shadow, limit, after = _shadow(call), call.query[LIMIT], call.query[CURSOR]
        events = await served.store.shadow_events(shadow.policy, after, limit + 1)
        more = CURSOR.at(f"{events[limit - 1].opened_at!r} {events[limit - 1].target}") if len(events) > limit else None
        live = await served.store.events(EventQuery(event=shadow.policy, since=shadow.created_at, limit=MAX_COUNTED))
        answer: schemas.ShadowDetail = {
            **shapes.shadow(served.shadowing, shadow),
            "items": [shapes.shadow_event(event) for event in events[:limit]],
            "next_cursor": more,
            "live_events": len(live),
            "live_suppressed": sum(event.suppressed for event in live),
        }
        return as_json(answer)

    async def lay(call: Call) -> web.Response:
        policy_id, body = known(served.editor.library, call), call.body
        policy = await tried(served, policy_id, body.patch)
        shadow = Shadow(policy_id, body.patch, call.now, call.who.name, body.reason)
        before = served.shadowing.shadows.get(policy_id)
        record = call.audit(
            "shadow.lay", policy_id, reason=body.reason, before=before and dict(before.patch), after=body.patch
        )
        await served.store.append(Commit(shadows=ShadowChanges(laid=(shadow,)), audit=(record,)))
        served.shadowing.lay(shadow, policy)
        _log.info("shadow.laid", policy=policy_id, by=shadow.author, patch=body.patch)
        return as_json(shapes.shadow(served.shadowing, shadow))

    async def remove(call: Call) -> web.Response:
        shadow = _shadow(call)
        gone = shapes.shadow(served.shadowing, shadow)
        await _take_away(call, shadow, "shadow.remove")
        return as_json(gone)

    async def promote(call: Call) -> web.Response:
        shadow = _shadow(call)

        def wanted(library: Library) -> dict[str, Any]:
            return {shadow.policy: library.edited(shadow.policy, shadow.patch)}

        reason = call.body.reason or shadow.reason or "promoted from its shadow"
        revision = await revised(served, call, RevisionKind.EDIT, wanted, reason=reason)
        await _take_away(call, shadow, "shadow.promote")
        detail = policy_shapes.detail(served.editor.library, shadow.policy)
        answer: policy_schemas.EditedPolicy = {
            **detail,
            "revision": policy_shapes.revision(revision) if revision else None,
        }
        return as_json(answer)

    async def _take_away(call: Call, shadow: Shadow, action: str) -> None:
        record = call.audit(action, shadow.policy, before=dict(shadow.patch))
        await served.store.append(Commit(shadows=ShadowChanges(removed=(shadow.policy,)), audit=(record,)))
        served.shadowing.remove(shadow.policy)
        _log.info(f"{action}d", policy=shadow.policy, by=call.who.name)

    def _shadow(call: Call) -> Shadow:
        policy_id = known(served.editor.library, call)
        shadow = served.shadowing.shadows.get(policy_id)
        if shadow is None:
            raise Refused("not-found", f"{policy_id} has no shadow; PUT one, or GET /api/v1/policies/shadows for all")
        return shadow

    return [
        Route(
            "GET", "/api/v1/policies/shadows", listing, "Every shadow: a changed version beside a policy, silent.",
            gives=Page[schemas.Shadow],
        ),
        Route(
            "GET", PATH, one, "The shadow of a policy, and what it would have told, newest first.",
            takes=(LIMIT, CURSOR), gives=schemas.ShadowDetail, refusals=("not-found",),
        ),
        Route(
            "PUT", PATH, lay, "Run a changed version of a policy beside it from now on, in place of an older one.",
            needs=Role.OPERATOR, body=Laying, gives=schemas.Shadow, refusals=("not-found", "refused-by-rule"),
        ),
        Route(
            "DELETE", PATH, remove, "End a shadow; what it would have told goes too.",
            needs=Role.OPERATOR, gives=schemas.Shadow, refusals=("not-found",),
        ),
        Route(
            "POST", f"{PATH}/promote", promote, "Make the shadow's change an ordinary edit of the policy, and end it.",
            needs=Role.OPERATOR, body=Promoting, gives=policy_schemas.EditedPolicy,
            refusals=("not-found", "refused-by-rule"),
        ),
    ]  # fmt: skip
