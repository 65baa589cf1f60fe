"""A whole daemon with a real component beside it: a silence through an outage, a restart, a reload, to its end."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from probed.api.app import serve
from probed.config.load import load_file
from probed.daemon import Daemon
from probed.errors import ConfigError
from probed.store import Change

Json = dict[str, Any]

SETTINGS = """\
web: {{listen: [], socket: {place}/probed.sock}}
storage: {{path: {place}/store}}
defaults: {{interval: 300ms, timeout: 200ms}}
observer: eye
instances:
  - name: orders
    components:
      shop: {{url: "http://127.0.0.1:{port}/health"}}
silences:
"""
WINDOW = """\
  - name: always
    comment: a window without an end
    events: [component_abnormal]
    every: "daily 00:00-24:00 UTC"
"""


class Shop:
    """A component that answers with ``status``."""

    def __init__(self) -> None:
        self.status = 200
        self.port = 0

    async def answer(self, _: web.Request) -> web.Response:
        return web.Response(status=self.status)


class Watched:
    """A daemon in this process, and what it tells people."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.told: list[tuple[str, str]] = []

    async def start(self) -> None:
        settings = load_file(self.file)
        self.daemon = Daemon(settings, lambda: load_file(self.file))
        self.daemon.pipeline.on_announce(self._announce)
        await self.daemon.start()
        self._close = await serve(self.daemon, addresses=[], socket_path=settings.socket)
        self.socket = settings.socket

    async def stop(self) -> None:
        await self._close()
        await self.daemon.stop()

    def _announce(self, change: Change) -> None:
        if change.announced and change.event.event == "component_abnormal":
            self.told.append((change.kind, change.event.id))

    async def ask(self, path: str, method: str = "GET") -> tuple[int, Json]:
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://localhost/api/v1{path}") as response,
        ):
            return response.status, json.loads(await response.text())

    async def event(self) -> Json | None:
        """The newest about the component."""
        _, answer = await self.ask("/events?event=component_abnormal&limit=1")
        return next(iter(answer["items"]), None)

    async def command(self, *arguments: str) -> Json:
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "probed", *arguments, "--socket", str(self.socket), "-o", "json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, errors = await running.communicate()
        assert running.returncode == 0, errors.decode()
        answer: Json = json.loads(told)
        return answer


async def until(met: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + 30
    while not await met():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.1)


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    made = Shop()
    app = web.Application()
    app.add_routes([web.get("/health", made.answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


async def test_an_outage_under_a_silence_is_told_when_the_silence_ends_over_a_restart(shop: Shop, place: Path) -> None:
    file = place / "probed.yml"
    file.write_text(SETTINGS.format(place=place, port=shop.port) + "  []\n")
    watched = Watched(file)
    await watched.start()
    try:
        made = await watched.command(
            "silence", "add", "--instance", "orders", "--comment", "new shelves", "--for", "1h"
        )  # fmt: skip
        shop.status = 500

        async def opened() -> bool:
            return await watched.event() is not None

        await until(opened, "the event")
        event = await watched.event()
        assert event is not None
        assert (event["silenced"], event["silenced_by"]) == (True, made["id"])
        assert event["details"]["silence"]["comment"] == "new shelves"

        await watched.stop()
        await watched.start()
        assert [item["id"] for item in (await watched.command("silence", "list"))["items"]] == [made["id"]]
        await asyncio.sleep(1)
        assert watched.told == []

        await watched.command("silence", "expire", made["id"])

        async def told() -> bool:
            return bool(watched.told)

        await until(told, "somebody to be told")
        assert watched.told == [("unsilenced", event["id"])]

        file.write_text(SETTINGS.format(place=place, port=shop.port) + WINDOW)
        await watched.daemon.reload()

        async def muted() -> bool:
            now = await watched.event()
            return now is not None and now["silenced_by"] == "file:always"

        await until(muted, "the window of the file to hold")
        status, answer = await watched.ask("/silences/file:always", "DELETE")
        assert status == 422
        line = 1 + file.read_text().splitlines().index("  - name: always")
        assert f"{file}:{line}" in answer["detail"]

        shop.status = 200

        async def ended() -> bool:
            return len(watched.told) > 1

        await until(ended, "the end to be told")
        assert watched.told[1:] == [("resolved", event["id"])]

        file.write_text(file.read_text().replace("component_abnormal", "component_abnormall"))
        with pytest.raises(ConfigError, match='did you mean "component_abnormal"') as caught:
            await watched.daemon.reload()
        assert str(caught.value).startswith(f"{file}:{line}:")
    finally:
        await watched.stop()
