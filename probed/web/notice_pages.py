"""Notifications: what was sent to whom, what is owed, what failed; test messages and dead letters by buttons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from probed.api.query import Word
from probed.api.routing import Call, Route
from probed.web.desk import Desk

API = "/api/v1/notifications"
TEST, RESEND = f"{API}/test", f"{API}/resend"
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
        resent: Mapping[str, Any] | None = None,
    ) -> web.Response:
        answer = await desk.ask(call, "GET", API, query=query)
        page = {
            **answer,
            "fate": fate,
            "receiver": receiver,
            "may_test": desk.may(call, "POST", TEST),
            "may_resend": desk.may(call, "POST", RESEND),
            "known": {one["name"] for one in answer["receivers"]},
            "tested": tested,
            "resent": resent,
        }
        return await desk.html(call, "notifications.html", page)

    async def send(call: Call) -> web.Response:
        given = await desk.fields(call)
        body = {"receiver": given.get("receiver", "")}
        if "resend" not in given:
            return await show(call, {}, tested=await desk.ask(call, "POST", TEST, body=body))
        body |= {name: given[name] for name in ("event_id",) if given.get(name)}
        return await show(call, {}, resent=await desk.ask(call, "POST", RESEND, body=body))

    return [
        desk.page("/notifications", listing, "Notifications.", FATE, RECEIVER, CURSOR),
        desk.form("/notifications", send, "Send a receiver a test message, or its dead letters again."),
    ]
