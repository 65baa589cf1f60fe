"""Has the inspections of the configuration made when they are due: each time once, and a missed one made up for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct
from msgspec.structs import replace

from probed.clock import Clock
from probed.config.inspections import Inspection
from probed.errors import StoreError
from probed.inspection import Busy, Report
from probed.inspection.choosing import Order
from probed.inspection.schedules import Schedule
from probed.recurrence import zone_of
from probed.store import Store
from probed.store.reports import InspectionQuery

if TYPE_CHECKING:
    from probed.inspection.inspecting import Inspector

_log = structlog.get_logger(__name__)

TICK_SECONDS = 15.0
"""At least so often the clock is looked at, so that one that was set is noticed."""
MADE_UP_SECONDS = 86_400.0
"""What was missed by more than this is not made up for."""
CLOCK_ERROR_SECONDS = 86_400.0
"""A date that is further ahead than this was a wrong one."""


class Entry(Struct, frozen=True):
    """An inspection that comes back."""

    name: str
    times: Schedule
    order: Order
    """Without instances it is about all that there are then."""
    written: str
    """Its schedule as it stands in the configuration."""


def entry_of(declared: Inspection) -> Entry:
    """As the configuration has it."""
    instances, events = (tuple(dict.fromkeys(names)) for names in (declared.instances, declared.events))
    order = Order(instances, events, declared.days, declared.zone, declared.name)
    return Entry(declared.name, declared.times, order, declared.schedule)


class Timetable:
    def __init__(self, inspector: Callable[[], Inspector], store: Store, clock: Clock) -> None:
        """``inspector`` is asked for when something is due."""
        self._inspector, self._store, self._clock = inspector, store, clock
        self.entries: tuple[Entry, ...] = ()
        self._began_at = clock.wall()
        self._since: dict[str, float] = {}
        """By name: what was due until then is done with. Unix seconds."""

    def follow(self, entries: Sequence[Entry]) -> None:
        """Have exactly these inspections. What is new, or has other times, is due from now on."""
        now = self._clock.wall()
        before = {entry.name: entry.times for entry in self.entries}
        self._since = {
            entry.name: self._since[entry.name] if before.get(entry.name) == entry.times else now for entry in entries
        }
        self.entries = tuple(entries)

    async def make_up(self, absence: float | None) -> None:
        """After a start: what was due while no daemon ran for ``absence`` seconds is due now, if it was not made."""
        now = self._clock.wall()
        away = now - min(absence or 0.0, MADE_UP_SECONDS)
        for entry in self.entries:
            newest = await self._store.inspections(InspectionQuery(name=entry.name, limit=1))
            self._since[entry.name] = max([away, *(record.began_at for record in newest)])

    def next_at(self, entry: Entry) -> float | None:
        """When it is due next, Unix seconds."""
        return entry.times.next_after(self._clock.wall())

    async def run(self) -> None:
        """For ever."""
        while True:
            for entry in self.entries:
                await self._look(entry)
            now = self._clock.wall()
            times = [at for entry in self.entries if (at := entry.times.next_after(now)) is not None]
            pause = min([TICK_SECONDS, *(at - now for at in times)])
            await self._clock.sleep_until(self._clock.mono() + max(0.5, pause))

    async def _look(self, entry: Entry) -> None:
        now, since = self._clock.wall(), self._since.get(entry.name)
        if since is None:  # a reload took it away meanwhile
            return
        if since > now + CLOCK_ERROR_SECONDS:
            since = self._since[entry.name] = now
        slot = entry.times.due(since, now)
        if slot is None:
            return
        self._since[entry.name] = max(since, now)
        missed = f"it was due at {_shown(slot, entry.times.zone)}, when no daemon ran" if slot < self._began_at else ""
        await self._make(entry, missed)

    async def _make(self, entry: Entry, note: str) -> None:
        inspector = self._inspector()
        while True:
            await inspector.free()
            instances = entry.order.instances or inspector.instances
            try:
                running = await inspector.start(replace(entry.order, instances=instances, note=note))
            except Busy:
                continue
            except StoreError as error:
                _log.error("inspection.not_begun", name=entry.name, error=str(error))
                return
            await asyncio.wait((running.ended,))
            return


def said(report: Report, page: str = "") -> str:
    """A scheduled report in one sentence, for those who are told of it; ``page``: its address, if it is known."""
    where = f"{page}/inspections/{report.id}" if page else f"probed inspect show {report.id}"
    if report.error:
        return f"inspection {report.name} failed: {report.error}; {where}"
    worst = report.instances[0] if report.instances else None
    if worst is None:
        return f"inspection {report.name}: there was nothing to look at; {where}"
    of = f", the worst of {len(report.instances)}" if len(report.instances) > 1 else ""
    missed = f" ({report.note})" if report.note else ""
    return (
        f"inspection {report.name}: grade {worst.grade} for {worst.instance}{of}, {worst.grade_reason}{missed}; {where}"
    )


def _shown(at: float, zone: str) -> str:
    return datetime.fromtimestamp(at, zone_of(zone)).strftime("%Y-%m-%d %H:%M %Z")
