"""Bounded HTTP GETs, and the map from aiohttp's errors to ours. No judging.

No redirects, no cookies, no decompression, no proxy from the environment, bodies capped: a hostile peer can fail its
own sample and nothing else. The caller's deadline is the only one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import aiohttp

from probed.errors import Blind, ProbeError, TargetFailed
from probed.probes._sql import translate_os_error

MAX_BODY = 64 * 1024
MAX_HEADER = 8190


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, its body read whole."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. TargetFailed when it is not, or is nested or numbered beyond reason."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            text = str(error)[:100]
            raise TargetFailed("body", f"{self.url}: the answer is not JSON: {text}") from None

    def object(self) -> Mapping[str, Any]:
        """The body as a JSON object. TargetFailed otherwise."""
        value = self.json()
        if not isinstance(value, dict):
            raise TargetFailed("body", f"{self.url}: expected a JSON object, got {type(value).__name__}")
        return cast(Mapping[str, Any], value)


class HttpClient:
    """One session for all probes of a daemon; connections are kept alive per address."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """GET ``url`` and read at most 64 KiB. TargetFailed or Blind; CancelledError when the deadline ends it."""
        session = self._open()
        try:
            async with session.get(url, headers=headers, allow_redirects=False) as response:
                body = await self._body(response, url)
                return Answer(url, response.status, response.headers, body)
        except ProbeError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise translate(error, url) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=75),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
                trust_env=False,
                headers={"User-Agent": "probed", "Accept-Encoding": "identity"},
                max_line_size=MAX_HEADER,
                max_field_size=MAX_HEADER,
                read_bufsize=MAX_BODY,
            )
        return self._session

    @staticmethod
    async def _body(response: aiohttp.ClientResponse, url: str) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > MAX_BODY:
                response.close()
                raise TargetFailed("too_large", f"{url}: the answer is larger than {MAX_BODY} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


def translate(error: Exception, url: str) -> ProbeError:
    """What aiohttp raised as ours."""
    match error:
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
            text = " ".join(str(error).split())[:200]
            return TargetFailed("protocol", f"{url}: not a valid HTTP answer: {type(error).__name__}: {text}")
