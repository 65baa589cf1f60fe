"""All couriers of a daemon: who is told what, who brings it, and who is not told any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import structlog
from msgspec import Struct

from probed.clock import Clock
from probed.courier import Courier, Queue, ReceiverState, Told
from probed.errors import StoreError, Undelivered
from probed.model import CANARY
from probed.outlets import Outlet
from probed.receivers import Receiver, owed
from probed.store import Change, Commit
from probed.store.notices import Fate, GivenUp
from probed.vitals import Faring

_log = structlog.get_logger(__name__)

TEST_SECONDS = 4.0
"""The deadline of a test message: somebody is waiting for the answer."""
CLOSE_SECONDS = 2.0
"""For which the end of the daemon waits for attempts under way."""


def _nobody(receiver: str, outcome: str, notices: int) -> None:
    """What becomes of canaries is counted apart."""


Own = Callable[[Callable[[], Awaitable[None]], str], "asyncio.Task[None]"]


class Appointment(Struct, frozen=True):
    """A receiver of the configuration, and how to reach it."""

    receiver: Receiver
    make: Callable[[], Outlet]
    """Of its outlet."""
    settings: object = None
    """All that ``make`` depends on: when it stays the same over a reload, so does the courier."""

    def is_as(self, other: Appointment | None) -> bool:
        return other is not None and (self.receiver, self.settings) == (other.receiver, other.settings)


class Tested(Struct, frozen=True):
    """What came of a test message."""

    receiver: str
    delivered: bool
    answer: str
    seconds: float


class Couriers:
    """All couriers of a daemon. ``receivers`` is whom the pipeline asks about every change."""

    def __init__(self, store: Queue, clock: Clock, *, own: Own, told: Told = lambda *_: None) -> None:
        """``own`` runs a task of the daemon's."""
        self._store, self._clock, self._own, self._told = store, clock, own, told
        self._known: dict[str, Appointment] = {}
        self._couriers: dict[str, Courier] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._receivers: tuple[Receiver, ...] = ()

    def owed(self, change: Change) -> tuple[str, ...]:
        """Who is to be told of a change; for the pipeline, before it makes it durable."""
        return owed(self._receivers, change)

    def announced(self, change: Change) -> None:
        """A change became durable; for ``Pipeline.on_announce``."""
        for name in change.owed:
            self.wake(name)

    def wake(self, name: str) -> None:
        """Something new is owed to a receiver, if there is one of this name."""
        courier = self._couriers.get(name)
        if courier is not None:
            courier.wake()

    async def appoint(self, wanted: Sequence[Appointment]) -> None:
        """Have exactly these receivers; at the start and at every reload. What was owed to others is dropped."""
        before, now = self._known, {one.receiver.name: one for one in wanted}
        self._known = now
        self._receivers = tuple(one.receiver for one in wanted if one.receiver.name != CANARY)
        for name in before.keys() - now.keys():
            self._couriers.pop(name).close()
            del self._tasks[name]
        for name, one in now.items():
            if not one.is_as(before.get(name)):
                self._start(one)
        await self._drop(before.keys() - now.keys())

    def _start(self, one: Appointment) -> None:
        name = one.receiver.name
        old, ending = self._couriers.get(name), self._tasks.get(name)
        told = self._told if name != CANARY else _nobody
        courier = Courier(one.receiver, one.make(), self._store, self._clock, told)

        async def work() -> None:
            if old is not None and ending is not None:  # nobody else may be under way to the same receiver
                old.close()
                await asyncio.wait((ending,))
            await courier.run()

        self._couriers[name] = courier
        self._tasks[name] = self._own(work, f"courier {name}")

    async def _drop(self, removed: Collection[str]) -> None:
        """What is owed to nobody that is configured: said, and marked."""
        backlog = await self._store.backlog()
        strangers = {*removed, *(name for name in backlog if name not in self._known)}
        for name in sorted(strangers):
            if name in backlog and name != CANARY:
                _log.warning("notifications.dropped", receiver=name, notices=backlog[name].notices)
                self._told(name, Fate.DROPPED.value, backlog[name].notices)
            given = GivenUp(name, self._clock.wall(), Fate.DROPPED, "the receiver is not configured any more")
            with contextlib.suppress(StoreError):  # the next start finds them again
                await self._store.append(Commit(given_up=(given,)))

    async def close(self) -> None:
        """Let what is under way arrive, within 2 s."""
        for courier in self._couriers.values():
            courier.close()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=CLOSE_SECONDS)

    async def test(self, name: str) -> Tested:
        """Send a test message, past the queue. KeyError when no receiver has this name."""
        outlet = self._people[name].outlet
        started = self._clock.mono()
        try:
            async with asyncio.timeout(TEST_SECONDS):
                answer, delivered = await outlet.test(), True
        except TimeoutError:
            answer, delivered = f"no answer within {TEST_SECONDS:g} s", False
        except Undelivered as error:
            answer, delivered = str(error), False
        return Tested(name, delivered, answer, self._clock.mono() - started)

    @property
    def names(self) -> Sequence[str]:
        """Of all receivers."""
        return list(self._people)

    @property
    def _people(self) -> Mapping[str, Courier]:
        """Without the one who brings this daemon its own canaries."""
        return {name: courier for name, courier in self._couriers.items() if name != CANARY}

    @property
    def states(self) -> Sequence[ReceiverState]:
        return [courier.state for courier in self._people.values()]

    def faring(self, name: str) -> Faring | None:
        """How a receiver fares; ``None`` when none has this name."""
        courier = self._people.get(name)
        return courier.faring if courier is not None else None

    def oldest_age(self) -> float:
        """Seconds for which the oldest notice is owed; 0 when nothing is."""
        since = [courier.oldest_at for courier in self._people.values() if courier.oldest_at is not None]
        return max(0.0, self._clock.wall() - min(since)) if since else 0.0
