"""Honest components on loopback: ``python -m benchmarks.stub COUNT`` prints its ports and serves."""

from __future__ import annotations

import asyncio
import sys

from tests.ways import ANSWER

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Peer(asyncio.Protocol):
    """Answers each GET at once."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(HEAD % len(ANSWER) + ANSWER)


async def main(count: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Peer, "127.0.0.1", 0) for _ in range(count)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until its starter goes away


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
