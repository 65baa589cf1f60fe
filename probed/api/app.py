"""The application: all routes behind one guard, and its life."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from probed.access.web_file import WebFile
from probed.api import (
    acks,
    audits,
    backtests,
    events,
    inspection_files,
    inspections,
    notifications,
    openapi,
    operations,
    policies,
    policy_exchange,
    policy_history,
    proposals,
    samples,
    sessions,
    shadows,
    silences,
    status,
    streams,
    tokens,
)
from probed.api.access import Doorkeeper
from probed.api.doorkeeping import KnownPeople
from probed.api.guarding import Guard
from probed.api.listening import Doors, NewestContext
from probed.api.routing import MAX_BODY, Route
from probed.api.served import Served
from probed.web import pages

MAX_LINE = 8190
IDLE_SECONDS = 30.0
"""A connection without a complete request is closed after so long; a new one sooner (``listening``)."""
LEAVING_SECONDS = 1.0

GUARD = web.AppKey("guard", Guard)

Closer = Callable[[], Awaitable[None]]


def table(served: Served, feed: streams.Feed, people: KnownPeople) -> list[Route]:
    """Every route of the API; the page's are no part of what it describes."""
    routes = [
        *operations.routes(served),
        *status.routes(served),
        *streams.routes(feed),
        *events.routes(served),
        *policy_history.routes(served),  # before the policies, whose {id} would take their paths
        *policy_exchange.routes(served),
        *acks.routes(served),
        *proposals.routes(served),
        *shadows.routes(served),
        *policies.routes(served),
        *backtests.routes(served),
        *silences.routes(served),
        *samples.routes(served),
        *inspections.routes(served),
        *inspection_files.routes(served),
        *audits.routes(served),
        *notifications.routes(served),
        *tokens.routes(served, people),
        *sessions.routes(),
    ]
    return [*routes, openapi.route(routes)]


def application(served: Served, addresses: Sequence[str], doorkeeper: Doorkeeper | None = None) -> web.Application:
    people = KnownPeople(served)
    guard = Guard(addresses, doorkeeper or people, served)
    app = web.Application(middlewares=[guard.middleware], client_max_size=MAX_BODY)
    feed = streams.Feed(served.store)
    served.pipeline.on_announce(lambda _: feed.wake())
    rendering = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pages")
    routes = [*table(served, feed, people), *sessions.doors(served, people)]
    app.add_routes([guard.register(route) for route in [*routes, *pages.routes(served, rendering, routes)]])
    app[GUARD] = guard
    app.on_response_prepare.append(guard.sign)

    async def prepare(_: web.Application) -> None:
        await people.open()

    async def let_go(_: web.Application) -> None:
        rendering.shutdown(wait=False)
        people.close()

    async def end_streams(_: web.Application) -> None:
        feed.close()

    app.on_shutdown.append(end_streams)
    app.on_startup.append(prepare)
    app.on_cleanup.append(let_go)
    return app


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
