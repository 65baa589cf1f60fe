"""The doors: TCP addresses, and the UNIX socket for local administration."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from aiohttp import web

from probed.config.values import split_address
from probed.errors import ConfigError, Problem

MAX_CONNECTIONS = 128
"""Over TCP at once; the UNIX socket stays open to administration whatever happens there."""
HANDSHAKE_SECONDS = 10.0
SPEECHLESS_SECONDS = 10.0
"""A connection over TCP whose first request is not there after so long is closed."""
SOCKET_MODE = 0o660
MAX_SOCKET_PATH = 107

NewestContext = Callable[[], ssl.SSLContext]
"""Asked at each handshake, so that a renewed certificate serves the next connection."""

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Doors:
    """Everything that ``server`` listens on."""

    def __init__(self, server: web.Server, tls: NewestContext | None = None) -> None:
        self._server, self._tls = server, tls
        self._open: list[asyncio.Server] = []
        self._socket: tuple[Path, int] | None = None
        self._shaking: set[asyncio.Task[None]] = set()

    async def open(self, addresses: Sequence[str], socket_path: Path | None) -> None:
        """Listen on all of them, or on none: ConfigError names every one that cannot be had."""
        problems: list[Problem] = []
        for address in addresses:
            try:
                await self._open_tcp(address)
            except OSError as error:
                problems.append(Problem("web.listen", _why(address, error)))
        if socket_path is not None:
            try:
                await self._open_unix(socket_path)
            except ConfigError as error:
                problems += error.problems
        if problems:
            self.close()
            raise ConfigError(problems)

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        if self._socket is not None:
            path, inode = self._socket
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:  # not the socket of a daemon that has taken over meanwhile
                    path.unlink()
            self._socket = None
        for server in self._open:
            server.close()
        self._open.clear()
        for handshake in self._shaking:
            handshake.cancel()

    async def _open_tcp(self, address: str) -> None:
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        self._open.append(await loop.create_server(self._limited, host or None, port, backlog=128))

    async def _open_unix(self, path: Path) -> None:
        own = _unix_socket(path)
        self._socket = (path, path.stat().st_ino)  # noqa: ASYNC240 - one local call
        loop = asyncio.get_running_loop()
        factory: Callable[[], asyncio.BaseProtocol] = self._server
        self._open.append(await loop.create_unix_server(factory, sock=own))

    def _limited(self) -> asyncio.BaseProtocol:
        if len(self._server.connections) + len(self._shaking) >= MAX_CONNECTIONS:
            return _Full()
        return self._spoken_for() if self._tls is None else _Vestibule(self._shake)

    def _spoken_for(self) -> web.RequestHandler:
        handler = self._server()
        SPEECHLESS.add(handler)
        asyncio.get_running_loop().call_later(SPEECHLESS_SECONDS, _close_speechless, handler)
        return handler

    def _shake(self, line: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._handshake(line))
        self._shaking.add(task)
        task.add_done_callback(self._shaking.discard)

    async def _handshake(self, line: socket.socket) -> None:
        assert self._tls is not None
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._spoken_for, line, ssl=self._tls(), ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError:  # ssl.SSLError and a timeout are some, too: scanners, plain HTTP, certificates refused
            line.close()
        except BaseException:  # cancellation too: a handshake that was given up must not keep its connection
            line.close()
            raise


class _Vestibule(asyncio.Protocol):
    """Hands a connection on before a byte of it is read: its handshake has a task, a deadline and a count of its own.

    ``start_tls`` would do, but for uvloop (0.22), which reads whatever is there before it can be told not to.
    """

    def __init__(self, shake: Callable[[socket.socket], None]) -> None:
        self._shake = shake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        line = transport.get_extra_info("socket").dup()
        line.setblocking(False)
        cast(asyncio.Transport, transport).abort()  # the connection lives on in the duplicate
        self._shake(line)


def _close_speechless(handler: web.RequestHandler) -> None:
    if handler in SPEECHLESS:
        SPEECHLESS.discard(handler)
        handler.force_close()


SPEECHLESS: set[web.RequestHandler] = set()
"""Young connections of which no whole request has come; the guard strikes out who has spoken."""


class _Full(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast(asyncio.Transport, transport)  # uvloop's are of none of asyncio's classes
        made.write(_FULL)
        made.close()


def _why(address: str, error: OSError) -> str:
    other = "choose another address with web.listen or --web.listen-address"
    if error.errno == errno.EADDRINUSE:
        port = address.rpartition(":")[2]
        return f"{address} is in use by another program (ss -ltnp 'sport = :{port}' names it); stop it, or {other}"
    if isinstance(error, socket.gaierror):
        return f"{address} cannot be resolved: {error.strerror}; {other}"
    if error.errno == errno.EACCES:
        return f"{address} needs more privileges than this daemon has (ports below 1024 do); {other}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this machine; {other}"
    return f"cannot listen on {address}: {error.strerror or error}; {other}"


def _unix_socket(path: Path) -> socket.socket:
    """A socket bound to ``path`` with mode 0660. ConfigError when it cannot be had."""
    other = "choose another path with web.socket"
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        message = f"{path} is {length} bytes long, and a UNIX socket's path can have {MAX_SOCKET_PATH}"
        raise _bad(f"{message}; set web.socket to a shorter one such as /run/probed/probed.sock")
    if not path.parent.is_dir():
        raise _bad(f"the directory {path.parent} does not exist; create it, or {other}")
    try:
        _remove_stale(path, other)
        own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Nobody can connect before it listens, so the mode is right from the first connection on.
            own.bind(os.fspath(path))
            path.chmod(SOCKET_MODE)
        except OSError:
            own.close()
            raise
    except OSError as error:
        raise _bad(f"cannot listen on {path}: {error.strerror or error}; {other}") from None
    return own


def _remove_stale(path: Path, other: str) -> None:
    """Make room where a daemon that was killed left its socket; never where one answers."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise _bad(f"{path} exists and is no socket; move it away, or {other}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue is full: somebody is there
            pass
    raise _bad(f"{path} is in use by another probed; stop it, or {other}")


def _bad(message: str) -> ConfigError:
    return ConfigError([Problem("web.socket", message)])
