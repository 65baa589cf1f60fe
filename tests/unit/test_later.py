"""Routes that are made at their first visit, behind a real listener."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp
from aiohttp import web

from probed.api.later import Later
from probed.demo.ports import free_port


async def ask(url: str, method: str = "GET") -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
        return answer.status, await answer.text()


async def test_routes_are_made_once_by_whoever_comes_first_and_not_for_those_that_were_there() -> None:
    made = []

    async def say(request: web.Request) -> web.Response:
        return web.Response(text=request.match_info.get("name", "here at once"))

    async def make() -> Sequence[web.AbstractRouteDef]:
        made.append(1)
        await asyncio.sleep(0.05)  # all who came first are waiting by now
        return [web.get("/things/{name}", say)]

    app = web.Application()
    app.add_routes([web.get("/-/healthy", say)])
    app.router.register_resource(Later(make))
    runner = web.AppRunner(app)
    await runner.setup()
    base = f"http://127.0.0.1:{(port := free_port())}"
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        assert await ask(f"{base}/-/healthy") == (200, "here at once")
        assert not made
        found = await asyncio.gather(*(ask(f"{base}/things/{name}") for name in "abc"))
        assert found == [(200, name) for name in "abc"]
        assert (await ask(f"{base}/nothing"))[0] == 404
        assert (await ask(f"{base}/things/a", "DELETE"))[0] == 405
        assert len(made) == 1
    finally:
        await runner.cleanup()


async def test_what_could_not_be_made_is_tried_again_by_the_next_visitor() -> None:
    tries = []

    async def make() -> Sequence[web.AbstractRouteDef]:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("too many open files")
        return []

    app = web.Application()
    app.router.register_resource(Later(make))
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        assert (await ask(f"http://127.0.0.1:{port}/x"))[0] == 500
        assert (await ask(f"http://127.0.0.1:{port}/x"))[0] == 404
    finally:
        await runner.cleanup()
