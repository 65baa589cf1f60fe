"""Stand-ins for components that cannot be run here: real sockets that answer as ``tests/recorded`` has it."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.hostile import Line, Peer, listening, refusing

RECORDED = Path(__file__).parent / "recorded"
HANG = "hang"
NOT_RECORDED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\nnot recorded"


@dataclass(frozen=True)
class State:
    """What a component answers in one state: request line without the version -> the bytes, or ``None`` for a hang."""

    listens: bool
    answers: dict[str, bytes | None]


def recorded(component: str) -> dict[str, State]:
    """The states of one file, by name."""
    data = tomllib.loads((RECORDED / f"{component}.toml").read_text(encoding="utf-8"))
    assert data.pop("source"), f"{component}: a recording names its source"
    return {name: _state(name, dict(found)) for name, found in data.items()}


def _state(name: str, found: dict[str, str | bool]) -> State:
    listens = found.pop("listens", True)
    assert isinstance(listens, bool)
    return State(listens, {request: _bytes(request, str(text)) for request, text in found.items()})


def _bytes(request: str, text: str) -> bytes | None:
    if text == HANG:
        return None
    head, _, body = text.partition("\n\n")
    lines = head.strip("\n").split("\n")
    content = b"" if request.startswith("HEAD ") else body.encode()
    if " 204 " not in lines[0] and not any(line.lower().startswith("content-length:") for line in lines):
        lines.append(f"Content-Length: {len(body.encode())}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@contextlib.asynccontextmanager
async def standing_in(state: State, *, port: int = 0) -> AsyncIterator[Peer]:
    """The component in ``state`` on a port; a peer that nobody listens at when it does not listen."""
    if not state.listens:
        yield Peer(port=port or refusing())
        return

    async def behave(line: Line) -> None:
        while True:
            head = await line.request()
            request = head.partition(b" HTTP/")[0].decode()
            answer = state.answers.get(request, NOT_RECORDED)
            if answer is None:
                await line.hang()
                return
            await line.say(answer)

    async with listening(behave, port=port) as peer:
        yield peer
