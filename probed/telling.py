"""Settings -> receivers and the doors to them. What is secret in an address stays in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple

from probed.clock import Clock
from probed.config.access import Secured
from probed.config.notifications import Alertmanager, Apprise, Heartbeat, Webhook, address_in
from probed.config.settings import Settings
from probed.couriers import Appointment
from probed.errors import Blind, ProbeError
from probed.model import CANARY, Event, Severity
from probed.outlets import Link, Outlet, hidden
from probed.outlets.alertmanager import AlertmanagerOutlet
from probed.outlets.apprise import AppriseOutlet
from probed.outlets.webhook import WebhookOutlet
from probed.probes._access import Access
from probed.probes._http import Answer, HttpClient
from probed.receivers import Receiver
from probed.redaction import remember_address


class HttpDoor(Struct, frozen=True):
    """One address that may hold a secret, known to everybody else by its name. The file is read at every attempt."""

    http: HttpClient
    name: str
    url: str | None = None
    url_file: Path | None = None
    secured: Secured | None = None
    path: str = ""
    """What follows the address."""

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        url = self._url()
        try:
            return await self.http.post(url, body, headers=headers, access=self._access(url), shown=self.name)
        except ProbeError as error:
            raise type(error)(error.kind, hidden(str(error), url)) from None

    async def get(self) -> Answer:
        url = self._url()
        try:
            return await self.http.get(url, access=self._access(url), shown=self.name)
        except ProbeError as error:
            raise type(error)(error.kind, hidden(str(error), url)) from None

    def _url(self) -> str:
        url = self.url
        if url is None:
            assert self.url_file is not None
            try:
                url = address_in(self.url_file)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise Blind("config", f'url_file "{self.url_file}": {reason}') from None
        remember_address(url)
        return url + self.path

    def _access(self, url: str) -> Access | None:
        return Access(url, *astuple(self.secured.keys())) if self.secured is not None else None


class Shapes(Struct, frozen=True):
    """How the API shows things; receivers are to see the same."""

    event: Callable[[Event], Mapping[str, Any]]
    instant: Callable[[float], str | None]


Ask = Callable[[], Shapes]
"""For the shapes, once somebody is told in them: they bring much of the API with them."""


def appointments(settings: Settings, http: HttpClient, clock: Clock, shapes: Ask) -> Sequence[Appointment]:
    """Every receiver of the configuration."""
    told = settings.notifications
    if told is None:
        return ()
    link = Link(settings.web.external_url or "", told.runbook_url or "")
    watchdog = told.heartbeat is not None and told.heartbeat.alertmanager
    found = []
    for _, name, one in told.receivers():
        receiver = Receiver(
            name, one.min_severity, frozenset(one.instances), frozenset(one.events), one.resolved, one.reminders
        )
        make = _maker(one, name, settings.observer, http, clock, shapes, link, watchdog=watchdog)
        found.append(Appointment(receiver, make, (one, link, watchdog, settings.observer)))
    return found


def to_oneself(url: str, settings: Settings, http: HttpClient, clock: Clock, shapes: Ask) -> Appointment:
    """The one who is told of canaries: this daemon, by a webhook as others have them."""

    def make() -> Outlet:
        shown = shapes()
        door = HttpDoor(http, CANARY, url)
        return WebhookOutlet(door, clock, observer=settings.observer, render=shown.event, instant=shown.instant)

    receiver = Receiver(CANARY, events=frozenset({CANARY}), resolved=False)
    return Appointment(receiver, make, (url, settings.observer))


def _maker(
    one: Alertmanager | Webhook | Apprise,
    name: str,
    observer: str,
    http: HttpClient,
    clock: Clock,
    shapes: Ask,
    link: Link,
    *,
    watchdog: bool,
) -> Callable[[], Outlet]:
    match one:
        case Alertmanager():
            door = HttpDoor(http, name, one.url, secured=one, path="/api/v2/alerts")
            severities = {severity: getattr(one.severity, severity.value) for severity in Severity}
            return lambda: AlertmanagerOutlet(
                door, clock, observer=observer, severities=severities, link=link, watchdog=watchdog
            )
        case Webhook():
            to, shown = HttpDoor(http, name, one.url, one.url_file, one), shapes()
            return lambda: WebhookOutlet(
                to,
                clock,
                observer=observer,
                render=shown.event,
                instant=shown.instant,
                secret_file=one.secret_file,
                link=link,
            )
        case Apprise():
            return lambda: AppriseOutlet(one.url_file, link=link)


def heartbeat_door(heartbeat: Heartbeat, http: HttpClient) -> HttpDoor | None:
    """Whom to ping; nobody, when only Alertmanagers are to know."""
    if heartbeat.url is None and heartbeat.url_file is None:
        return None
    return HttpDoor(http, "heartbeat", heartbeat.url, heartbeat.url_file)
