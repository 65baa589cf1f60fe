"""A reading of seconds is the target's: our own loop's queue is no part of it, and a slow target's time always is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from probed.probes._http import HttpClient
from probed.probes._sql import Login, Session
from tests import hostile
from tests.hostile import listening
from tests.leaks import nothing_left_behind

BUSY = 0.02


@pytest.fixture(autouse=True)
async def clean(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    async with nothing_left_behind(caplog):
        yield


@contextlib.contextmanager
def a_busy_loop() -> Iterator[None]:
    """Each turn of the loop takes 20 ms, as beside hundreds of other targets."""
    loop = asyncio.get_running_loop()

    def turn() -> None:
        time.sleep(BUSY)  # what is tested is a loop that computes for so long, not that time passes
        following[0] = loop.call_soon(turn)

    following = [loop.call_soon(turn)]
    try:
        yield
    finally:
        following[0].cancel()


class Slowly:
    """Peers that take their time over an answer, and note how much."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.took = 0.0

    async def think(self) -> None:
        began = time.perf_counter()
        await asyncio.sleep(self._seconds)
        self.took = time.perf_counter() - began

    async def postgres(self, line: hostile.Line) -> None:
        await hostile.startup(line)
        await line.say(hostile.WELCOME)
        while (await line.reader.readexactly(1)) == b"Q":
            await line.reader.readexactly(int.from_bytes(await line.reader.readexactly(4)) - 4)
            await self.think()
            await line.say(hostile.TEXT_COLUMN + hostile.TEXT_ROW + hostile.DONE + hostile.READY)

    async def http(self, line: hostile.Line) -> None:
        while True:
            await line.request()
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            await self.think()
            await line.say(b"k")


@contextlib.asynccontextmanager
async def a_session(peer: Slowly) -> AsyncIterator[Session]:
    async with listening(peer.postgres) as server:
        session = Session(Login("127.0.0.1", server.port, "probed"), 10.0)
        await session.ping()  # the login is no part of a ping
        try:
            yield session
        finally:
            session.drop()


async def test_a_ping_ends_when_the_answer_is_read_not_when_the_loop_comes_to_tell_of_it() -> None:
    async with a_session(Slowly()) as session:
        with a_busy_loop():
            began = time.perf_counter()
            reading = await session.ping()
            seen = time.perf_counter() - began
    assert 0.0 < reading <= seen - BUSY


async def test_a_slow_server_is_never_flattered() -> None:
    peer = Slowly(0.1)
    async with a_session(peer) as session:
        assert await session.ping() >= peer.took
        with a_busy_loop():
            assert await session.ping() >= peer.took


async def test_an_http_answer_ends_with_its_last_byte_and_not_with_its_turn() -> None:
    peer, client = Slowly(0.1), HttpClient()
    async with listening(peer.http) as server:
        for _ in range(2):  # on a new connection, and on a kept one
            began = time.perf_counter()
            with a_busy_loop():
                answer = await client.get(f"http://127.0.0.1:{server.port}/")
            assert peer.took <= answer.heard_at - began <= time.perf_counter() - began - BUSY
        await client.close()
