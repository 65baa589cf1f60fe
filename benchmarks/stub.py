"""Patroni stand-ins on loopback for load: ``python -m benchmarks.stub HUNG ALL`` prints its ports and serves."""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.jitter import CLUSTER, PATRONI


def _answer(body: object) -> bytes:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text


ANSWERS = {b"/cluster": _answer(CLUSTER), b"/patroni": _answer(PATRONI)}


class Peer(asyncio.Protocol):
    """Answers each GET at once, or accepts and never answers."""

    def __init__(self, hung: bool) -> None:
        self._hung = hung
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._hung and self._transport is not None:
            self._transport.write(ANSWERS[data.split(b" ", 2)[1]])


async def main(hung: int, total: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda hang=number < hung: Peer(hang), "127.0.0.1", 0)  # type: ignore[misc]
        for number in range(total)
    ]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.sleep(120)  # a load stops by itself


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
