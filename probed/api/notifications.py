"""``/api/v1/notifications``: what was sent, what is owed, what failed; and test messages."""

from __future__ import annotations

from aiohttp import web
from pydantic import Field

from probed.api import schemas, shapes
from probed.api.answers import as_json
from probed.api.problems import Refused, shown
from probed.api.query import Choice, Word, cursor, limit, number
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.model import Role
from probed.store import Commit
from probed.store.notices import DeliveryQuery, Fate
from probed.strict_yaml import Strict, did_you_mean

LIMIT = limit()
CURSOR = cursor("notifications", number)
RECEIVER = Word("receiver", "Only to this receiver, by its name.")
FATE = Choice("fate", "Only what came to this.", Fate)
EVENT = Word("event_id", "Only about the event with this id.")


class TestMessage(Strict):
    receiver: str = Field(description="Its name.")


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        limit = call.query[LIMIT]
        wanted = DeliveryQuery(
            receiver=call.query[RECEIVER],
            fate=call.query[FATE],
            event_id=call.query[EVENT],
            limit=limit + 1,
            before_id=call.query[CURSOR],
        )
        found = await served.store.deliveries(wanted)
        backlog = await served.store.backlog()
        more = CURSOR.at(str(found[limit - 1].id)) if len(found) > limit else None
        answer: schemas.Notifications = {
            "receivers": [shapes.receiver(state, backlog.get(state.name)) for state in served.couriers.states],
            "items": [shapes.delivery(one) for one in found[:limit]],
            "next_cursor": more,
        }
        return as_json(answer)

    async def test(call: Call) -> web.Response:
        name = call.body.receiver
        known = [state.name for state in served.couriers.states]
        if name not in known:
            hint = did_you_mean(name[:100], known) or "; none is configured (notifications in probed.yml)"
            raise Refused("not-found", f"no receiver is called {shown(name)}{hint}")
        tested = await served.couriers.test(name)
        after = {"delivered": tested.delivered, "answer": tested.answer}
        await served.store.append(Commit(audit=(call.audit("notifications.test", name, after=after),)))
        return as_json(shapes.tested(tested))

    return [
        Route(
            "GET", "/api/v1/notifications", listing,
            "Receivers and how they fare; what was sent, is owed, or was given up, newest first.",
            takes=(LIMIT, CURSOR, RECEIVER, FATE, EVENT), gives=schemas.Notifications,
        ),
        Route(
            "POST", "/api/v1/notifications/test", test,
            "Send a test message to one receiver now, past its queue; the answer says whether it took it.",
            needs=Role.OPERATOR, body=TestMessage, gives=schemas.Tested, refusals=("not-found",),
            otherwise="or run `probed notify test NAME` on the daemon's machine",
        ),
    ]  # fmt: skip
