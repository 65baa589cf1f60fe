"""What every request passes: the name it came for, a deadline, errors in our words, and security headers."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from probed.api.access import NOBODY, WHO, Doorkeeper, by_socket
from probed.api.listening import SPEECHLESS
from probed.api.origins import check_origin, check_session
from probed.api.problems import Refused, plain, shown, unauthorized
from probed.api.query import Query
from probed.api.routing import HTML, MAX_BODY, Call, Route, patiently, read_body
from probed.api.served import Served
from probed.config.values import is_loopback, split_address
from probed.errors import StoreError
from probed.model import Role
from probed.strict_yaml import did_you_mean

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:@/\[\]]+?)\.?)(?::\d*)?")
MAX_HEADERS = 16 * 1024
ANSWER_SECONDS = 30.0
HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    """The one middleware, and what turns a ``Route`` into a handler of aiohttp's. Deny by default."""

    def __init__(self, addresses: Sequence[str], doorkeeper: Doorkeeper, served: Served) -> None:
        hosts = [split_address(address)[0].lower() for address in addresses]
        self._own_hosts, self._only_here = frozenset(hosts), all(map(is_loopback, hosts))
        self._doorkeeper, self._served, self._clock = doorkeeper, served, served.clock
        self._routes: dict[Handler, Route] = {}
        self._paths: list[str] = []

    def register(self, route: Route) -> web.RouteDef:
        async def handle(request: web.Request) -> web.StreamResponse:
            query = Query(request.query, self._clock.wall(), route.takes)
            body = await _body(request, route)

            async def still_may() -> bool:
                try:
                    await self._admit(request, route)
                except Refused:
                    return False
                return True

            return await route.handler(Call(request, request[WHO], self._clock.wall(), query, body, still_may))

        self._routes[handle] = route
        if route.media != HTML:
            self._paths = sorted({*self._paths, route.path})
        # aiohttp's own helper adds HEAD to a GET.
        if route.method == hdrs.METH_GET:
            return web.get(route.path, handle)
        return web.route(route.method, route.path, handle)

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            SPEECHLESS.discard(request.protocol)
            return await self._answer(request, handler)

        return guard

    async def sign(self, _: web.Request, response: web.StreamResponse) -> None:
        """Before any answer goes out, also one that is a stream: what browsers are to heed."""
        file = self._served.web_file
        if file is not None:
            response.headers.update(file.config.http_server_config.headers.given())
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers[hdrs.SERVER] = "probed"

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = self._routes.get(request.match_info.handler)
        if route is not None and route.largest > MAX_BODY:
            request = request.clone(client_max_size=route.largest)
        try:
            _check_headers(request)
            self._check_host(request)
            if not by_socket(request):
                check_origin(request, self._served.settings.web)
            await self._admit(request, route)
            if route is not None and (route.endless or route.changes):
                return await handler(request)  # a change that was begun is brought to its end
            return await within_time(handler(request))
        except Refused as error:
            refused = error
        except web.HTTPException as error:
            told = self._of(error, request)
            if told is None:
                return plain(error.status, {})
            refused = told
        except StoreError as error:
            failure = _logged("api.store_failed", request, str(error))
            refused = Refused("store", "the daemon's log tells why, under this id", id=failure)
        except Exception:  # noqa: BLE001 - a bug of ours must not reach the client as a traceback
            failure = secrets.token_hex(8)
            _log.exception("api.bug", id=failure, method=request.method, route=_route(request))
            refused = Refused("internal", "the daemon's log tells the rest, under this id", id=failure)
        if route is not None and route.refuse is not None:
            return await route.refuse(request, refused)
        return refused.response()

    async def _admit(self, request: web.Request, route: Route | None) -> None:
        """Refused unless who asks may. What is no route asks for no less than reading: it tells routes."""
        if route is not None and route.needs is None:
            request[WHO] = NOBODY
            return
        needs = Role.VIEWER if route is None else route.needs or Role.VIEWER
        who = request[WHO] = await self._doorkeeper.identify(request)
        if who.may(needs):
            if who.via == "session":
                await check_session(request, who)
            return
        if who.via != "anonymous":
            raise Refused("forbidden", f"{who.name} is {who.role or 'nobody here'}; this needs the role {needs}")
        if who.role is None:
            raise unauthorized("credentials are needed", request)
        more = f"; {route.otherwise}" if route is not None and route.otherwise else ""
        raise Refused("read-only", self._doorkeeper.remedy + more)

    def _of(self, error: web.HTTPException, request: web.Request) -> Refused | None:
        """What aiohttp itself refuses, in our words; ``None`` for a status that needs none."""
        if isinstance(error, web.HTTPNotFound):
            path = request.path[:100]
            hint = did_you_mean(path, self._paths) or "; GET /api/v1/openapi.json lists what there is"
            detail = f"nothing is at {shown(path)}{hint}"
            return Refused("not-found", detail)
        if isinstance(error, web.HTTPMethodNotAllowed):
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"expected {allowed}, got {shown(request.method)}"
            return Refused("method-not-allowed", detail, headers={hdrs.ALLOW: allowed})
        if isinstance(error, web.HTTPRequestEntityTooLarge):
            route = self._routes.get(request.match_info.handler)
            return Refused("too-large", f"expected at most {(route.largest if route else MAX_BODY) // 1024} KiB")
        return None

    def _check_host(self, request: web.Request) -> None:
        """Against DNS rebinding, where a page from elsewhere has a browser ask us under a name of its own."""
        given = request.headers.get(hdrs.HOST)
        web_settings = self._served.settings.web
        named = {*web_settings.allowed_hosts, web_settings.external_host} - {""}
        # An address that other machines reach has names that we cannot know, unless we are told.
        if given is None or by_socket(request) or not (self._only_here or named):
            return
        name = _host_name(given)
        if name in self._own_hosts or name in named or _is_local(name):
            return
        if not self._only_here and _is_address(name):
            return  # no name, so none that a DNS server could point at us
        detail = f"expected a name of this machine such as localhost or 127.0.0.1, got {shown(given)}"
        raise Refused("foreign-host", f"{detail}; web.allowed_hosts can name others")


def _check_headers(request: web.Request) -> None:
    size = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
    if size > MAX_HEADERS:
        raise Refused("headers-too-large", f"expected at most {MAX_HEADERS // 1024} KiB in all")


async def _body(request: web.Request, route: Route) -> Any:
    if route.reads is not None:
        return await patiently(route.reads(request))
    return await patiently(read_body(request, route.body, route.bodies)) if route.body is not None else None


async def within_time(work: Awaitable[_T]) -> _T:
    """What ``work`` comes to; Refused when that takes too long."""
    limit = asyncio.timeout(ANSWER_SECONDS)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        raise Refused("timeout", f"no answer within {ANSWER_SECONDS:g} s; ask for less, or later") from None


def _host_name(host: str) -> str:
    """``[::1]:7432`` -> ``::1``, ``LocalHost.:7432`` -> ``localhost``; empty for what is no host and port."""
    match = _HOST.fullmatch(host)
    return (match[1] or match[2]).lower() if match else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_local(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _logged(what: str, request: web.Request, error: str) -> str:
    failure = secrets.token_hex(8)
    _log.error(what, id=failure, method=request.method, route=_route(request), error=error)
    return failure


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""
