"""The application: all routes behind one guard, and its life."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from probed.access.web_file import WebFile
from probed.api import operations
from probed.api.access import Doorkeeper
from probed.api.doorkeeping import KnownPeople
from probed.api.guarding import Guard
from probed.api.later import Later
from probed.api.listening import Doors, NewestContext
from probed.api.routing import MAX_BODY
from probed.api.served import Served

if TYPE_CHECKING:
    from types import ModuleType

    from probed.api.table import Visits

MAX_LINE = 8190
IDLE_SECONDS = 30.0
"""A connection without a complete request is closed after so long; a new one sooner (``listening``)."""
LEAVING_SECONDS = 1.0

Closer = Callable[[], Awaitable[None]]


def application(served: Served, addresses: Sequence[str], doorkeeper: Doorkeeper | None = None) -> web.Application:
    """What machines ask is there at once; the API and the page are made when somebody first comes for them."""
    people = KnownPeople(served)
    guard = Guard(addresses, doorkeeper or people, served)
    app = web.Application(middlewares=[guard.middleware], client_max_size=MAX_BODY)
    operated = operations.routes(served)
    known = {(route.method, route.path) for route in operated}
    app.add_routes([guard.register(route) for route in operated])
    visits: list[Visits] = []

    async def welcome() -> Sequence[web.AbstractRouteDef]:
        table = await asyncio.to_thread(_table)
        visits.append(table.Visits(served, people))
        return [guard.register(route) for route in visits[0].routes if (route.method, route.path) not in known]

    app.router.register_resource(Later(welcome))
    app.on_response_prepare.append(guard.sign)

    async def prepare(_: web.Application) -> None:
        await people.open()

    async def let_go(_: web.Application) -> None:
        for opened in visits:
            opened.close()
        people.close()

    async def end_streams(_: web.Application) -> None:
        for opened in visits:
            opened.end_streams()

    app.on_shutdown.append(end_streams)
    app.on_startup.append(prepare)
    app.on_cleanup.append(let_go)
    return app


def _table() -> ModuleType:
    from probed.api import table  # 70 modules, which a start need not wait for

    return table


async def serve(served: Served, *, addresses: Sequence[str], socket_path: Path | None) -> Closer:
    """Answer on all addresses (``host:port``) and the UNIX socket; await the result to stop.

    ConfigError names every address or path that cannot be had; then nothing listens.
    """
    runner = web.AppRunner(
        application(served, addresses),
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LEAVING_SECONDS,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        shutdown_timeout=LEAVING_SECONDS,
    )
    await runner.setup()
    assert runner.server is not None
    file = served.web_file
    doors = Doors(runner.server, _newest(file) if file is not None and file.context is not None else None)
    try:
        await doors.open(addresses, socket_path)
    except BaseException:  # cancellation too: nothing may keep listening
        await runner.cleanup()
        raise

    async def close() -> None:
        doors.close()
        await runner.cleanup()

    return close


def _newest(file: WebFile) -> NewestContext:
    def newest() -> ssl.SSLContext:
        context = file.context
        assert context is not None, "a file that switches TLS off is not taken"
        return context

    return newest
