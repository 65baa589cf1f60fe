"""Reports of inspections as JSON; see ``inspection_schemas``."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from msgspec.structs import replace

from probed.api import inspection_schemas as schemas
from probed.api.shapes import instant, number
from probed.inspection import Progress, Report, Verdict, packing
from probed.inspection.timetable import Entry
from probed.store.reports import InspectionRecord


def summary(record: InspectionRecord) -> schemas.InspectionSummary:
    instances = [
        {"instance": part.instance, "grade": part.grade, "fails": part.fails, "warns": part.warns}
        for part in record.parts
    ]
    return cast(schemas.InspectionSummary, {**_head(packing.report_of(record)), "instances": instances})


def begun(found: Report, running: Progress) -> schemas.Inspection:
    """One that has just begun."""
    return {
        **_head(found),
        "version": found.version,
        "verdict": found.verdict.value,
        "progress": progress(running),
        "instances": [],
    }


async def text_of(record: InspectionRecord, running: Progress | None = None) -> str:
    """A report as JSON text (``schemas.Inspection``). A fleet's takes a second: the loop goes on between instances."""
    found = packing.report_of(replace(record, parts=()))
    parts, verdict = [], Verdict.PASS
    for part in record.parts:
        shape = _inspected(packing.plain(part.body))
        verdict = min(verdict, Verdict(shape["verdict"]), key=lambda one: one.rank)
        parts.append(json.dumps(shape, allow_nan=False))
        await asyncio.sleep(0)
    head = {**_head(found), "version": found.version, "verdict": verdict.value}
    shown = json.dumps({**head, "progress": progress(running) if running is not None else None}, allow_nan=False)
    return f'{shown[:-1]}, "instances": [{", ".join(parts)}]}}'


def progress(running: Progress) -> schemas.Progress:
    return {"done": running.done, "total": running.total, "at_work": list(running.at_work)}


def schedule(entry: Entry, next_at: float | None) -> schemas.InspectionSchedule:
    return {
        "name": entry.name,
        "schedule": entry.written,
        "zone": entry.times.zone,
        "instances": list(entry.order.instances),
        "events": list(entry.order.events),
        "days": entry.order.days,
        "next_at": instant(next_at),
    }


def _head(found: Report) -> schemas.InspectionHead:
    return {
        "id": found.id,
        "name": found.name or None,
        "state": found.state.value,
        "author": found.author,
        "observer": found.observer,
        "began_at": instant(found.began_at),
        "ended_at": instant(found.ended_at),
        "days": found.days,
        "zone": found.zone,
        "events": list(found.chosen),
        "note": found.note,
        "error": found.error,
    }


def _inspected(data: dict[str, Any]) -> schemas.InspectedDetail:
    """Of what the store has of an instance."""
    verdicts = [Verdict(item["verdict"]) for item in data["items"]]
    worst = min(verdicts, key=lambda one: one.rank, default=Verdict.PASS)
    for item in data["items"]:
        item["evidence"] = {
            name: value if isinstance(value, str) else number(value) for name, value in item["evidence"].items()
        }
    shown = {**data, "verdict": worst.value, "compared_at": instant(data["compared_at"])}
    return cast(schemas.InspectedDetail, shown)
