"""A door before a server that counts who is inside: how many connections at once, and how many ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.integration.postgres import ROLE


class Door:
    """Passes everything on to a port of this machine."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self.port = 0
        self.inside = self.most = self.ever = 0

    async def enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.inside, self.ever = self.inside + 1, self.ever + 1
        self.most = max(self.most, self.inside)
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._behind)
            first, second = (asyncio.create_task(_carry(*way)) for way in ((reader, forth), (back, writer)))
            # Whoever leaves first takes the other along, as one connection would.
            await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            second.cancel()
            forth.close()
        finally:
            self.inside -= 1
            writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def doors(behind: int, count: int) -> AsyncIterator[list[Door]]:
    """So many doors before one server, open until the block ends."""
    made = [Door(behind) for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        for door in made:
            server = await asyncio.start_server(door.enter, "127.0.0.1", 0)
            stack.callback(server.close)
            door.port = server.sockets[0].getsockname()[1]
        yield made


def instance(name: str, port: int, password: Path) -> dict[str, Any]:
    """Settings of an instance of one node, which is behind a port of this machine."""
    login = {"host": "127.0.0.1", "port": port, "user": ROLE, "password_file": str(password), "sslmode": "disable"}
    return {"name": name, "nodes": [{"name": "node", "postgres": login}]}
