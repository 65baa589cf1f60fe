"""Errors as ``application/problem+json`` (RFC 9457): where, what, and what instead; never a traceback, path or SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web

from probed.errors import ProbedError

KINDS: Mapping[str, tuple[int, str]] = {
    "bad-query": (400, "The query is not valid"),
    "read-only": (403, "This listener only reads"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "foreign-host": (421, "This daemon does not answer under that name"),
    "bad-configuration": (500, "The configuration is not valid; the last good one goes on"),
    "internal": (500, "An error of ours"),
    "store": (503, "The history cannot be read"),
    "timeout": (503, "The answer took too long"),
}
"""The last part of ``type`` (``urn:probed:<kind>``), with its status and title."""

MAX_SHOWN = 80
CONTENT_TYPE = "application/problem+json"


@dataclass(eq=False)
class Refused(ProbedError):
    """Raised by a route; becomes the answer."""

    kind: str
    detail: str
    errors: Sequence[Mapping[str, object]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    """Names the line in the log that tells the rest."""

    def response(self) -> web.Response:
        status, title = KINDS[self.kind]
        body: dict[str, Any] = {
            "type": f"urn:probed:{self.kind}",
            "title": title,
            "status": status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = list(self.errors)
        if self.id:
            body["id"] = self.id
        return _answer(status, body, self.headers)


def plain(status: int, headers: Mapping[str, str]) -> web.Response:
    """A status that needs no words of ours."""
    phrase = HTTPStatus(status).phrase
    return _answer(status, {"type": "about:blank", "title": phrase, "status": status, "detail": phrase}, headers)


def shown(text: str) -> str:
    """What the client sent, quoted: bounded, and without characters that change how a line reads."""
    clean = "".join(char if char.isprintable() else "?" for char in text[:MAX_SHOWN])
    return f'"{clean}…"' if len(text) > MAX_SHOWN else f'"{clean}"'


def _answer(status: int, body: Mapping[str, object], headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, text=json.dumps(body) + "\n", content_type=CONTENT_TYPE, headers=headers)
