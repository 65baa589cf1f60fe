"""``/api/v1/events``: the list, page by page or whole, one event, and triggers per day."""

from __future__ import annotations

import math
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from aiohttp import web
from msgspec.structs import replace

from probed.api import downloads, schemas, shapes
from probed.api.answers import as_json
from probed.api.guarding import within_time
from probed.api.problems import Refused, shown
from probed.api.query import SINCE, UNTIL, Choice, Flag, Time, Word, Zone, cursor, limit
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.model import EventState, Severity
from probed.store import EventQuery

LIMIT = limit()
CURSOR = cursor("events", str)
PASSAGES = cursor("leadership", lambda text: (_time(text), text.partition(" ")[2]))
GAPS = cursor("gaps", lambda text: (_time(text), _time(text.partition(" ")[2])))
INSTANCE = Word("instance", "Only of this instance.")
EVENT = Word("event", "Only of this type: the id of a policy.")
SEVERITY = Choice("severity", "Only of this severity.", Severity)
STATE = Choice("state", "Only in this state.", EventState)
SUPPRESSED = Flag("suppressed", "Only what is (true) or is not (false) the consequence of another.")
SILENCED = Flag("silenced", "Only what people were not (true) or were (false) told of, by reason of a silence.")
SILENCED_BY = Word("silenced_by", "Only what the silence of this id covered last.")
ACTIVE_SINCE = Time("active_since", "Only what was still open at this time, or began later.")
FILTERS = (INSTANCE, EVENT, SEVERITY, STATE, SUPPRESSED, SILENCED, SILENCED_BY, SINCE, UNTIL, ACTIVE_SINCE)
ZONE = Zone("tz", "In whose days to count: a time zone of the IANA database.")
DAYS = 30
"""How far ``daily`` looks back when it is not told: this many whole days of the zone, today included."""


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.StreamResponse:
        limit, wanted = call.query[LIMIT], asked(call)
        form = downloads.form_of(call)
        if form is not None:
            return await downloads.send(call, served.store, wanted, form)
        found = await within_time(served.store.events(replace(wanted, limit=limit + 1)))
        more = CURSOR.at(found[limit - 1].id) if len(found) > limit else None
        return as_json(shapes.page([shapes.event(event) for event in found[:limit]], more))

    async def daily(call: Call) -> web.Response:
        zone = call.query[ZONE]
        since, until = call.query[SINCE], call.query[UNTIL]
        # An event of this very moment, or of a clock that was set back since, belongs to today.
        end = _midnight(call.now, 1, zone) if until is None else until
        start = _midnight(end - 0.001, 1 - DAYS, zone) if since is None else since
        return as_json(shapes.daily(zone.key, await served.store.daily(start, end, zone.key)))

    async def one(call: Call) -> web.Response:
        wanted = call.path("id")
        detail = await served.store.event(wanted) if wanted.isprintable() else None
        if detail is None:
            raise Refused("not-found", f"no event has the id {shown(wanted)}; GET /api/v1/events lists them")
        return as_json(shapes.event_detail(detail))

    def span(call: Call) -> tuple[float, float]:
        """A span of time that ends now and begins ``DAYS`` ago, unless it is told otherwise."""
        since, until = call.query[SINCE], call.query[UNTIL]
        end = call.now + 1 if until is None else until
        return end - DAYS * 86400 if since is None else since, end

    async def leadership(call: Call) -> web.Response:
        limit, after = call.query[LIMIT], call.query[PASSAGES]
        found = await served.store.leadership(call.query[INSTANCE], *span(call), limit + 1, after)
        more = PASSAGES.at(f"{found[limit - 1].at!r} {found[limit - 1].instance}") if len(found) > limit else None
        return as_json(shapes.page([shapes.leadership(record) for record in found[:limit]], more))

    async def gaps(call: Call) -> web.Response:
        limit, after = call.query[LIMIT], call.query[GAPS]
        found = await served.store.gaps(*span(call), limit + 1, after)
        more = GAPS.at(f"{found[limit - 1].ended_at!r} {found[limit - 1].began_at!r}") if len(found) > limit else None
        return as_json(shapes.page([shapes.gap(record) for record in found[:limit]], more))

    return [
        Route(
            "GET", "/api/v1/leadership", leadership, "How the leadership went on, newest first.",
            takes=(LIMIT, PASSAGES, INSTANCE, SINCE, UNTIL), gives=schemas.Page[schemas.Leadership],
        ),
        Route(
            "GET", "/api/v1/gaps", gaps, "Times in which nobody looked, newest first.",
            takes=(LIMIT, GAPS, SINCE, UNTIL), gives=schemas.Page[schemas.Gap],
        ),
        Route(
            "GET", "/api/v1/events", listing,
            "Events, newest first: a page, or with format (or Accept: text/csv) all of them as a download.",
            takes=(LIMIT, CURSOR, *FILTERS, downloads.FORMAT),
            gives=schemas.Page[schemas.Event], also=("text/csv",), endless=True, headers=("Accept",),
            refusals=("too-many",),
        ),
        Route(
            "GET", "/api/v1/events/daily", daily, "Number of triggers per day, event and instance.",
            takes=(ZONE, SINCE, UNTIL), gives=schemas.Daily,
        ),
        Route(
            "GET", "/api/v1/events/{id}", one, "One event with its samples, evidence, consequences and history.",
            gives=schemas.EventDetail, refusals=("not-found",),
        ),
    ]  # fmt: skip


def asked(call: Call) -> EventQuery:
    """What ``FILTERS`` and ``CURSOR`` of a call let through."""
    query = call.query
    return EventQuery(
        instance=query[INSTANCE],
        event=query[EVENT],
        severity=query[SEVERITY],
        state=query[STATE],
        suppressed=query[SUPPRESSED],
        silenced=query[SILENCED],
        silenced_by=query[SILENCED_BY],
        since=query[SINCE],
        until=query[UNTIL],
        active_since=query[ACTIVE_SINCE],
        before_id=query[CURSOR],
    )


def _time(text: str) -> float:
    """The time with which a cursor's key begins. ValueError."""
    at = float(text.partition(" ")[0])
    if not math.isfinite(at):
        raise ValueError(text)
    return at


def _midnight(at: float, days: int, zone: ZoneInfo) -> float:
    """The midnight in ``zone`` with which a day begins: the day of ``at``, plus ``days``. All times in Unix seconds."""
    day = datetime.fromtimestamp(at, zone).date() + timedelta(days=days)
    return datetime.combine(day, time(), zone).timestamp()
