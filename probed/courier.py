"""A courier brings one receiver what it is owed, and tries again until it has it.

What is owed stands in the store. A courier sends one thing at a time and the notices of an event in their order; a
notice is off the list when that it arrived is durable. So at most what was under way when the daemon ended is sent
twice, with the same transition id. Receivers do not know of each other: a dead one delays nobody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import structlog
from msgspec import Struct, field

from probed.clock import Clock
from probed.errors import StoreError, Undelivered
from probed.model import Event, EventState
from probed.outlets import Outlet
from probed.receivers import Receiver
from probed.store import Change, Commit, EventQuery
from probed.store.notices import Attempt, Backlog, Fate, GivenUp, Notice, Reminder
from probed.vitals import Faring

_log = structlog.get_logger(__name__)

SEND_SECONDS = 10.0
"""The deadline around every attempt."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds between two attempts on a receiver that does not take anything; they double from one to the other."""
FRESH_PAUSE = 15.0
"""Something new is tried at least this soon after the last failure: it may be the one thing that can be delivered."""
PATIENCE = 86400.0
"""Seconds for which a notice is tried."""
FAIR_CHANCE = 600.0
"""Seconds for which this daemon has tried in vain before it gives up anything: after a start the network may lag."""
DOWN = 3
"""After so many failures in a row it was the receiver, and not one of the notices."""
REMINDING_SECONDS = 60.0
"""How often it is looked for what people are to be reminded of."""
PAGE = 1000

Told = Callable[[str, str, int], None]
"""(receiver, outcome, how many notices), for the metric."""


class Queue(Protocol):
    """What couriers need of the store."""

    async def owed(self, receiver: str, limit: int, without: Collection[str] = ()) -> Sequence[Notice]: ...
    async def heard(self, receiver: str) -> Collection[str]: ...
    async def unheeded(self, receiver: str, before: float) -> Sequence[Event]: ...
    async def backlog(self, before: float | None = None) -> Mapping[str, Backlog]: ...
    async def events(self, query: EventQuery) -> Sequence[Event]: ...
    def append(self, commit: Commit) -> asyncio.Future[None]: ...


