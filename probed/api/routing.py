"""A route says everything about itself: who may, what it takes, what it answers. The guard and OpenAPI read that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiohttp import hdrs, web
from msgspec import Struct, field

from probed import strict_yaml
from probed.api.access import Principal
from probed.api.problems import Refused, shown
from probed.api.query import Parameter, Query
from probed.errors import ConfigError, Problem
from probed.model import Role
from probed.store import AuditRecord

JSON, HTML = "application/json", "text/html"
MERGE_PATCH = "application/merge-patch+json"
BODY_SECONDS = 30.0
MAX_BODY = 64 * 1024
"""Bytes that a body may have unless its route says more."""
_T = TypeVar("_T")
_M = TypeVar("_M", bound=strict_yaml.Strict)


class Call(Struct, frozen=True):
    """One request to a route, parsed: everything that the handler may need."""

    request: web.Request
    who: Principal
    now: float
    """Wall time."""
    query: Query
    body: Any = None
    """What ``Route.body`` made of it."""
    still_may: Callable[[], Awaitable[bool]] | None = None
    """Whether the caller might begin the same now; for what takes longer than a revoked credential should live."""
    said: Mapping[str, str] = field(default_factory=dict)
    """Headers that a form of the page says in its fields, because a form cannot send headers."""

    def header(self, name: str) -> str | None:
        return self.said.get(name) or self.request.headers.get(name)

    def path(self, name: str) -> str:
        """A part of the path, such as ``id`` of ``/events/{id}``."""
        return self.request.match_info[name]

    def audit(
        self, action: str, subject: str, *, reason: str = "", before: Any = None, after: Any = None
    ) -> AuditRecord:
        """What the caller does, to be committed together with it."""
        client = self.request.remote or ""
        return AuditRecord(self.now, self.who.name, self.who.via, client, action, subject, reason, before, after)


Handler = Callable[[Call], Awaitable[web.StreamResponse]]
Refusal = Callable[[web.Request, Refused], Awaitable[web.StreamResponse]]


class Route(Struct, frozen=True):
    method: str
    path: str
    """As in aiohttp: ``/api/v1/events/{id}``."""
    handler: Handler
    says: str
    """One sentence for the API's description."""
    needs: Role | None = Role.VIEWER
    """The least role that may; ``None``: everybody, known or not."""
    takes: Sequence[Parameter[Any]] = ()
    body: type[strict_yaml.Strict] | None = None
    """Model of the JSON body; without one, a body is not read."""
    gives: Any = None
    """Type of the JSON answer (a TypedDict); ``None``: an answer that is not JSON."""
    media: str = JSON
    """Content type of the answer."""
    also: Sequence[str] = ()
    """Other content types of the answer, for those who ask for them."""
    status: int = 200
    statuses: Sequence[int] = ()
    """Other statuses with the same answer: 200 for a dry run of what else is 201."""
    refusals: Sequence[str] = ()
    """Kinds of problems (``problems.KINDS``) that it answers with, beyond those that every route may."""
    otherwise: str = ""
    """Another way to do it, for who may not do it here."""
    bodies: Sequence[str] = (JSON,)
    """Content types that the body may have."""
    reads: Callable[[web.Request], Awaitable[Any]] | None = None
    """Reads a body that is not JSON alone, or larger than others; ``body`` then only describes it."""
    largest: int = MAX_BODY
    """Bytes that its body may have."""
    endless: bool = False
    """A stream: it has no deadline."""
    headers: Sequence[str] = field(default=())
    """Request headers that it heeds, for the description."""
    refuse: Refusal | None = None
    """How a refusal reads there; ``None``: as problem+json."""

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.method not in (hdrs.METH_GET, hdrs.METH_HEAD)


async def patiently(reading: Awaitable[_T]) -> _T:
    """What is read of a body; Refused when it does not come in time, since each holds one of few connections."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await reading
    except TimeoutError:
        raise Refused("slow-body", f"expected all of it within {BODY_SECONDS:g} s") from None


async def read_body(request: web.Request, model: type[_M], content_types: Sequence[str] = (JSON,)) -> _M:
    """The JSON body as ``model``. Refused with every problem, each naming its path."""
    # A form or text body can be sent by any page on the web without the browser asking first; JSON cannot.
    if request.content_type not in content_types:
        got = shown(request.headers.get(hdrs.CONTENT_TYPE, ""))
        raise Refused("unsupported-media-type", f"expected Content-Type: {' or '.join(content_types)}, got {got}")
    try:
        data = json.loads((await request.read()).decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused("bad-body", f"expected JSON: {_why(error)}") from None
    return validated(data, model)


def validated(data: Any, model: type[_M]) -> _M:
    """``data`` as ``model``; Refused (422) with every problem."""
    try:
        return strict_yaml.validate(strict_yaml.Document("body", data), model)
    except ConfigError as error:
        raise invalid(error.problems) from None


def invalid(problems: Sequence[Problem], kind: str = "invalid") -> Refused:
    """Problems of a body as an answer: ``errors`` has one item for each, with its path and what was expected."""
    errors = [{"path": problem.path, "detail": problem.message} for problem in problems]
    told = [f"{problem.path}: {problem.message}" if problem.path else problem.message for problem in problems]
    return Refused(kind, "; ".join(told), errors)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} stands there twice")
        found[key] = value
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
