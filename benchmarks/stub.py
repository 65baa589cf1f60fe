"""Components on loopback, healthy until told otherwise: ``python -m benchmarks.stub COUNT`` or ``… FILE``.

COUNT of them that answer each request alike, or those of a JSON file: ``{name: {"port": 0 or a port, "answers":
{request: answer}}}``, where a request is a request line without its version and an answer is latin-1 text; whatever
else is asked gets 536 bytes. Prints their ports in one line, serves until stdin ends, and obeys lines on stdin, each
with one line back on stdout:

``serve|refuse|hang|fail NAME``: the state from now on; answered, once it holds, with the monotonic time just before
``count``: requests answered so far
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.ways import ANSWER

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
HONEST = HEAD % len(ANSWER) + ANSWER
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"
PLAIN = HEAD % 536 + b'"' + b"x" * 534 + b'"'


class Site:
    """One component on its port."""

    answered = 0

    def __init__(self, answers: Mapping[bytes, bytes], otherwise: bytes, port: int = 0) -> None:
        self._answers, self._otherwise = answers, otherwise
        self._server: asyncio.Server | None = None
        self._state = ""
        self.port = port
        self.lines: set[asyncio.Transport] = set()

    async def enter(self, state: str) -> None:
        """Be in a state from now on; ``refuse`` drops the lines from before."""
        self._state = state
        if state == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
            for line in list(self.lines):
                line.abort()
        elif state != "refuse" and self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: Peer(self), "127.0.0.1", self.port, backlog=1024)
            self.port = self._server.sockets[0].getsockname()[1]

    def answer(self, head: bytes) -> bytes:
        """What goes back, at once; nothing from one that hangs."""
        if self._state == "hang":
            return b""
        Site.answered += 1
        if self._state == "fail":
            return FAILED
        return self._answers.get(head.partition(b" HTTP/")[0], self._otherwise)


class Peer(asyncio.Protocol):
    """One line to a site. A request is expected to come in one piece, as it does on loopback."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._site.lines.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._site.lines.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        answer = self._site.answer(data)
        if self._transport is not None and answer:
            self._transport.write(answer)
            if b"onnection: close" in data:
                self._transport.close()


def _sites(what: str) -> dict[str, Site]:
    if what.isdigit():
        return {str(number): Site({}, HONEST) for number in range(int(what))}
    wanted = json.loads(Path(what).read_text(encoding="utf-8"))
    return {
        name: Site({line.encode(): text.encode("latin-1") for line, text in one["answers"].items()}, PLAIN, one["port"])
        for name, one in wanted.items()
    }


async def main(what: str) -> None:
    sites = _sites(what)
    for site in sites.values():
        await site.enter("serve")
    print(*(site.port for site in sites.values()), flush=True)
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := (await orders.readline()).decode().split():
        if order == ["count"]:
            print(Site.answered, flush=True)
        else:
            state, name = order
            at = time.monotonic()
            await sites[name].enter(state)
            print(at, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
