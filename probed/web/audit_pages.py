"""The audit log: who changed what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from msgspec import Struct

from probed.api.audits import ACTION, SUBJECT, WHO
from probed.api.audits import PATH as API
from probed.api.query import SINCE, UNTIL, Field, Word
from probed.api.routing import Call, Route
from probed.web.desk import Desk

CURSOR = Word("cursor", "Where the next page begins.")
FILTERS = tuple(Field(each.name, each.says) for each in (WHO, ACTION, SUBJECT, SINCE, UNTIL))
NOUNS = ("policy", "shadow", "event", "silence", "token", "login", "inspection", "notifications", "daemon")
"""What the log's actions begin with, as links; another is typed."""


class AuditPage(Struct, frozen=True):
    records: Sequence[Mapping[str, Any]]
    next: str | None
    given: Mapping[str, str | None]
    """The filters as they stand in the address."""
    nouns: tuple[str, ...] = NOUNS

    @property
    def any_filter(self) -> bool:
        return any(self.given.values())


def routes(desk: Desk) -> list[Route]:
    if not desk.has("GET", API):
        return []

    async def listing(call: Call) -> web.Response:
        asked = {name: value for name, value in call.request.query.items() if value}
        answer = await desk.ask(call, "GET", API, query=asked)
        given = {each.name: call.query[each] for each in FILTERS}
        return await desk.html(call, "audit.html", AuditPage(answer["items"], answer["next_cursor"], given))

    return [desk.page("/audit", listing, "The audit log.", *FILTERS, CURSOR, needs=desk.needs("GET", API))]
