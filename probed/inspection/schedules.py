"""When an inspection is due: ``daily 03:00``, ``weekly mon 03:00``, ``monthly 1 03:00``, or a cron expression. Pure.

The library ``cronsim`` reckons, by the clock of a zone, as Debian's cron does on the days when clocks are set: what
falls into the hour that is left out is due right after it, what falls into the hour that comes twice is due once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from cronsim import CronSim, CronSimError
from msgspec import Struct

from probed.recurrence import WEEKDAYS, zone_of
from probed.strict_yaml import did_you_mean

FORM = (
    'expected such as "daily 03:00", "weekly mon 03:00", "monthly 1 03:00", or a cron expression such as "0 3 * * 1-5"'
)
EVERY_MONTH = 28
"""The last day of the month that every month has."""
LONGEST_SEARCH = timedelta(days=5 * 366)
SHORTEST_SECONDS = 300.0
"""Between two times of one schedule: an inspection is no probe."""

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_CRON_FIELDS = 5
_PROBED_TIMES = 26
"""So many show the least distance between two: minutes repeat in each hour."""
_WORDS = ("daily", "weekly", "monthly")


class Schedule(Struct, frozen=True):
    """Times that come back, by the clock of a zone."""

    cron: str
    """Five fields."""
    zone: str
    """IANA name."""

    def next_after(self, at: float) -> float | None:
        """The first time after ``at``, Unix seconds; ``None`` when none comes within years."""
        return self._search(at, reverse=False)

    def last_until(self, at: float) -> float | None:
        """The newest time that is not after ``at``."""
        return self._search(at + 1, reverse=True)

    def due(self, since: float, now: float) -> float | None:
        """The newest time after ``since`` that has come; of several that were missed only one is made up for."""
        last = self.last_until(now)
        return last if last is not None and last > since else None

    def _search(self, at: float, *, reverse: bool) -> float | None:
        began = datetime.fromtimestamp(int(at), zone_of(self.zone))
        try:
            found = next(CronSim(self.cron, began, reverse=reverse))
        except StopIteration:
            return None
        return found.timestamp() if abs(found - began) < LONGEST_SEARCH else None


def parse(text: str, zone: str = "UTC") -> Schedule:
    """A schedule as people write it. ValueError says what was expected instead."""
    zone_of(zone)
    words = text.split()
    first = words[0].lower() if words else ""
    if first in _WORDS:
        return Schedule(_cron(first, words[1:], text), zone)
    if len(words) != _CRON_FIELDS:
        hint = did_you_mean(first, _WORDS) if first.isalpha() else ""
        raise ValueError(f'{FORM}, got "{text}"{hint if "did you mean" in hint else ""}')
    schedule = Schedule(" ".join(words), zone)
    try:
        times = _first_times(schedule)
    except CronSimError as error:
        field, order = str(error).removeprefix("Bad "), "minute hour day-of-month month day-of-week"
        raise ValueError(f'cannot read the {field} of the cron expression "{text}" ({order})') from None
    if not times:
        raise ValueError(f'the cron expression "{text}" names no time that ever comes')
    if any(later - earlier < SHORTEST_SECONDS for earlier, later in pairwise(times)):
        raise ValueError(f'expected at least {SHORTEST_SECONDS / 60:g} minutes between two inspections, got "{text}"')
    return schedule


def _first_times(schedule: Schedule) -> list[float]:
    found: list[float] = []
    at: float | None = 0.0
    while len(found) < _PROBED_TIMES and at is not None:
        at = schedule.next_after(at)
        found += [] if at is None else [at]
    return found


def _cron(word: str, rest: Sequence[str], text: str) -> str:
    *days, clock = rest or [""]
    match = _CLOCK.fullmatch(clock)
    if match is None:
        raise ValueError(f'expected a time of day such as 03:00 at the end, got "{text}"')
    at = f"{int(match[2])} {int(match[1])}"
    if word == "daily" and not days:
        return f"{at} * * *"
    if word == "weekly" and len(days) == 1:
        names = days[0].lower().split(",")
        for name in names:
            if name not in WEEKDAYS:
                raise ValueError(f'expected a day of the week such as mon or sat,sun, got "{name}"')
        return f"{at} * * {','.join(str((WEEKDAYS.index(name) + 1) % 7) for name in names)}"
    if word == "monthly" and len(days) == 1:
        if days[0] == "last":
            return f"{at} L * *"
        if days[0].isdigit() and 1 <= int(days[0]) <= EVERY_MONTH:
            return f"{at} {int(days[0])} * *"
        raise ValueError(f'expected a day of the month from 1 to {EVERY_MONTH}, or last, got "{days[0]}"')
    raise ValueError(f'{FORM}, got "{text}"')
