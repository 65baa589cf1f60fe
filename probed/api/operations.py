"""What operators' machines ask: ``/-/healthy``, ``/-/ready``, ``/-/reload`` and ``/metrics``."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from aiohttp import hdrs, web

from probed.api.answers import as_text
from probed.api.guarding import by_socket
from probed.api.problems import Refused
from probed.api.served import Served
from probed.errors import ConfigError, Problem
from probed.metrics import Snapshot

READ_ONLY = (
    "reload over the UNIX socket (curl --unix-socket PATH -X POST http://localhost/-/reload, where PATH is web.socket, "
    "by default probed.sock in storage.path), or send SIGHUP to the daemon (systemctl reload probed)"
)


def routes(served: Served, encoding: ThreadPoolExecutor) -> list[web.RouteDef]:
    async def healthy(_: web.Request) -> web.Response:
        return as_text("ok")

    async def ready(_: web.Request) -> web.Response:
        return as_text("not ready", status=503) if served.unready() else as_text("ready")

    async def reload(request: web.Request) -> web.Response:
        if not by_socket(request):
            raise Refused("read-only", READ_ONLY)
        try:
            await served.reload()
        except ConfigError as error:
            found = [_problem(problem) for problem in error.problems]
            raise Refused("bad-configuration", str(error), found) from None
        return as_text("reloaded")

    async def scrape(request: web.Request) -> web.Response:
        snapshot = served.metrics.snapshot(served)
        accept, accepted = request.headers.get(hdrs.ACCEPT, ""), request.headers.get(hdrs.ACCEPT_ENCODING, "")
        # A fleet's exposition takes tens of milliseconds, which the probes must not have to wait for.
        loop = asyncio.get_running_loop()
        body, content_type, zipped = await loop.run_in_executor(encoding, _encoded, snapshot, accept, accepted)
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.VARY: "Accept, Accept-Encoding"}
        if zipped:
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, headers=headers)

    return [
        web.get("/-/healthy", healthy),
        web.get("/-/ready", ready),
        web.post("/-/reload", reload),
        web.put("/-/reload", reload),
        web.get("/metrics", scrape),
    ]


def _encoded(snapshot: Snapshot, accept: str, accept_encoding: str) -> tuple[bytes, str, bool]:
    from probed.exposition import encode  # 2 MiB that a daemon without a scraper never needs

    return encode(snapshot, accept, accept_encoding)


def _problem(problem: Problem) -> dict[str, object]:
    """``line`` and ``column`` are null where a problem has no place in a file."""
    return {
        "where": problem.where,
        "line": problem.line or None,
        "column": problem.column or None,
        "path": problem.path,
        "message": problem.message,
    }
