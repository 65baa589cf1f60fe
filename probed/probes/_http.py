"""Bounded HTTP/1.1 GETs and HEADs, and what goes wrong with them in our words. No judging.

No redirects, no cookies, no decompression, no proxy from the environment, everything that a peer sends capped: a
hostile peer can fail its own sample and nothing else. The caller's deadline is the only one. Why this is no library:
docs/adr/0016.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import math
import re
import ssl
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlsplit

from msgspec import Struct

from probed import steps
from probed.errors import Blind, ProbeError, TargetFailed
from probed.probes._access import Access
from probed.probes._http_answer import MAX_BODY, Incoming, Malformed
from probed.probes._http_line import Closed, Known, Line, Lines
from probed.probes._sql_errors import translate_os_error

__all__ = ["MAX_BODY", "Answer", "HttpClient", "translate"]

MAX_DIGITS = 20
"""Of a whole number in JSON: all 64-bit ones, with their sign."""
_REFUSED_CERTIFICATE = re.compile(r"ALERT_(BAD_|UNSUPPORTED_|UNKNOWN_)?(CERTIFICATE|CA\b)", re.IGNORECASE)
"""OpenSSL's names for what a server says of the certificate that it wants from a client."""


class Answer(Struct, frozen=True):
    """One HTTP answer."""

    url: str
    """For messages: without its query, which may hold a secret."""
    status: int
    headers: Mapping[str, str]
    body: bytes
    """Its first 64 KiB."""
    truncated: bool = False
    """Whether there was more; such an answer has a status, but no JSON."""
    known: Known | None = None
    """What was read of the answer to the same question before."""
    heard_at: float = 0.0
    """When its end was read from the system, by ``time.perf_counter``: not when the loop came to tell us."""

    def json(self) -> Any:
        """The body as JSON. TargetFailed when it is not, is too large, or is nested or numbered beyond reason.

        Nobody may change it: an answer that is the same again gives the same value.
        """
        if 300 <= self.status < 400:
            raise TargetFailed("redirect", f"{self.url}: HTTP {self.status}, a redirect, which probes do not follow")
        if self.truncated:
            raise TargetFailed("too_large", f"{self.url}: the answer is larger than {MAX_BODY} bytes")
        known = self.known
        if known is not None and known.body == self.body and self.body:
            return known.value
        try:
            value = _JSON.decode(self.body.decode(json.detect_encoding(self.body), "surrogatepass"))
        except (ValueError, RecursionError) as error:
            text = str(error)[:100]
            raise TargetFailed("body", f"{self.url}: the answer is not JSON: {text}") from None
        if known is not None:
            known.body, known.value = self.body, value
        return value

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


_JSON = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_int=_bounded, parse_float=_finite, parse_constant=_finite
)


class Address(NamedTuple):
    """Where a question goes, and how it begins."""

    host: str
    port: int
    secure: bool
    lines: str
    """The rest of the first line, and the headers that every question has."""
    shown: str
    """The address for messages, without its query."""


_NO_HEADERS: Mapping[str, str] = {}


