"""The application: all routes behind one guard, and its life."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from probed.api import (
    acks,
    audits,
    backtests,
    events,
    notifications,
    openapi,
    operations,
    policies,
    policy_exchange,
    policy_history,
    proposals,
    samples,
    shadows,
    silences,
    status,
    streams,
)
from probed.api.access import Doorkeeper, OpenDoor
from probed.api.guarding import MAX_BODY, Guard
from probed.api.listening import Doors
from probed.api.routing import Route
from probed.api.served import Served

MAX_LINE = 8190
IDLE_SECONDS = 30.0
"""A connection without a complete request is closed after so long; slow headers count as none."""
LEAVING_SECONDS = 1.0

Closer = Callable[[], Awaitable[None]]


def table(served: Served, encoding: Executor, feed: streams.Feed) -> list[Route]:
    """Every route there is."""
    routes = [
        *operations.routes(served, encoding),
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
        *audits.routes(served),
        *notifications.routes(served),
    ]
    return [*routes, openapi.route(routes)]


def application(served: Served, addresses: Sequence[str], doorkeeper: Doorkeeper | None = None) -> web.Application:
    encoding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")
    guard = Guard(addresses, doorkeeper or OpenDoor(), served.clock)
    app = web.Application(middlewares=[guard.middleware], client_max_size=MAX_BODY)
    feed = streams.Feed(served.store)
    served.pipeline.on_announce(lambda _: feed.wake())
    app.add_routes([guard.register(route) for route in table(served, encoding, feed)])

    async def let_go(_: web.Application) -> None:
        encoding.shutdown(wait=False)

    async def end_streams(_: web.Application) -> None:
        feed.close()

    app.on_shutdown.append(end_streams)
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
    doors = Doors(runner.server)
    try:
        await doors.open(addresses, socket_path)
    except BaseException:  # cancellation too: nothing may keep listening
        await runner.cleanup()
        raise

    async def close() -> None:
        doors.close()
        await runner.cleanup()

    return close
