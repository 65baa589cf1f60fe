"""``/api/v1/events``: the list, one event, and triggers per day."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from aiohttp import web

from probed.api import shapes
from probed.api.answers import as_json
from probed.api.problems import Refused, shown
from probed.api.query import Query, cursor_of
from probed.api.served import Served
from probed.model import EventState, Severity
from probed.store import EventQuery

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
DAYS = 30
"""How far ``daily`` looks back when it is not told: this many whole days of the zone, today included."""


def routes(served: Served) -> list[web.RouteDef]:
    async def listing(request: web.Request) -> web.Response:
        query = Query(request, served.clock.wall())
        limit = query.whole("limit", 1, MAX_LIMIT, DEFAULT_LIMIT)
        wanted = EventQuery(
            instance=query.word("instance"),
            event=query.word("event"),
            severity=query.choice("severity", Severity),
            state=query.choice("state", EventState),
            suppressed=query.flag("suppressed"),
            since=query.time("since"),
            until=query.time("until"),
            limit=limit + 1,
            before_id=query.cursor("cursor", "events"),
        )
        query.span(wanted.since, wanted.until)
        query.finish()
        found = await served.store.events(wanted)
        more = cursor_of("events", found[limit - 1].id) if len(found) > limit else None
        return as_json(shapes.page([shapes.event(event) for event in found[:limit]], more))

    async def daily(request: web.Request) -> web.Response:
        query = Query(request, served.clock.wall())
        zone = query.zone("tz")
        since, until = query.time("since"), query.time("until")
        query.span(since, until)
        query.finish()
        # An event of this very moment, or of a clock that was set back since, belongs to today.
        end = _midnight(served.clock.wall(), 1, zone) if until is None else until
        start = _midnight(end - 0.001, 1 - DAYS, zone) if since is None else since
        return as_json(shapes.daily(zone.key, await served.store.daily(start, end, zone.key)))

    async def one(request: web.Request) -> web.Response:
        Query(request, served.clock.wall()).finish()
        wanted = request.match_info["id"]
        detail = await served.store.event(wanted) if wanted.isprintable() else None
        if detail is None:
            raise Refused("not-found", f"no event has the id {shown(wanted)}; GET /api/v1/events lists them")
        return as_json(shapes.event_detail(detail))

    def span(request: web.Request) -> tuple[Query, float, float]:
        """A span of time that ends now and begins ``DAYS`` ago, unless it is told otherwise."""
        query = Query(request, served.clock.wall())
        since, until = query.time("since"), query.time("until")
        query.span(since, until)
        end = served.clock.wall() + 1 if until is None else until
        return query, end - DAYS * 86400 if since is None else since, end

    async def leadership(request: web.Request) -> web.Response:
        query, since, until = span(request)
        instance = query.word("instance")
        query.finish()
        records = await served.store.leadership(instance, since, until)
        return as_json(shapes.page([shapes.leadership(record) for record in records], None))

    async def gaps(request: web.Request) -> web.Response:
        query, since, until = span(request)
        query.finish()
        records = await served.store.gaps(since, until)
        return as_json(shapes.page([shapes.gap(record) for record in records], None))

    return [
        web.get("/api/v1/leadership", leadership),
        web.get("/api/v1/gaps", gaps),
        web.get("/api/v1/events", listing),
        web.get("/api/v1/events/daily", daily),
        web.get("/api/v1/events/{id}", one),
    ]


def _midnight(at: float, days: int, zone: ZoneInfo) -> float:
    """The midnight in ``zone`` with which a day begins: the day of ``at``, plus ``days``. All times in Unix seconds."""
    day = datetime.fromtimestamp(at, zone).date() + timedelta(days=days)
    return datetime.combine(day, time(), zone).timestamp()
