"""Pages about this daemon and this browser: about, view; and the page's own files."""

from __future__ import annotations

from functools import cache
from zoneinfo import available_timezones

from aiohttp import hdrs, web
from msgspec import Struct

from probed import wording
from probed.api.origins import is_local
from probed.api.problems import Refused, shown
from probed.api.query import Field
from probed.api.routing import Call, Route
from probed.model import OBSERVER
from probed.store import GapRecord
from probed.web import frame, places
from probed.web.assets import assets
from probed.web.desk import HEADERS, THEME_COOKIE, ZONE_COOKIE, Desk, zone_named
from probed.web.forms import FINE, Wrong
from probed.web.places import Row

YEAR_SECONDS = 365 * 86400
FOREVER = {
    hdrs.CACHE_CONTROL: f"public, max-age={YEAR_SECONDS}, immutable",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}
"""A name changes with its content. The policy is that of an SVG looked at by itself; it runs nothing."""
GAP_DAYS = 30


THEME = Field("theme", "system, light or dark.")
ZONE = Field("zone", "A time zone of the IANA database.")
BACK = Field("back", "The page to go back to.")
SET = Field("set", "Whether to keep what the form says.")


class ViewPage(Struct, frozen=True):
    back: str
    zones: tuple[str, ...]
    theme: str = ""
    """As it was chosen, when the form was refused; so the zone."""
    zone: str = ""
    wrong: Wrong = FINE


class AboutPage(Struct, frozen=True):
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    own: tuple[Row, ...]
    gaps: tuple[GapRecord, ...]


def routes(desk: Desk) -> list[Route]:
    served = desk.served

    async def view(call: Call) -> web.Response:
        back = call.query[BACK] or ""
        back = back if is_local(back) else ""
        if call.query[SET] is None:
            return await desk.html(call, "view.html", ViewPage(back, zones()))
        name, theme = call.query[ZONE] or "UTC", call.query[THEME] or ""
        zone = zone_named(name)
        if zone is None:
            problem = f"Expected a time zone such as Europe/Berlin, got {shown(name)}."
            page = ViewPage(back, zones(), theme, name, Wrong({ZONE.name: (problem,)}))
            return await desk.html(call, "view.html", page, status=422)
        response = web.Response(status=303, headers={**HEADERS, hdrs.LOCATION: f"./{back}"})
        for cookie, value in ((THEME_COOKIE, theme if theme in frame.THEMES else ""), (ZONE_COOKIE, zone.key)):
            response.set_cookie(cookie, value, max_age=YEAR_SECONDS, httponly=True, samesite="Lax")
        return response

    async def about(call: Call) -> web.Response:
        store = await served.store.status()
        now = served.clock.mono()
        board, policies = served.pipeline.board, served.policies.values()
        reload = "applied" if served.last_reload_ok else "refused; the settings before it go on"
        zone = desk.frame(call.request, call.who, call.now).zone
        at = wording.moment(served.last_reload_at, call.now, zone)
        groups = (
            (
                "Daemon",
                (
                    ("version", desk.version),
                    ("observer", served.settings.observer),
                    ("last reload", f"{reload}, {at.full if at else wording.NEVER}"),
                    ("doing its work", "; ".join(served.unready()) or "yes"),
                ),
            ),
            (
                "What it watches",
                (
                    ("instances", str(len(served.settings.instances))),
                    ("targets", str(sum(1 for _ in board.entries()))),
                    (
                        "policies",
                        f"{sum(policy.enabled for policy in policies)} on, {len(policies)} known",
                    ),
                    ("held back so far", wording.count(served.pipeline.suppressed, "event")),
                ),
            ),
            (
                "Store",
                (
                    ("engine", store.engine),
                    ("schema", str(store.schema)),
                    ("events", str(store.events)),
                    ("size", wording.quantity("size_bytes", float(store.bytes))),
                ),
            ),
        )
        gaps = await served.store.gaps(call.now - GAP_DAYS * 86400, call.now + 1)
        return await desk.html(
            call, "about.html", AboutPage(groups, places.rows(board.entries(OBSERVER), now), tuple(gaps))
        )

    async def static(call: Call) -> web.Response:
        wanted = call.path("name")
        found = next((asset for asset in assets().values() if asset.name == wanted), None)
        if found is None:
            raise Refused("not-found", f"no file of the page is called {shown(wanted)}; it was of another version")
        return web.Response(body=found.body, content_type=found.content_type, charset="utf-8", headers=FOREVER)

    return [
        desk.page("/about", about, "This daemon."),
        desk.page("/view", view, "Colours and time zone.", THEME, ZONE, BACK, SET),
        Route("GET", "/static/{name}", static, "A file of the page.", needs=None, media="*/*"),
    ]


@cache
def zones() -> tuple[str, ...]:
    """What the field offers: places, without the aliases of decades."""
    areas = ("Africa/", "America/", "Asia/", "Atlantic/", "Australia/", "Europe/", "Indian/", "Pacific/")
    return ("UTC", *sorted(name for name in available_timezones() if name.startswith(areas)))
