"""Requests that another site made a browser send: refused, whatever credentials the browser added by itself."""

from __future__ import annotations

import hmac
import re
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from probed.api.access import Principal
from probed.api.problems import Refused
from probed.api.routing import patiently
from probed.config.web import Web

SAFE = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
FETCH_SITE = "Sec-Fetch-Site"
FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""What any page on the web may have a browser send without asking first."""
CSRF = "csrf"
MAX_BACK = 500
_PATH = re.compile(r"(?:[\w~%-][\w.~%-]*(?:/[\w~%-][\w.~%-]*)*)?", re.ASCII)


def check_origin(request: web.Request, settings: Web) -> None:
    """Refused when a browser says that the request came from elsewhere. Programs say nothing of it, and may pass."""
    if request.method in SAFE:
        return
    site = request.headers.get(FETCH_SITE)
    if site is not None:
        if site not in ("same-origin", "none"):
            raise _cross_site()
    elif hdrs.ORIGIN in request.headers and not _is_own(request, settings):
        raise _cross_site()


async def check_session(request: web.Request, who: Principal) -> None:
    """What a request must show beside its cookie, which a browser adds by itself."""
    if request.method in SAFE:
        return
    if FETCH_SITE not in request.headers and hdrs.ORIGIN not in request.headers:
        raise Refused("cross-site", "a session changes something only from the page itself; programs use a token")
    if request.content_type in FORMS and request.can_read_body:
        given = (await patiently(request.post())).get(CSRF)
        if not who.csrf or not isinstance(given, str) or not _same(given, who.csrf):
            raise Refused("cross-site", f"the form lacks the session's own value in its field {CSRF}; load it anew")


def is_of_own_page(request: web.Request, settings: Web) -> bool:
    """Whether a browser says that one of our own pages sent it; of a program, which says nothing, it is not known."""
    site = request.headers.get(FETCH_SITE)
    return site == "same-origin" or (site is None and hdrs.ORIGIN in request.headers and _is_own(request, settings))


def is_local(target: str) -> bool:
    """Whether it is a path below our own root, with its query, and never an address of anybody else."""
    path, _, query = target.partition("?")
    if len(target) > MAX_BACK or not target.isascii() or not _PATH.fullmatch(path) or "%2e" in path.lower():
        return False
    return query.isprintable() and "\\" not in query


def _is_own(request: web.Request, settings: Web) -> bool:
    origin = request.headers[hdrs.ORIGIN]
    if settings.external_url is not None:
        parts = urlsplit(settings.external_url)
        if origin == f"{parts.scheme}://{parts.netloc}":
            return True
    # By its host alone: whether TLS ends before us is not seen here.
    scheme, _, host = origin.partition("://")
    return scheme in ("http", "https") and bool(host) and host.lower() == request.headers.get(hdrs.HOST, "").lower()


def _cross_site() -> Refused:
    return Refused(
        "cross-site", "a browser sent this for a page of another site; use the daemon's own page, or a token"
    )


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode())
