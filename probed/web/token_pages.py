"""Tokens: what programs show to be let in; making one, which is shown once, and revoking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from msgspec import Struct, field

from probed.api.problems import Refused
from probed.api.routing import Call, Route
from probed.api.tokens import PATH as API
from probed.model import Role
from probed.web import forms
from probed.web.desk import Desk
from probed.web.forms import FINE, Wrong

PATH = "/tokens"
FIELDS = ("name", "role", "scopes", "expires_in", "reason")
"""Of the form, in its order."""
SCOPES = {"metrics": "metrics (GET /metrics)", "api": "the API (everything else)"}
"""Word of the API -> words."""


class TokensPage(Struct, frozen=True):
    tokens: Sequence[Mapping[str, Any]]
    given: Mapping[str, str] = field(default_factory=dict)
    """What the form holds."""
    scopes: tuple[str, ...] = tuple(SCOPES)
    """Those that are ticked."""
    wrong: Wrong = FINE
    made: Mapping[str, Any] | None = None
    """The token that was just made, with its text."""

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(role.value for role in Role)

    @property
    def all_scopes(self) -> Mapping[str, str]:
        return SCOPES


def routes(desk: Desk) -> list[Route]:
    if not desk.has("GET", API):
        return []

    async def listing(call: Call) -> web.Response:
        return await show(call)

    async def show(call: Call, status: int = 200, **more: Any) -> web.Response:
        answer = await desk.ask(call, "GET", API)
        newest = sorted(answer["items"], key=lambda item: (item["state"] == "live", item["created_at"]), reverse=True)
        return await desk.html(call, "tokens.html", TokensPage(newest, **more), status=status)

    async def make(call: Call) -> web.Response:
        said = await desk.answers(call)
        given, scopes = dict(said), tuple(value for name, value in said if name == "scopes")
        body: dict[str, Any] = {"name": given.get("name", ""), "role": given.get("role", ""), "scopes": list(scopes)}
        body |= {name: given[name] for name in ("expires_in", "reason") if given.get(name)}
        try:
            made = await desk.ask(call, "POST", API, body=body)
        except Refused as refused:
            wrong = forms.wrong(refused, FIELDS, otherwise="name")
            return await show(call, 422, given=given, scopes=scopes, wrong=wrong)
        return await show(call, 201, made=made)

    async def revoke(call: Call) -> web.Response:
        await desk.fields(call)
        await desk.ask(call, "DELETE", f"{API}/{{name}}")
        return desk.seen(call, "../../tokens")

    needs = desk.needs("GET", API)
    return [
        desk.page(PATH, listing, "Tokens.", needs=needs),
        desk.form(PATH, make, "Make a token.", needs),
        desk.form(f"{PATH}/{{name}}/revoke", revoke, "Revoke a token.", needs),
    ]
