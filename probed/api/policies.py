"""``/api/v1/policies``: the effective policies, read-only."""

from __future__ import annotations

from aiohttp import web

from probed.api import shapes
from probed.api.answers import as_json
from probed.api.problems import Refused, shown
from probed.api.query import Query, cursor_of
from probed.api.served import Served
from probed.strict_yaml import did_you_mean

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000


def routes(served: Served) -> list[web.RouteDef]:
    async def listing(request: web.Request) -> web.Response:
        query = Query(request, served.clock.wall())
        limit = query.whole("limit", 1, MAX_LIMIT, DEFAULT_LIMIT)
        after = query.cursor("cursor", "policies") or ""
        query.finish()
        left = [policy for name, policy in sorted(served.policies.items()) if name > after]
        more = cursor_of("policies", left[limit - 1].id) if len(left) > limit else None
        return as_json(shapes.page([shapes.policy(policy) for policy in left[:limit]], more))

    async def one(request: web.Request) -> web.Response:
        Query(request, served.clock.wall()).finish()
        wanted = request.match_info["id"]
        policy = served.policies.get(wanted)
        if policy is None:
            hint = did_you_mean(wanted[:100], sorted(served.policies))
            raise Refused("not-found", f"no policy has the id {shown(wanted)}{hint}")
        return as_json(shapes.policy(policy))

    return [web.get("/api/v1/policies", listing), web.get("/api/v1/policies/{id}", one)]
