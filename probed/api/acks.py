"""``/api/v1/events/{id}/ack``: somebody takes an event on, or gives it back.

Any event can be taken on once, also one that is over: that it was seen is worth knowing of a night's failover, too.
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from pydantic import Field

from probed import incidents
from probed.api import schemas, shapes
from probed.api.answers import as_json
from probed.api.problems import Refused, shown
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.model import Event, Role
from probed.store import Change, Commit
from probed.strict_yaml import Strict

MAX_COMMENT = 1000


class Ack(Strict):
    comment: str = Field(default="", max_length=MAX_COMMENT, description="For the others: what is being done about it.")


def routes(served: Served) -> list[Route]:
    one_at_a_time = asyncio.Lock()

    async def ack(call: Call) -> web.Response:
        comment: str = call.body.comment.strip()
        async with one_at_a_time:
            event = await _event(served, call)
            if event.acked_by is not None:
                raise Refused("conflict", f"{event.acked_by} has acknowledged it already; DELETE takes that back first")
            after = incidents.acknowledge(event, call.who.name, call.now, comment)
            return await change(call, event, after, "acked", comment)

    async def unack(call: Call) -> web.Response:
        async with one_at_a_time:
            event = await _event(served, call)
            if event.acked_by is None:
                raise Refused("conflict", "nobody has acknowledged it")
            return await change(call, event, incidents.unacknowledge(event), "unacked", "")

    async def change(call: Call, before: Event, after: Event, kind: str, comment: str) -> web.Response:
        audit = call.audit(
            f"event.{kind.removesuffix('ed')}", after.id, reason=comment,
            before={"acked_by": before.acked_by}, after={"acked_by": after.acked_by},
        )  # fmt: skip
        # The caller may hang up; what was begun is brought to its end all the same.
        made = Change(after, kind, call.now, who=call.who.name, comment=comment)
        await asyncio.shield(served.pipeline.amend(made, audit))
        return as_json(shapes.event(after))

    path, refusals = "/api/v1/events/{id}/ack", ("not-found", "conflict")
    return [
        Route(
            "POST", path, ack, "Acknowledge an event, open or over; 409 when somebody has.",
            needs=Role.OPERATOR, body=Ack, gives=schemas.Event, refusals=refusals,
        ),
        Route(
            "DELETE", path, unack, "Take an acknowledgement back; 409 when there is none.",
            needs=Role.OPERATOR, gives=schemas.Event, refusals=refusals,
        ),
    ]  # fmt: skip


async def _event(served: Served, call: Call) -> Event:
    """The event as it stands. What can still change is held in memory; what cannot is read once all is written."""
    wanted = call.path("id")
    held = served.pipeline.held(wanted)
    if held is not None:
        return held
    await served.store.append(Commit())
    detail = await served.store.event(wanted) if wanted.isprintable() else None
    if detail is None:
        raise Refused("not-found", f"no event has the id {shown(wanted)}; GET /api/v1/events lists them")
    return detail.event
