"""``/api/v1/policies/history`` and ``/rollback``: what was changed of policies, and how all of it is taken back."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from pydantic import Field

from probed.api import policy_schemas as schemas
from probed.api import policy_shapes as shapes
from probed.api.answers import as_json
from probed.api.policies import Reason
from probed.api.problems import Refused
from probed.api.query import Word, cursor, limit, number
from probed.api.revising import revised
from probed.api.routing import Call, Route
from probed.api.schemas import Page
from probed.api.served import Served
from probed.api.shapes import page
from probed.errors import Problem
from probed.model import Role
from probed.policy.library import Library, Misfit
from probed.revisions import FILES, MergePatch, Patch, RevisionKind
from probed.strict_yaml import Strict

LIMIT = limit()
CURSOR = cursor("policy-history", number)
POLICY = Word("policy", "Only what touched this policy.")


class Rollback(Strict):
    version: int = Field(ge=FILES, description="All policies become as they were then; 1: as the files say.")
    reason: Reason = ""


def routes(served: Served) -> list[Route]:
    async def history(call: Call) -> web.Response:
        limit = call.query[LIMIT]
        found = await served.store.revisions(call.query[POLICY], call.query[CURSOR], limit + 1)
        more = CURSOR.at(str(found[limit - 1].version)) if len(found) > limit else None
        return as_json(page([shapes.revision(made) for made in found[:limit]], more))

    async def rollback(call: Call) -> web.Response:
        version, now = call.body.version, served.editor.library.version
        if version > now:
            detail = f"expected a version from {FILES} to {now}, got {version}"
            raise Refused("invalid", f"version: {detail}", [{"path": "version", "detail": detail}])
        then = await served.store.patches_at(version)

        def wanted(library: Library) -> Mapping[str, MergePatch]:
            return _as_then(library, then)

        revision = await revised(
            served, call, RevisionKind.ROLLBACK, wanted, reason=call.body.reason, explained=_with_names
        )
        answer: schemas.Revised = {"dry_run": False, "revision": shapes.revision(revision) if revision else None}
        return as_json(answer)

    return [
        Route(
            "GET", "/api/v1/policies/history", history, "What was changed of policies at run time, newest first.",
            takes=(LIMIT, CURSOR, POLICY), gives=Page[schemas.Revision],
        ),
        Route(
            "POST", "/api/v1/policies/rollback", rollback,
            "Make all policies as they were at a version; a revision like any other.",
            needs=Role.OPERATOR, body=Rollback, gives=schemas.Revised, refusals=("refused-by-rule",),
        ),
    ]  # fmt: skip


def _as_then(library: Library, then: Mapping[str, Patch]) -> Mapping[str, MergePatch]:
    names = sorted(library.patches.keys() | then.keys())
    return {name: then[name].values if name in then else {} for name in names}


def _with_names(error: Misfit) -> list[Problem]:
    """The problems with the policy's id before each path."""
    return [
        Problem(problem.where, problem.message, path=f"{name}.{problem.path}".rstrip("."))
        for name, found in error.by_policy.items()
        for problem in found
    ]
