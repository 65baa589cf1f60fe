"""Logging in and out of a browser, and who one is: ``/-/login``, ``/-/logout``, ``/api/v1/whoami``.

The form works without scripts and without the page: a login is what one needs when nothing else can be seen.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import urlencode

from aiohttp import hdrs, web
from multidict import MultiMapping

from probed.access.sessions import LONGEST_SECONDS
from probed.api import schemas
from probed.api.answers import as_json
from probed.api.doorkeeping import COOKIE, KnownPeople
from probed.api.origins import FETCH_SITE, is_local
from probed.api.problems import BY_FORM, Refused
from probed.api.query import Word
from probed.api.routing import JSON, Call, Route, patiently, read_body
from probed.api.served import Served
from probed.model import Role
from probed.redaction import visible
from probed.store import AuditRecord, Commit
from probed.strict_yaml import Strict

FORM = "application/x-www-form-urlencoded"
HTML = "text/html"
BACK = Word("back", "Page to go to afterwards, relative to the root of the pages.")

_STYLE = ":root{color-scheme:light dark;background:light-dark(#fff,#14171a);color:light-dark(#1a1d21,#e7eaed)}\
body{font:1rem/1.5 system-ui,sans-serif;margin:4rem auto;max-width:20rem;padding:0 1rem}\
label,input,button{display:block;width:100%;box-sizing:border-box;font:inherit;margin:0 0 .75rem}\
input,button{padding:.3rem .6rem;border:1px solid;border-radius:3px}label{font-weight:600}\
button{background:light-dark(#0b57a4,#7ab8ff);color:light-dark(#fff,#14171a);font-weight:600;cursor:pointer}\
[role=alert]{color:light-dark(#b00020,#ff8088);font-weight:600}"
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{again}
<title>Sign in · probed on {observer}</title><style>{style}</style></head>
<body><main><h1>Sign in</h1><p>probed on {observer}</p>{problem}<form method="post" action="login">
<input type="hidden" name="back" value="{back}">
<label>User <input name="username" value="{name}" autocomplete="username" maxlength="200" required{at_name}></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required{at_password}></label>
<button>Sign in</button></form></main></body></html>
"""


class Login(Strict):
    username: str
    password: str


def routes() -> list[Route]:
    async def whoami(call: Call) -> web.Response:
        who = call.who
        return as_json(_who({"name": who.name, "role": str(who.role), "via": who.via, "csrf": who.csrf}))

    says = "Who the credentials of this request are, and what they may."
    return [Route("GET", "/api/v1/whoami", whoami, says, gives=schemas.Who)]


