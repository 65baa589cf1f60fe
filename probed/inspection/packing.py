"""Reports as plain data and back, and packed for the store: one instance at a time, so that none holds up the loop."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from probed.errors import StoreError
from probed.inspection import (
    Chart,
    Difference,
    Grade,
    Inspected,
    Item,
    NodeLine,
    Report,
    ReportState,
    Section,
    Series,
    Verdict,
)
from probed.store.reports import InspectedRecord, InspectionRecord

Json = dict[str, Any]

_HEAD = ("observer", "version", "days", "zone", "error", "note")


def to_json(report: Report) -> Json:
    """The whole report; times are Unix seconds."""
    data: Json = to_builtins(replace(report, instances=()))
    return {**data, "instances": [inspected_to_json(one) for one in report.instances]}


def from_json(data: Mapping[str, Any]) -> Report:
    """What ``to_json`` made, of this version or an earlier one. KeyError, TypeError or ValueError when it is none."""
    given = {**data, "state": ReportState(data["state"]), "chosen": tuple(data["chosen"])}
    return Report(**{**given, "instances": tuple(inspected_from_json(one) for one in data["instances"])})


def inspected_to_json(one: Inspected) -> Json:
    packed: Json = to_builtins(one)
    return packed


def inspected_from_json(data: Mapping[str, Any]) -> Inspected:
    given = {
        "grade": Grade(data["grade"]),
        "nodes": tuple(NodeLine(**node) for node in data["nodes"]),
        "items": tuple(_item(item) for item in data["items"]),
        "charts": tuple(_chart(chart) for chart in data["charts"]),
        "differences": tuple(_difference(one) for one in data["differences"]),
    }
    return Inspected(**{**data, **given})


def _item(data: Mapping[str, Any]) -> Item:
    given = {"section": Section(data["section"]), "verdict": Verdict(data["verdict"]), "events": tuple(data["events"])}
    return Item(**{**data, **given})


def _chart(data: Mapping[str, Any]) -> Chart:
    series = tuple(
        Series(one["label"], tuple((float(at), float(value)) for at, value in one["points"])) for one in data["series"]
    )
    return Chart(**{**data, "series": series})


def _difference(data: Mapping[str, Any]) -> Difference:
    before, now = (None if data[key] is None else Verdict(data[key]) for key in ("before", "now"))
    return Difference(**{**data, "section": Section(data["section"]), "before": before, "now": now})


# --- the store's -----------------------------------------------------------------------------------------------


def packed(one: Inspected) -> InspectedRecord:
    """An instance's part of a report: some milliseconds of work."""
    text = json.dumps(inspected_to_json(one), ensure_ascii=False, separators=(",", ":"))
    fails, warns = one.count(Verdict.FAIL), one.count(Verdict.WARN)
    return InspectedRecord(one.instance, one.grade.value, fails, warns, zlib.compress(text.encode(), 6))


def plain(body: bytes) -> Json:
    """What ``packed`` made, as plain data. StoreError when it is something else."""
    try:
        data = json.loads(zlib.decompress(body))
    except (zlib.error, ValueError) as error:
        raise _unreadable(error) from None
    if not isinstance(data, dict):
        raise _unreadable(TypeError("no object"))
    return data


def unpacked(body: bytes) -> Inspected:
    """What ``packed`` made. StoreError when it is something else."""
    try:
        return inspected_from_json(plain(body))
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> StoreError:
    return StoreError(f"a report cannot be read: {type(error).__name__}: {error}")


def record(report: Report, series: str, parts: tuple[InspectedRecord, ...] = ()) -> InspectionRecord:
    """``parts``: its instances, packed."""
    head: Json = {name: getattr(report, name) for name in _HEAD}
    head["chosen"] = list(report.chosen)
    return InspectionRecord(
        report.id, series, report.name, report.state.value, report.author, report.began_at, report.ended_at, head,
        parts,
    )  # fmt: skip


def report_of(found: InspectionRecord) -> Report:
    """With its instances, as far as their bodies are there."""
    head = dict(found.head)
    return Report(
        id=found.id,
        name=found.name,
        author=found.author,
        state=ReportState(found.state),
        began_at=found.began_at,
        ended_at=found.ended_at,
        chosen=tuple(head.pop("chosen")),
        instances=tuple(unpacked(part.body) for part in found.parts if part.body),
        **head,
    )
