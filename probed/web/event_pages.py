"""Pages about what happened: the list of events, one event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from probed.api import events
from probed.api.events import ACTIVE_SINCE, CURSOR, EVENT, FILTERS, INSTANCE
from probed.api.problems import Refused, shown
from probed.api.query import SINCE, UNTIL
from probed.api.routing import Call, Route
from probed.model import Event, EventState
from probed.store import EventDetail
from probed.web import incident, ledger
from probed.web.desk import Desk, watches_by_event, zone_of
from probed.web.ledger import Grid, Row
from probed.web.overview import recovering

PAGE = 100
ACK, NOTIFICATIONS = "/api/v1/events/{id}/ack", "/api/v1/notifications"
MAX_CHAIN, MAX_CONSEQUENCES = 10, 50


class EventsPage(Struct, frozen=True):
    rows: tuple[Row, ...]
    grid: Grid
    next: str | None
    instances: tuple[str, ...]
    given: Mapping[str, str]
    """The filters as they stand in the address."""
    span: str
    zone: ZoneInfo

    @property
    def given_all(self) -> Mapping[str, str | None]:
        """The same with ``None`` for what is not given."""
        return {each.name: self.given.get(each.name) for each in FILTERS}

    def download(self, form: str) -> Mapping[str, str]:
        """The query of the API's download of the same events."""
        return {**self.given, "format": form}

    def midnight(self, day: str) -> str:
        """Where a day of the grid begins: in its zone, and for a query."""
        return datetime.combine(date.fromisoformat(day), time(), self.zone).isoformat()


class EventTools(Struct, frozen=True):
    """What hangs on an event beside what it is."""

    deliveries: Sequence[Mapping[str, Any]]
    may_ack: bool
    may_unack: bool
    may_silence: bool


def routes(desk: Desk) -> list[Route]:
    served = desk.served

    async def listing(call: Call) -> web.Response:
        zone = zone_of(call.request)
        # One more than a page has, so that it is known whether there is another.
        found = await served.store.events(replace(events.asked(call), limit=PAGE + 1))
        today = datetime.fromtimestamp(call.now, zone).date()
        grid = await _grid(call, today, zone)
        given = {name: value for name, value in call.request.query.items() if name != CURSOR.name}
        page = EventsPage(
            ledger.rows(found[:PAGE]),
            grid,
            CURSOR.at(found[PAGE - 1].id) if len(found) > PAGE else None,
            tuple(sorted(instance.name for instance in served.settings.instances)),
            given,
            _span(call, zone),
            zone,
        )
        return await desk.html(call, "events.html", page)

    async def _grid(call: Call, today: date, zone: ZoneInfo) -> Grid:
        begin = datetime.fromordinal(today.toordinal() - ledger.DAYS + 1)
        since = datetime.combine(begin.date(), time(), zone).timestamp()
        counts = await served.store.daily(since, call.now + 86400, zone.key)
        instance, event = call.query[INSTANCE], call.query[EVENT]
        shown = [
            count
            for count in counts
            if (instance is None or count.instance == instance) and (event is None or count.event == event)
        ]
        return ledger.grid(shown, {name: policy.name for name, policy in served.policies.items()}, today)

    async def one(call: Call) -> web.Response:
        wanted = call.path("id")
        detail = await served.store.event(wanted) if wanted.isprintable() else None
        if detail is None:
            raise Refused("not-found", f"no event has the id {shown(wanted)}; it may be older than the retention")
        page = incident.incident(
            detail,
            served.policies.get(detail.event.event),
            await _causes(detail.event),
            await _events(detail.consequences[:MAX_CONSEQUENCES]),
            _since(desk, detail),
            recovering=recovering(watches_by_event(served).get(detail.event.id)),
            now=call.now,
            zone=zone_of(call.request),
        )
        told = await _told(call, detail.event.id)
        is_over = detail.event.state is EventState.RESOLVED
        tools = EventTools(
            told,
            desk.may(call, "POST", ACK) and detail.event.acked_by is None,
            desk.may(call, "DELETE", ACK) and detail.event.acked_by is not None,
            desk.may(call, "POST", "/api/v1/silences") and not is_over,
        )
        return await desk.html(call, "event.html", {"view": page, "tools": tools})

    async def ack(call: Call) -> web.Response:
        given = await desk.fields(call)
        await desk.ask(call, "POST", ACK, body={"comment": given.get("comment", "")})
        return desk.seen(call, "../" + call.path("id"))

    async def unack(call: Call) -> web.Response:
        await desk.fields(call)
        await desk.ask(call, "DELETE", ACK)
        return desk.seen(call, "../" + call.path("id"))

    async def _told(call: Call, event_id: str) -> Sequence[Mapping[str, Any]]:
        if not desk.may(call, "GET", NOTIFICATIONS):
            return ()
        answer = await desk.ask(call, "GET", NOTIFICATIONS, query={"event_id": event_id, "limit": "1000"})
        items: Sequence[Mapping[str, Any]] = answer["items"]
        return items

    async def _causes(event: Event) -> list[Event]:
        """The nearest first."""
        found: list[Event] = []
        seen = {event.id}
        while event.caused_by and event.caused_by not in seen and len(found) < MAX_CHAIN:
            seen.add(event.caused_by)
            cause = await served.store.event(event.caused_by)
            if cause is None:  # retention took it
                break
            event = cause.event
            found.append(event)
        return found

    async def _events(ids: Sequence[str]) -> list[Event]:
        details = [await served.store.event(one) for one in ids]
        return [detail.event for detail in details if detail is not None]

    return [
        desk.page("/events", listing, "The list of events.", *FILTERS, CURSOR),
        desk.page("/events/{id}", one, "One event."),
        desk.form("/events/{id}/ack", ack, "Acknowledge an event."),
        desk.form("/events/{id}/unack", unack, "Take an acknowledgement back."),
    ]


def _span(call: Call, zone: ZoneInfo) -> str:
    """``from 2026-11-25 00:00 to 2026-11-26 00:00``."""
    begin = call.query[SINCE] if call.query[ACTIVE_SINCE] is None else call.query[ACTIVE_SINCE]
    parts = [
        f"{word} {datetime.fromtimestamp(at, zone):%Y-%m-%d %H:%M}"
        for word, at in (("from", begin), ("to", call.query[UNTIL]))
        if at is not None
    ]
    return " ".join(parts)


def _since(desk: Desk, detail: EventDetail) -> list[Mapping[str, Any]]:
    """Of an open event, the samples in memory that came after its trigger."""
    event = detail.event
    if event.state is not EventState.OPEN:
        return []
    policy = desk.served.policies.get(event.event)
    last = max((float(sample["at"]) for sample in detail.before), default=event.opened_at)
    ring = desk.served.pipeline.board.ring(policy.probe, event.target) if policy is not None else ()
    return [
        {
            "at": sample.at,
            "outcome": sample.outcome.value,
            "readings": dict(sample.readings),
            "reason": sample.reason,
            "duration_ms": sample.duration * 1000,
        }
        for sample in ring
        if sample.at > last
    ]
