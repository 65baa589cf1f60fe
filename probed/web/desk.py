"""From a request to a page: who looks, in which zone and colours, what hangs over every page; errors as pages, too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import hdrs, web
from msgspec import Struct
from msgspec.structs import replace
from multidict import MultiDict

from probed.api.access import NOBODY, WHO, Principal
from probed.api.origins import CSRF, is_of_own_page
from probed.api.problems import BY_FORM, KINDS, Refused
from probed.api.query import Parameter, Query
from probed.api.routing import HTML, MAX_BODY, Call, Handler, Route, patiently, validated
from probed.api.served import Served
from probed.model import Event, Role
from probed.version import version
from probed.watches import Watch
from probed.web import frame
from probed.web.assets import assets
from probed.web.frame import Banner, Frame, Looker
from probed.web.rendering import Renderer

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""Content-Security-Policy of every page: nothing inline, nothing from elsewhere."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    hdrs.VARY: "Cookie, Probed-Fragment",
}
FRAGMENT = "Probed-Fragment"
"""Header of a request that wants the page without its frame: live updates."""
LOGIN, STREAM = "/-/login", "/api/v1/events/stream"
ANY = "/api/v1/status"
_NEEDED = {
    "inspections": "/api/v1/inspections",
    "silences": "/api/v1/silences",
    "notifications": "/api/v1/notifications",
    "tokens": "/api/v1/tokens",
    "audit": "/api/v1/audit",
}
"""Pages that show what the API must have, and let who looks read."""
THEME_COOKIE, ZONE_COOKIE = "probed_theme", "probed_zone"


class Unsent(Struct, frozen=True):
    """A form that was not taken because its session is over, or was another: what it said, to be sent again."""

    signed_in: bool
    fields: tuple[tuple[str, str], ...]
    """(name, value); of a file its text."""
    complete: bool
    """Whether it could be read."""


class Desk:
    """What all pages need of the daemon."""

    def __init__(self, served: Served, executor: Executor, api: Sequence[Route]) -> None:
        self.served = served
        self._api = {(route.method, route.path): route for route in api}
        self._renderer = Renderer(executor)
        self.version = version()

    def page(
        self,
        path: str,
        handler: Handler,
        says: str,
        *takes: Parameter[Any],
        needs: Role = Role.VIEWER,
        endless: bool = False,
    ) -> Route:
        """A route that answers with HTML, also when it refuses."""
        return Route(
            "GET", path, handler, says, needs=needs, takes=takes, media=HTML, refuse=self.refuse, endless=endless
        )

    # --- the API, from within: pages show and change what it does, by the same functions ------------------------

    def has(self, method: str, path: str) -> bool:
        """Whether the API has such a route."""
        return (method, path) in self._api

    def may(self, call: Call, method: str, path: str) -> bool:
        """Whether the page may offer it to who looks: the API has it, and would let them."""
        return self._lets(call.who, method, path)

    def _lets(self, who: Principal, method: str, path: str) -> bool:
        route = self._api.get((method, path))
        return route is not None and (route.needs is None or who.may(route.needs))

    def needs(self, method: str, path: str) -> Role:
        """The least role that the API lets: that of a page which only shows or changes that."""
        return self._api[method, path].needs or Role.VIEWER

    async def answer(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | bytes | None = None,
        said: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        """What the API answers to who looks. Refused as it would be there. ``body`` in bytes is for it to read."""
        route = self._api[(method, path)]
        if route.needs is not None and not call.who.may(route.needs):
            raise Refused("forbidden", f"{call.who.name} is {call.who.role or 'nobody here'}; this needs {route.needs}")
        asked = Query(MultiDict(query or {}), call.now, route.takes)
        model: Any = body
        if route.body is not None and not isinstance(body, bytes):
            model = validated(dict(body or {}), route.body)
        return await route.handler(replace(call, query=asked, body=model, said=said or {}))

    async def ask(self, call: Call, method: str, path: str, **more: Any) -> Any:
        """The same as a value; see ``answer``."""
        response = await self.answer(call, method, path, **more)
        return json.loads(response.text or "null") if isinstance(response, web.Response) else None

    def form(
        self, path: str, handler: Handler, says: str, needs: Role = Role.OPERATOR, largest: int = MAX_BODY
    ) -> Route:
        """A route that a form of the page is sent to; what it asks of the API may need more."""
        return Route("POST", path, handler, says, needs=needs, media=HTML, refuse=self.refuse, largest=largest)

    async def fields(self, call: Call) -> Mapping[str, str]:
        """What a form says, of a field that is given twice the last. Refused unless the form is one of our own."""
        return dict(await self.answers(call))

    async def answers(self, call: Call) -> Sequence[tuple[str, str]]:
        """The same as it was sent: boxes of one name may be ticked several times."""
        if not is_of_own_page(call.request, self.served.settings.web):
            raise Refused(
                "cross-site", "no browser says that this came from a page of ours; use the page itself, or the API"
            )
        return [(name, value if "\n" in value else value.strip()) for name, value in await _said(call.request)]

    def seen(self, call: Call, target: str) -> web.Response:
        """After a form: to the page that shows what became of it. ``target`` is relative to this address."""
        return web.Response(status=303, headers={**HEADERS, hdrs.LOCATION: target})

    async def html(
        self,
        call: Call,
        template: str,
        page: Any,
        *,
        status: int = 200,
        query: Mapping[str, str] | None = None,
    ) -> web.Response:
        """``page`` as the template tells it. ``query``: what the page's own links keep, by default all of it."""
        framed = self.frame(call.request, call.who, call.now, query)
        return await self._answer(call.request, template, framed, page, status)

    async def refuse(self, request: web.Request, refused: Refused) -> web.StreamResponse:
        """``Route.refuse`` of every page. Who is not known yet is led to the login, if there is one."""
        status, title = KINDS[refused.kind]
        who, now = request.get(WHO, NOBODY), self.served.clock.wall()
        signed_out = refused.kind == "unauthorized" and self._knows_people
        if signed_out and request.method == hdrs.METH_GET:
            here = self.frame(request, NOBODY, now)
            return web.Response(status=303, headers={**HEADERS, hdrs.LOCATION: here.url(LOGIN[1:], back=here.here)})
        framed = self.frame(request, who, now, {})
        outdated = refused.kind == "cross-site" and who.via == "session"
        if (signed_out or outdated) and is_of_own_page(request, self.served.settings.web):
            response = await self._answer(request, "unsent.html", framed, await _unsent(request, outdated), status)
        else:
            page = {"title": title, "detail": refused.detail, "errors": refused.errors, "id": refused.id}
            response = await self._answer(request, "error.html", framed, page, status)
        response.headers.update(refused.headers)
        if signed_out:
            response.headers[hdrs.WWW_AUTHENTICATE] = BY_FORM
        return response

    async def _answer(self, request: web.Request, template: str, framed: Frame, page: Any, status: int) -> web.Response:
        base = "fragment.html" if FRAGMENT in request.headers else "layout.html"
        text = await self._renderer.html(template, {"frame": framed, "page": page, "base": base})
        return web.Response(status=status, text=text, content_type="text/html", charset="utf-8", headers=HEADERS)

    def frame(self, request: web.Request, who: Principal, now: float, query: Mapping[str, str] | None = None) -> Frame:
        theme = request.cookies.get(THEME_COOKIE, "")
        known = who.role is not None
        return Frame(
            path=request.rel_url.raw_path.strip("/"),
            query=dict(request.query) if query is None else query,
            now=now,
            zone=zone_of(request),
            theme=theme if theme in frame.THEMES else frame.THEMES[0],
            observer=self.served.settings.observer,
            version=self.version,
            assets={name: asset.name for name, asset in assets().items()},
            known=known,
            counts=frame.counted(self.open_now()) if known else (),
            banners=tuple(self._banners()) if known else (),
            looker=_looker(who, self._knows_people and who.via == "anonymous"),
            stream=known and self.has("GET", STREAM),
            pages=tuple(page for page in frame.PAGES if self._lets(who, "GET", _NEEDED.get(page[1], ANY))),
        )

    def open_now(self) -> Sequence[Event]:
        """Open events by what the pipeline holds in memory: right also while the disk refuses."""
        return [watch.event for watch in watches_by_event(self.served).values() if watch.event is not None]

    @property
    def _knows_people(self) -> bool:
        """Whether anybody can sign in."""
        file = self.served.web_file
        return file is not None and bool(file.config.basic_auth_users)

    def _banners(self) -> list[Banner]:
        found = [
            Banner("This daemon is not doing all of its work", reason, "failing") for reason in self.served.unready()
        ]
        if not self.served.last_reload_ok:
            text = "The last reload was refused; the settings before it go on. `probed check` says what is wrong."
            found.append(Banner("The configuration is not valid", text))
        return found


