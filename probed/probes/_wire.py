"""The event loop as the PostgreSQL driver sees it: our resolver, and bounds on what a server may send.

asyncpg takes neither sockets nor a resolver nor limits: it trusts the server's lengths up to 2 GiB per message, and
computes as many SCRAM iterations as the server names, on the event loop. But it takes a loop; this one stands between.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, cast

import asyncpg

from probed import steps
from probed.errors import Blind, ProbeError, TargetFailed
from probed.probes._dns import Resolver

MAX_ANSWER = 16 * 1024
"""Bytes that may come between two messages of ours; the largest honest answer is some kilobytes."""
MAX_LOGIN_MESSAGE = MAX_ANSWER
MAX_LOGIN_MESSAGES = 200
"""A login is some twenty messages; each costs the driver more than its bytes."""
MAX_CHALLENGES = 8
"""Authentication messages per login; SCRAM needs four."""
MAX_ITERATIONS = 100_000
"""SCRAM iterations; PostgreSQL's default is 4096. The driver computes them on the loop: these are some 50 ms."""

_ITERATIONS = re.compile(rb",i=(\d+)")
_AUTHENTICATION, _READY = ord("R"), ord("Z")
_SASL_CONTINUE = 11
_ASKING = "ask for TLS"


class Wire:
    """A loop for one login and the connection that comes of it; what it does not guard is the running loop's."""

    def __init__(self, address: str, resolver: Resolver) -> None:
        self._loop = asyncio.get_running_loop()
        self._address, self._resolver = address, resolver
        self._opened: list[asyncio.BaseTransport] = []
        self._pipe: _Pipe | None = None

    @property
    def wrote_at(self) -> float:
        """When the last message was given to the system, by ``time.perf_counter``."""
        assert self._pipe is not None
        return self._pipe.wrote_at

    @property
    def heard_at(self) -> float:
        """When the last that came was read from the system: whom it wakes up waits for the loop's other work first."""
        assert self._pipe is not None
        return self._pipe.heard_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int, **options: Any
    ) -> tuple[_Pipe, asyncio.Protocol]:
        failure: OSError | None = None
        for address in await self._resolver.addresses(host):
            try:
                with steps.step(steps.CONNECT, f"{address}:{port}"):
                    opened = await self._loop.create_connection(lambda: self._gate(factory), address, port, **options)
            except OSError as error:
                failure = error
            else:
                return self._guarded(*opened)
        assert failure is not None
        try:
            raise failure
        finally:
            failure = None  # it knows this frame by its traceback: left in it, both would wait for the collector

    async def create_unix_connection(
        self, factory: Callable[[], asyncio.Protocol], path: str, **options: Any
    ) -> tuple[_Pipe, asyncio.Protocol]:
        with steps.step(steps.CONNECT, path):
            opened = await self._loop.create_unix_connection(lambda: self._gate(factory), path, **options)
        return self._guarded(*opened)

    async def start_tls(self, pipe: _Pipe, protocol: asyncio.Protocol, *args: Any, **options: Any) -> _Pipe:
        steps.end(_ASKING)
        pipe.let_go()  # its gate is never told that the connection is lost: TLS takes its place
        with steps.step("TLS"):
            transport = await self._loop.start_tls(pipe.transport, protocol, *args, **options)
        assert transport is not None
        self._opened.append(transport)
        self._pipe = _Pipe(transport, self._address)
        return self._pipe

    def abort(self) -> None:
        """Close every socket of a login that came to nothing, now: TLS would wait 30 s for a hung server's farewell."""
        for transport in self._opened:
            transport.abort()  # type: ignore[attr-defined]

    def _gate(self, factory: Callable[[], asyncio.Protocol]) -> _Gate:
        inner = factory()
        answer = getattr(inner, "on_data", None)
        if isinstance(answer, asyncio.Future):
            # asyncpg waits for the answer to its question for TLS; who is cancelled before leaves an error to nobody.
            answer.add_done_callback(lambda future: future.cancelled() or future.exception())
        return _Gate(inner, self._address)

    def _guarded(self, transport: asyncio.Transport, gate: _Gate) -> tuple[_Pipe, asyncio.Protocol]:
        self._opened.append(transport)
        steps.begin("login" if isinstance(gate.inner, asyncpg.protocol.Protocol) else _ASKING)
        assert gate.pipe is not None
        self._pipe = gate.pipe
        return gate.pipe, gate.inner


