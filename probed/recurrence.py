"""Windows that come back: ``mon-fri 22:00-02:00 Europe/Berlin``, exact on the days when clocks are set. Pure.

Windows are written by the local clock, and so they are kept. One opens when the clock first reaches its start and
closes when the clock last reaches its end: an hour that comes twice is inside both times. Where the clock jumps over
the start or the end, the window opens when the start has passed and keeps its written length: none is ever missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from msgspec import Struct

from probed import quantity
from probed.strict_yaml import did_you_mean

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LAST = 0
"""Among days of the month: its last, whatever its number."""
DAY = 24 * 60
MAX_LENGTH = 7 * DAY
FORM = 'expected such as "mon-fri 22:00-02:00 Europe/Berlin", "sun 1-7 03:00-05:00 UTC" or "fri 22:00 for 56h UTC"'
_SEARCHED_DAYS = 5 * 366
"""How far ahead the next window is looked for: a Monday that is a 31st can be more than a year away."""
_MONTHDAYS = ("last", *map(str, range(1, 32)))
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


class Window(Struct, frozen=True):
    """From ``opens_at``, inclusive, to ``closes_at``, exclusive; Unix seconds."""

    opens_at: float
    closes_at: float


class Recurrence(Struct, frozen=True):
    """Days, a time of day and a length by the clock of one zone. A day must be named by both lists that are given."""

    start: int
    """Minutes after midnight."""
    length: int
    """Minutes, 1 to ``MAX_LENGTH``, by the clock."""
    zone: str
    """IANA name."""
    weekdays: tuple[int, ...] = ()
    """0 is Monday; empty: every one."""
    monthdays: tuple[int, ...] = ()
    """1 to 31, or ``LAST``; empty: every one."""

    def __str__(self) -> str:
        end = self.start + self.length
        until = _clock(end if end == DAY else end % DAY)
        length = f"-{until}" if self.length < DAY else f" for {_long(self.length)}"
        span = _clock(self.start) + length
        days = [_runs(self.weekdays, WEEKDAYS), _runs(self.monthdays, _MONTHDAYS)]
        return " ".join([*filter(None, days), span, self.zone] if any(days) else ["daily", span, self.zone])

    def window_at(self, at: float) -> Window | None:
        """The window that ``at`` is in; of several that overlap the one that closes last."""
        around = _date(at, self.zone)
        back = self.length // DAY + 2
        found = (window for window in self._windows(around - timedelta(days=back), back + 2) if window.opens_at <= at)
        return max(
            (window for window in found if at < window.closes_at), key=lambda window: window.closes_at, default=None
        )

    def next_after(self, at: float) -> Window | None:
        """The first window that opens after ``at``; ``None`` when none does within years."""
        around = _date(at, self.zone) - timedelta(days=1)
        return next((window for window in self._windows(around, _SEARCHED_DAYS) if window.opens_at > at), None)

    def _windows(self, first: date, days: int) -> Iterator[Window]:
        for number in range(days):
            day = first + timedelta(days=number)
            if self._names(day):
                yield self._window_of(day)

    def _names(self, day: date) -> bool:
        if self.weekdays and day.weekday() not in self.weekdays:
            return False
        is_last = (day + timedelta(days=1)).day == 1
        return not self.monthdays or day.day in self.monthdays or (is_last and LAST in self.monthdays)

    def _window_of(self, day: date) -> Window:
        start = datetime.combine(day, time()) + timedelta(minutes=self.start)
        end = start + timedelta(minutes=self.length)
        zone = _zone(self.zone)
        opens_at = _first(start, zone)
        if _is_skipped(start, zone) or _is_skipped(end, zone):
            return Window(opens_at, opens_at + self.length * 60)
        return Window(opens_at, _last(end, zone))


def parse(text: str) -> Recurrence:
    """``[DAYS] [DAYS OF THE MONTH] HH:MM-HH:MM ZONE`` or ``... HH:MM for LENGTH ZONE``. ValueError names the mistake.

    DAYS are ``daily``, or ``mon``, ``sat,sun``, ``mon-fri``; days of the month ``1``, ``1,15``, ``1-7``, ``last``.
    """
    *words, zone = text.split() or [""]
    if zone[:1].isdigit():
        raise ValueError(f'a time of day means something else in every zone; end with one, such as UTC, got "{text}"')
    if not words:
        raise ValueError(f'{FORM}, got "{text}"')
    zone_of(zone)
    if len(words) > 2 and words[-2] == "for":
        *days, clock, _, long = words
        start, length = _minutes(clock), _length(long)
    else:
        *days, span = words
        begin, dash, end = span.partition("-")
        if not dash or ":" not in begin:
            raise ValueError(f'{FORM}, got "{text}"')
        start, until = _minutes(begin), _minutes(end)
        if start == until:
            raise ValueError(f'expected an end other than the start, got "{span}"; a whole day is "{begin} for 24h"')
        length = (until - start) % DAY or DAY
    if start == DAY:
        raise ValueError('expected a start from 00:00 to 23:59, got "24:00"')
    weekdays, monthdays = _days(days, text)
    return Recurrence(start, length, zone, weekdays, monthdays)


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its IANA name. ValueError with what may have been meant."""
    try:
        return _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(name, sorted(available_timezones()))
        raise ValueError(f'expected a time zone such as Europe/Berlin or UTC, got "{name}"{hint}') from None


