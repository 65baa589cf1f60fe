"""Talks to the running daemon: HTTP over its UNIX socket, else over TCP. Standard library only, to start fast."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from probed.errors import ApiError

if TYPE_CHECKING:
    import ssl

SOCKETS = (Path("/run/probed/probed.sock"), Path("/var/lib/probed/probed.sock"))
DEFAULT_URL = "http://127.0.0.1:7432"
TIMEOUT = 5.0
"""Seconds for one request, connect to last byte."""
LINE_TIMEOUT = 120.0
"""Seconds without any news of an answer that comes line by line."""
LINES = "application/x-ndjson"
PAGE = 500
"""Items of a list that are asked for at once."""
MAX_ANSWER = 64 * 1024 * 1024


class NotThere(ApiError):
    """The daemon answers, and has no such thing (404)."""


class Declined(ApiError):
    """The daemon answers that it will not."""

    def __init__(self, message: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        self.errors = errors
        """What is wrong with what was sent: ``path``, ``detail``, and of a document ``line`` and ``column``."""
        super().__init__(message)


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


class Address(Struct, frozen=True):
    """One way to the daemon: a UNIX socket, or a URL."""

    socket: Path | None = None
    url: str = ""

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else self.url

    @property
    def prefix(self) -> str:
        """The path that a reverse proxy puts before the daemon's own."""
        return urlsplit(self.url).path.rstrip("/")

    def connection(self, ca_file: Path | None = None) -> http.client.HTTPConnection:
        if self.socket:
            return _SocketConnection(self.socket)
        parts = urlsplit(self.url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if parts.scheme not in ("http", "https") or not host:
            raise ApiError(f'--url: expected an address such as {DEFAULT_URL}, got "{self.url}"')
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=_trust(ca_file))


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


class Answer(Struct, frozen=True):
    status: int
    body: bytes
    headers: Mapping[str, str]
    """By lower-case name."""
    address: Address
    """Who answered."""

    def data(self, target: str) -> Any:
        """The JSON in it. ApiError when it is a refusal, or no JSON."""
        data = _parsed(self.body)
        if self.status >= 400:
            raise _refusal(self.status, data, f"{self.address}{target}")
        if data is None and self.status != 204:
            where = f"{self.address}{target}"
            raise ApiError(f"{where}: expected JSON, got something else; is it probed that listens there?")
        return data


