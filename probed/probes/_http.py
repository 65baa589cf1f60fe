"""Bounded HTTP GETs and HEADs, and the map from aiohttp's errors to ours. No judging.

No redirects, no cookies, no decompression, no proxy from the environment, everything that a peer sends capped: a
hostile peer can fail its own sample and nothing else. The caller's deadline is the only one.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from probed import steps
from probed.errors import Blind, ProbeError, TargetFailed
from probed.probes._access import Access
from probed.probes._dns import Resolver
from probed.probes._sql_errors import translate_os_error

MAX_BODY = 64 * 1024
MAX_HEADER = 8190
MAX_HEADERS = 100
MAX_ANSWER = MAX_BODY + 64 * 1024
"""Bytes of one answer with its headers, chunk sizes and informational answers before it."""
MAX_DIGITS = 20
"""Of a whole number in JSON: all 64-bit ones, with their sign."""
SLICE = 4096
"""Bytes parsed at a time: one read can hold thousands of answers, of which the fifth already is too many."""
CHUNK_COST = 64
"""What each line end of a chunked body counts for: the parser makes a dozen calls of every chunk, be it of one byte."""
MAX_PENDING = 4
"""Answers to one request, the informational ones included, that may wait to be looked at."""
_REFUSED_CERTIFICATE = re.compile(r"ALERT_(BAD_|UNSUPPORTED_|UNKNOWN_)?(CERTIFICATE|CA\b)", re.IGNORECASE)
"""OpenSSL's names for what a server says of the certificate that it wants from a client."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    url: str
    """For messages: without its query, which may hold a secret."""
    status: int
    headers: Mapping[str, str]
    body: bytes
    """Its first 64 KiB."""
    truncated: bool = False
    """Whether there was more; such an answer has a status, but no JSON."""

    def json(self) -> Any:
        """The body as JSON. TargetFailed when it is not, is too large, or is nested or numbered beyond reason."""
        if 300 <= self.status < 400:
            raise TargetFailed("redirect", f"{self.url}: HTTP {self.status}, a redirect, which probes do not follow")
        if self.truncated:
            raise TargetFailed("too_large", f"{self.url}: the answer is larger than {MAX_BODY} bytes")
        try:
            return json.loads(
                self.body,
                object_pairs_hook=_without_duplicates,
                parse_int=_bounded,
                parse_float=_finite,
                parse_constant=_finite,
            )
        except (ValueError, RecursionError) as error:
            text = str(error)[:100]
            raise TargetFailed("body", f"{self.url}: the answer is not JSON: {text}") from None

    def object(self) -> Mapping[str, Any]:
        """The body as a JSON object. TargetFailed otherwise."""
        value = self.json()
        if not isinstance(value, dict):
            raise TargetFailed("body", f"{self.url}: expected a JSON object, got {type(value).__name__}")
        return cast(Mapping[str, Any], value)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _bounded(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number


class HttpClient:
    """One session for all probes of a daemon; connections are kept alive per address.

    ``by_hand``: also the steps of a request are told to who keeps them.
    """

    def __init__(self, *, by_hand: bool = False) -> None:
        self._by_hand = by_hand
        self._session: aiohttp.ClientSession | None = None

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        access: Access | None = None,
        shown: str = "",
    ) -> Answer:
        """GET ``url`` and read at most 64 KiB. TargetFailed or Blind; CancelledError when the deadline ends it.

        ``shown``: what messages call an address that may not be shown.
        """
        return await self._ask("GET", url, headers or {}, access, shown=shown)

    async def head(self, url: str, *, access: Access | None = None) -> Answer:
        """HEAD ``url``: an answer without a body. Errors as of ``get``."""
        return await self._ask("HEAD", url, {}, access)

    async def post(
        self, url: str, body: bytes, *, headers: Mapping[str, str], access: Access | None = None, shown: str = ""
    ) -> Answer:
        """POST ``body``, which only receivers of notices get, never targets. ``shown``: what messages call ``url``."""
        return await self._ask("POST", url, headers, access, body=body, shown=shown)

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        access: Access | None,
        *,
        body: bytes | None = None,
        shown: str = "",
    ) -> Answer:
        session = self._open()
        shown = shown or url.partition("?")[0]
        tls: ssl.SSLContext | bool = True
        if access is not None:
            headers, tls = {**headers, **access.headers(url)}, access.tls(url)
        try:
            async with session.request(
                method, url, data=body, headers=headers, ssl=tls, allow_redirects=False
            ) as response:
                steps.end("first byte")
                with steps.step("body"):
                    read, truncated = await self._body(response)
                return Answer(shown, response.status, response.headers, read, truncated)
        except ProbeError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise translate(error, shown) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
                trust_env=False,
                headers={"User-Agent": "probed", "Accept-Encoding": "identity"},
                max_line_size=MAX_HEADER,
                max_field_size=MAX_HEADER,
                max_headers=MAX_HEADERS,
                read_bufsize=MAX_BODY,
                trace_configs=[_steps()] if self._by_hand else None,
            )
        return self._session

    @staticmethod
    async def _body(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        """(at most 64 KiB of the body, whether there was more)."""
        body = bytearray()
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    break
            else:
                return bytes(body), False
        except _TooLarge:
            pass
        response.close()
        return bytes(body[:MAX_BODY]), True


def _steps() -> aiohttp.TraceConfig:
    """What only aiohttp knows: when the connection was ready, and when the request was sent."""

    async def ready(*_: object) -> None:
        steps.begin("request")

    async def sent(*_: object) -> None:
        steps.end("request")
        steps.begin("first byte")

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(ready)
    trace.on_connection_reuseconn.append(ready)
    trace.on_request_headers_sent.append(sent)
    return trace


class _TooLarge(aiohttp.ClientError):
    """The peer sent more than MAX_ANSWER for one request."""


class _BoundedHandler(ResponseHandler):
    """aiohttp's protocol, deaf to what nobody asked for.

    aiohttp queues every answer that it can parse without a bound: those between two requests (the next request would
    take them for its own) and the informational ones. One peer fills 170 MiB a second with them (aiohttp 3.14).
    """

    _allowance = MAX_ANSWER
    _final: aiohttp.StreamReader | None = None
    _chunked = False

    def set_response_params(self, **params: Any) -> None:
        # Called once for each request, before it is sent.
        self._allowance, self._final, self._chunked = MAX_ANSWER, None, False
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        message, payload = data
        if message.code >= 200 and self._final is None:
            self._final, self._chunked = payload, message.chunked
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if data and self._final is not None and self._final.is_eof():
            self._give_up()
            return
        for start in range(0, len(data) or 1, SLICE):  # nothing at all is aiohttp's way of going on after a pause
            piece = data[start : start + SLICE]
            self._allowance -= len(piece) + (CHUNK_COST * piece.count(b"\r\n") if self._chunked else 0)
            if self._allowance >= 0:
                super().data_received(piece)
            if self._allowance < 0 or len(self) > MAX_PENDING:
                self._give_up()
                return
            if self.exception() is not None:
                return

    def _give_up(self) -> None:
        error = _TooLarge("more than was asked for")
        self._buffer.clear()
        payload = self._payload
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(error)
        if payload is not None and not payload.is_eof():
            payload.set_exception(error)


class _Connector(aiohttp.TCPConnector):
    def __init__(self) -> None:
        super().__init__(limit=0, limit_per_host=0, keepalive_timeout=75, resolver=_Names(), use_dns_cache=False)
        self._factory = cast("partial[ResponseHandler]", partial(_BoundedHandler, loop=self._loop))
        self._loop = cast(asyncio.AbstractEventLoop, _NotingLoop(self._loop))


class _NotingLoop:
    """The running loop, which notes that a peer was called and that it accepted, before TLS may hang."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        with steps.step(steps.CONNECT, f"{address[0]}:{address[1]}"):
            await self._loop.sock_connect(sock, address)

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        if not options.get("ssl"):
            return await self._loop.create_connection(*args, **options)
        with steps.step("TLS"):
            return await self._loop.create_connection(*args, **options)


class _Names(AbstractResolver):
    """Our resolver as aiohttp wants it."""

    def __init__(self) -> None:
        self._resolver = Resolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await self._resolver.addresses(host)
        ]

    async def close(self) -> None:
        pass


def translate(error: Exception, url: str) -> ProbeError:
    """What aiohttp raised as ours."""
    if isinstance(error, OSError) and _REFUSED_CERTIFICATE.search(str(error)):
        return Blind("auth", f"{url}: the server asks for a client certificate, or refuses ours (cert_file)")
    if isinstance(error, OSError) and "ALERT_HANDSHAKE_FAILURE" in str(error):
        # What a missing client certificate is up to TLS 1.2, and ciphers without an overlap.
        return Blind(
            "tls", f"{url}: the server refuses the TLS handshake; does it want a client certificate (cert_file)?"
        )
    match error:
        case _TooLarge():
            return TargetFailed("too_large", f"{url}: the answer is larger than {MAX_ANSWER} bytes")
        case aiohttp.ClientConnectorDNSError():
            return Blind("dns", f"cannot resolve the host of {url}")
        case aiohttp.ClientConnectorCertificateError():
            return Blind("tls", f"{url}: the certificate does not verify: {str(error.certificate_error)[:200]}")
        case aiohttp.ClientConnectorError():
            return translate_os_error(error.os_error, url)
        case aiohttp.ServerDisconnectedError():
            return TargetFailed("closed", f"{url}: the connection was closed without an answer")
        case aiohttp.ClientOSError():
            return translate_os_error(error, url)
        case aiohttp.ClientPayloadError():
            return TargetFailed("protocol", f"{url}: the answer broke off")
        case aiohttp.InvalidURL():
            return Blind("config", f"not an address: {url}")
        case OSError():
            return translate_os_error(error, url)
        case _:
            # aiohttp's own text goes on with what the peer sent, and with the whole address.
            text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
            text = text.strip().partition("\n")[0][:100]
            return TargetFailed("protocol", f"{url}: not a valid HTTP answer: {text or type(error).__name__}")