def doors(served: Served, people: KnownPeople) -> list[Route]:
    """Of the page, not of the API."""

    def page(back: str, problem: str = "", status: int = 200, *, name: str = "", again: str = "") -> web.Response:
        told = f'<p role="alert" id="problem">{escape(problem)}</p>' if problem else ""
        # Which of the two is wrong is nobody's business; the password is what has to be typed again.
        wrong = (' aria-describedby="problem"' if problem else "") + (' aria-invalid="true"' if status == 401 else "")
        focus = {"name": wrong, "password": f"{wrong} autofocus"} if problem else {"name": " autofocus", "password": ""}
        observer = escape(served.settings.observer)
        text = _PAGE.format(
            observer=observer, style=_STYLE, problem=told, back=escape(back), name=escape(visible(name)), again=again,
            at_name=focus["name"], at_password=focus["password"],
        )  # fmt: skip
        headers = {"Content-Security-Policy": _POLICY}
        return web.Response(status=status, text=text, content_type=HTML, headers=headers)

    async def form(call: Call) -> web.Response:
        if not people.users:
            raise Refused("not-found", "nobody can log in here: web.config_file names no users (basic_auth_users)")
        back = _local(call.query[BACK] or "")
        if await is_signed_in(call.request):
            return web.Response(status=303, headers={hdrs.LOCATION: f"../{back}"})
        # After a link in a message the browser has kept a strict cookie back; asked by a page of ours it sends it.
        if call.request.headers.get(FETCH_SITE) == "cross-site":
            return page(back, again=f'<meta http-equiv="refresh" content="0; url=login{_query(back)}">')
        return page(back)

    async def is_signed_in(request: web.Request) -> bool:
        """Whether the page would be shown to this session: else the way back would lead here again."""
        try:
            who = await people.identify(request)
        except Refused:
            return False
        return who.via == "session" and who.may(Role.VIEWER)

    async def log_in(call: Call) -> web.Response:
        request = call.request
        if request.content_type != FORM:
            login: Login = await patiently(read_body(request, Login, (JSON, FORM)))
            who, headers = await begin(call, login.username, login.password)
            return as_json(_who(who), headers=headers)
        given = await patiently(request.post())
        back, name = _local(_field(given, "back")), _field(given, "username")
        try:
            _, headers = await begin(call, name, _field(given, "password"))
        except Refused as refused:
            told = f"{refused.detail[0].upper()}{refused.detail[1:]}."
            again = page(back, told, refused.response().status, name=name)
            again.headers.update(refused.headers)
            if hdrs.WWW_AUTHENTICATE in again.headers:
                again.headers[hdrs.WWW_AUTHENTICATE] = BY_FORM
            return again
        return web.Response(status=303, headers={**headers, hdrs.LOCATION: f"../{back}"})

    async def begin(call: Call, name: str, password: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        who = await people.log_in(call.request, name, password)
        text, session = people.sessions.begin(name, people.users[name])
        told = AuditRecord(call.now, name, "password", call.request.remote or "", "login", name)
        await served.store.append(Commit(audit=(told,)))
        known = {"name": name, "role": str(who.role), "via": "session", "csrf": session.csrf}
        return known, {hdrs.SET_COOKIE: _cookie(served, call.request, text, int(LONGEST_SECONDS))}

    async def log_out(call: Call) -> web.Response:
        text = call.request.cookies.get(COOKIE, "")
        people.sessions.end(text)
        headers = {hdrs.SET_COOKIE: _cookie(served, call.request, "", 0)}
        if call.request.content_type == FORM:
            return web.Response(status=303, headers={**headers, hdrs.LOCATION: "../"})
        return web.Response(status=204, headers=headers)

    return [
        Route("GET", "/-/login", form, "A form to log in by.", needs=None, takes=(BACK,), media=HTML,
              refusals=("not-found",)),
        Route("POST", "/-/login", log_in, "Log in: a form or JSON with username and password; answers with a cookie.",
              needs=None, refusals=("too-many", "cross-site")),
        Route("POST", "/-/logout", log_out, "End the session of the cookie.", needs=None, status=204,
              refusals=("cross-site",)),
    ]  # fmt: skip


def _who(known: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**known, "csrf": known["csrf"] or None}


def _local(back: str) -> str:
    return back if is_local(back) else ""


def _query(back: str) -> str:
    return escape(f"?{urlencode({BACK.name: back})}") if back else ""


def _field(given: MultiMapping[Any], name: str) -> str:
    value = given.get(name, "")
    return value if isinstance(value, str) else ""


def _cookie(served: Served, request: web.Request, value: str, seconds: int) -> str:
    web_settings = served.settings.web
    host = request.headers.get(hdrs.HOST, "").rpartition("@")[2]
    outside = bool(web_settings.external_host) and host.partition(":")[0].lower() == web_settings.external_host
    path = f"{web_settings.prefix}/" if outside else "/"
    secure = request.secure or (outside and (web_settings.external_url or "").startswith("https:"))
    parts = [f"{COOKIE}={value}", f"Path={path}", f"Max-Age={seconds}", "HttpOnly", "SameSite=Strict"]
    return "; ".join([*parts, "Secure"] if secure else parts)
