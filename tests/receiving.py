"""A receiver of notices on a real socket: answers as it is told, and remembers everything that it was sent."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.hostile import Line, listening


@dataclass(frozen=True)
class Received:
    """One request, complete."""

    method: str
    path: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Sink:
    """``answers`` are used up in order, then everything is ``otherwise``.

    An answer is a status with further header lines (``429 Retry-After: 7``), ``hang``, ``drip``: it says 200 and never
    comes to the end of its answer, or ``lose``: it has read the request, and the connection breaks before it answers.
    """

    answers: list[str] = field(default_factory=list)
    otherwise: str = "200"
    seen: list[Received] = field(default_factory=list)
    taken: list[Received] = field(default_factory=list)
    """Without those that it refused: whose answer was 2xx, or got lost."""
    on_request: Callable[[Received], None] = lambda _: None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, line: Line) -> None:
        while True:
            head = (await line.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (item.partition(":") for item in rest)}
            body = await line.reader.readexactly(int(headers.get("content-length", "0")))
            method, path, _ = first.split(" ")
            request = Received(method, path, headers, body)
            self.seen.append(request)
            self.on_request(request)
            answer = self.answers.pop(0) if self.answers else self.otherwise
            if answer[:1] not in "345":
                self.taken.append(request)
            if answer == "hang":
                await line.hang()
            if answer == "drip":
                await line.say(b"HTTP/1.1 200 x\r\nContent-Length: 1000\r\n\r\n")
                await line.slowly(b"x" * 999)
            if answer == "lose":
                line.reset()
                return
            status, _, extra = answer.partition(" ")
            more = f"{extra}\r\n" if extra else ""
            await line.say(f"HTTP/1.1 {status} x\r\nContent-Length: 2\r\n{more}\r\nok".encode())

    @contextlib.asynccontextmanager
    async def listen(self, port: int = 0) -> AsyncIterator[Sink]:
        async with listening(self.serve, port=port) as peer:
            self.port = peer.port
            yield self
