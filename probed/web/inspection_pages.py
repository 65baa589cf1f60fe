"""Inspections: the reports that are kept, one of them, and a form that starts one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from msgspec import Struct, field
from msgspec.structs import replace

from probed import wording
from probed.api.inspections import PATH as API
from probed.api.inspections import found_of, progress_of
from probed.api.problems import Refused, shown
from probed.api.query import Field, Flag, Word
from probed.api.routing import Call, Route
from probed.inspection import Grade, Inspected, Progress, Report, ReportState
from probed.inspection.packing import report_of, unpacked
from probed.inspection.sheets import GRADES, Paper, paper
from probed.model import OBSERVER
from probed.store.reports import InspectionRecord
from probed.web import forms
from probed.web.desk import FRAGMENT, Desk, zone_of
from probed.web.forms import FINE, Wrong

INSTANCE = Field("instance", "Only inspections of this one; of a report of several, its sheet.")
WATCH = Flag("watch", "Stay until it has come to its end.")
CURSOR = Word("cursor", "Where the next page begins.")
MAX_NAMED = 4
"""Instances that a line of the list names."""
FIELDS = ("instances", "events", "days")
"""Of the form, in its order."""
_RECENT = "10"


class Graded(Struct, frozen=True):
    instance: str
    grade: str
    look: str


class Line(Struct, frozen=True):
    """One inspection in the list."""

    id: str
    at: float | None
    state: str
    by: str
    graded: tuple[Graded, ...]
    more: int
    fails: int
    warns: int
    said: str
    """Its note or its error."""
    progress: Progress | None


class InspectionsPage(Struct, frozen=True):
    lines: tuple[Line, ...]
    next: str | None
    schedules: Sequence[Mapping[str, Any]]
    only: str | None
    """The instance that was asked for."""
    may_start: bool
    running: bool
    instances: tuple[str, ...]
    events: tuple[tuple[str, str], ...]
    """(id, name) of those that are on and about an instance."""
    given: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What the form holds."""
    wrong: Wrong = FINE


class InspectionPage(Struct, frozen=True):
    id: str
    paper: Paper
    state: str
    progress: Progress | None
    brief: bool
    """What is fetched again and again needs no report that does not change."""


class Last(Struct, frozen=True):
    """What the newest inspection that came to its end says of an instance."""

    id: str
    at: float | None
    grade: str
    fails: int
    warns: int


def routes(desk: Desk) -> list[Route]:
    served = desk.served
    if not desk.has("GET", API):
        return []

    async def listing(call: Call) -> web.Response:
        name = call.query[INSTANCE]
        return await show(call, {"instances": [name]} if name else {})

    async def show(call: Call, given: Mapping[str, Sequence[str]], wrong: Wrong = FINE) -> web.Response:
        asked = {key: call.request.query[key] for key in (INSTANCE.name, CURSOR.name) if key in call.request.query}
        answer = await desk.ask(call, "GET", API, query=asked)
        lines = tuple(_line(item, progress_of(served, item["id"])) for item in answer["items"])
        states = [state for name, state in served.pipeline.instances.items() if name != OBSERVER]
        watched = {watch.policy.id for state in states for watch in state.watches}
        policies = [
            (policy.id, policy.name) for policy in served.policies.values() if policy.enabled and policy.id in watched
        ]
        page = InspectionsPage(
            lines,
            answer["next_cursor"],
            answer["schedules"],
            call.request.query.get(INSTANCE.name) or None,
            desk.may(call, "POST", API),
            any(line.state == ReportState.RUNNING for line in lines),
            served.inspector.instances,
            tuple(sorted(policies, key=lambda one: one[1])),
            given,
            wrong,
        )
        return await desk.html(call, "inspections.html", page, status=422 if wrong else 200)

    async def start(call: Call) -> web.Response:
        said = await desk.answers(call)
        given = {name: [value for given_name, value in said if given_name == name] for name in FIELDS}
        days = given["days"][0] if given["days"] else ""
        body: dict[str, Any] = {
            "instances": given["instances"],
            "events": given["events"],
            "zone": zone_of(call.request).key,
            **({"days": int(days) if days.isascii() and days.isdigit() else days} if days else {}),
        }
        try:
            begun = await desk.ask(call, "POST", API, body=body)
        except Refused as refused:
            return await show(call, given, forms.wrong(refused, FIELDS))
        return desk.seen(call, f"inspections/{begun['id']}?watch=true")

    async def one(call: Call) -> web.Response:
        record = await found_of(served, call.path("id"))
        running = record.state == ReportState.RUNNING.value
        if running is not bool(call.query[WATCH]):
            # Who waits for the end is led to the report by it; scripts and `refresh` follow alike.
            return desk.seen(call, f"{record.id}{'?watch=true' if running else ''}")
        brief = FRAGMENT in call.request.headers and not running
        only = call.query[INSTANCE]
        found = report_of(replace(record, parts=())) if brief else await _report(record, only)
        if only is not None and only not in {part.instance for part in record.parts}:
            raise Refused("not-found", f"this inspection was not of {shown(only)}")
        chosen = paper(found, only=only) if only is not None or len(record.parts) == 1 else paper(found, most=0)
        page = InspectionPage(record.id, replace(chosen, rest=""), record.state, progress_of(served, record.id), brief)
        return await desk.html(call, "inspection.html", page)

    return [
        desk.page("/inspections", listing, "Inspections.", INSTANCE, CURSOR),
        desk.form("/inspections", start, "Start an inspection."),
        desk.page("/inspections/{id}", one, "One inspection.", INSTANCE, WATCH),
    ]


async def last(desk: Desk, call: Call, instance: str) -> Last | None:
    if not desk.has("GET", API):
        return None
    answer = await desk.ask(call, "GET", API, query={"instance": instance, "limit": _RECENT})
    for item in answer["items"]:
        for part in item["instances"]:
            if part["instance"] == instance and item["state"] == ReportState.DONE.value:
                return Last(item["id"], wording.instant(item["began_at"]), part["grade"], part["fails"], part["warns"])
    return None


async def _report(record: InspectionRecord, only: str | None) -> Report:
    """Unpacked instance by instance, so that nothing else waits; with the charts of the one that is shown."""
    found: list[Inspected] = []
    for part in record.parts:
        one = unpacked(part.body)
        shown_whole = part.instance == only or len(record.parts) == 1
        found.append(one if shown_whole else replace(one, charts=()))
        await asyncio.sleep(0)
    return replace(report_of(replace(record, parts=())), instances=tuple(found))


def _line(item: Mapping[str, Any], progress: Progress | None) -> Line:
    parts = item["instances"]
    return Line(
        item["id"],
        wording.instant(item["began_at"]),
        item["state"],
        item["name"] or item["author"],
        tuple(Graded(part["instance"], part["grade"], GRADES[Grade(part["grade"])]) for part in parts[:MAX_NAMED]),
        max(0, len(parts) - MAX_NAMED),
        sum(part["fails"] for part in parts),
        sum(part["warns"] for part in parts),
        item["error"] or item["note"],
        progress,
    )
