"""Trapdoors in the way of a notice: a process that steps on the one it was told of is gone, as by kill -9.

They stand between the product's parts and not in them: around the store, the outlets and the clock of its couriers.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from probed.clock import SystemClock
from probed.errors import Undelivered
from probed.model import Event
from probed.outlets import Outlet
from probed.store import Commit
from probed.store.notices import Fate, Notice
from probed.store.sqlite import SqliteStore

STEPS = (
    "owing",  # a transition, and who is owed it, are about to be committed
    "owed",  # they are durable, and no courier knows
    "looked",  # a courier has read what it is to bring
    "taken",  # the receiver has said yes, and nobody has noted it
    "noting delivered",
    "delivered noted",  # it is durable, and the courier does not know
    "not taken",  # the receiver has said no, or nothing
    "noting failed",
    "failed noted",
    "waiting",  # for the next attempt, or for something new
    "noting refused",  # the receiver is gone for good: a dead letter
    "refused noted",
    "giving up",  # after a day of attempts (here: an instant): a dead letter
    "given up",
    "reminding",
    "reminded",
    "closing",  # the daemon ends, and waits for what is under way
    "closed",  # nothing is under way any more; the store is still open
)
"""Where a process can die between an event and the last of what is owed of it. A receiver that has read a notice and
has not answered is one more; that one is the receiver's to find."""
GIVING_UP = ("giving up", "given up")
CLOSING = ("closing", "closed")
_BEFORE_AND_AFTER = {
    Fate.DELIVERED: ("noting delivered", "delivered noted"),
    Fate.OWED: ("noting failed", "failed noted"),
    Fate.REFUSED: ("noting refused", "refused noted"),
}


@dataclass(slots=True)
class Trapdoor:
    """Opens when ``step`` is passed for the ``nth`` time; never, when it is none of ``STEPS``."""

    step: str = ""
    nth: int = 1

    def passed(self, step: str) -> None:
        if step == self.step:
            self.nth -= 1
            if self.nth <= 0:
                os.write(1, b"fell\n")
                os.kill(os.getpid(), signal.SIGKILL)


class TrappedStore(SqliteStore):
    trapdoor = Trapdoor()

    async def owed(self, receiver: str, limit: int, without: Collection[str] = ()) -> Sequence[Notice]:
        found = await super().owed(receiver, limit, without)
        if found:
            self.trapdoor.passed("looked")
        return found

    def append(self, commit: Commit) -> asyncio.Future[None]:
        before, after = _steps(commit)
        self.trapdoor.passed(before)
        done = super().append(commit)
        # Called before whoever waits for it wakes up.
        done.add_done_callback(lambda _: self.trapdoor.passed(after))
        return done


def _steps(commit: Commit) -> tuple[str, str]:
    if commit.attempts:
        return _BEFORE_AND_AFTER[commit.attempts[0].fate]
    if any(given.fate is Fate.EXPIRED for given in commit.given_up):
        return GIVING_UP
    if commit.reminders:
        return "reminding", "reminded"
    return ("owing", "owed") if any(change.owed for change in commit.changes) else ("", "-")


class TrappedClock(SystemClock):
    def __init__(self, trapdoor: Trapdoor) -> None:
        self._trapdoor = trapdoor

    async def sleep_until(self, mono: float) -> None:
        self._trapdoor.passed("waiting")
        await super().sleep_until(mono)


class TrappedOutlet:
    def __init__(self, outlet: Outlet, trapdoor: Trapdoor) -> None:
        self._outlet, self._trapdoor = outlet, trapdoor
        self.kind, self.batch, self.refresh_seconds = outlet.kind, outlet.batch, outlet.refresh_seconds

    async def send(self, notices: Sequence[Notice]) -> str:
        try:
            answer = await self._outlet.send(notices)
        except Undelivered:
            self._trapdoor.passed("not taken")
            raise
        self._trapdoor.passed("taken")
        return answer

    async def refresh(self, events: Sequence[Event]) -> str:
        return await self._outlet.refresh(events)

    async def test(self) -> str:
        return await self._outlet.test()


def trapped(make: Callable[[], Outlet], trapdoor: Trapdoor) -> Callable[[], Outlet]:
    return lambda: TrappedOutlet(make(), trapdoor)
