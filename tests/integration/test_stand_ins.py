"""The demo's stand-ins answer as was recorded, byte for byte, in every recorded state, and change it on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from probed.demo import components
from probed.demo.blueprint import COMPONENTS
from probed.demo.ports import HOST
from probed.demo.recordings import HEALTHY, NOT_RECORDED, read
from probed.demo.standin import StandIn
from tests.hostile import refusing

STATES = [(name, state) for name in COMPONENTS for state in read(name).states]
SILENCE_SECONDS = 0.2


@contextlib.asynccontextmanager
async def line(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(port: int, request: str, length: int) -> bytes:
    async with line(port) as (reader, writer):
        writer.write(f"{request} HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n".encode())
        return await asyncio.wait_for(reader.readexactly(length), 5)


@pytest.mark.parametrize("name, state", STATES, ids=str)
async def test_every_recorded_answer_is_given_byte_for_byte(name: str, state: str) -> None:
    port, recording = refusing(), read(name)
    stand_in = StandIn(recording, port)
    await stand_in.enter(state)
    try:
        if not recording.states[state].listens:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, port)
            return
        for request, answer in recording.states[state].answers.items():
            if answer is None:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ask(port, request, 1), SILENCE_SECONDS)
            else:
                assert await ask(port, request, len(answer)) == answer
        assert await ask(port, "GET /of-which-nothing-is-recorded", len(NOT_RECORDED)) == NOT_RECORDED
    finally:
        await stand_in.close()


async def test_a_state_that_ends_drops_who_hangs_in_it_and_the_port_comes_back() -> None:
    port, recording = refusing(), read("realtime")
    stand_in = StandIn(recording, port)
    try:
        await stand_in.enter("frozen")
        async with line(port) as (reader, writer):
            writer.write(b"GET /healthcheck HTTP/1.1\r\n\r\n")
            assert await components.is_in(port, recording.states["frozen"])
            await stand_in.enter("starting")
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
        assert await components.is_in(port, recording.states["starting"])
        await stand_in.enter(HEALTHY)
        assert await components.is_in(port, recording.states[HEALTHY])
        assert not await components.is_in(port, recording.states["frozen"])
    finally:
        await stand_in.close()


async def test_who_sends_no_http_does_not_stop_it() -> None:
    port, recording = refusing(), read("auth")
    stand_in = StandIn(recording, port)
    await stand_in.enter(HEALTHY)
    try:
        async with line(port) as (reader, writer):
            writer.write(b"\0" * 100_000)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
        assert await components.is_in(port, recording.states[HEALTHY])
    finally:
        await stand_in.close()
