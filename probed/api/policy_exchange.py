"""``/api/v1/policies/export`` and ``/import``: policies as one document, JSON or YAML."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from aiohttp import hdrs, web

from probed.api import policy_schemas as schemas
from probed.api import policy_shapes as shapes
from probed.api.answers import as_json
from probed.api.problems import Refused, shown
from probed.api.query import Choice, Flag, Word
from probed.api.revising import refusal, revised
from probed.api.routing import JSON, Call, Route
from probed.api.served import Served
from probed.api.shapes import instant
from probed.errors import ConfigError, Problem
from probed.model import Role
from probed.policy import exchange
from probed.policy.exchange import Form
from probed.policy.library import Library, Misfit
from probed.revisions import MergePatch, RevisionKind
from probed.strict_yaml import MAX_BYTES, Document

YAML = "application/yaml"
_FORMS: Mapping[str, Form] = {
    JSON: Form.JSON, YAML: Form.YAML, "application/x-yaml": Form.YAML, "text/yaml": Form.YAML,
}  # fmt: skip
MODIFIED = Flag("modified", "true: only what differs from the default; else every policy whole.")
FORMAT = Choice("format", "json or yaml; default: what Accept asks for, else json.", Form)
DRY_RUN = Flag("dry_run", "true: change nothing, tell what would be changed.")
REASON = Word("reason", "Why; kept in the history.")


def routes(served: Served) -> list[Route]:
    async def export(call: Call) -> web.Response:
        library, modified = served.editor.library, call.query[MODIFIED] or False
        answer: schemas.ExportedPolicies = {
            "format": exchange.FORMAT,
            "exported_at": instant(call.now),
            "observer": served.settings.observer,
            "version": library.version,
            "modified": modified,
            "policies": exchange.exported(library, modified=modified),
        }
        form = call.query[FORMAT] or _accepted(call.request.headers.get(hdrs.ACCEPT, ""))
        if form is Form.JSON:
            return as_json(answer, headers={hdrs.VARY: hdrs.ACCEPT})
        text = await served.editor.aside(partial(exchange.as_yaml, answer))
        return web.Response(text=text, content_type=YAML, charset="utf-8", headers={hdrs.VARY: hdrs.ACCEPT})

    async def read(request: web.Request) -> bytes:
        if request.content_type not in _FORMS:
            got = shown(request.headers.get(hdrs.CONTENT_TYPE, ""))
            raise Refused("unsupported-media-type", f"expected Content-Type: {JSON} or {YAML}, got {got}")
        return await request.read()

    async def import_(call: Call) -> web.Response:
        dry, form = call.query[DRY_RUN] or False, _FORMS[call.said.get(hdrs.CONTENT_TYPE) or call.request.content_type]
        try:
            document: Document = await served.editor.aside(partial(exchange.read, call.body, form))
        except ConfigError as error:
            raise refusal(error.problems, "bad-body") from None

        def wanted(library: Library) -> Mapping[str, MergePatch]:
            return exchange.imported(library, document)

        def explained(error: Misfit) -> list[Problem]:
            return exchange.misfits(document, error)

        reason = call.query[REASON] or ""
        revision = await revised(served, call, RevisionKind.IMPORT, wanted, reason=reason, dry=dry, explained=explained)
        answer: schemas.Revised = {"dry_run": dry, "revision": shapes.revision(revision) if revision else None}
        return as_json(answer)

    return [
        Route(
            "GET", "/api/v1/policies/export", export, "Policies as one document that import takes.",
            takes=(MODIFIED, FORMAT), gives=schemas.ExportedPolicies, also=(YAML,), headers=(hdrs.ACCEPT,),
        ),
        Route(
            "POST", "/api/v1/policies/import", import_,
            "Make the policies that a document names as it says, all or none; others are left alone.",
            needs=Role.ADMIN, takes=(DRY_RUN, REASON), body=exchange.Exported, bodies=(JSON, YAML), reads=read,
            largest=MAX_BYTES, gives=schemas.Revised, refusals=("refused-by-rule",),
        ),
    ]  # fmt: skip


def _accepted(accept: str) -> Form:
    """YAML for who names it, and not JSON before it."""
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in _FORMS:
            return _FORMS[kind]
    return Form.JSON
