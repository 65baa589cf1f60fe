"""Notifications: what was sent to whom, what is owed, what failed; and a test message by a button."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from probed.api.query import Word
from probed.api.routing import Call, Route
from probed.web.desk import Desk

API = "/api/v1/notifications"
TEST = f"{API}/test"
FATE = Word("fate", "Only what came to this.")
RECEIVER = Word("receiver", "Only to this receiver.")
CURSOR = Word("cursor", "Where the next page begins.")


def routes(desk: Desk) -> list[Route]:
    if not desk.has("GET", API):
        return []

    async def listing(call: Call) -> web.Response:
        return await show(call, dict(call.request.query), call.query[FATE], call.query[RECEIVER])

    async def show(
        call: Call,
        query: Mapping[str, str],
        fate: str | None = None,
        receiver: str | None = None,
        tested: Mapping[str, Any] | None = None,
    ) -> web.Response:
        answer = await desk.ask(call, "GET", API, query=query)
        may_test = desk.may(call, "POST", TEST)
        page = {**answer, "fate": fate, "receiver": receiver, "may_test": may_test, "tested": tested}
        return await desk.html(call, "notifications.html", page)

    async def test(call: Call) -> web.Response:
        given = await desk.fields(call)
        tested = await desk.ask(call, "POST", TEST, body={"receiver": given.get("receiver", "")})
        return await show(call, {}, tested=tested)

    return [
        desk.page("/notifications", listing, "Notifications.", FATE, RECEIVER, CURSOR),
        desk.form("/notifications", test, "Send a test message to a receiver."),
    ]