class _Pipe:
    """A transport that keeps a gate before whichever protocol it serves; each write renews the gate's allowance."""

    def __init__(self, transport: asyncio.Transport, address: str, gate: _Gate | None = None) -> None:
        self.transport, self._address, self._gate = transport, address, gate
        self.wrote_at = self.heard_at = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: Any) -> None:
        if self._gate is not None:
            self._gate.allowance = MAX_ANSWER
        self.wrote_at = time.perf_counter()
        self.transport.write(data)

    def writelines(self, buffers: Any) -> None:
        if self._gate is not None:
            self._gate.allowance = MAX_ANSWER
        self.wrote_at = time.perf_counter()
        self.transport.writelines(buffers)

    def let_go(self) -> None:
        """Of the gate, which knows its pipe: a hundred pairs a second of hung servers are much for the collector."""
        self._gate = None

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        steps.end(_ASKING)
        steps.begin("login")
        self._gate = _Gate(protocol, self._address)
        self._gate.pipe = self
        self.transport.set_protocol(self._gate)


class _Gate(asyncio.Protocol):
    """Hands on what the server sends, as long as it is bounded and, during the login, well-formed."""

    def __init__(self, inner: asyncio.Protocol, address: str) -> None:
        self.inner, self._address = inner, address
        self.pipe: _Pipe | None = None
        self.allowance = MAX_ANSWER
        self._refusal: ProbeError | None = None
        self._messages = self._challenges = 0
        self._login: bytearray | None = bytearray() if isinstance(inner, asyncpg.protocol.Protocol) else None
        """What came of the next message; None once the login is over (or was not of this protocol)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.pipe = _Pipe(cast(asyncio.Transport, transport), self._address, self)
        self.inner.connection_made(self.pipe)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        if self.pipe is not None:
            self.pipe.heard_at = time.perf_counter()
        self.allowance -= len(data)
        if self.allowance < 0:
            self._refuse(TargetFailed("too_large", f"{self._address}: the answer is larger than {MAX_ANSWER} bytes"))
        elif self._login is None:
            self._hand_on(data)
        else:
            self._login += data
            self._hand_on_messages(self._login)

    def _hand_on_messages(self, login: bytearray) -> None:
        """Whole messages only, and only those that the driver can take."""
        while len(login) >= 5 and self._login is not None and self._refusal is None:
            size = 1 + int.from_bytes(login[1:5])
            if not 5 <= size <= MAX_LOGIN_MESSAGE:
                text = "the server does not speak PostgreSQL's protocol"
                self._refuse(TargetFailed("protocol", f"{self._address}: {text}"))
                return
            if len(login) < size:
                return
            message = bytes(login[:size])
            del login[:size]
            self._messages += 1
            if self._messages > MAX_LOGIN_MESSAGES:
                self._refuse(TargetFailed("too_large", f"{self._address}: the server's login never ends"))
                return
            if message[0] == _AUTHENTICATION and not self._bearable(message):
                return
            if message[0] == _READY:
                self._login = None
                message += bytes(login)
            self._hand_on(message)

    def _hand_on(self, data: bytes) -> None:
        try:
            self.inner.data_received(data)
        except Exception as error:  # noqa: BLE001 - messages out of turn make the driver stumble over its own state
            text = f"{type(error).__name__}: {error}"
            self._refuse(TargetFailed("protocol", f"{self._address} does not speak PostgreSQL's protocol: {text}"))

    def _bearable(self, message: bytes) -> bool:
        self._challenges += 1
        if self._challenges > MAX_CHALLENGES:
            self._refuse(TargetFailed("protocol", f"{self._address}: the server's login never ends"))
            return False
        iterations = _ITERATIONS.search(message) if int.from_bytes(message[5:9]) == _SASL_CONTINUE else None
        if iterations is not None and (len(iterations[1]) > 9 or int(iterations[1]) > MAX_ITERATIONS):
            text = f"{self._address} wants more than {MAX_ITERATIONS} SCRAM iterations computed at each login"
            self._refuse(Blind("unsupported", f"{text}; lower scram_iterations and set the role's password anew"))
            return False
        return True

    def _refuse(self, error: ProbeError) -> None:
        self._refusal = error
        if self._login is not None:
            self._login.clear()
        assert self.pipe is not None
        self.pipe.transport.abort()

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(self._refusal or exc)
        if self.pipe is not None:
            self.pipe.let_go()

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()
