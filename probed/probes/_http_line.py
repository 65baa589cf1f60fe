"""Connections over which HTTP questions are asked, one at a time on each; kept while they are good for another.

Every await here ends with the caller's deadline, and then nothing is left of the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from probed import steps
from probed.probes._dns import Resolver
from probed.probes._http_answer import Incoming, Malformed

KEPT_SECONDS = 75.0
"""For which a connection is kept that nobody asks anything."""
HEDGE_SECONDS = 0.25
"""After which the next address of a name is called, too, while the one before is silent (RFC 8305)."""
MAX_KNOWN = 16
"""Questions on one connection of whose answers something is remembered."""

Door = tuple[str, int, ssl.SSLContext | None]
"""Host, port, and how to speak TLS; connections are kept per door."""


class Closed(Exception):
    """The connection ended before anything was answered; ``reason`` is what the system says of it, if anything."""

    def __init__(self, reason: Exception | None) -> None:
        self.reason = reason
        super().__init__("the connection was closed without an answer")


class Known:
    """The newest JSON to one question, and the body it was read from: most answers are those of the cycle before."""

    __slots__ = ("body", "value")

    def __init__(self) -> None:
        self.body, self.value = b"", cast(Any, None)


class Line(asyncio.Protocol):
    """One connection. What a peer says without having been asked ends it."""

    def __init__(self, door: Door, lost: Callable[[Line], None]) -> None:
        self.door = door
        self.idle_since = 0.0
        self.heard_at = 0.0
        """When the newest of an answer was read from the system, by ``time.perf_counter``."""
        self._lost, self._loop = lost, asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._incoming: Incoming | None = None
        self._whole: asyncio.Future[Incoming] | None = None
        self._begun: Callable[[], None] | None = None
        self._known: dict[bytes, Known] = {}

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, question: bytes, *, to_head: bool, begun: Callable[[], None] | None) -> asyncio.Future[Incoming]:
        """Send a question; the answer, once it is whole. Closed, Malformed or OSError. ``begun``: told of its begin."""
        assert self._transport is not None
        assert self._whole is None, "one question at a time"
        self._incoming, self._begun = Incoming(to_head=to_head), begun
        self._whole = whole = self._loop.create_future()
        self._transport.write(question)
        return whole

    def known(self, question: bytes) -> Known:
        """What was read of the answer to a question, for as long as the connection lasts."""
        known = self._known.get(question)
        if known is None:
            if len(self._known) >= MAX_KNOWN:  # a token in it changes, and the question with it
                self._known.clear()
            known = self._known[question] = Known()
        return known

    def hang_up(self) -> None:
        """Now: TLS would wait for the peer's farewell."""
        transport, self._transport = self._transport, None  # uvloop's does not always let go of us, so that we must
        if transport is not None:
            transport.abort()

    # --- asyncio's ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are not asyncio's

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        if incoming is None:
            self.hang_up()
            return
        self.heard_at = time.perf_counter()
        if self._begun is not None:
            self._begun()
            self._begun = None
        try:
            if incoming.feed(data):
                self._end(incoming, None)
        except Malformed as error:
            self.hang_up()
            self._end(incoming, error.with_traceback(None))  # which would hold all that the peer has sent

    def connection_lost(self, exc: Exception | None) -> None:
        incoming = self._incoming
        if incoming is not None:
            error: Exception | None = exc if incoming.begun else Closed(exc)
            if error is None:
                self.heard_at = time.perf_counter()
                try:
                    incoming.end()
                except Malformed as malformed:
                    error = malformed.with_traceback(None)  # as above
            self._end(incoming, error)
        self._transport = None
        self._lost(self)

    def _end(self, incoming: Incoming, error: Exception | None) -> None:
        whole, self._incoming, self._whole = self._whole, None, None
        if whole is None or whole.done():  # its deadline came first
            return
        if error is None:
            whole.set_result(incoming)
        else:
            whole.set_exception(error)


