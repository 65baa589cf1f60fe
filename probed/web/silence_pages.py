"""Silences: what people do not want to be told of; adding and ending one by a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from msgspec import Struct, field

from probed.api.problems import Refused
from probed.api.query import Word
from probed.api.routing import Call, Route
from probed.web import forms
from probed.web.desk import Desk
from probed.web.forms import FINE, Wrong

API = "/api/v1/silences"
INSTANCE = Word("instance", "Fills the form in.")
EVENT = Word("event", "Fills the form in.")
NODE = Word("node", "Fills the form in.")
LISTS = ("instances", "nodes", "events", "severities")
FIELDS = (*LISTS, "duration", "comment")
"""Of the form, in its order."""


class SilencesPage(Struct, frozen=True):
    silences: Sequence[Mapping[str, Any]]
    may_add: bool
    instances: tuple[str, ...]
    events: tuple[tuple[str, str], ...]
    """(id, name)"""
    given: Mapping[str, str] = field(default_factory=dict)
    """What the form holds."""
    wrong: Wrong = FINE


def routes(desk: Desk) -> list[Route]:
    if not desk.has("GET", API):
        return []

    async def listing(call: Call) -> web.Response:
        named = {"instances": call.query[INSTANCE], "events": call.query[EVENT], "nodes": call.query[NODE]}
        return await show(call, {name: value for name, value in named.items() if value})

    async def show(call: Call, given: Mapping[str, str], wrong: Wrong = FINE) -> web.Response:
        answer = await desk.ask(call, "GET", API)
        policies = desk.served.policies.values()
        page = SilencesPage(
            answer["items"],
            desk.may(call, "POST", API),
            tuple(sorted(instance.name for instance in desk.served.settings.instances)),
            tuple(sorted(((policy.id, policy.name) for policy in policies), key=lambda one: one[1])),
            given,
            wrong,
        )
        return await desk.html(call, "silences.html", page, status=422 if wrong else 200)

    async def add(call: Call) -> web.Response:
        given = await desk.fields(call)
        body: dict[str, Any] = {name: [given[name]] for name in LISTS if given.get(name)}
        body |= {name: given[name] for name in ("comment", "duration", "starts_at") if given.get(name)}
        try:
            await desk.ask(call, "POST", API, body=body)
        except Refused as refused:
            return await show(call, given, forms.wrong(refused, FIELDS))
        return desk.seen(call, "silences")

    async def expire(call: Call) -> web.Response:
        await desk.fields(call)
        await desk.ask(call, "DELETE", f"{API}/{{id}}")
        return desk.seen(call, "../../silences")

    return [
        desk.page("/silences", listing, "Silences.", INSTANCE, EVENT, NODE),
        desk.form("/silences", add, "Add a silence."),
        desk.form("/silences/{id}/expire", expire, "End a silence."),
    ]
