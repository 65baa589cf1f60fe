"""Query parameters, parsed strictly into types. All problems at once, each naming its parameter."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar
from zoneinfo import ZoneInfo

from aiohttp import web

from probed import quantity
from probed.api.problems import Refused, shown
from probed.strict_yaml import did_you_mean

_Word = TypeVar("_Word", bound=StrEnum)

MAX_WORD = 200
MAX_ERRORS = 20
LATEST = 253402128000.0
"""9999-12-30T00:00:00Z: the last day that has a date in every zone."""

_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:[Zz]|([+\- ])(\d\d:\d\d))", re.ASCII
)  # fmt: skip
_EXPECTED_TIME = "expected a time such as 2026-11-22T10:00:00Z or -24h"


class Query:
    """The parameters of one request. Ask for each by its type, then ``finish``; a bad one reads as not given."""

    def __init__(self, request: web.Request, now: float) -> None:
        self._given, self._now = request.query, now
        self._known: set[str] = set()
        self._errors: list[Mapping[str, object]] = []

    def word(self, name: str) -> str | None:
        """Any one-line text of at most 200 characters."""
        self._known.add(name)
        values = self._given.getall(name, [])
        if not values:
            return None
        if len(values) > 1:
            self._complain(name, f"expected it once, got it {len(values)} times")
            return None
        if not 0 < len(values[0]) <= MAX_WORD or not values[0].isprintable():
            self._complain(name, f"expected 1 to {MAX_WORD} printable characters, got {shown(values[0])}")
            return None
        return values[0]

    def choice(self, name: str, words: type[_Word]) -> _Word | None:
        text = self.word(name)
        if text is None:
            return None
        try:
            return words(text)
        except ValueError:
            known = [word.value for word in words]
            self._complain(name, f"expected {_either(known)}, got {shown(text)}{_close(text, known)}")
            return None

    def flag(self, name: str) -> bool | None:
        text = self.word(name)
        if text not in (None, "true", "false"):
            self._complain(name, f"expected true or false, got {shown(text or '')}")
        return {"true": True, "false": False}.get(text or "")

    def whole(self, name: str, low: int, high: int, default: int) -> int:
        text = self.word(name)
        if text is None:
            return default
        if text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high:
            return int(text)
        self._complain(name, f"expected a whole number from {low} to {high}, got {shown(text)}")
        return default

    def time(self, name: str) -> float | None:
        """Unix seconds of an RFC 3339 time, or of one relative to now (``-24h``)."""
        text = self.word(name)
        if text is None:
            return None
        try:
            moment = self._now - quantity.seconds(text[1:]) if text.startswith("-") else _instant(text)
        except (ValueError, OverflowError):
            self._complain(name, f"{_EXPECTED_TIME}, got {shown(text)}")
            return None
        return min(max(moment, 0.0), LATEST)

    def zone(self, name: str) -> ZoneInfo:
        """A time zone of the IANA database; UTC when not given."""
        text = self.word(name)
        try:
            return ZoneInfo(text or "UTC")
        except (KeyError, ValueError, OSError):
            self._complain(name, f"expected a time zone such as Europe/Berlin, got {shown(text or 'UTC')}")
            return ZoneInfo("UTC")

    def cursor(self, name: str, of: str) -> str | None:
        """The key inside a cursor made by ``cursor_of``."""
        text = self.word(name)
        if text is None:
            return None
        try:
            inside = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
        except ValueError:
            inside = ""
        kind, _, key = inside.partition(":")
        if kind != of or not key or not key.isprintable():
            self._complain(name, f"expected the next_cursor of an earlier answer, got {shown(text)}")
            return None
        return key

    def span(self, since: float | None, until: float | None) -> None:
        """Complain about a span of time that ends before it begins."""
        if since is not None and until is not None and since > until:
            self._complain("since", "expected a time before until")

    def finish(self) -> None:
        """Refused when anything was wrong, or given and not known."""
        known = sorted(self._known)
        for name in sorted(set(self._given) - self._known)[:MAX_ERRORS]:
            hint = did_you_mean(name[:MAX_WORD], known) or "; this route takes none"
            self._complain(name[:MAX_WORD], f"unknown parameter{hint}")
        if self._errors:
            detail = "; ".join(f"{error['path']}: {error['detail']}" for error in self._errors)
            raise Refused("bad-query", detail, self._errors)

    def _complain(self, name: str, detail: str) -> None:
        if len(self._errors) < MAX_ERRORS:
            self._errors.append({"path": name, "detail": detail})


def cursor_of(listing: str, key: str) -> str:
    """An opaque cursor: the next page of ``listing`` begins after ``key``."""
    return base64.urlsafe_b64encode(f"{listing}:{key}".encode()).decode().rstrip("=")


def _instant(text: str) -> float:
    match = _INSTANT.fullmatch(text)
    if not match:
        raise ValueError(text)
    day, clock, fraction, sign, offset = match.groups()
    # A plus that was not encoded arrives as a space.
    zone = "+00:00" if sign is None else ("-" if sign == "-" else "+") + offset
    moment = datetime.fromisoformat(f"{day}T{clock}{(fraction or '')[:7]}{zone}")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def _either(words: list[str]) -> str:
    return ", ".join(words[:-1]) + f" or {words[-1]}"


def _close(text: str, words: list[str]) -> str:
    # All words were named already: only a close one is worth a second mention.
    hint = did_you_mean(text, words)
    return hint if "did you mean" in hint else ""
