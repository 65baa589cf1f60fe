"""``/api/v1/audit``: who changed what."""

from __future__ import annotations

from aiohttp import web

from probed.api import schemas, shapes
from probed.api.answers import as_json
from probed.api.problems import Refused
from probed.api.query import cursor, limit
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.model import Role

LIMIT = limit()
CURSOR = cursor("audit")


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        limit, after = call.query[LIMIT], call.query[CURSOR]
        if after is not None and not (after.isascii() and after.isdigit() and len(after) < 19):
            raise Refused("bad-query", "cursor: expected the next_cursor of an earlier answer")
        found = await served.store.audit(None if after is None else int(after), limit + 1)
        more = CURSOR.at(str(found[limit - 1].seq)) if len(found) > limit else None
        return as_json(shapes.page([shapes.audit(record) for record in found[:limit]], more))

    return [
        Route(
            "GET", "/api/v1/audit", listing, "Who changed what, newest first.",
            needs=Role.ADMIN, takes=(LIMIT, CURSOR), gives=schemas.Page[schemas.Audit],
        ),
    ]  # fmt: skip
