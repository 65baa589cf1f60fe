"""``/api/v1/audit``: who changed what."""

from __future__ import annotations

from aiohttp import web

from probed.api import schemas, shapes
from probed.api.answers import as_json
from probed.api.query import SINCE, UNTIL, Word, cursor, limit, number
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.model import Role
from probed.store import AuditQuery

PATH = "/api/v1/audit"
LIMIT = limit()
CURSOR = cursor("audit", number)
WHO = Word("who", "Only what this user, token, certificate or local user did; as the log names it.")
ACTION = Word("action", "Only this, such as policy.edit; or a noun alone, such as policy, for all that is done to it.")
SUBJECT = Word("subject", "Only what was done to this: the id of a policy, an event, a silence; the name of a token …")
FILTERS = (WHO, ACTION, SUBJECT, SINCE, UNTIL)


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        limit = call.query[LIMIT]
        wanted = AuditQuery(
            who=call.query[WHO],
            action=call.query[ACTION],
            subject=call.query[SUBJECT],
            since=call.query[SINCE],
            until=call.query[UNTIL],
            limit=limit + 1,
            before_seq=call.query[CURSOR],
        )
        found = await served.store.audit(wanted)
        more = CURSOR.at(str(found[limit - 1].seq)) if len(found) > limit else None
        return as_json(shapes.page([shapes.audit(record) for record in found[:limit]], more))

    return [
        Route(
            "GET", PATH, listing, "Who changed what, newest first.",
            needs=Role.ADMIN, takes=(LIMIT, CURSOR, *FILTERS), gives=schemas.Page[schemas.Audit],
        ),
    ]  # fmt: skip
