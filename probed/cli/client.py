"""Talks to the running daemon: HTTP over its UNIX socket, else over TCP. Standard library only, to start fast."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from probed.errors import ApiError

SOCKETS = (Path("/run/probed/probed.sock"), Path("/var/lib/probed/probed.sock"))
DEFAULT_URL = "http://127.0.0.1:7432"
TIMEOUT = 5.0
"""Seconds for one request, connect to last byte."""
PAGE = 500
"""Items of a list that are asked for at once."""
MAX_ANSWER = 64 * 1024 * 1024


class NotThere(ApiError):
    """The daemon answers, and has no such thing (404)."""


class _NoDaemon(Exception):
    """Nobody listens at one address; the next may be tried."""


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class Address:
    """One way to the daemon: a UNIX socket, or a URL."""

    socket: Path | None = None
    url: str = ""

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else self.url

    @property
    def prefix(self) -> str:
        """The path that a reverse proxy puts before the daemon's own."""
        return urlsplit(self.url).path.rstrip("/")

    def connection(self) -> http.client.HTTPConnection:
        if self.socket:
            return _SocketConnection(self.socket)
        parts = urlsplit(self.url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if parts.scheme not in ("http", "https") or not host:
            raise ApiError(f'--url: expected an address such as {DEFAULT_URL}, got "{self.url}"')
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(host, port, timeout=TIMEOUT)


def addresses(url: str | None, socket_path: Path | None, *, known: Sequence[Path] = SOCKETS) -> list[Address]:
    """Where to look, in order: what was named, else every known socket that exists, then the default port."""
    if url:
        return [Address(url=url)]
    if socket_path:
        return [Address(socket=socket_path)]
    return [Address(socket=path) for path in known if _is_socket(path)] + [Address(url=DEFAULT_URL)]


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


class Client:
    """GETs from the first address where somebody answers. Every method raises ApiError."""

    def __init__(
        self, url: str | None = None, socket_path: Path | None = None, *, known: Sequence[Path] = SOCKETS
    ) -> None:
        self._where = addresses(url, socket_path, known=known)

    def get(self, path: str, query: Mapping[str, object | None] | None = None) -> Any:
        """The answer to a GET of ``/api/v1/…`` as plain data; query values of ``None`` are left out."""
        pairs = {key: _text(value) for key, value in (query or {}).items() if value is not None}
        target = path + (f"?{urlencode(pairs)}" if pairs else "")
        status, body, address = self.request(target)
        data = _parsed(body)
        if status >= 400:
            raise _refusal(status, data, f"{address}{target}")
        if data is None:
            raise ApiError(f"{address}{target}: expected JSON, got something else; is it probed that listens there?")
        return data

    def items(self, path: str, query: Mapping[str, object | None], limit: int) -> dict[str, Any]:
        """A list's answer with up to ``limit`` items, over as many pages as it takes."""
        answer = self.get(path, {**query, "limit": min(limit, PAGE)})
        items = list(answer["items"])
        while len(items) < limit and answer.get("next_cursor"):
            rest = min(limit - len(items), PAGE)
            answer = self.get(path, {**query, "limit": rest, "cursor": answer["next_cursor"]})
            items += answer["items"]
        return {**answer, "items": items}

    def request(self, target: str) -> tuple[int, bytes, Address]:
        """(status, body, who answered) of one GET."""
        tried: list[str] = []
        for address in self._where:
            try:
                status, body = _exchange(address, target)
            except _NoDaemon as error:
                tried.append(f"{address}: {error}")
                continue
            self._where = [address]
            return status, body, address
        raise ApiError(
            f"no probed answers at {'; nor at '.join(tried)}. Is it running? Start it with `probed run`, "
            "or say where it is with --url or --socket (PROBED_URL, PROBED_SOCKET)"
        )


def _exchange(address: Address, target: str) -> tuple[int, bytes]:
    connection = address.connection()
    ends = time.monotonic() + TIMEOUT
    try:
        _connect(connection)
        connection.request("GET", address.prefix + target, headers={"Accept": "application/json"})
        response = connection.getresponse()
        return response.status, _body(connection, response, ends)
    except TimeoutError:
        raise ApiError(f"{address} gave no answer within {TIMEOUT:g} s; look at the daemon's log") from None
    except (OSError, http.client.HTTPException) as error:
        raise ApiError(f"{address} gave no valid HTTP answer: {type(error).__name__}: {error}") from None
    finally:
        connection.close()


def _connect(connection: http.client.HTTPConnection) -> None:
    try:
        connection.connect()
    except TimeoutError:
        raise _NoDaemon(f"no answer within {TIMEOUT:g} s") from None
    except PermissionError:
        raise _NoDaemon("permission denied (use sudo, or join the daemon's group)") from None
    except OSError as error:
        raise _NoDaemon(error.strerror or str(error)) from None


def _body(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, ends: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(left)
        chunk = response.read1(1 << 16)
        if not chunk:
            return b"".join(chunks)
        size += len(chunk)
        if size > MAX_ANSWER:
            raise http.client.HTTPException(f"more than {MAX_ANSWER} bytes")
        chunks.append(chunk)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _refusal(status: int, data: Any, where: str) -> ApiError:
    """A problem+json answer in words."""
    problem = cast(dict[str, Any], data) if isinstance(data, dict) else {}
    parts = [str(problem[key]) for key in ("title", "detail") if problem.get(key)]
    message = f"{where}: {status} {': '.join(parts) or http.client.responses.get(status, 'error')}"
    return NotThere(message) if status == 404 else ApiError(message)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
