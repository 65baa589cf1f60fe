"""``/api/v1/notifications``: what was sent, what is owed, what failed; test messages, and dead letters sent again."""

from __future__ import annotations

import structlog
from aiohttp import web
from pydantic import Field

from probed.api import schemas, shapes
from probed.api.answers import as_json
from probed.api.problems import Refused, shown
from probed.api.query import Choice, Word, cursor, limit, number
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.model import Event, EventState, Role
from probed.store import Change, Commit
from probed.store.notices import DeliveryQuery, Fate, Resend
from probed.strict_yaml import Strict, did_you_mean

_log = structlog.get_logger(__name__)

LIMIT = limit()
CURSOR = cursor("notifications", number)
RECEIVER = Word("receiver", "Only to this receiver, by its name.")
FATE = Choice("fate", "Only what came to this.", Fate)
EVENT = Word("event_id", "Only about the event with this id.")


class TestMessage(Strict):
    receiver: str = Field(description="Its name.", examples=["tickets"])


class Resending(Strict):
    receiver: str = Field(description="Its name.", examples=["tickets"])
    event_id: str | None = Field(default=None, max_length=64, description="Only of this event; without it, of all.")
    reason: str = Field(default="", max_length=500, description="Why, for the audit log.")


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
        backlog, dead = await served.store.backlog(), await served.store.dead_letters()
        more = CURSOR.at(str(found[limit - 1].id)) if len(found) > limit else None
        answer: schemas.Notifications = {
            "receivers": [
                shapes.receiver(state, backlog.get(state.name), dead.get(state.name, 0))
                for state in served.couriers.states
            ],
            "items": [shapes.delivery(one) for one in found[:limit]],
            "next_cursor": more,
        }
        return as_json(answer)

    def known(name: str) -> str:
        names = served.couriers.names
        if name not in names:
            hint = did_you_mean(name[:100], names) or "; none is configured (notifications in probed.yml)"
            raise Refused("not-found", f"no receiver is called {shown(name)}{hint}")
        return name

    async def test(call: Call) -> web.Response:
        name = known(call.body.receiver)
        tested = await served.couriers.test(name)
        after = {"delivered": tested.delivered, "answer": tested.answer}
        await served.store.append(Commit(audit=(call.audit("notifications.test", name, after=after),)))
        return as_json(shapes.tested(tested))

    async def resend(call: Call) -> web.Response:
        name, event_id, reason = known(call.body.receiver), call.body.event_id, call.body.reason
        if event_id is not None and await served.store.event(event_id) is None:
            raise Refused("not-found", f"no event has the id {shown(event_id)}; it may be older than the retention")
        found = await served.store.given_up(name, event_id)
        told = [event for event in found if _may_be_told(event, call.now)]
        answer: schemas.Resent = {"receiver": name, "owed": len(told), "held_back": len(found) - len(told)}
        if told:
            comment = f"to {name}: {reason}" if reason else f"to {name}"
            resends = tuple(Resend(event.id, name, call.now, call.who.name, comment) for event in told)
            after = {"owed": len(told), "event_id": event_id}
            record = call.audit("notifications.resend", name, reason=reason, after=after)
            await served.store.append(Commit(resends=resends, audit=(record,)))
            served.couriers.wake(name)
            _log.info("notifications.resent", receiver=name, notices=len(told), by=call.who.name, why=reason)
        return as_json(answer)

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
        Route(
            "POST", "/api/v1/notifications/resend", resend,
            "Owe a receiver its dead letters again: what was given up, each event once and as it is now.",
            needs=Role.OPERATOR, body=Resending, gives=schemas.Resent, refusals=("not-found",),
            otherwise="or run `probed notify resend NAME` on the daemon's machine",
        ),
    ]  # fmt: skip


def _may_be_told(event: Event, at: float) -> bool:
    """An end in any case; what is open, unless nobody is told of it at the time."""
    return event.state is not EventState.OPEN or Change(event, "opened", at).announced