class Client:
    """Asks the first address where somebody answers. Every method raises ApiError."""

    def __init__(
        self,
        url: str | None = None,
        socket_path: Path | None = None,
        *,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        known: Sequence[Path] = SOCKETS,
    ) -> None:
        self._where = addresses(url, socket_path, known=known)
        self._token_file, self._ca_file = token_file, ca_file

    def get(self, path: str, query: Mapping[str, object | None] | None = None, *, seconds: float | None = None) -> Any:
        """The answer to a GET of ``/api/v1/…`` as plain data; query values of ``None`` are left out."""
        target = path + _query(query)
        return self.ask("GET", target, seconds=seconds).data(target)

    def change(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object | None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer to a POST, PUT, PATCH or DELETE as plain data; ``None`` when there is nothing to say (204)."""
        target = path + _query(query)
        return self.ask(method, target, body, headers).data(target)

    def items(self, path: str, query: Mapping[str, object | None], limit: int) -> dict[str, Any]:
        """A list's answer with up to ``limit`` items, over as many pages as it takes."""
        answer = self.get(path, {**query, "limit": min(limit, PAGE)})
        items = list(answer["items"])
        while len(items) < limit and answer.get("next_cursor"):
            rest = min(limit - len(items), PAGE)
            answer = self.get(path, {**query, "limit": rest, "cursor": answer["next_cursor"]})
            items += answer["items"]
        return {**answer, "items": items}

    @contextlib.contextmanager
    def stream(
        self,
        path: str,
        query: Mapping[str, object | None] | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float = TIMEOUT,
        *,
        method: str = "GET",
        body: object = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer to be read as it comes, with at most ``silence`` seconds between two pieces of it."""
        target = path + _query(query)
        sent, content = self._sent(body, headers)
        with self._connected() as (connection, address):
            if connection.sock is not None:
                connection.sock.settimeout(silence)
            connection.request(method, address.prefix + target, content, sent)
            response = connection.getresponse()
            if response.status >= 400:
                refused = _body(connection, response, time.monotonic() + TIMEOUT)
                raise _refusal(response.status, _parsed(refused), f"{address}{target}")
            yield response

    def ask(
        self,
        method: str,
        target: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float | None = None,
    ) -> Answer:
        """One request; ``body`` is sent as JSON, or as it is when it is bytes."""
        sent, content = self._sent(body, headers)
        with self._connected() as (connection, address):
            return _exchange(connection, address, method, target, content, sent, seconds or TIMEOUT)

    def lines(self, method: str, path: str, body: object) -> Iterator[dict[str, Any]]:
        """The JSON objects of an answer that comes line by line, while the daemon works on it."""
        try:
            with self.stream(path, None, {"Accept": LINES}, LINE_TIMEOUT, method=method, body=body) as response:
                while line := response.readline():
                    answer = _parsed(line)
                    if not isinstance(answer, dict):
                        where = f"{self._where[0]}{path}"
                        raise ApiError(f"{where}: expected lines of JSON; is it probed that listens there?")
                    yield cast(dict[str, Any], answer)
        except TimeoutError:
            told = f"gave no sign of life for {LINE_TIMEOUT:g} s; look at the daemon's log"
            raise ApiError(f"{self._where[0]} {told}") from None
        except (OSError, http.client.HTTPException) as error:
            raise _no_http(self._where[0], error) from None

    def _sent(self, body: object, headers: Mapping[str, str] | None) -> tuple[dict[str, str], bytes | None]:
        """(headers, content) of a request."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        kind = {} if content is None else {"Content-Type": "application/json"}
        return {"Accept": "application/json", **self._credentials(), **kind, **(headers or {})}, content

    @contextlib.contextmanager
    def _connected(self) -> Iterator[tuple[http.client.HTTPConnection, Address]]:
        """A connection to the first address where somebody listens; the next request asks there again."""
        tried: list[str] = []
        for address in self._where:
            connection = address.connection(self._ca_file)
            try:
                _connect(connection)
            except _NoDaemon as error:
                connection.close()
                tried.append(f"{address}: {error}")
                continue
            self._where = [address]
            with contextlib.closing(connection):
                yield connection, address
            return
        raise ApiError(
            f"no probed answers at {'; nor at '.join(tried)}. Is it running? Start it with `probed run`, "
            "or say where it is with --url or --socket (PROBED_URL, PROBED_SOCKET)"
        )

    def _credentials(self) -> Mapping[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ApiError(f"--token-file: cannot read {self._token_file}: {error}") from None
        if not token or any(char.isspace() for char in token):
            raise ApiError(f"--token-file: expected one token in {self._token_file}, as `probed token add` printed it")
        return {"Authorization": f"Bearer {token}"}


def _query(query: Mapping[str, object | None] | None) -> str:
    pairs = {key: _text(value) for key, value in (query or {}).items() if value is not None}
    return f"?{urlencode(pairs)}" if pairs else ""


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ApiError(f"--ca-file: cannot use {ca_file}: {error}") from None


def _exchange(
    connection: http.client.HTTPConnection,
    address: Address,
    method: str,
    target: str,
    body: bytes | None,
    headers: Mapping[str, str],
    seconds: float,
) -> Answer:
    ends = time.monotonic() + seconds
    try:
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        connection.request(method, address.prefix + target, body, headers)
        response = connection.getresponse()
        known = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, _body(connection, response, ends), known, address)
    except TimeoutError:
        raise ApiError(f"{address} gave no answer within {seconds:g} s; look at the daemon's log") from None
    except (OSError, http.client.HTTPException) as error:
        raise _no_http(address, error) from None


def _no_http(address: Address, error: Exception) -> ApiError:
    return ApiError(f"{address} gave no valid HTTP answer: {type(error).__name__}: {error}")


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
    """A problem+json answer in words: several problems on lines of their own."""
    problem = cast(dict[str, Any], data) if isinstance(data, dict) else {}
    errors = [item for item in problem.get("errors") or () if isinstance(item, dict) and "detail" in item]
    parts = [str(problem[key]) for key in ("title", "detail") if problem.get(key)]
    if len(errors) > 1:
        lines = [
            f"\n  {item['path']}: {item['detail']}" if item.get("path") else f"\n  {item['detail']}" for item in errors
        ]
        parts = [f"{problem.get('title', 'refused')}:{''.join(lines)}"]
    message = f"{where}: {status} {': '.join(parts) or http.client.responses.get(status, 'error')}"
    return NotThere(message) if status == 404 else Declined(message, errors)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
