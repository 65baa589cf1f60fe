"""What every page shares: where it stands, in which zone and colours, who looks, and what is open. Pure.

All addresses are relative to the page, so that the daemon works under any path of a proxy without being told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from msgspec import Struct

from probed import wording
from probed.api.origins import is_local
from probed.model import Event, Severity
from probed.web import marks
from probed.web.marks import Mark
from probed.wording import Moment

PAGES = (
    ("Overview", ""),
    ("Events", "events"),
    ("Policies", "policies"),
    ("Inspections", "inspections"),
    ("Silences", "silences"),
    ("Notifications", "notifications"),
    ("Audit", "audit"),
    ("Tokens", "tokens"),
    ("About", "about"),
)
"""The navigation: name and path."""
THEMES = ("system", "light", "dark")


class Banner(Struct, frozen=True):
    """Something about this daemon that makes the page worth less than usual."""

    title: str
    text: str
    look: str = ""


class Looker(Struct, frozen=True):
    """Who looks at the page, and what it may offer."""

    name: str = ""
    role: str = "viewer"
    may_operate: bool = False
    may_administer: bool = False
    signed_in: bool = False
    can_sign_in: bool = False
    csrf: str = ""


class Frame(Struct, frozen=True):
    path: str
    """Of the page as it was asked for, without a leading slash: ``events/01a2``."""
    query: Mapping[str, str]
    now: float
    """Unix seconds."""
    zone: ZoneInfo
    theme: str
    observer: str
    version: str
    assets: Mapping[str, str]
    """Plain name -> name with hash."""
    known: bool = True
    """Whether who looks may see anything of this daemon."""
    counts: tuple[tuple[Mark, int], ...] = ()
    banners: tuple[Banner, ...] = ()
    looker: Looker = Looker()
    pages: tuple[tuple[str, str], ...] = PAGES
    stream: bool = False
    """Whether the API streams what happens."""

    @property
    def section(self) -> str:
        """The page of the navigation that this one belongs to."""
        first = self.path.partition("/")[0]
        return "" if first in ("", "instances", "readings") else first

    @property
    def root(self) -> str:
        return "../" * self.path.count("/") or "./"

    def url(self, path: str, **query: str | None) -> str:
        """Of another page: ``../events?state=open``. A query that is None is left out."""
        return self.root + _quoted(path) + _query(query)

    def with_(self, **changes: str | None) -> str:
        """Of this page with another query."""
        return _query({**self.query, **changes}) or "?"

    def asset(self, name: str) -> str:
        return f"{self.root}static/{self.assets[name]}"

    @property
    def here(self) -> str:
        """This page, for another to lead back to."""
        return self.path + _query(dict(self.query))

    def back(self, target: str) -> str:
        """The address of ``target``, an earlier ``here``; of the overview when it is none."""
        return self.root + (target if is_local(target) else "")

    def unfolding(self, name: str) -> str:
        """The query's ``unfold`` with one more instance in it."""
        return ",".join([*filter(None, self.query.get("unfold", "").split(",")), name])

    def moment(self, at: float | None) -> Moment | None:
        return wording.moment(at, self.now, self.zone)


def counted(events: Sequence[Event]) -> tuple[tuple[Mark, int], ...]:
    """How many events are open and told, by severity, the gravest first."""
    told = [event for event in events if not event.suppressed]
    counts = ((severity, sum(event.severity is severity for event in told)) for severity in Severity)
    return tuple((marks.of_severity(severity), number) for severity, number in counts if number)


_quoted = lru_cache(maxsize=4096)(quote)


def _query(query: Mapping[str, str | None]) -> str:
    given = {name: value for name, value in query.items() if value is not None and value != ""}
    return f"?{urlencode(given)}" if given else ""
