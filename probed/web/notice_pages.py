"""Notifications: what was sent to whom, what is owed, what failed."""

from __future__ import annotations

from aiohttp import web

from probed.api.query import Word
from probed.api.routing import Call, Route
from probed.web.desk import Desk

API = "/api/v1/notifications"
FATE = Word("fate", "Only what came to this.")
RECEIVER = Word("receiver", "Only to this receiver.")
CURSOR = Word("cursor", "Where the next page begins.")


def routes(desk: Desk) -> list[Route]:
    if not desk.has("GET", API):
        return []

    async def listing(call: Call) -> web.Response:
        answer = await desk.ask(call, "GET", API, query=dict(call.request.query))
        page = {**answer, "fate": call.query[FATE], "receiver": call.query[RECEIVER]}
        return await desk.html(call, "notifications.html", page)

    return [desk.page("/notifications", listing, "Notifications.", FATE, RECEIVER, CURSOR)]
