"""The components of the demo's stack: what each is called, and whether it answers as it should."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from probed.demo.ledger import ComponentEntry
from probed.demo.ports import HOST
from probed.demo.recordings import HEALTHY, State, read

ASK_SECONDS = 2.0
SILENCE_SECONDS = 0.3
"""After so long without a byte, a component counts as hanging."""
SWITCH_SECONDS = 5.0


async def missing(components: Mapping[str, ComponentEntry]) -> str:
    """Which component is not healthy, and how; ``""`` when all are."""
    for name, entry in components.items():
        if not entry.state:
            if not await _is_postgres_meta(entry.port):
                return f"{name} does not answer"
        elif not await is_in(entry.port, read(name).states[HEALTHY]):
            return f"{name} is not in its state {HEALTHY}"
    return ""


async def is_in(port: int, state: State) -> bool:
    """Whether what listens on a port is in this state, by its first recorded answer."""
    request, expected = next(iter(state.answers.items()), ("GET /", None))
    seconds = SILENCE_SECONDS if expected is None else ASK_SECONDS
    try:
        answer = await _ask(port, request, len(expected or b"x"), seconds)
    except OSError:
        return not state.listens
    return state.listens and answer == (expected or b"")


async def _is_postgres_meta(port: int) -> bool:
    with contextlib.suppress(OSError):
        answer = await _ask(port, "GET /health", 15, ASK_SECONDS)
        return answer == b"HTTP/1.1 200 OK"
    return False


async def _ask(port: int, request: str, length: int, seconds: float) -> bytes:
    """The first ``length`` bytes of an answer; fewer when no more came in time. OSError when nobody listens."""
    answer = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(f"{request} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                while len(answer) < length and (more := await reader.read(length - len(answer))):
                    answer += more
            finally:
                writer.transport.abort()
    return answer
