"""Servers on loopback that misbehave: what a probe may meet, each as a short behaviour by name.

``async with listening(HTTP["slow_body"]) as peer`` serves one in this process. ``with elsewhere("endless_body") as
port`` serves it from a process of its own, so that what it sends costs the test's process no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STOP = b"\r\n\r\n"


@dataclass
class Peer:
    """One listening server, and what it saw."""

    port: int = 0
    accepted: int = 0
    open: int = 0
    most_open: int = 0
    requests: list[bytes] = field(default_factory=list)
    elsewhere: str = ""
    """Where behaviours that redirect lead to."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Line:
    """One accepted connection."""

    peer: Peer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """The head of the next HTTP request."""
        head = await self.reader.readuntil(STOP)
        self.peer.requests.append(head)
        return head

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def slowly(self, data: bytes, pause: float = 0.05) -> None:
        for byte in data:
            await self.say(bytes([byte]))
            await asyncio.sleep(pause)

    async def endlessly(self, data: bytes) -> None:
        while True:
            await self.say(data)
            await asyncio.sleep(0)

    async def hang(self) -> None:
        """Until the other side goes away."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """The next close sends RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Behaviour = Callable[[Line], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(behaviour: Behaviour, *, port: int = 0, elsewhere: str = "") -> AsyncIterator[Peer]:
    """Serve ``behaviour`` until the block ends; then every connection of it is gone."""
    peer, lines = Peer(elsewhere=elsewhere), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        lines.add(task)
        peer.accepted += 1
        peer.open += 1
        peer.most_open = max(peer.most_open, peer.open)
        # The end of the block cancels what still hangs; that is no error of the task's.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await behaviour(Line(peer, reader, writer))
            writer.close()
            await writer.wait_closed()
        peer.open -= 1
        writer.transport.abort()
        lines.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in list(lines):
            task.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
        await server.wait_closed()


@contextlib.contextmanager
def elsewhere(name: str) -> Iterator[int]:
    """Serve a behaviour from another process; its port. That of a server of PostgreSQL's is ``postgres:NAME``."""
    with crowd(name, 1) as ports:
        yield ports[0]


@contextlib.contextmanager
def crowd(name: str, count: int, *, nice: int = 0) -> Iterator[list[int]]:
    """Serve a behaviour on ``count`` ports of one other process. ``nice``: how far it stands back for a processor."""
    command = [sys.executable, __file__, name, str(count), str(nice)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield [int(port) for port in process.stdout.readline().split()]
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait()


@contextlib.contextmanager
def deaf(count: int) -> Iterator[list[int]]:
    """Ports whose queue is full and never emptied: Linux drops every SYN that comes."""
    with contextlib.ExitStack() as sockets:
        ports = []
        for _ in range(count):
            door = sockets.enter_context(socket.socket())
            door.bind(("127.0.0.1", 0))
            door.listen(0)
            sockets.enter_context(socket.create_connection(door.getsockname()))
            ports.append(int(door.getsockname()[1]))
        yield ports


def refusing() -> int:
    """A port at which nobody listens."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


# --- HTTP ---------------------------------------------------------------------------------------------------------


def answering(body: bytes, head: bytes = OK, status: bytes = b"") -> Behaviour:
    """An honest server: the same answer to each request, connections kept alive."""

    async def behave(line: Line) -> None:
        first = status or head
        while True:
            await line.request()
            await line.say(first + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    return behave


def saying(data: bytes, *, then_hang: bool = False) -> Behaviour:
    """``data`` in answer to a request, then the end (or nothing more)."""

    async def behave(line: Line) -> None:
        await line.request()
        await line.say(data)
        if then_hang:
            await line.hang()

    return behave


def flooding(first: bytes, data: bytes) -> Behaviour:
    """``first`` in answer to a request, then ``data`` again and again."""

    async def behave(line: Line) -> None:
        await line.request()
        await line.say(first)
        await line.endlessly(data)

    return behave


async def accept_and_hang(line: Line) -> None:
    await line.hang()


async def close_after_accept(line: Line) -> None:
    pass


async def close_after_request(line: Line) -> None:
    await line.request()


async def reset_after_request(line: Line) -> None:
    await line.request()
    line.reset()


async def half_close(line: Line) -> None:
    await line.request()
    line.writer.write_eof()
    await line.hang()


async def slow_headers(line: Line) -> None:
    await line.request()
    await line.slowly(OK)
    await line.slowly(b"X-Slow: " + b"x" * 10_000)


async def slow_body(line: Line) -> None:
    await line.request()
    await line.say(OK + b"Content-Length: 100000\r\n\r\n")
    await line.slowly(b" " * 100_000)


async def reset_in_body(line: Line) -> None:
    await line.request()
    await line.say(OK + b"Content-Length: 1000\r\n\r\n{")
    await asyncio.sleep(0.05)
    line.reset()


async def huge_header(line: Line) -> None:
    await line.request()
    await line.say(OK)
    for _ in range(160):
        await line.say(b"X-Huge: " if _ == 0 else b"x" * 65536)


async def redirect_to_itself(line: Line) -> None:
    while True:
        await line.request()
        await line.say(b"HTTP/1.1 302 Found\r\nLocation: /patroni\r\nContent-Length: 0\r\n\r\n")


async def redirect_elsewhere(line: Line) -> None:
    while True:
        await line.request()
        target = line.peer.elsewhere.encode()
        await line.say(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target)


def closing_idle(pause: float, body: bytes) -> Behaviour:
    """Keeps each connection alive by its word, and closes it ``pause`` seconds after its first answer."""

    async def behave(line: Line) -> None:
        await line.request()
        await line.say(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await asyncio.sleep(pause)

    return behave


def closing_on_reuse(body: bytes) -> Behaviour:
    """As a server whose idle timeout runs out just as the next request arrives: RST instead of a second answer."""

    async def behave(line: Line) -> None:
        await line.request()
        await line.say(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await line.request()
        line.reset()

    return behave


@functools.cache
def _bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(b" " * 64 * 2**20) + packer.flush()
    return OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed


async def gzip_bomb(line: Line) -> None:
    await saying(_bomb())(line)


def json(body: bytes) -> Behaviour:
    return answering(body)


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"

HTTP: dict[str, Behaviour] = {
    "accept_and_hang": accept_and_hang,
    "close_after_accept": close_after_accept,
    "close_after_request": close_after_request,
    "reset_after_request": reset_after_request,
    "half_close": half_close,
    "slow_headers": slow_headers,
    "slow_body": slow_body,
    "hang_in_body": saying(OK + b"Content-Length: 20000\r\n\r\n" + b" " * 15_000, then_hang=True),
    "endless_body": flooding(OK + STOP[2:], b" " * 65536),
    "endless_chunks": flooding(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "endless_tiny_chunks": flooding(CHUNKED, b"1\r\n \r\n" * 10_000),
    "endless_informational": flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000),
    "endless_answers": flooding(b"", EMPTY * 2_000),
    "endless_headers": flooding(OK, b"X-More: more\r\n" * 2_000),
    "gzip_bomb": gzip_bomb,
    "redirect_to_itself": redirect_to_itself,
    "redirect_elsewhere": redirect_elsewhere,
    "short_length": saying(OK + b'Content-Length: 3\r\n\r\n{"state": "running"}'),
    "long_length": saying(OK + b'Content-Length: 1000\r\n\r\n{"state": "running"}'),
    "two_lengths": saying(OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n{}  "),
    "negative_length": saying(OK + b"Content-Length: -1\r\n\r\n{}"),
    "bad_chunk": saying(CHUNKED + b"zz\r\n{}\r\n"),
    "garbage": saying(bytes(range(256)) * 16),
    "garbage_status": saying(b"HTTP/1.1 twohundred OK\r\n\r\n{}"),
    "http_0_9": saying(b"<html>hello</html>"),
    "nul_in_header": saying(OK + b"X-Nul: a\0b\r\nContent-Length: 2\r\n\r\n{}"),
    "huge_header": huge_header,
    "many_headers": saying(OK + b"X-One: 1\r\n" * 10_000 + b"Content-Length: 2\r\n\r\n{}"),
    "reset_in_body": reset_in_body,
    "json_truncated": json(b'{"state": "run'),
    "json_empty": json(b""),
    "json_deep": json(b"[" * 60_000),
    "json_deep_object": json(b'{"state":' * 6_000),
    "json_huge_int": json(b'{"state": "running", "timeline": ' + b"9" * 5_000 + b"}"),
    "json_large_int": json(b'{"state": "running", "timeline": ' + b"9" * 400 + b"}"),
    "json_nan": json(b'{"state": "running", "timeline": NaN}'),
    "json_infinite": json(b'{"state": "running", "timeline": 1e999}'),
    "json_duplicate_key": json(b'{"state": "running", "state": "stopped"}'),
    "json_not_utf8": json(b'{"state": "\xff\xfe"}'),
    "json_array": json(b'["state"]'),
    "json_string": json(b'"state"'),
    "json_null": json(b"null"),
    "json_state_is_a_number": json(b'{"state": 5}'),
    "json_without_state": json(b'{"members": []}'),
}

# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("!i", len(payload) + 4) + payload


def error(severity: str, code: str, text: str) -> bytes:
    fields = {b"S": severity, b"V": severity, b"C": code, b"M": text}
    return message(b"E", b"".join(key + value.encode() + b"\0" for key, value in fields.items()) + b"\0")


AUTHENTICATED = message(b"R", struct.pack("!i", 0))
READY = message(b"Z", b"I")
VERSION = message(b"S", b"server_version\0" + b"16.4\0")
NOTICE = message(b"N", b"SNOTICE\0C00000\0Mnoise\0\0")
DONE = message(b"C", b"SELECT 1\0")
WELCOME = AUTHENTICATED + VERSION + message(b"K", struct.pack("!ii", 1, 2)) + READY
TEXT_COLUMN = message(b"T", struct.pack("!h", 1) + b"x\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0))
TEXT_ROW = message(b"D", struct.pack("!hi", 1, 1) + b"x")


async def startup(line: Line, tls: bytes = b"N") -> None:
    """Refuse TLS (or answer ``tls``) and read the startup message."""
    packet = await _packet(line)
    if packet[4:8] == struct.pack("!i", 80877103):
        await line.say(tls)
        packet = await _packet(line)
    line.peer.requests.append(packet)


async def _packet(line: Line) -> bytes:
    size = await line.reader.readexactly(4)
    return size + await line.reader.readexactly(int.from_bytes(size) - 4)


async def _message(line: Line) -> bytes:
    """The kind of the next message."""
    kind = await line.reader.readexactly(1)
    size = await line.reader.readexactly(4)
    await line.reader.readexactly(int.from_bytes(size) - 4)
    return kind


def at_startup(data: bytes, *, endless: bytes = b"", close: bool = False) -> Behaviour:
    """``data`` in answer to the startup message, then ``endless`` again and again, silence, or the end."""

    async def behave(line: Line) -> None:
        await startup(line)
        await line.say(data)
        if endless:
            await line.endlessly(endless)
        if not close:
            await line.hang()

    return behave


def at_query(data: bytes, *, endless: bytes = b"") -> Behaviour:
    """A login as it should be; then ``data`` in answer to the first statement."""

    async def behave(line: Line) -> None:
        await startup(line)
        await line.say(WELCOME)
        await _message(line)
        await line.say(data)
        if endless:
            await line.endlessly(endless)
        await line.hang()

    return behave


async def one_text_column(line: Line) -> None:
    """A server that answers everything with the word x."""
    await startup(line)
    await line.say(WELCOME)
    while True:
        await word_x(line)


async def word_x(line: Line, row: bytes = TEXT_ROW, after: bytes = b"") -> None:
    """Answer one statement, simple or prepared, with one row; ``after`` follows in the same breath."""
    while True:
        match await _message(line):
            case b"Q":
                await line.say(TEXT_COLUMN + row + DONE + READY + after)
                return
            case b"H":
                await line.say(message(b"1", b"") + message(b"t", b"\0\0") + TEXT_COLUMN)
            case b"S":
                await line.say(message(b"2", b"") + row + DONE + READY + after)
                return


def challenging(iterations: bytes) -> Behaviour:
    """SCRAM with so many iterations."""

    async def behave(line: Line) -> None:
        await startup(line)
        await line.say(message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"))
        await line.reader.readexactly(1)
        first = await _packet(line)
        nonce = first.rpartition(b"r=")[2]
        await line.say(message(b"R", struct.pack("!i", 11) + b"r=" + nonce + b"x,s=c2FsdA==,i=" + iterations))
        await line.hang()

    return behave


async def answers_tls_with_silence(line: Line) -> None:
    await _packet(line)
    await line.say(b"S")
    await line.hang()


async def answers_tls_with_garbage(line: Line) -> None:
    await _packet(line)
    await line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def answers_tls_with_an_error(line: Line) -> None:
    await _packet(line)
    await line.say(b"Ecould not fork new process\n\0")


async def speaks_first(line: Line) -> None:
    await line.say(b"220 mail.example ESMTP\r\n")
    await line.hang()


POSTGRES: dict[str, Behaviour] = {
    "accept_and_hang": accept_and_hang,
    "close_after_accept": close_after_accept,
    "speaks_first": speaks_first,
    "tls_then_silence": answers_tls_with_silence,
    "tls_garbage": answers_tls_with_garbage,
    "tls_error": answers_tls_with_an_error,
    "close_after_startup": at_startup(b"", close=True),
    "hang_after_startup": at_startup(b""),
    "hang_after_auth": at_startup(AUTHENTICATED),
    "garbage": at_startup(bytes(range(256)) * 16),
    "http": at_startup(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", close=True),
    "negative_message": at_startup(b"R\xff\xff\xff\xff" * 100),
    "short_message": at_startup(b"R\0\0\0\x05\0"),
    "huge_message": at_startup(b"S\x40\0\0\0", endless=b"x" * 65536),
    "unknown_authentication": at_startup(message(b"R", struct.pack("!i", 99))),
    "endless_authentication": at_startup(b"", endless=message(b"R", struct.pack("!i", 3))),
    "endless_notices": at_startup(AUTHENTICATED, endless=NOTICE * 1_000),
    "endless_parameters": at_startup(AUTHENTICATED, endless=VERSION * 1_000),
    "scram_iterations": challenging(b"2000000000"),
    "scram_iterations_beyond_numbers": challenging(b"9" * 4_000),
    "pooler": at_startup(error("FATAL", "08P01", "unsupported startup parameter: statement_timeout"), close=True),
    "starting": at_startup(error("FATAL", "57P03", "the database system is starting up"), close=True),
    "hang_at_query": at_query(b""),
    "garbage_at_query": at_query(bytes(range(256)) * 16),
    "huge_row": at_query(TEXT_COLUMN + b"D\x7f\xff\xff\xff", endless=b"x" * 65536),
    "endless_rows": at_query(TEXT_COLUMN, endless=TEXT_ROW * 1_000),
    "endless_notices_at_query": at_query(b"", endless=NOTICE * 1_000),
    "one_text_column": one_text_column,
}


async def _serve(name: str, count: int) -> None:
    family, _, short = name.rpartition(":")
    behaviour = (POSTGRES if family == "postgres" else HTTP)[short]
    async with contextlib.AsyncExitStack() as peers:
        served = [await peers.enter_async_context(listening(behaviour)) for _ in range(count)]
        print(*(peer.port for peer in served), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.nice(int(sys.argv[3]))
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
