"""``/api/v1/inspections``: reports on the health of instances, on demand and of schedules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from aiohttp import hdrs, web
from msgspec.structs import replace
from pydantic import Field

from probed.api import inspection_schemas as schemas
from probed.api import inspection_shapes as shapes
from probed.api.answers import as_json, json_text
from probed.api.problems import Refused, shown
from probed.api.query import Word, cursor, limit
from probed.api.routing import Call, Route, invalid
from probed.api.served import Served
from probed.config.inspections import Days, Zone, switched_off
from probed.config.silences import unknown_event
from probed.errors import Problem
from probed.inspection import Busy, Progress, Report, packing
from probed.inspection.choosing import DEFAULT_DAYS, Order
from probed.inspection.inspecting import Running
from probed.model import Role
from probed.silences import MAX_NAMES
from probed.store import AuditRecord
from probed.store.reports import InspectionQuery, InspectionRecord
from probed.strict_yaml import Strict, did_you_mean

PATH = "/api/v1/inspections"
LINES = "application/x-ndjson"
LIMIT = limit(500, 50)
CURSOR = cursor("inspections", str)
INSTANCE = Word("instance", "Only those about this instance.")
NAME = Word("name", "Only those of this schedule.")

_Named = Annotated[str, Field(min_length=1, max_length=200)]


class NewInspection(Strict):
    """What is to be looked at."""

    instances: list[_Named] = Field(default_factory=list, max_length=MAX_NAMES, description="Default: all.")
    events: list[_Named] = Field(
        default_factory=list, max_length=MAX_NAMES, description="Ids of policies that are on; default: all that are."
    )
    days: Days = Field(default=DEFAULT_DAYS, description="How much history counts.")
    zone: Zone = Field(default="UTC", description="Of the times in the report.")


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        wanted, most = call.query[INSTANCE], call.query[LIMIT]
        query = InspectionQuery(wanted, call.query[NAME], None, call.query[CURSOR], most + 1)
        found = await served.store.inspections(query)
        more = CURSOR.at(found[most - 1].id) if len(found) > most else None
        table = served.timetable
        answer: schemas.Inspections = {
            "items": [shapes.summary(record) for record in found[:most]],
            "next_cursor": more,
            "schedules": [
                shapes.schedule(entry, table.next_at(entry))
                for entry in table.entries
                if wanted is None or not entry.order.instances or wanted in entry.order.instances
            ],
        }
        return as_json(answer)

    async def begin(call: Call) -> web.StreamResponse:
        order = _order(served, call, call.body)

        def audit(report: Report) -> Sequence[AuditRecord]:
            told = {"instances": list(order.instances), "events": list(order.events), "days": order.days}
            return [call.audit("inspection.start", report.id, after=told)]

        try:
            running = await served.inspector.start(order, audit)
        except Busy as error:
            raise Refused("conflict", str(error)) from None
        if LINES in call.request.headers.get(hdrs.ACCEPT, ""):
            return await _in_lines(served, call, running)
        headers = {"Location": f"{PATH}/{running.report.id}"}
        return as_json(shapes.begun(running.report, running.progress), status=202, headers=headers)

    async def one(call: Call) -> web.Response:
        record = await found_of(served, call.path("id"))
        return json_text(await shapes.text_of(record, progress_of(served, record.id)))

    async def as_file(call: Call) -> web.Response:
        record = await found_of(served, call.path("id"))
        return json_text(await shapes.text_of(record), attachment(packing.report_of(replace(record, parts=())), "json"))

    return [
        Route(
            "GET", PATH, listing, "Reports of inspections, newest first, and the schedules that make them.",
            takes=(INSTANCE, NAME, LIMIT, CURSOR), gives=schemas.Inspections,
        ),
        Route(
            "POST", PATH, begin,
            "Begin an inspection; it goes on by itself, and its report can be had under Location. "
            f"With Accept: {LINES} lines of progress come, then the report.",
            needs=Role.OPERATOR, body=NewInspection, gives=schemas.Inspection, status=202, headers=(hdrs.ACCEPT,),
            refusals=("conflict", "refused-by-rule"),
        ),
        Route(
            "GET", f"{PATH}/{{id:[^.]+}}", one, "One report, also while it is made.",
            gives=schemas.Inspection, refusals=("not-found",),
        ),
        Route(
            "GET", f"{PATH}/{{id:[^.]+}}.json", as_file, "One report as a file.",
            gives=schemas.Inspection, refusals=("not-found",),
        ),
    ]  # fmt: skip


async def found_of(served: Served, wanted: str) -> InspectionRecord:
    """A report with all that is in it. Refused when there is none."""
    record = await served.store.inspection(wanted) if wanted.isprintable() else None
    if record is None:
        raise Refused("not-found", f"no inspection has the id {shown(wanted)}; GET {PATH} lists them")
    return record


def progress_of(served: Served, inspection_id: str) -> Progress | None:
    """How far it is, while it runs."""
    running = served.inspector.running
    return running.progress if running is not None and running.report.id == inspection_id else None


def attachment(report: Report, suffix: str) -> Mapping[str, str]:
    """The header that has a browser keep it as a file."""
    return {hdrs.CONTENT_DISPOSITION: f'attachment; filename="{file_name(report, suffix)}"'}


def file_name(report: Report, suffix: str) -> str:
    """``probed-inspection-nightly-20261122T030000Z.html``"""
    stamp = datetime.fromtimestamp(report.began_at, UTC).strftime("%Y%m%dT%H%M%SZ")
    middle = f"{report.name}-" if report.name else ""
    return f"probed-inspection-{middle}{stamp}.{suffix}"


def _order(served: Served, call: Call, body: NewInspection) -> Order:
    """What a body asks for. Refused with everything that is wrong with it."""
    known = served.inspector.instances
    problems = [
        Problem("body", f'there is no instance "{name}"{did_you_mean(name, known)}', path=f"instances[{index}]")
        for index, name in enumerate(body.instances)
        if name not in known
    ]
    problems += [
        Problem("body", unknown_event(name, served.policies), path=f"events[{index}]")
        for index, name in enumerate(body.events)
        if name not in served.policies
    ]
    if problems:
        raise invalid(problems)
    off = [
        Problem("body", switched_off(name), path=f"events[{index}]")
        for index, name in enumerate(body.events)
        if not served.policies[name].enabled
    ]
    if off:
        raise invalid(off, "refused-by-rule")
    instances = tuple(dict.fromkeys(body.instances)) or known
    events = tuple(dict.fromkeys(body.events))
    return Order(instances, events, body.days, body.zone, author=call.who.name)


async def _in_lines(served: Served, call: Call, running: Running) -> web.StreamResponse:
    """Progress as it is made, then the report, each a JSON object on a line of its own; it goes on without a reader."""
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: LINES})
    await response.prepare(call.request)
    steps: asyncio.Queue[Progress] = asyncio.Queue()
    steps.put_nowait(running.progress)
    running.told.add(steps.put_nowait)
    try:
        while not running.ended.done() or not steps.empty():
            step: asyncio.Task[Progress] = asyncio.create_task(steps.get())
            first: list[asyncio.Future[Any]] = [running.ended, step]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                told = {"id": running.report.id, **shapes.progress(step.result())}
                await response.write(json.dumps({"progress": told}).encode() + b"\n")
            step.cancel()
        text = await shapes.text_of(await found_of(served, running.report.id))
        await response.write(f'{{"result": {text}}}\n'.encode())
    finally:
        running.told.discard(steps.put_nowait)
    await response.write_eof()
    return response