# --- text -------------------------------------------------------------------------------------------------


def _days(words: Sequence[str], text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    weekdays: tuple[int, ...] = ()
    monthdays: tuple[int, ...] = ()
    if list(words) == ["daily"]:
        return weekdays, monthdays
    for word in words:
        of_month = word[0].isdigit() or word.startswith("last")
        if monthdays or (weekdays and not of_month):
            raise ValueError(f'{FORM}: days of the week, then days of the month, each once, got "{text}"')
        if of_month:
            monthdays = _numbers(word, _MONTHDAYS)
        else:
            weekdays = _numbers(word.lower(), WEEKDAYS)
    return weekdays, monthdays


def _numbers(word: str, names: Sequence[str]) -> tuple[int, ...]:
    """``mon-fri`` or ``1,15`` -> the places of the names; a range may go round the end of the week."""
    found: set[int] = set()
    for part in word.split(","):
        first, dash, last = part.partition("-")
        ends = [_number(name, names) for name in ([first, last] if dash else [first])]
        number = ends[0]
        if names is _MONTHDAYS and dash and not LAST < ends[0] <= ends[-1]:
            raise ValueError(f'expected days of the month such as 1-7, got "{part}"')
        while number != ends[-1]:
            found.add(number)
            number = (number + 1) % len(names)
        found.add(number)
    return tuple(sorted(found))


def _number(name: str, names: Sequence[str]) -> int:
    if name in names:
        return names.index(name)
    if names is WEEKDAYS:
        hint = did_you_mean(name, names)
        raise ValueError(f'expected days of the week such as mon-fri or sat,sun, got "{name}"{hint}')
    raise ValueError(f'expected days of the month from 1 to 31, or last, got "{name}"')


def _minutes(clock: str) -> int:
    if not _CLOCK.fullmatch(clock):
        raise ValueError(f'expected a time of day such as 22:00, got "{clock}"')
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def _length(text: str) -> int:
    seconds = quantity.seconds(text)
    if seconds % 60 or not 60 <= seconds <= MAX_LENGTH * 60:
        raise ValueError(f'expected a length in whole minutes from 1m to 7d, got "{text}"')
    return int(seconds // 60)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _long(minutes: int) -> str:
    days, hours, rest = minutes // DAY, minutes % DAY // 60, minutes % 60
    return "".join(f"{number}{unit}" for number, unit in ((days, "d"), (hours, "h"), (rest, "m")) if number)


def _runs(numbers: Sequence[int], names: Sequence[str]) -> str:
    """Places of names as a list in which neighbours are ranges; ``last`` stands alone."""
    runs: list[list[int]] = []
    for number in sorted(numbers, key=lambda number: (names is _MONTHDAYS and number == LAST, number)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(names[run[0]] + (f"-{names[run[-1]]}" if len(run) > 1 else "") for run in runs)


# --- the local clock --------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _date(at: float, zone: str) -> date:
    return datetime.fromtimestamp(at, _zone(zone)).date()


def _stamp(reading: datetime, zone: ZoneInfo, *, fold: int) -> float:
    return reading.replace(tzinfo=zone, fold=fold).timestamp()


def _is_skipped(reading: datetime, zone: ZoneInfo) -> bool:
    """Whether the clock jumps over a reading: only then is it earlier by the offset after (PEP 495)."""
    return _stamp(reading, zone, fold=0) > _stamp(reading, zone, fold=1)


def _last(reading: datetime, zone: ZoneInfo) -> float:
    """The last moment at which the clock goes on to a reading; that it is set back to it does not count."""
    last = _stamp(reading, zone, fold=1)
    if datetime.fromtimestamp(last - 1, zone).replace(tzinfo=None) >= reading:
        return _stamp(reading, zone, fold=0)
    return last


def _first(reading: datetime, zone: ZoneInfo) -> float:
    """The first moment at which the clock shows a reading, or a later one because it jumps over it."""
    before, after = _stamp(reading, zone, fold=1), _stamp(reading, zone, fold=0)
    if before <= after - 1:
        while after - before > 1:  # the jump lies between what the reading means by the offsets after and before it
            middle = (before + after) // 2
            if datetime.fromtimestamp(middle, zone).replace(tzinfo=None) < reading:
                before = middle
            else:
                after = middle
    return after
