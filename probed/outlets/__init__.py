"""Outlets: the ways to a receiver. One module each, which sends and never queues, waits or tries again.

Whoever calls an outlet sets its one deadline, and keeps what it did not get rid of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from probed.errors import ProbeError, Undelivered
from probed.model import Event
from probed.store.notices import Notice

TEST_EVENT = "probed_test"
"""What a test is called where an event would have its type."""


class Outlet(Protocol):
    kind: str
    """``webhook``, ``alertmanager`` or ``apprise``."""
    batch: int
    """How many notices it takes at once."""
    refresh_seconds: float | None
    """How often it wants to be told what is open; ``None``: never."""

    async def send(self, notices: Sequence[Notice]) -> str:
        """Deliver, in order; the receiver's answer in a few words. Undelivered unless it is certain that it has it."""
        ...

    async def refresh(self, events: Sequence[Event]) -> str:
        """Tell what is open. Undelivered as above."""
        ...

    async def test(self) -> str:
        """Send something that is recognised as a test. Undelivered as above."""
        ...


class Answered(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Door(Protocol):
    """The HTTP client of an outlet. ProbeError when there is no answer, without the address in its text."""

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answered: ...

    async def get(self) -> Answered: ...


Render = Any
"""``Event -> JSON object``: an event as the API shows it."""

MAX_RETRY_AFTER = 3600.0
_UNWANTED = (400, 405, 406, 411, 413, 414, 415, 422, 431)


async def post(door: Door, body: bytes, headers: Mapping[str, str]) -> str:
    """Send ``body``; ``HTTP 200`` and the like. Undelivered unless the answer is 2xx; redirects are not followed."""
    try:
        answer = await door.post(body, headers)
    except ProbeError as error:
        raise Undelivered(str(error)) from None
    return judge(answer)


async def get(door: Door) -> str:
    """Ask an address that only wants to be asked. Undelivered as by ``post``."""
    try:
        return judge(await door.get())
    except ProbeError as error:
        raise Undelivered(str(error)) from None


def judge(answer: Answered) -> str:
    """What an answer means for what was sent."""
    status, said = answer.status, f"HTTP {answer.status}"
    if 200 <= status < 300:
        return said
    if 300 <= status < 400:
        raise Undelivered(f"{said}: redirects are not followed; name the address that it leads to")
    if status == 410:
        raise Undelivered(f"{said}: the receiver is gone for good", final=True)
    wait = _retry_after(answer.headers.get("Retry-After", "")) if status in (429, 503) else 0.0
    raise Undelivered(said, retry_after=wait, unwanted=status in _UNWANTED)


def _retry_after(text: str) -> float:
    """Seconds that a receiver asks for; a date, which few send, counts as a minute."""
    text = text.strip()
    if not text:
        return 0.0
    return min(float(text), MAX_RETRY_AFTER) if text.isascii() and text.isdigit() and len(text) < 10 else 60.0


def hidden(text: str, address: str) -> str:
    """``text`` without what of an address may be secret: it as a whole, its path, its query."""
    parts = urlsplit(address)
    for piece in (address, f"{parts.path}?{parts.query}", parts.query, parts.path):
        if len(piece) > 1:
            text = text.replace(piece, "…")
    return text


class Link(Struct, frozen=True):
    """Where people find more."""

    external_url: str = ""
    runbook_url: str = ""

    def event(self, event_id: str) -> str:
        return f"{self.external_url}/events/{event_id}" if self.external_url else ""

    def runbook(self, event: str) -> str:
        return self.runbook_url.replace("{event}", event)