class Lines:
    """All connections of one client, and those among them that wait for another question."""

    def __init__(self) -> None:
        self._resolver = Resolver()
        self._kept: dict[Door, list[Line]] = {}
        self._open: set[Line] = set()
        self._swept_at = 0.0

    def kept(self, door: Door) -> Line | None:
        """One that is good for another question, the one used last."""
        lines = self._kept.get(door)
        while lines:
            line = lines.pop()
            if line.usable and time.monotonic() - line.idle_since < KEPT_SECONDS:
                return line
            line.hang_up()
        return None

    async def dial(self, door: Door) -> Line:
        """A new one. OSError, TLS's included; Blind when the name has no address."""
        host, port, tls = door
        called = await _called(await self._resolver.addresses(host), port)
        line = Line(door, self._lost)
        loop = asyncio.get_running_loop()
        try:
            if tls is None:
                await loop.create_connection(lambda: line, sock=called)
            else:
                with steps.step("TLS"):
                    await loop.create_connection(lambda: line, sock=called, ssl=tls, server_hostname=host.rstrip("."))
        except BaseException:  # the deadline, too: nobody else knows of this socket
            line.hang_up()
            called.close()
            raise
        self._open.add(line)
        return line

    def keep(self, line: Line) -> None:
        """It was asked and has answered; somebody may ask it something else."""
        now = time.monotonic()
        line.idle_since = now
        self._kept.setdefault(line.door, []).append(line)
        if now - self._swept_at >= KEPT_SECONDS:
            self._swept_at = now
            self._sweep(now)

    def close(self) -> None:
        for line in list(self._open):
            line.hang_up()
        self._kept.clear()

    def _sweep(self, now: float) -> None:
        """Hang up on whom nobody asks any more."""
        for lines in self._kept.values():
            for line in lines:
                if now - line.idle_since >= KEPT_SECONDS:
                    line.hang_up()
        self._kept = {door: lines for door, lines in self._kept.items() if lines}

    def _lost(self, line: Line) -> None:
        self._open.discard(line)
        kept = self._kept.get(line.door, [])
        if line in kept:
            kept.remove(line)


async def _called(addresses: Sequence[str], port: int) -> socket.socket:
    """A socket that is connected to the first of these addresses that accepts; OSError of the last that does not."""
    if len(addresses) == 1:
        return await _call(addresses[0], port)
    calls: list[asyncio.Task[socket.socket]] = []
    waiting: set[asyncio.Task[socket.socket]] = set()
    error: BaseException | None = None
    try:
        for address in _by_turns(addresses):
            calls.append(asyncio.create_task(_call(address, port)))
            waiting.add(calls[-1])
            last = len(calls) == len(addresses)
            while waiting:
                patience = None if last else HEDGE_SECONDS
                done, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for call in done:
                    error = call.exception()
                    if error is None:
                        return calls.pop(calls.index(call)).result()
                if not last:
                    break
    finally:
        for call in calls:
            call.cancel()
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(ended, socket.socket):
                ended.close()
    assert error is not None
    try:
        raise error
    finally:
        error = None  # no cycle of frame and traceback


def _by_turns(addresses: Sequence[str]) -> Sequence[str]:
    """The families in turn, so that one that leads nowhere costs one patience only."""
    six, four = ([one for one in addresses if (":" in one) is of_six] for of_six in (True, False))
    first, second = (six, four) if ":" in addresses[0] else (four, six)
    paired = [one for pair in zip(first, second, strict=False) for one in pair]
    return paired + first[len(second) :] + second[len(first) :]


async def _call(address: str, port: int) -> socket.socket:
    called = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        called.setblocking(False)
        # Noted before TLS, which may hang: that somebody accepted is news.
        with steps.step(steps.CONNECT, f"{address}:{port}"):
            await asyncio.get_running_loop().sock_connect(called, (address, port))
    except BaseException:  # the deadline, too: nobody else knows of this socket
        called.close()
        raise
    return called
