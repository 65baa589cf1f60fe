"""Pages about now: the overview, one instance, the readings of one target."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aiohttp import web
from msgspec import Struct

from probed import wording
from probed.api.problems import Refused, shown
from probed.api.query import SINCE, Field, Word
from probed.api.routing import Call, Route
from probed.board import Entry
from probed.model import OBSERVER, Event, EventState, Threshold
from probed.store import EventQuery, GapRecord, LeadershipRecord
from probed.topology import Shape
from probed.web import charts, inspection_pages, places, strip
from probed.web.charts import Chart, Taken
from probed.web.desk import Desk, watches_by_event, zone_of
from probed.web.overview import Headline, headed, overview
from probed.web.places import Instance, Known, Row
from probed.web.strip import Column

MAX_OPEN, MAX_RECENT = 10_000, 5_000
SAMPLES, POINTS = "/api/v1/samples", "400"
PASSAGE_DAYS, MAX_PASSAGES = 30, 20


Q = Field("q", "Words that an instance's name, labels, nodes or state must have.")
UNFOLD = Word("unfold", "Instances to show whole, joined by commas.")
TARGET = Word("target", "Key of a target: orders/node-a/postgres.")
PROBE = Word("probe", "Name of a probe.")


class Passage(Struct, frozen=True):
    at: float
    what: str
    old: str
    new: str
    outage: str


class InstancePage(Struct, frozen=True):
    instance: Instance
    day: tuple[Column, ...]
    open: tuple[Headline, ...]
    rows: tuple[Row, ...]
    passages: tuple[Passage, ...]
    inspected: inspection_pages.Last | None
    """By the newest inspection that came to its end."""


class ReadingsPage(Struct, frozen=True):
    instance: str
    target: str
    probe: str
    computed: bool
    row: Row
    span: str
    charts: tuple[Chart, ...]
    since: str | None
    """The span that was asked for; ``None``: the last samples in memory."""
    recorded: bool
    """Whether spans can be asked for."""


def routes(desk: Desk) -> list[Route]:
    served = desk.served

    async def show_overview(call: Call) -> web.Response:
        fleet = {one.name: one for one in known(desk) if one.name != OBSERVER}
        glances = []
        for one in fleet.values():
            glances.append(places.glance(one))
            await asyncio.sleep(0)  # a fleet is not told in one breath: probes come first
        open_events = await served.store.events(EventQuery(state=EventState.OPEN, limit=MAX_OPEN))
        recent, gaps = await _day(desk, call.now, open_events)
        page = overview(
            glances,
            open_events,
            recent,
            watches_by_event(served),
            now=call.now,
            wanted=call.query[Q] or "",
            unfolded=frozenset((call.query[UNFOLD] or "").split(",")),
        )
        whole = {
            item.instance.name: places.instance(fleet[item.instance.name]) for item in page.instances if item.whole
        }
        days = {name: _columns(name, recent, gaps, call.now) for name in whole}
        return await desk.html(call, "overview.html", {"view": page, "whole": whole, "days": days})

    async def show_instance(call: Call) -> web.Response:
        name = call.path("name")
        found = next((one for one in known(desk) if one.name == name), None)
        if found is None:
            raise Refused("not-found", f"no instance is called {shown(name)}; the overview lists them")
        open_events = await served.store.events(EventQuery(instance=name, state=EventState.OPEN, limit=MAX_OPEN))
        recent, gaps = await _day(desk, call.now, open_events, name)
        passages = await served.store.leadership(name, call.now - PASSAGE_DAYS * 86400, call.now + 1)
        page = InstancePage(
            places.instance(found),
            _columns(name, recent, gaps, call.now),
            tuple(headed(open_events, watches_by_event(served))),
            places.rows(found.entries, found.now),
            tuple(map(_passage, passages[:MAX_PASSAGES])),
            await inspection_pages.last(desk, call, name),
        )
        return await desk.html(call, "instance.html", page)

    async def show_readings(call: Call) -> web.Response:
        key, probe = call.query[TARGET], call.query[PROBE]
        entry = next(
            (item for item in served.pipeline.board.entries() if (item.target.key, item.probe) == (key, probe)), None
        )
        if entry is None:
            raise Refused("not-found", f"{shown(probe or '')} does not look at {shown(key or '')} (any more)")
        page = ReadingsPage(
            entry.target.instance,
            entry.target.key,
            entry.probe,
            entry.computed,
            places.rows([entry], served.clock.mono())[0],
            f"every {wording.lasting(entry.interval)}",
            charts.charts(
                await _taken(call, entry),
                _thresholds(desk, entry.probe),
                zone_of(call.request),
            ),
            call.request.query.get(SINCE.name),
            desk.has("GET", SAMPLES),
        )
        return await desk.html(call, "readings.html", page)

    async def _taken(call: Call, entry: Entry) -> Sequence[Taken]:
        """Recorded samples of the span that was asked for; else the last ones, which are in memory."""
        since = call.request.query.get(SINCE.name)
        if since is None or not desk.has("GET", SAMPLES):
            return [Taken(sample.at, sample.outcome.value, sample.readings, sample.reason) for sample in entry.ring]
        query = {"target": entry.target.key, "probe": entry.probe, "since": since, "points": POINTS}
        found = await desk.ask(call, "GET", SAMPLES, query=query)
        return [
            Taken(wording.instant(each["at"]) or 0.0, each["outcome"], each["readings"], each["reason"])
            for each in found["items"]
        ]

    return [
        desk.page("/", show_overview, "The overview.", Q, UNFOLD),
        desk.page("/instances/{name}", show_instance, "One instance."),
        desk.page("/readings", show_readings, "Readings of one target.", TARGET, PROBE, SINCE),
    ]


def known(desk: Desk) -> list[Known]:
    """Every instance with its targets and watches, this daemon itself last."""
    served = desk.served
    now = served.clock.mono()
    entries: dict[str, list[Entry]] = {name: [] for name in served.pipeline.instances}
    for entry in served.pipeline.board.entries():
        entries.setdefault(entry.target.instance, []).append(entry)
    labels = {instance.name: instance.labels for instance in served.settings.instances}
    found = []
    for name, own in entries.items():
        state = served.pipeline.instances.get(name)
        watches, shape = (state.watches, state.shape) if state else ([], Shape())
        paused = state is not None and state.paused is True
        found.append(Known(name, state.labels if state else labels.get(name, {}), own, watches, shape, now, paused))
    return sorted(found, key=lambda one: one.name == OBSERVER)


async def _day(
    desk: Desk, now: float, open_events: Sequence[Event], instance: str | None = None
) -> tuple[Sequence[Event], Sequence[GapRecord]]:
    """What the last 24 hours are drawn of. What is open is in it, however much came since."""
    begin = strip.span(now)[0]
    query = EventQuery(instance=instance, active_since=begin, limit=MAX_RECENT)
    found = {event.id: event for event in (*open_events, *await desk.served.store.events(query))}
    return list(found.values()), await desk.served.store.gaps(begin, now)


def _columns(name: str, events: Sequence[Event], gaps: Sequence[GapRecord], now: float) -> tuple[Column, ...]:
    return strip.columns([event for event in events if event.target.instance == name], gaps, now)


def _thresholds(desk: Desk, probe: str) -> Mapping[str, float]:
    """Reading -> where an event begins, of the policies that are on."""
    rules = [policy.detect for policy in desk.served.policies.values() if policy.enabled and policy.probe == probe]
    return {
        item.reading: item.value
        for rule in rules
        if isinstance(rule, Threshold)
        for item in rule.when.comparisons
        if item.op in (">=", ">", "<", "<=")
    }


_PASSAGES = {
    "planned": "planned switchover",
    "automatic_failover": "automatic failover",
    "manual_failover": "failover by hand",
    "self_promotion": "promotion in place",
}


def _passage(record: LeadershipRecord) -> Passage:
    details = record.details
    outage = details.get("write_outage_seconds")
    what = str(details.get("class"))
    return Passage(
        record.at,
        _PASSAGES.get(what, what),
        str(details.get("old_leader") or ""),
        str(details.get("new_leader") or ""),
        wording.lasting(outage) if isinstance(outage, int | float) else "",
    )
