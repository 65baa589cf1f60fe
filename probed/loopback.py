"""The door at which a daemon receives what it sends to itself: a port of its own on loopback, behind a secret path."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable

from aiohttp import hdrs, web

HOST = "127.0.0.1"


class Loopback:
    """Takes webhooks as any receiver does. ``came`` is told the id of each event."""

    def __init__(self, came: Callable[[str], None]) -> None:
        self._came = came
        self._path = f"/{secrets.token_urlsafe(24)}"
        self._http: web.Server | None = None
        self._server: asyncio.Server | None = None
        self.url = ""
        """Where it is reached while it is open."""

    async def open(self) -> None:
        """Listen, if it does not yet. OSError when it cannot."""
        if self._server is not None:
            return
        http = web.Server(self._take, access_log=None)
        self._server = await asyncio.get_running_loop().create_server(http, HOST, 0)
        self._http = http
        self.url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}{self._path}"

    async def close(self) -> None:
        if self._server is None or self._http is None:
            return
        self._server.close()
        await self._http.shutdown(timeout=1.0)
        await self._server.wait_closed()
        self._server, self._http, self.url = None, None, ""

    async def _take(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != hdrs.METH_POST or not secrets.compare_digest(request.path.encode(), self._path.encode()):
            return web.Response(status=404)
        try:
            event_id = json.loads(await request.read())["data"]["id"]
        except (ValueError, KeyError, TypeError):
            return web.Response(status=400)
        self._came(str(event_id))
        return web.Response(status=204)
