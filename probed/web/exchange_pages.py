"""Policies from a document, and changes that the recording speaks for: both are looked at before they are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web
from msgspec import Struct

from probed.api.policy_exchange import YAML
from probed.api.problems import Refused
from probed.api.query import Field
from probed.api.routing import JSON, MAX_BODY, Call, Route
from probed.strict_yaml import MAX_BYTES
from probed.web import forms
from probed.web.desk import Desk
from probed.web.forms import FINE, Wrong
from probed.web.policy_pages import API, ONE

IMPORT, PROPOSALS = f"{API}/import", f"{API}/proposals"
PATH = "/policies/import"
FIELDS = ("file", "document", "reason")
"""Of the form, in its order."""
POLICY = Field("policy", "Only of this policy.")


class ImportPage(Struct, frozen=True):
    document: str = ""
    reason: str = ""
    wrong: Wrong = FINE
    looked: bool = False
    """Whether it is known what the document would change."""
    revision: Mapping[str, Any] | None = None
    """What it would change; ``None``: nothing."""


class Proposed(Struct, frozen=True):
    name: str
    item: Mapping[str, Any]
    patch: str
    """As the form of the policy takes it; empty when no value speaks for itself."""


class ProposalsPage(Struct, frozen=True):
    proposed: tuple[Proposed, ...]
    since: str
    until: str
    policy: str
    """The only one that was asked for; empty: all."""
    may_edit: bool


def routes(desk: Desk) -> list[Route]:
    async def form(call: Call) -> web.Response:
        return await desk.html(call, "import.html", ImportPage())

    async def import_(call: Call) -> web.Response:
        given = await desk.fields(call)
        document, reason = given.get("file") or given.get("document", ""), given.get("reason", "")
        apply = "apply" in given and not given.get("file")  # a file was not looked at yet
        query = {"dry_run": "false" if apply else "true", **({"reason": reason} if reason else {})}
        kind = JSON if document.lstrip()[:1] in ("{", "[") else YAML
        body = document.encode("utf-8", "surrogateescape")  # what is no text is for the API to refuse
        try:
            answer = await desk.ask(call, "POST", IMPORT, query=query, body=body, said={hdrs.CONTENT_TYPE: kind})
        except Refused as refused:
            page = ImportPage(document, reason, _wrong(refused))
            return await desk.html(call, "import.html", page, status=422)
        if apply:
            return desk.seen(call, "../policies")
        page = ImportPage(document, reason, looked=True, revision=answer["revision"])
        return await desk.html(call, "import.html", page)

    async def proposals(call: Call) -> web.Response:
        answer = await desk.ask(call, "GET", PROPOSALS)
        policies, only = desk.served.policies, call.query[POLICY] or ""
        page = ProposalsPage(
            tuple(
                Proposed(
                    policies[item["policy"]].name if item["policy"] in policies else item["policy"],
                    item,
                    json.dumps(item["patch"], separators=(",", ":")) if item["patch"] else "",
                )
                for item in answer["items"]
                if not only or item["policy"] == only
            ),
            answer["since"],
            answer["until"],
            only,
            desk.may(call, "PATCH", ONE),
        )
        return await desk.html(call, "proposals.html", page)

    needs = desk.needs("POST", IMPORT)
    return [
        desk.page(PATH, form, "Import policies.", needs=needs),
        desk.form(PATH, import_, "Look at, or apply, a document of policies.", needs, MAX_BYTES + MAX_BODY),
        # It replays all that was recorded: that takes as long as it takes.
        desk.page("/policies/proposals", proposals, "What the recording proposes.", POLICY, endless=True),
    ]


def _wrong(refused: Refused) -> Wrong:
    """Of a document each problem with its place in the text, which the form shows, also of a file."""
    if refused.kind == "bad-query":
        return forms.wrong(refused, FIELDS, otherwise="reason")
    placed = [{"path": "document", "detail": _placed(problem)} for problem in refused.errors]
    return forms.wrong(Refused(refused.kind, refused.detail, placed), FIELDS, otherwise="document")


def _placed(problem: Mapping[str, object]) -> str:
    line = problem.get("line")
    place = f"line {line}, column {problem['column']}" if line else ""
    return ": ".join(str(part) for part in (place, problem["path"], problem["detail"]) if part)
