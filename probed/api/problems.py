"""Errors as ``application/problem+json`` (RFC 9457): where, what, and what instead; never a traceback, path or SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web

from probed.errors import ProbedError

KINDS: Mapping[str, tuple[int, str]] = {
    "bad-query": (400, "The query is not valid"),
    "bad-body": (400, "The body cannot be read"),
    "unauthorized": (401, "Credentials are needed"),
    "read-only": (403, "This listener only reads"),
    "forbidden": (403, "The role does not suffice"),
    "cross-site": (403, "The request came from another site"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "conflict": (409, "It is not in a state to do that"),
    "stale": (412, "It was changed meanwhile"),
    "slow-body": (408, "The body took too long"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body has another type"),
    "foreign-host": (421, "This daemon does not answer under that name"),
    "invalid": (422, "The body is not valid"),
    "refused-by-rule": (422, "A rule forbids it"),
    "precondition-required": (428, "It must be said which version is meant"),
    "too-many": (429, "Too many requests"),
    "headers-too-large": (431, "The headers are too large"),
    "bad-configuration": (500, "The configuration is not valid; the last good one goes on"),
    "internal": (500, "An error of ours"),
    "unprintable": (500, "The file could not be made"),
    "not-installed": (501, "A part of probed is not installed here"),
    "store": (503, "The history cannot be read"),
    "timeout": (503, "The answer took too long"),
}
"""The last part of ``type`` (``urn:probed:<kind>``), with its status and title."""

BY_FORM = 'Bearer realm="probed"'
"""Challenge to a browser that has a form to sign in by: for Basic it would ask in a window of its own."""
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


def unauthorized(detail: str, request: web.Request | None = None) -> Refused:
    """No credentials, or wrong ones; which of the two is nobody's business.

    A script of the page must not make its browser ask for a password: it is not offered Basic.
    """
    by_script = request is not None and request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate"
    how = BY_FORM if by_script else 'Basic realm="probed", charset="UTF-8"'
    return Refused("unauthorized", detail, headers={hdrs.WWW_AUTHENTICATE: how})


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
