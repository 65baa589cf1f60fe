"""What a component says of its own way to the database: asked once a minute, told beside the verdict, never deciding.

A stopped database would else be an event of every service. Each of these answers costs the database something, or has
effects (Realtime starts a tenant's pending migrations), so they are asked only where ``deep: true`` says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from msgspec import Struct

from probed.errors import ProbeError, TargetFailed
from probed.probes import Context, Measured, Readings
from probed.probes._http import Answer
from probed.probes._patience import end
from probed.probes._patroni import text_of

EVERY = 60.0
"""Seconds between two such questions."""
SHARE = 0.3
"""Of the cycle's timeout: how long the answer is waited for after the deciding one came."""
LEFT = 0.8
"""Of what is left of the cycle it never takes more than this share: it must not cost the sample."""


class _Deep(Struct, frozen=True):
    path: str
    says: Callable[[Answer], str]
    """What is to be told of an answer; empty when all is well."""
    door: int = 0
    after: str = ""
    """Path of the deciding question, where an address may end with it."""


async def beside(context: Context, deciding: Coroutine[Any, Any, Readings]) -> Measured | Readings:
    """What ``deciding`` comes to, with a word on the database when ``deep`` is on and there is one to say."""
    if not context.deep:
        return await deciding
    loop = asyncio.get_running_loop()
    began = loop.time()
    readings = await deciding
    asked, told = cast(tuple[float, str], context.memory.get("deep", (-EVERY, "")))
    now = loop.time()
    patience = min(SHARE * context.timeout, LEFT * (context.timeout - (now - began)))
    if now - asked >= EVERY and patience > 0:
        told = await _told(context, patience)
        context.memory["deep"] = (now, told)
    return Measured(readings, reason=told)


async def _told(context: Context, patience: float) -> str:
    deep = _QUESTIONS[context.expect.type](context)
    url = context.urls[deep.door].removesuffix(deep.after) + deep.path
    question = asyncio.create_task(context.http.get(url, access=context.access))
    try:
        await asyncio.wait({question}, timeout=patience)
        if not question.done():
            return f"degraded: {deep.path}: no answer within {patience:.2g} s"
        return deep.says(question.result())
    except ProbeError as error:
        return f"degraded: {error}" if isinstance(error, TargetFailed) else f"deep: {error}"
    finally:
        await end([question])


def _realtime(context: Context) -> _Deep:
    def says(answer: Answer) -> str:
        if answer.status == 404:
            return f"deep: {answer.url}: HTTP 404: there is no tenant {context.deep}"
        if answer.status != 200:
            return _refused(answer) or f"degraded: {answer.url}: HTTP {answer.status}"
        data = answer.object().get("data")
        found = data if isinstance(data, dict) else {}
        if found.get("healthy") is True:
            return ""
        connected = f", db_connected is {found['db_connected']!s:.5}".lower() if "db_connected" in found else ""
        return f"degraded: tenant {context.deep}: healthy is false{connected}"

    return _Deep(f"/api/tenants/{context.deep}/health", says)


def _storage(_: Context) -> _Deep:
    def says(answer: Answer) -> str:
        if answer.status == 400:
            message = text_of(answer.object().get("message"))
            return f"deep: {answer.url}: HTTP 400: what bearer_token_file names is refused: {message}"
        if answer.status != 200:
            return _refused(answer) or f"degraded: {answer.url}: HTTP {answer.status}"
        return (
            "" if answer.object().get("healthy") is True else "degraded: /health says that it cannot use its database"
        )

    return _Deep("/health", says)


def _rest(_: Context) -> _Deep:
    def says(answer: Answer) -> str:
        if answer.status == 200:
            return ""
        why = {503: ": it connects, or loads its schema cache", 500: ": it has lost its database"}
        return f"degraded: {answer.url}: HTTP {answer.status}{why.get(answer.status, '')}"

    return _Deep("/ready", says, door=1)


def _meta(_: Context) -> _Deep:
    def says(answer: Answer) -> str:
        if answer.status == 200 and "version" in answer.object():
            return ""
        if answer.status == 200:
            return f'degraded: {answer.url}: HTTP 200 without "version"'
        said = text_of(answer.object().get("error")) if answer.status == 500 else ""
        return _refused(answer) or f"degraded: {answer.url}: HTTP {answer.status}" + (f": {said}" if said else "")

    return _Deep("/config/version", says, after="/health")


def _refused(answer: Answer) -> str:
    refused = answer.status in (401, 403)
    return f"deep: {answer.url}: HTTP {answer.status}: what the credentials name is refused" if refused else ""


_QUESTIONS: dict[str, Callable[[Context], _Deep]] = {
    "realtime": _realtime, "storage": _storage, "rest": _rest, "meta": _meta,
}  # fmt: skip
