"""``/api/v1/policies``: the effective policies, read-only."""

from __future__ import annotations

from aiohttp import web

from probed.api import schemas, shapes
from probed.api.answers import as_json
from probed.api.problems import Refused, shown
from probed.api.query import cursor, limit
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.strict_yaml import did_you_mean

LIMIT = limit()
CURSOR = cursor("policies")


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        limit, after = call.query[LIMIT], call.query[CURSOR] or ""
        left = [policy for name, policy in sorted(served.policies.items()) if name > after]
        more = CURSOR.at(left[limit - 1].id) if len(left) > limit else None
        return as_json(shapes.page([shapes.policy(policy) for policy in left[:limit]], more))

    async def one(call: Call) -> web.Response:
        wanted = call.path("id")
        policy = served.policies.get(wanted)
        if policy is None:
            hint = did_you_mean(wanted[:100], sorted(served.policies))
            raise Refused("not-found", f"no policy has the id {shown(wanted)}{hint}")
        return as_json(shapes.policy(policy))

    listed = "The effective policies, by id."
    return [
        Route("GET", "/api/v1/policies", listing, listed, takes=(LIMIT, CURSOR), gives=schemas.Page[schemas.Policy]),
        Route("GET", "/api/v1/policies/{id}", one, "One policy.", gives=schemas.Policy, refusals=("not-found",)),
    ]
