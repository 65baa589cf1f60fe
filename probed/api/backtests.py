"""``/api/v1/policies/{id}/backtest``: what a change would have changed, by the recorded samples. Changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiohttp import hdrs, web
from pydantic import Field

from probed.api import backtest_schemas as schemas
from probed.api import backtest_shapes as shapes
from probed.api.answers import as_json
from probed.api.policies import known
from probed.api.problems import Refused
from probed.api.query import SINCE, UNTIL, Time
from probed.api.revising import refusal
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.backtest.reporting import Request
from probed.errors import ConfigError, StoreError
from probed.model import Policy, Role
from probed.strict_yaml import Strict

LINES = "application/x-ndjson"
DEFAULT_SINCE = "-14d"


class Backtesting(Strict):
    """A JSON merge patch as for an edit, and over which time it is tried."""

    patch: dict[str, Any] = Field(default_factory=dict, description="What is changed; empty: the policy as it is.")
    since: str = Field(default=DEFAULT_SINCE, max_length=100, description="RFC 3339, or relative to now (-14d).")
    until: str | None = Field(default=None, max_length=100, description="RFC 3339 or relative; default: now.")


def routes(served: Served) -> list[Route]:
    async def backtest(call: Call) -> web.StreamResponse:
        library, body = served.editor.library, call.body
        policy_id = known(library, call)
        changed = await tried(served, policy_id, body.patch)
        since, until = _span(call, body.since, body.until)
        present = library.policies[policy_id]
        requests = [Request(present, changed, since, until, served.pipeline.switchover_grace)]
        refuse_while_busy(served)
        await served.archive.written()
        if LINES in call.request.headers.get(hdrs.ACCEPT, ""):
            return await _in_lines(call, lambda told: served.beside.reports(requests, told), body.patch)
        (report,) = await served.beside.reports(requests)
        return as_json(shapes.backtest(report, body.patch))

    return [
        Route(
            "POST", "/api/v1/policies/{id}/backtest", backtest,
            "What a change would have told of the recorded samples, beside what the policy as it is tells of them. "
            f"Nothing is changed. With Accept: {LINES} lines of progress come before the answer.",
            needs=Role.OPERATOR, body=Backtesting, gives=schemas.Backtest, headers=(hdrs.ACCEPT,),
            refusals=("not-found", "invalid", "refused-by-rule", "too-many"),
        ),
    ]  # fmt: skip


def refuse_while_busy(served: Served) -> None:
    if served.beside.busy:
        raise Refused("too-many", "another replay is running, one runs at a time; try again when it is done")


async def tried(served: Served, policy_id: str, patch: Mapping[str, Any]) -> Policy:
    """The policy as a patch would make it; refused with every problem."""
    try:
        return await served.editor.aside(partial(served.editor.library.tried, policy_id, patch))
    except ConfigError as error:
        raise refusal(error.problems) from None


def _span(call: Call, since: str, until: str | None) -> tuple[float, float]:
    """Unix seconds; every problem of both at once."""
    found: dict[str, float] = {UNTIL.name: call.now + 1}  # what was sampled this very moment is of it
    errors = []
    for parameter, text in ((SINCE, since), (UNTIL, until)):
        if text is None:
            continue
        try:
            found[parameter.name] = _time(parameter, text, call.now)
        except ValueError as error:
            errors.append({"path": parameter.name, "detail": str(error)})
    if not errors and found[SINCE.name] >= found[UNTIL.name]:
        errors.append({"path": SINCE.name, "detail": "expected a time before until"})
    if errors:
        raise Refused("invalid", "; ".join(f"{error['path']}: {error['detail']}" for error in errors), errors)
    return found[SINCE.name], found[UNTIL.name]


def _time(parameter: Time, text: str, now: float) -> float:
    return parameter.read(text, now)


async def _in_lines(
    call: Call, work: Callable[[Callable[[float], None]], Any], patch: Mapping[str, Any]
) -> web.StreamResponse:
    """Progress as it is made, then the answer or what went wrong, each a JSON object on a line of its own."""
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: LINES})
    await response.prepare(call.request)
    told: asyncio.Queue[float] = asyncio.Queue()
    running: asyncio.Task[Sequence[Mapping[str, Any]]] = asyncio.create_task(work(told.put_nowait))
    try:
        while not running.done():
            waiting = asyncio.create_task(told.get())
            await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                await response.write(_line({"progress": waiting.result()}))
            waiting.cancel()
        try:
            (report,) = await running
            await response.write(_line({"result": shapes.backtest(report, patch)}))
        except StoreError as error:
            await response.write(_line({"error": str(error)}))
    finally:
        running.cancel()
    await response.write_eof()
    return response


def _line(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, allow_nan=False).encode() + b"\n"
