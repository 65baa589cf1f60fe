"""From a request to a page: who looks, in which zone and colours, what hangs over every page; errors as pages, too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import hdrs, web
from multidict import MultiDict

from probed.api.access import NOBODY, Principal
from probed.api.problems import KINDS, Refused
from probed.api.query import Parameter, Query
from probed.api.routing import HTML, Call, Handler, Route, validated
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
}
"""Pages that show what the API must have."""
THEME_COOKIE, ZONE_COOKIE = "probed_theme", "probed_zone"


class Desk:
    """What all pages need of the daemon."""

    def __init__(self, served: Served, executor: Executor, api: Sequence[Route]) -> None:
        self.served = served
        self._api = {(route.method, route.path): route for route in api}
        self._renderer = Renderer(executor)
        self.version = version()

    def page(self, path: str, handler: Handler, says: str, *takes: Parameter[Any], needs: Role = Role.VIEWER) -> Route:
        """A route that answers with HTML, also when it refuses."""
        return Route("GET", path, handler, says, needs=needs, takes=takes, media=HTML, refuse=self.refuse)

    # --- the API, from within: pages show and change what it does, by the same functions ------------------------

    def has(self, method: str, path: str) -> bool:
        """Whether the API has such a route."""
        return (method, path) in self._api

    def may(self, call: Call, method: str, path: str) -> bool:
        """Whether the page may offer it to who looks: the API has it, and would let them."""
        route = self._api.get((method, path))
        return route is not None and (route.needs is None or call.who.may(route.needs))

    async def answer(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        said: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        """What the API answers to who looks. Refused as it would be there."""
        route = self._api[(method, path)]
        if route.needs is not None and not call.who.may(route.needs):
            raise Refused("forbidden", f"{call.who.name} is {call.who.role or 'nobody here'}; this needs {route.needs}")
        asked = Query(MultiDict(query or {}), call.now, route.takes)
        model = validated(dict(body or {}), route.body) if route.body is not None else None
        return await route.handler(replace(call, query=asked, body=model, said=said or {}))

    async def ask(self, call: Call, method: str, path: str, **more: Any) -> Any:
        """The same as a value; see ``answer``."""
        response = await self.answer(call, method, path, **more)
        return json.loads(response.text or "null") if isinstance(response, web.Response) else None

    def form(self, path: str, handler: Handler, says: str, needs: Role = Role.OPERATOR) -> Route:
        """A route that a form of the page is sent to; what it asks of the API may need more."""
        return Route("POST", path, handler, says, needs=needs, media=HTML, refuse=self.refuse)

    async def fields(self, call: Call) -> Mapping[str, str]:
        """What a form says. Refused unless the form is one of our own."""
        site = call.request.headers.get("Sec-Fetch-Site")
        origin = call.request.headers.get(hdrs.ORIGIN, "").partition("://")[2]
        if site != "same-origin" and (site is not None or origin != call.request.headers.get(hdrs.HOST)):
            raise Refused(
                "forbidden", "a browser sent this for a page of another site; use the page itself, or the API"
            )
        given = await call.request.post()
        return {name: value.strip() for name, value in given.items() if isinstance(value, str)}

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
        if refused.kind == "unauthorized" and self._knows_people and request.method == hdrs.METH_GET:
            here = self.frame(request, NOBODY, self.served.clock.wall())
            return web.Response(status=303, headers={**HEADERS, hdrs.LOCATION: here.url(LOGIN[1:], back=here.here)})
        framed = self.frame(request, NOBODY, self.served.clock.wall(), {})
        page = {"title": title, "detail": refused.detail, "errors": refused.errors, "id": refused.id}
        response = await self._answer(request, "error.html", framed, page, status)
        response.headers.update(refused.headers)
        return response

    async def _answer(self, request: web.Request, template: str, framed: Frame, page: Any, status: int) -> web.Response:
        base = "fragment.html" if FRAGMENT in request.headers else "layout.html"
        text = await self._renderer.html(template, {"frame": framed, "page": page, "base": base})
        return web.Response(status=status, text=text, content_type="text/html", charset="utf-8", headers=HEADERS)

    def frame(self, request: web.Request, who: Principal, now: float, query: Mapping[str, str] | None = None) -> Frame:
        theme = request.cookies.get(THEME_COOKIE, "")
        return Frame(
            path=request.rel_url.raw_path.strip("/"),
            query=dict(request.query) if query is None else query,
            now=now,
            zone=zone_of(request),
            theme=theme if theme in frame.THEMES else frame.THEMES[0],
            observer=self.served.settings.observer,
            version=self.version,
            assets={name: asset.name for name, asset in assets().items()},
            counts=frame.counted(self.open_now()),
            banners=tuple(self._banners()),
            looker=_looker(who, self._knows_people and who.via == "anonymous"),
            stream=self.has("GET", STREAM),
            pages=tuple(page for page in frame.PAGES if self.has("GET", _NEEDED.get(page[1], ANY))),
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


def _looker(who: Principal, can_sign_in: bool) -> Looker:
    return Looker(
        signed_in=who.via == "session",
        can_sign_in=can_sign_in,
        csrf=who.csrf,
        name=who.name,
        role=who.role.value if who.role is not None else "",
        may_operate=who.may(Role.OPERATOR),
        may_administer=who.may(Role.ADMIN),
    )
