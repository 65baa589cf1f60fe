"""All events that fit as one file, read and sent slice by slice, so that a million needs no more memory than a page.

A slice begins where the last one ended: what arrives meanwhile is newer than the first line, and not in the file.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import structlog
from aiohttp import hdrs, web
from msgspec.structs import replace

from probed.api import shapes
from probed.api.guarding import HEADERS
from probed.api.problems import Refused
from probed.api.query import Choice
from probed.api.routing import Call
from probed.errors import StoreError
from probed.model import Event
from probed.store import EventQuery, Store

_log = structlog.get_logger(__name__)

SLICE = 100
"""Events that are read, rendered and sent at a stretch: some 5 ms of the loop's time."""
STALLED_SECONDS = 30.0
"""How long a reader may take nothing before it is cut off."""
MAX_DOWNLOADS = 4
COLUMNS = (
    "id", "opened_at", "resolved_at", "severity", "state", "event", "name", "instance", "node", "component", "target",
    "suppressed", "caused_by", "acked_by", "first_failed_at", "resolve_reason", "count", "value", "threshold",
    "message", "policy_version", "observer", "flapping",
)  # fmt: skip


class Form(StrEnum):
    CSV = "csv"
    JSON = "json"


FORMAT = Choice("format", "All events that fit, without pages, as a file of this form.", Form)
_MEDIA = {Form.CSV: "text/csv; charset=utf-8; header=present", Form.JSON: "application/json; charset=utf-8"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would reckon with, or send somewhere."""


class _Going:
    number = 0


def form_of(call: Call) -> Form | None:
    """What kind of file is asked for; ``None``: a page. Refused when pages and files are mixed."""
    form = call.query[FORMAT]
    if form is None and call.request.headers.get(hdrs.ACCEPT, "").partition(";")[0].strip() == "text/csv":
        form = Form.CSV
    mixed = [name for name in ("limit", "cursor") if name in call.request.query]
    if form is not None and mixed:
        detail = "a download has all events; leave it out, or leave out format"
        raise Refused("bad-query", f"{mixed[0]}: {detail}", [{"path": name, "detail": detail} for name in mixed])
    return form


async def send(call: Call, store: Store, wanted: EventQuery, form: Form) -> web.StreamResponse:
    stamp = datetime.fromtimestamp(call.now, UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f'attachment; filename="probed-events-{stamp}.{form}"'
    headers = {**HEADERS, hdrs.CONTENT_TYPE: _MEDIA[form], hdrs.CONTENT_DISPOSITION: name}
    if call.request.method == hdrs.METH_HEAD:
        return web.Response(headers=headers)
    if _Going.number >= MAX_DOWNLOADS:
        detail = f"{MAX_DOWNLOADS} downloads are under way, which is all that there may be; try again later"
        raise Refused("too-many", detail, headers={hdrs.RETRY_AFTER: "10"})
    response = web.StreamResponse(headers=headers)
    _Going.number += 1
    try:
        await response.prepare(call.request)
        async for part in as_csv(store, wanted) if form is Form.CSV else as_json(store, wanted):
            async with asyncio.timeout(STALLED_SECONDS):
                await response.write(part)
        await response.write_eof()
    except ConnectionError:  # the reader has gone
        return response
    except (TimeoutError, StoreError) as error:
        # It has begun, so the status is sent; a connection that breaks off is how the reader learns of it.
        _log.warning("api.download_cut_off", client=call.request.remote, error=str(error) or "nobody reads")
        if call.request.transport is not None:
            call.request.transport.abort()
    finally:
        _Going.number -= 1
    return response


async def _slices(store: Store, wanted: EventQuery) -> AsyncIterator[Sequence[Event]]:
    query = replace(wanted, limit=SLICE)
    while events := await store.events(query):
        yield events
        query = replace(query, before_id=events[-1].id)


async def as_csv(store: Store, wanted: EventQuery) -> AsyncIterator[bytes]:
    """A line for each event, newest first, below a line of names."""
    yield _lines([COLUMNS])
    async for events in _slices(store, wanted):
        shown = [dict(shapes.event(event)) for event in events]
        yield _lines([[_cell(item[column]) for column in COLUMNS] for item in shown])


async def as_json(store: Store, wanted: EventQuery) -> AsyncIterator[bytes]:
    """The list's own shape: ``{"items": [...], "next_cursor": null}``, an event a line."""
    before = '{"items": ['
    async for events in _slices(store, wanted):
        lines = [json.dumps(shapes.event(event), allow_nan=False) for event in events]
        yield (before + "\n" + ",\n".join(lines)).encode()
        before = ","
    yield (("" if before == "," else before) + '\n], "next_cursor": null}\n').encode()


def _lines(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    """A value as a cell; text that a spreadsheet would take for a formula is marked as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
