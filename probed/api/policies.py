"""``/api/v1/policies``: the effective policies with where each value comes from, and edits of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from aiohttp import hdrs, web
from pydantic import AfterValidator, ConfigDict, Field

from probed.api import policy_schemas as schemas
from probed.api import policy_shapes as shapes
from probed.api.answers import as_json
from probed.api.problems import Refused, shown
from probed.api.query import cursor, limit
from probed.api.revising import revised
from probed.api.routing import JSON, MERGE_PATCH, Call, Route
from probed.api.served import Served
from probed.model import Role
from probed.policy.library import Library
from probed.revisions import MergePatch, RevisionKind
from probed.strict_yaml import Strict, did_you_mean

LIMIT = limit()
CURSOR = cursor("policies", str)
MAX_REASON = 500


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected one line of printable characters")
    return text


Reason = Annotated[str, AfterValidator(_printable), Field(max_length=MAX_REASON, description="Kept in the history.")]


class PolicyEdit(Strict):
    """A JSON merge patch (RFC 7396) of the policy's own keys, and why."""

    model_config = ConfigDict(defer_build=True, extra="allow", strict=True, frozen=True)
    reason: Reason = ""


class Restoring(Strict):
    key: str | None = Field(
        default=None, min_length=1, description="Path of one value, such as params.failure_count; default: all."
    )
    reason: Reason = ""


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        library = served.editor.library
        limit, after = call.query[LIMIT], call.query[CURSOR] or ""
        left = [name for name in sorted(library.policies) if name > after]
        answer: schemas.Policies = {
            "items": [shapes.listed(library, name) for name in left[:limit]],
            "next_cursor": CURSOR.at(left[limit - 1]) if len(left) > limit else None,
            "version": library.version,
            "strangers": shapes.strangers(library),
        }
        return as_json(answer)

    async def one(call: Call) -> web.Response:
        library = served.editor.library
        detail = shapes.detail(library, known(library, call))
        return as_json(detail, headers={hdrs.ETAG: shapes.etag(detail)})

    async def edit(call: Call) -> web.Response:
        patch = dict(call.body.model_extra or {})
        kind = _kind(patch)

        def wanted(library: Library, name: str) -> MergePatch:
            return library.edited(name, patch)

        return await change(call, kind, wanted, must_match=True)

    async def restore(call: Call) -> web.Response:
        key = call.body.key or ""

        def wanted(library: Library, name: str) -> MergePatch:
            if key and not any(path == key or path.startswith(f"{key}.") for path in library.origins(name)):
                hint = did_you_mean(key[:100], sorted(library.origins(name)))
                raise Refused(
                    "invalid",
                    f"key: {name} has no value {shown(key)}{hint}",
                    [{"path": "key", "detail": f"no value {shown(key)}{hint}"}],
                )
            return library.restored(name, key)

        return await change(call, RevisionKind.RESTORE, wanted, must_match=False)

    async def change(call: Call, kind: RevisionKind, wanted: Any, *, must_match: bool) -> web.Response:
        name = known(served.editor.library, call)

        def checked(library: Library) -> Mapping[str, MergePatch]:
            _match(call, library, known(library, call), must_match)
            return {name: wanted(library, name)}

        revision = await revised(served, call, kind, checked, reason=call.body.reason)
        detail = shapes.detail(served.editor.library, name)
        answer: schemas.EditedPolicy = {**detail, "revision": shapes.revision(revision) if revision else None}
        return as_json(answer, headers={hdrs.ETAG: shapes.etag(detail)})

    path = "/api/v1/policies/{id}"
    return [
        Route(
            "GET", "/api/v1/policies", listing, "The effective policies, by id.",
            takes=(LIMIT, CURSOR), gives=schemas.Policies,
        ),
        Route(
            "GET", path, one, "One policy; its ETag is for an edit. origin tells where each value comes from.",
            gives=schemas.PolicyDetail, refusals=("not-found",),
        ),
        Route(
            "PATCH", path, edit, "Change keys of a policy, from the next sample on; open events stay.",
            needs=Role.OPERATOR, body=PolicyEdit, bodies=(MERGE_PATCH, JSON), gives=schemas.EditedPolicy,
            headers=(hdrs.IF_MATCH,), refusals=("not-found", "precondition-required", "stale", "invalid"),
        ),
        Route(
            "POST", f"{path}/restore", restore, "Take back what was changed at run time: a value, or all of a policy.",
            needs=Role.OPERATOR, body=Restoring, gives=schemas.EditedPolicy, headers=(hdrs.IF_MATCH,),
            refusals=("not-found", "stale", "invalid"),
        ),
    ]  # fmt: skip


def known(library: Library, call: Call) -> str:
    """The policy's id in the path; refused when there is none."""
    wanted = call.path("id")
    if wanted not in library.policies:
        hint = did_you_mean(wanted[:100], sorted(library.policies))
        raise Refused("not-found", f"no policy has the id {shown(wanted)}{hint}")
    return wanted


def _match(call: Call, library: Library, name: str, must_match: bool) -> None:
    """Two people who edit at once: the second is told, and does not take back what the first did unawares."""
    given = call.header(hdrs.IF_MATCH)
    if given is None:
        if must_match:
            remedy = f"send If-Match with the ETag of GET /api/v1/policies/{name}"
            raise Refused("precondition-required", f"which state of the policy do you change? {remedy}")
        return
    now = shapes.etag(shapes.detail(library, name))
    if given.strip() != "*" and now not in [tag.strip() for tag in given.split(",")]:
        version = library.policies[name].version
        detail = f"{name} was changed meanwhile and is at version {version}; read it again, then change it"
        raise Refused("stale", detail, headers={hdrs.ETAG: now})


def _kind(patch: Mapping[str, Any]) -> RevisionKind:
    if patch == {"enabled": True}:
        return RevisionKind.ENABLE
    return RevisionKind.DISABLE if patch == {"enabled": False} else RevisionKind.EDIT