class HttpClient:
    """Asks for all probes of a daemon; connections are kept alive per address.

    ``by_hand``: also the steps of a request are told to who keeps them.
    """

    def __init__(self, *, by_hand: bool = False) -> None:
        self._by_hand = by_hand
        self._lines = Lines()

    def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        access: Access | None = None,
        shown: str = "",
    ) -> Coroutine[Any, Any, Answer]:
        """GET ``url`` and read at most 64 KiB. TargetFailed or Blind; CancelledError when the deadline ends it.

        ``shown``: what messages call an address that may not be shown.
        """
        return self._ask("GET", url, headers or _NO_HEADERS, access, shown=shown)

    def head(self, url: str, *, access: Access | None = None) -> Coroutine[Any, Any, Answer]:
        """HEAD ``url``: an answer without a body. Errors as of ``get``."""
        return self._ask("HEAD", url, _NO_HEADERS, access)

    async def post(
        self, url: str, body: bytes, *, headers: Mapping[str, str], access: Access | None = None, shown: str = ""
    ) -> Answer:
        """POST ``body``, which only receivers of notices get, never targets. ``shown``: what messages call ``url``."""
        return await self._ask("POST", url, headers, access, body=body, shown=shown)

    async def close(self) -> None:
        self._lines.close()

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
        try:
            address = _address(url)
        except ValueError:
            raise Blind("config", f"not an address: {shown or url.partition('?')[0]}") from None
        shown = shown or address.shown
        given = access.headers(url) if access is not None else None
        if given:
            headers = {**headers, **given}
        door = (address.host, address.port, _tls(access, url) if address.secure else None)
        question = _question(method, address.lines, headers, body)
        try:
            line = self._lines.kept(door)
            if line is None:
                line = await self._lines.dial(door)
                incoming = await self._say(line, question, method)
            else:
                try:
                    incoming = await self._say(line, question, method)
                except Closed:
                    # A server may close a line that was idle, just as we begin to speak: then it has done nothing yet.
                    if method == "POST":
                        raise
                    line = await self._lines.dial(door)
                    incoming = await self._say(line, question, method)
        except ProbeError:
            raise
        except (Closed, Malformed, OSError, ValueError) as error:
            raise translate(error, shown) from None
        known = line.known(question) if method == "GET" else None
        body = bytes(incoming.body)
        return Answer(shown, incoming.status, incoming.headers, body, incoming.truncated, known, line.heard_at)

    async def _say(self, line: Line, question: bytes, method: str) -> Incoming:
        begun: Callable[[], None] | None = None
        whole: asyncio.Future[Incoming] | None = None
        if self._by_hand:
            steps.begin("request")
            context = contextvars.copy_context()
            begun = lambda: context.run(_first_byte)  # noqa: E731
        try:
            whole = line.ask(question, to_head=method == "HEAD", begun=begun)
            if self._by_hand:
                steps.end("request")
                steps.begin("first byte")
            incoming = await whole
        except BaseException:  # the deadline, too: what it may still say is nobody's answer
            whole = None  # its error knows this frame by its traceback: left in it, both would wait for the collector
            line.hang_up()
            raise
        if self._by_hand:
            steps.end("body")
        if incoming.keeps:
            self._lines.keep(line)
        else:
            line.hang_up()
        return incoming


def _first_byte() -> None:
    steps.end("first byte")
    steps.begin("body")


@lru_cache(maxsize=4096)
def _address(url: str) -> Address:
    """ValueError for what is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("not an address of HTTP")
    secure = parts.scheme == "https"
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    port = parts.port or (443 if secure else 80)
    named = f"[{host}]" if ":" in host else host
    if port != (443 if secure else 80):
        named = f"{named}:{port}"
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~") or "/"
    query = f"?{quote(parts.query, safe=_QUERY)}" if parts.query else ""
    lines = f"{path}{query} HTTP/1.1\r\nHost: {named}\r\n{_ALWAYS}"
    return Address(host, port, secure, lines, url.partition("?")[0])


_QUERY = "/%:@!$&'()*+,;=~?"
_ALWAYS = "User-Agent: probed\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"


def _question(method: str, lines: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Blind when a header would become several."""
    if not headers and body is None:
        return _plain_question(method, lines)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if more.count("\n") != len(headers) or more.count("\r") != len(headers) or "\0" in more:
        raise Blind("config", "a header to be sent holds a line end")
    if body is None:
        return f"{method} {lines}{more}\r\n".encode()
    return f"{method} {lines}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


@lru_cache(maxsize=4096)
def _plain_question(method: str, lines: str) -> bytes:
    return f"{method} {lines}\r\n".encode()


def _tls(access: Access | None, url: str) -> ssl.SSLContext:
    given = access.tls(url) if access is not None else True
    return _systems_authorities() if isinstance(given, bool) else given


@lru_cache(maxsize=1)
def _systems_authorities() -> ssl.SSLContext:
    return ssl.create_default_context()


def translate(error: Exception, url: str) -> ProbeError:
    """What came of a question as ours."""
    if isinstance(error, Closed) and error.reason is not None:
        error = error.reason
    if isinstance(error, OSError) and _REFUSED_CERTIFICATE.search(str(error)):
        return Blind("auth", f"{url}: the server asks for a client certificate, or refuses ours (cert_file)")
    if isinstance(error, OSError) and "ALERT_HANDSHAKE_FAILURE" in str(error):
        # What a missing client certificate is up to TLS 1.2, and ciphers without an overlap.
        return Blind(
            "tls", f"{url}: the server refuses the TLS handshake; does it want a client certificate (cert_file)?"
        )
    match error:
        case ssl.SSLCertVerificationError():
            return Blind("tls", f"{url}: the certificate does not verify: {str(error)[:200]}")
        case Closed():
            return TargetFailed("closed", f"{url}: {error}")
        case Malformed():
            # Never what the peer sent: that may be anything.
            told = str(error) if error.kind == "too_large" else f"not a valid HTTP answer: {error}"
            return TargetFailed(error.kind, f"{url}: {told}")
        case OSError():
            return translate_os_error(error, url)
        case _:
            return TargetFailed("protocol", f"{url}: not a valid HTTP answer: {type(error).__name__}")
