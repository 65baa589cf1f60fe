"""``/api/v1/tokens``: what programs show to be let in."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from msgspec.structs import replace
from pydantic import Field, model_validator

from probed.access.tokens import SCOPES, mint
from probed.api import schemas, shapes
from probed.api.answers import as_json
from probed.api.doorkeeping import KnownPeople
from probed.api.problems import Refused, shown
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.config.values import Duration, Name
from probed.config.web import RoleWord
from probed.model import Role
from probed.store import Commit, TokenRecord
from probed.strict_yaml import Misplaced, Strict, did_you_mean

PATH = "/api/v1/tokens"


class NewToken(Strict):
    name: Name = Field(description="Who will use it; unique among the tokens that are live.")
    role: RoleWord = Field(description="viewer, operator or admin.")
    scopes: list[str] = Field(default=list(SCOPES), min_length=1, description="metrics (GET /metrics), api (the rest).")
    expires_in: Duration | None = Field(default=None, description="Such as 90d; without it, it lasts until revoked.")
    reason: str = Field(default="", max_length=500, description="Why, for the audit log.")

    @model_validator(mode="after")
    def _known_scopes(self) -> NewToken:
        wrong: list[tuple[tuple[str | int, ...], str]] = [
            (("scopes", index), f"expected {' or '.join(SCOPES)}, got {shown(scope)}")
            for index, scope in enumerate(self.scopes)
            if scope not in SCOPES
        ]
        if wrong:
            raise Misplaced(*wrong)
        return self


def routes(served: Served, people: KnownPeople) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        return as_json(shapes.page([shapes.token(record, call.now) for record in people.tokens], None))

    async def make(call: Call) -> web.Response:
        wanted: NewToken = call.body
        if people.tokens.named(wanted.name, call.now) is not None:
            detail = f"a live token has the name {shown(wanted.name)}; revoke it first, or choose another name"
            raise Refused("conflict", detail)
        token_id, text, digest = mint()
        expires_at = None if wanted.expires_in is None else call.now + wanted.expires_in
        scopes = tuple(scope for scope in SCOPES if scope in wanted.scopes)
        record = TokenRecord(token_id, wanted.name, wanted.role, scopes, digest, call.now, call.who.name, expires_at)
        told = call.audit("token.add", wanted.name, reason=wanted.reason, after=_plain(record))
        await served.store.append(Commit(tokens=(record,), audit=(told,)))
        people.tokens.put(record)
        body = {**shapes.token(record, call.now), "token": text}
        return as_json(body, status=201, headers={"Location": f"tokens/{token_id}"})

    async def revoke(call: Call) -> web.Response:
        wanted = call.path("name")
        record = people.tokens.named(wanted, call.now) or people.tokens.get(wanted)
        if record is None or record.revoked_at is not None:
            names = [each.name for each in people.tokens if each.live(call.now)]
            hint = did_you_mean(wanted[:100], names)
            raise Refused("not-found", f"no live token has the name or id {shown(wanted)}{hint}")
        gone = replace(record, revoked_at=call.now)
        people.revoke(gone)
        told = call.audit("token.revoke", record.name, before=_plain(record))
        await served.store.append(Commit(tokens=(gone,), audit=(told,)))
        return web.Response(status=204)

    return [
        Route("GET", PATH, listing, "All tokens, the revoked ones too.", needs=Role.ADMIN,
              gives=schemas.Page[schemas.Token]),
        Route("POST", PATH, make, "Make a token; it is shown this once.", needs=Role.ADMIN, body=NewToken,
              gives=schemas.NewToken, status=201, refusals=("conflict",)),
        Route("DELETE", PATH + "/{name}", revoke, "Revoke a token, by its name or id: from now on it opens nothing.",
              needs=Role.ADMIN, status=204, refusals=("not-found",)),
    ]  # fmt: skip


def _plain(record: TokenRecord) -> dict[str, Any]:
    """For the audit log: what it may, and no digest."""
    return {
        "id": record.id,
        "role": str(record.role),
        "scopes": list(record.scopes),
        "expires_at": shapes.instant(record.expires_at),
    }