def pause(failures: int, chance: random.Random) -> float:
    """Seconds until the next attempt after so many failures in a row: 1 s to 5 min, no two receivers in step."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 16))
    return max(FIRST_PAUSE, chance.uniform(longest / 2, longest))


class _Held(Struct):
    """An event whose notice was not taken: what comes after it waits behind it."""

    due: float
    failures: int
    owed_at: float


class ReceiverState(Struct, frozen=True):
    """How a receiver fares; for the API."""

    name: str
    kind: str
    failing_since: float | None
    """Unix seconds; ``None`` while it takes what it is sent."""
    answer: str
    """Why it fails."""


class Courier(Struct):
    """Brings one receiver what it is owed."""

    receiver: Receiver
    outlet: Outlet
    store: Queue
    clock: Clock
    told: Told = lambda *_: None
    chance: random.Random = field(default_factory=random.Random)

    oldest_at: float | None = None
    """Wall time since when something is owed, as far as the courier looked."""
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: bool = False
    _failures: int = 0
    _failing_since: tuple[float, float] | None = None
    """(monotonic, wall)"""
    _answer: str = ""
    _attempted: bool = False
    """Whether it is known at all how the receiver fares."""
    _given_up: int = 0
    """Dead letters since the receiver last took something."""
    _resume_at: float = 0.0
    _not_before: float = 0.0
    """Until when the receiver asked to be left alone."""
    _tried_at: float = -FRESH_PAUSE
    _held: dict[str, _Held] = field(default_factory=dict)
    """By event id."""
    _one_by_one: bool = False
    """The receiver objected to something in a batch: find out to which event."""
    _refresh_at: float = 0.0
    _remind_at: float = 0.0
    _born: tuple[float, float] | None = None

    @property
    def state(self) -> ReceiverState:
        since = self._failing_since[1] if self._failing_since else None
        return ReceiverState(self.receiver.name, self.outlet.kind, since, self._answer if since else "")

    @property
    def faring(self) -> Faring:
        """How the receiver fares; for the observer's own probe. A dead letter counts as a day of failing."""
        failing = self.clock.mono() - self._failing_since[0] if self._failing_since else 0.0
        lost = PATIENCE if self._given_up else 0.0
        return Faring(max(failing, lost) if self._attempted else None, self._answer, self._given_up)

    def wake(self) -> None:
        """Something new is owed."""
        self._resume_at = min(self._resume_at, self._tried_at + FRESH_PAUSE)
        self._woken.set()

    def close(self) -> None:
        """Finish what is under way, and end."""
        self._closing = True
        self._woken.set()

    async def run(self) -> None:
        self._born = (self.clock.mono(), self.clock.wall())
        if self.outlet.refresh_seconds is not None:
            self._refresh_at = self.clock.mono()
        while not self._closing:
            self._woken.clear()
            if not await self._step():
                await self._wait()

    async def _step(self) -> bool:
        """Do the one thing that is due; False when nothing is."""
        now = self.clock.mono()
        if now < max(self._resume_at, self._not_before):
            return False
        # What was not taken stands back behind everything that may be.
        notices = await self._look(self._held.keys())
        if not notices and any(held.due <= now for held in self._held.values()):
            notices = await self._look([event for event, held in self._held.items() if held.due > now])
        if self._one_by_one:
            # One event's together: of a batch that it objected to it may have taken the end of an event already.
            notices = [notice for notice in notices if notice.event.id == notices[0].event.id]
        if notices:
            await self._deliver(notices)
        elif self.outlet.refresh_seconds is not None and now >= self._refresh_at:
            await self._refresh()
        elif self.receiver.reminders is not None and now >= self._remind_at:
            await self._remind(self.receiver.reminders)
        else:
            return False
        return True

    async def _look(self, waiting: Collection[str]) -> Sequence[Notice]:
        limit = self.outlet.batch
        try:
            notices = await self.store.owed(self.receiver.name, limit, waiting)
        except StoreError as error:
            _log.error("notifications.unreadable", receiver=self.receiver.name, error=str(error))
            self._resume_at = self.clock.mono() + FRESH_PAUSE
            return ()
        if len(notices) < limit:  # that was all of it: whatever else was held is not owed any more
            there = {*waiting, *(notice.event.id for notice in notices)}
            self._held = {event: held for event, held in self._held.items() if event in there}
        since = [self._held[event].owed_at for event in waiting] + [notice.owed_at for notice in notices[:1]]
        self.oldest_at = min(since, default=None)
        return notices

    async def _wait(self) -> None:
        """Until something is due, or new."""
        now = self.clock.mono()
        free = max(self._resume_at, self._not_before)
        due = [held.due for held in self._held.values()]
        if self.outlet.refresh_seconds is not None:
            due.append(self._refresh_at)
        if self.receiver.reminders is not None:
            due.append(self._remind_at)
        if self._failures:
            due.append(free)
        sleep = asyncio.ensure_future(self._sleep(max(free, min(due)) if due else now + LONGEST_PAUSE))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait((sleep, woken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            woken.cancel()

    async def _sleep(self, until: float) -> None:
        # Never for no time at all: whatever is wrong, a courier does not spin.
        await self.clock.sleep_until(max(until, self.clock.mono() + 0.01))

    # --- one attempt ----------------------------------------------------------------------------------------

    async def _deliver(self, notices: Sequence[Notice]) -> None:
        failure: Undelivered | None = None
        answer = ""
        self._tried_at = self.clock.mono()
        try:
            async with asyncio.timeout(SEND_SECONDS):
                answer = await self.outlet.send(notices)
        except TimeoutError:
            failure = Undelivered(f"no answer within {SEND_SECONDS:g} s")
        except Undelivered as error:
            failure = error
        fate = Fate.DELIVERED if failure is None else Fate.REFUSED if failure.final else Fate.OWED
        attempt = Attempt(tuple(notice.id for notice in notices), self.clock.wall(), fate, str(failure or answer))
        await self._record(Commit(attempts=(attempt,)))
        self.told(self.receiver.name, "failed" if fate is Fate.OWED else fate.value, len(notices))
        if failure is None:
            self._well(notices)
        elif failure.final:
            _log.error("notification_refused", receiver=self.receiver.name, answer=str(failure), notices=len(notices))
            given_up = self._given_up + len(notices)
            self._well(notices)
            self._answer, self._given_up = str(failure), given_up
        else:
            await self._ill(failure, notices)

    async def _refresh(self) -> None:
        """Tell what is open; that costs no notice, so nothing is recorded but that it failed."""
        assert self.outlet.refresh_seconds is not None
        self._refresh_at = self.clock.mono() + self.outlet.refresh_seconds
        failure: Undelivered | None = None
        try:
            open_events = await self._open_events()
            async with asyncio.timeout(SEND_SECONDS):
                await self.outlet.refresh(open_events)
        except TimeoutError:
            failure = Undelivered(f"no answer within {SEND_SECONDS:g} s")
        except StoreError as error:
            _log.error("notifications.unreadable", receiver=self.receiver.name, error=str(error))
            return
        except Undelivered as error:
            failure = error
        if failure is None:
            self._well(())
        else:
            self.told(self.receiver.name, "failed", 1)
            await self._ill(failure, ())

    async def _remind(self, every: float) -> None:
        """Owe a reminder of what is open for long; it goes the way of every notice."""
        self._remind_at = self.clock.mono() + min(every / 4, REMINDING_SECONDS)
        try:
            events = await self.store.unheeded(self.receiver.name, self._earlier() - every)
        except StoreError as error:
            _log.error("notifications.unreadable", receiver=self.receiver.name, error=str(error))
            return
        at = self.clock.wall()
        reminders = [
            Reminder(event.id, self.receiver.name, at) for event in events if Change(event, "reminded", at).announced
        ]
        if reminders:
            await self._record(Commit(reminders=tuple(reminders)))

    def _earlier(self) -> float:
        """Now, by the earlier of two clocks: setting the machine's date must not make a day of an hour."""
        assert self._born is not None
        mono, wall = self._born
        return min(self.clock.wall(), wall + self.clock.mono() - mono)

    async def _open_events(self) -> Sequence[Event]:
        """What this receiver is to know to be open, as far as it is durable.

        What it was told of stays, also under a silence that came later: who stops hearing of it takes it for over.
        """
        heard = await self.store.heard(self.receiver.name)
        found: list[Event] = []
        before: str | None = None
        while True:
            query = EventQuery(state=EventState.OPEN, suppressed=False, limit=PAGE, before_id=before)
            page = await self.store.events(query)
            still = [event for event in page if event.state is EventState.OPEN]
            found += [event for event in still if event.id in heard or self._concerns(event)]
            if len(page) < PAGE:
                return found
            before = page[-1].id

    def _concerns(self, event: Event) -> bool:
        return self.receiver.wants(event) and Change(event, "opened", event.opened_at).announced

    def _well(self, notices: Sequence[Notice]) -> None:
        """It took what it was sent."""
        for notice in notices:
            self._held.pop(notice.event.id, None)
        if self._failures >= DOWN:
            self._held.clear()
        if self._failing_since is not None:
            _log.info("receiver.recovered", receiver=self.receiver.name)
        self._failures, self._failing_since, self._one_by_one = 0, None, False
        self._attempted, self._given_up = True, 0
        self._resume_at = 0.0

    async def _ill(self, failure: Undelivered, notices: Sequence[Notice]) -> None:
        """It did not: pause, and have what it did not take stand back behind what may be taken."""
        now = self.clock.mono()
        self._failures += 1
        self._attempted, self._answer = True, str(failure)
        if self._failing_since is None:
            self._failing_since = (now, self.clock.wall())
            _log.warning("receiver.failing", receiver=self.receiver.name, answer=self._answer)
        if len({notice.event.id for notice in notices}) == 1:
            event = notices[0].event.id
            failures = self._held[event].failures + 1 if event in self._held else 1
            self._held[event] = _Held(now + pause(failures, self.chance), failures, notices[0].owed_at)
        elif notices and failure.unwanted:
            self._one_by_one = True
        self._resume_at = now + pause(self._failures, self.chance)
        self._not_before = now + failure.retry_after
        await self._give_up()

    async def _give_up(self) -> None:
        """What was tried for a day in vain is a dead letter: told in the log, the API and the metric."""
        assert self._failing_since is not None
        if self.clock.mono() - self._failing_since[0] < FAIR_CHANCE:
            return
        before = self._earlier() - PATIENCE
        name = self.receiver.name
        backlog = (await self.store.backlog(before)).get(name)
        if backlog is None:
            return
        given = GivenUp(name, self.clock.wall(), Fate.EXPIRED, self._answer, owed_before=before)
        await self._record(Commit(given_up=(given,)))
        self._held.clear()
        self._given_up += backlog.notices
        self.told(name, "expired", backlog.notices)
        _log.error("notification_expired", receiver=name, notices=backlog.notices, answer=self._answer)

    async def _record(self, commit: Commit) -> None:
        """Until it is durable: a notice whose delivery was forgotten would be delivered again."""
        tries = 0
        while True:
            try:
                await self.store.append(commit)
                return
            except StoreError as error:
                tries += 1
                if tries == 1:
                    _log.error("notifications.unrecorded", receiver=self.receiver.name, error=str(error))
                await self.clock.sleep_until(self.clock.mono() + pause(tries, self.chance))
