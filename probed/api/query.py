"""Query parameters: declared by each route, parsed strictly into types; all problems at once, each naming its own.

The same declarations become the parameters of the OpenAPI description.
"""

from __future__ import annotations

import base64
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar
from zoneinfo import ZoneInfo

from multidict import MultiMapping

from probed import quantity
from probed.api.problems import Refused, shown
from probed.strict_yaml import did_you_mean

_T = TypeVar("_T")
_Word = TypeVar("_Word", bound=StrEnum)

MAX_WORD = 200
MAX_ERRORS = 20
LATEST = 253402128000.0
"""9999-12-30T00:00:00Z: the last day that has a date in every zone."""

_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:[Zz]|([+\- ])(\d\d:\d\d))", re.ASCII
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameter(ABC, Generic[_T]):
    """One parameter: ``read`` turns its text into a value, or raises ValueError with what was expected and got."""

    name: str
    says: str
    """For the API's description: one sentence."""
    blank: ClassVar[bool] = False
    """Whether an empty text is as good as none: a field of a form that nobody filled in."""

    @abstractmethod
    def read(self, text: str, now: float) -> _T: ...

    @abstractmethod
    def absent(self) -> _T:
        """The value when it is not given."""

    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {"type": "string", "maxLength": MAX_WORD}


class Optional(Parameter[_T | None]):
    __slots__ = ()

    def absent(self) -> _T | None:
        return None


class Word(Optional[str]):
    """Any one-line text of at most 200 characters."""

    __slots__ = ()

    def read(self, text: str, now: float) -> str:
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": MAX_WORD}


class Field(Word):
    """A field of a form, which may be left empty."""

    __slots__ = ()
    blank = True


@dataclass(frozen=True, slots=True)
class Choice(Parameter[_Word | None]):
    words: type[_Word]

    def read(self, text: str, now: float) -> _Word:
        try:
            return self.words(text)
        except ValueError:
            known = [word.value for word in self.words]
            raise ValueError(f"expected {_either(known)}, got {shown(text)}{_close(text, known)}") from None

    def absent(self) -> None:
        return None

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": [word.value for word in self.words]}


class Flag(Optional[bool]):
    __slots__ = ()

    def read(self, text: str, now: float) -> bool:
        if text not in ("true", "false"):
            raise ValueError(f"expected true or false, got {shown(text)}")
        return text == "true"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Whole(Parameter[int]):
    low: int
    high: int
    default: int

    def read(self, text: str, now: float) -> int:
        if text.isascii() and text.isdigit() and len(text) < 10 and self.low <= int(text) <= self.high:
            return int(text)
        raise ValueError(f"expected a whole number from {self.low} to {self.high}, got {shown(text)}")

    def absent(self) -> int:
        return self.default

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high, "default": self.default}


class Time(Optional[float]):
    """Unix seconds of an RFC 3339 time, or of one relative to now (``-24h``)."""

    __slots__ = ()

    def read(self, text: str, now: float) -> float:
        try:
            moment = now - quantity.seconds(text[1:]) if text.startswith("-") else _instant(text)
        except (ValueError, OverflowError):
            raise ValueError(f"expected a time such as 2026-11-22T10:00:00Z or -24h, got {shown(text)}") from None
        return min(max(moment, 0.0), LATEST)

    def schema(self) -> dict[str, Any]:
        relative = {"type": "string", "pattern": r"^-[0-9]{1,6}(ms|s|m|h|d)$"}
        return {
            "anyOf": [{"type": "string", "format": "date-time"}, relative],
            "examples": ["2026-11-22T10:00:00Z", "-24h"],
        }


class Zone(Parameter[ZoneInfo]):
    """A time zone of the IANA database; UTC when not given."""

    __slots__ = ()

    def read(self, text: str, now: float) -> ZoneInfo:
        try:
            return ZoneInfo(text)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"expected a time zone such as Europe/Berlin, got {shown(text)}") from None

    def absent(self) -> ZoneInfo:
        return ZoneInfo("UTC")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": MAX_WORD, "default": "UTC", "examples": ["Europe/Berlin"]}


@dataclass(frozen=True, slots=True)
class Cursor(Parameter[_T | None]):
    """The key inside a cursor of one listing, made by ``at``."""

    of: str
    key: Callable[[str], _T]
    """Of its text; ValueError when no page of the listing ends there."""

    def at(self, key: str) -> str:
        """An opaque cursor: the next page begins after ``key``."""
        return base64.urlsafe_b64encode(f"{self.of}:{key}".encode()).decode().rstrip("=")

    def read(self, text: str, now: float) -> _T:
        try:
            inside = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
            kind, _, key = inside.partition(":")
            if kind != self.of or not key or not key.isprintable():
                raise ValueError(inside)
            return self.key(key)
        except ValueError:
            raise ValueError(f"expected the next_cursor of an earlier answer, got {shown(text)}") from None

    def absent(self) -> None:
        return None


SINCE = Time("since", "Only what is not older: RFC 3339, or relative to now (-24h).")
UNTIL = Time("until", "Only what is older: RFC 3339, or relative to now (-1h).")


def cursor(of: str, key: Callable[[str], _T]) -> Cursor[_T]:
    return Cursor("cursor", "The next_cursor of the page before.", of, key)


def number(text: str) -> int:
    """A cursor's key that is a number. ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):  # SQLite counts no further
        raise ValueError(text)
    return int(text)


def limit(most: int = 1000, default: int = 100) -> Whole:
    return Whole("limit", "How many items a page may have.", 1, most, default)


class Query:
    """The parameters of one request, by their declarations. Refused when one is wrong, or given and not declared."""

    def __init__(self, given: MultiMapping[str], now: float, takes: Sequence[Parameter[Any]]) -> None:
        self._values: dict[str, Any] = {}
        self._errors: list[Mapping[str, object]] = []
        for parameter in takes:
            self._values[parameter.name] = self._value(parameter, given.getall(parameter.name, []), now)
        since, until = self._values.get(SINCE.name), self._values.get(UNTIL.name)
        if since is not None and until is not None and since > until:
            self._complain(SINCE.name, "expected a time before until")
        known = sorted(self._values)
        for name in sorted(set(given) - set(known))[:MAX_ERRORS]:
            hint = did_you_mean(name[:MAX_WORD], known) or "; this route takes none"
            self._complain(name[:MAX_WORD], f"unknown parameter{hint}")
        if self._errors:
            detail = "; ".join(f"{error['path']}: {error['detail']}" for error in self._errors)
            raise Refused("bad-query", detail, self._errors)

    def __getitem__(self, parameter: Parameter[_T]) -> _T:
        value: _T = self._values[parameter.name]
        return value

    def _value(self, parameter: Parameter[_T], given: Sequence[str], now: float) -> _T:
        if not given or (parameter.blank and list(given) == [""]):
            return parameter.absent()
        try:
            if len(given) > 1:
                raise ValueError(f"expected it once, got it {len(given)} times")
            if not 0 < len(given[0]) <= MAX_WORD or not given[0].isprintable():
                raise ValueError(f"expected 1 to {MAX_WORD} printable characters, got {shown(given[0])}")
            return parameter.read(given[0], now)
        except ValueError as error:
            self._complain(parameter.name, str(error))
            return parameter.absent()

    def _complain(self, name: str, detail: str) -> None:
        if len(self._errors) < MAX_ERRORS:
            self._errors.append({"path": name, "detail": detail})


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