def watches_by_event(served: Served) -> Mapping[str, Watch]:
    """Of every event that is open, by its id."""
    instances = served.pipeline.instances.values()
    return {watch.event.id: watch for state in instances for watch in state.watches if watch.event is not None}


def zone_of(request: web.Request) -> ZoneInfo:
    """The zone that this browser chose; UTC unless it did."""
    return zone_named(request.cookies.get(ZONE_COOKIE, "")) or ZoneInfo("UTC")


def zone_named(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):
        return None


async def _unsent(request: web.Request, signed_in: bool) -> Unsent:
    """What a form said that was refused."""
    try:
        # Who is not known does not get the room that some forms give.
        given = await patiently(_said(request if signed_in else request.clone(client_max_size=MAX_BODY)))
    except (Refused, ValueError, web.HTTPException):  # too large, too slow, or no form
        return Unsent(signed_in, (), complete=False)
    return Unsent(signed_in, tuple((name, value) for name, value in given if name != CSRF), complete=True)


async def _said(request: web.Request) -> Sequence[tuple[str, str]]:
    """Fields and texts of a form; of a file that was chosen its text, under its field's name."""
    found = []
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            if value.filename:
                found.append((name, value.file.read().decode("utf-8", "surrogateescape")))
            value.file.close()
            continue
        found.append((name, value if isinstance(value, str) else ""))
    return found


def _looker(who: Principal, can_sign_in: bool) -> Looker:
    return Looker(
        signed_in=who.via == "session",
        can_sign_in=can_sign_in,
        csrf=who.csrf,
        name="" if who.via == "anonymous" else who.name,
        role=who.role.value if who.role is not None else "",
        may_operate=who.may(Role.OPERATOR),
        may_administer=who.may(Role.ADMIN),
    )
