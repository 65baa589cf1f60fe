"""What the disk has not taken yet is told all the same, once it has waited for long (adr/0017).

Couriers read the outbox through this. As long as the disk takes what it is given, it is the store's outbox and nothing
else. While something has waited for longer than ``PATIENCE``, it is the outbox as it will be: notices of changes that
are not durable stand behind those that are, and what couriers delivered is remembered here. When the disk takes
everything again, what was delivered meanwhile is known by the id of its transition, and noted instead of sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from probed.clock import Clock
from probed.courier import Queue
from probed.errors import StoreError
from probed.model import Event
from probed.store import Change, Commit, EventQuery
from probed.store.notices import Attempt, Backlog, Fate, Notice, Told, transition_id

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

PATIENCE = 3.0
"""Seconds for which something waits for the disk before it is told from memory."""
READ_SECONDS = 10.0
"""A disk that hangs must not hang who brings what is known without it."""


class Disk(Queue, Protocol):
    """The store as far as it is needed here."""

    @property
    def refused_since(self) -> float | None:
        """Monotonic time since when it owes us that something is durable."""
        ...


class _Kept(Struct, frozen=True):
    notice: Notice
    again: bool
    """Whether it is told also to who heard of it before."""


class Unwritten:
    """The outbox as it will be. Lives in the event loop; ``tell`` has announced what waits for the disk."""

    def __init__(self, store: Disk, clock: Clock, tell: Callable[[], None]) -> None:
        self._store, self._clock, self._tell = store, clock, tell
        self._kept: dict[str, list[_Kept]] = {}
        """By receiver, in the order of their changes."""
        self._serial = 0
        self._latest: dict[str, Event] = {}
        """Events as they are by now, of changes that are not durable."""
        self._handed: dict[str, dict[int, str]] = {}
        """By receiver: transition ids of the notices that its courier has in hand, by their numbers."""
        self._told: dict[tuple[str, str], Attempt] = {}
        """By receiver and transition: what is delivered, and not noted in the store."""
        self._noting: set[tuple[str, str]] = set()
        self._awaited: dict[asyncio.Future[None], Commit] = {}
        self._said = False

    @property
    def ahead(self) -> bool:
        """Whether something has waited for the disk for so long that people are told without it."""
        since = self._store.refused_since
        return since is not None and self._clock.mono() - since >= PATIENCE

    def look(self) -> None:
        """Have told what has waited for long; twice a second."""
        ahead = self.ahead
        if ahead != self._said:
            self._said = ahead
            if ahead:
                _log.warning("notifications.from_memory", reason="the disk takes nothing")
            else:
                _log.info("notifications.from_store")
        if not ahead:
            return
        self._tell()
        for waiting, commit in list(self._awaited.items()):  # nobody waits for the disk to bring what comes next
            self._remember(commit.attempts)
            if not waiting.done():
                waiting.set_result(None)

    def take(self, change: Change) -> None:
        """A change is announced that is not durable."""
        self._latest[change.event.id] = change.event
        if change.told is None:
            return
        transition = transition_id(change.event.id, change.told, change.at)
        for receiver in change.owed:
            self._serial += 1
            notice = Notice(-self._serial, transition, change.told, change.event, change.at)
            self._kept.setdefault(receiver, []).append(_Kept(notice, change.kind == "unsilenced"))

    def written(self, change: Change) -> None:
        """It is durable now, or never will be."""
        if self._latest.get(change.event.id) is change.event:
            del self._latest[change.event.id]
        if change.told is not None:
            transition = transition_id(change.event.id, change.told, change.at)
            for receiver, kept in self._kept.items():
                self._kept[receiver] = [one for one in kept if one.notice.transition != transition]

    # --- what couriers ask ----------------------------------------------------------------------------------

    async def owed(self, receiver: str, limit: int, without: Collection[str] = ()) -> Sequence[Notice]:
        """What a receiver is owed and does not have, oldest first: what is durable before what is not."""
        done = {transition for name, transition in self._told if name == receiver}
        try:
            stored = await _in_time(self._store.owed(receiver, limit + len(done), without))
        except StoreError:
            if not self.ahead:
                raise
            stored = ()
        # Also what was told when the store was asked: by now it may be noted, and forgotten here.
        done |= {transition for name, transition in self._told if name == receiver}
        found = [notice for notice in stored if notice.transition not in done]
        if self.ahead:
            seen = done | {notice.transition for notice in stored}
            found += [one for one in await self._remembered(receiver, without) if one.transition not in seen]
        else:
            self._note(receiver, stored)
        found = found[:limit]
        self._handed[receiver] = {notice.id: notice.transition for notice in found}
        return found

    async def _remembered(self, receiver: str, without: Collection[str]) -> list[Notice]:
        """As the store owes: a beginning once, unless it is told again; an end to those who were owed the beginning."""
        kept = self._kept.get(receiver)
        if not kept:
            return []
        opened: set[str] = set()
        certain = True
        try:
            opened |= set(await _in_time(self._store.heard(receiver)))
        except StoreError:  # better an end too many than an alarm without one
            certain = False
        found: list[Notice] = []
        for one in kept:
            notice, event_id = one.notice, one.notice.event.id
            if notice.told is Told.OPENED and event_id in opened and not one.again:
                continue
            if notice.told is Told.RESOLVED and event_id not in opened and certain:
                continue
            if notice.told is Told.OPENED:
                opened.add(event_id)
            if event_id not in without and (receiver, notice.transition) not in self._told:
                found.append(notice)
        return found

    def _note(self, receiver: str, stored: Sequence[Notice]) -> None:
        """Of what was delivered without the disk, and is durable now: that it was."""
        for notice in stored:
            key = (receiver, notice.transition)
            attempt = self._told.get(key)
            if attempt is None or key in self._noting:
                continue
            self._noting.add(key)
            noted = self._store.append(Commit(attempts=(replace(attempt, ids=(notice.id,)),)))
            noted.add_done_callback(lambda future, key=key: self._noted(future, key))  # type: ignore[misc]

    def _noted(self, future: asyncio.Future[None], key: tuple[str, str]) -> None:
        self._noting.discard(key)
        if _went_well(future):
            self._told.pop(key, None)

    async def heard(self, receiver: str) -> Collection[str]:
        stored = await self._store.heard(receiver)
        return {*stored, *(one.notice.event.id for one in self._kept.get(receiver, ()))}

    async def events(self, query: EventQuery) -> Sequence[Event]:
        """Of a page of open events, which a courier asks for, each as it is by now; on the first also the new ones."""
        page = await self._store.events(query)
        if not self._latest:
            return page
        there = {event.id for event in page}
        new = [event for key, event in self._latest.items() if key not in there] if query.before_id is None else []
        return [*new, *(self._latest.get(event.id, event) for event in page)]

    async def unheeded(self, receiver: str, before: float) -> Sequence[Event]:
        """Reminders wait for the disk."""
        return () if self.ahead else await self._store.unheeded(receiver, before)

    async def backlog(self, before: float | None = None) -> Mapping[str, Backlog]:
        """Nothing is given up while the disk does not say what is owed."""
        return {} if self.ahead and before is not None else await self._store.backlog(before)

    def append(self, commit: Commit) -> asyncio.Future[None]:
        """Queue what a courier has to say; done when it is durable, or when nobody is to wait for the disk."""
        kept, rest = self._divided(commit)
        self._remember(kept)
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not rest:
            waiting.set_result(None)
            return waiting
        if self.ahead:
            waiting.set_result(None)
        else:
            self._awaited[waiting] = rest
        self._store.append(rest).add_done_callback(lambda future: self._recorded(future, waiting, rest))
        return waiting

    def _divided(self, commit: Commit) -> tuple[Sequence[Attempt], Commit]:
        """Attempts that are kept here, and what the store gets."""
        ahead = self.ahead
        kept = [replace(one, ids=tuple(id_ for id_ in one.ids if ahead or id_ < 0)) for one in commit.attempts]
        rest = [replace(one, ids=tuple(id_ for id_ in one.ids if not ahead and id_ > 0)) for one in commit.attempts]
        return kept, replace(commit, attempts=tuple(one for one in rest if one.ids))

    def _remember(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            for receiver, transition in self._keys(attempt):
                if attempt.fate is not Fate.OWED:
                    self._told[receiver, transition] = attempt

    def _keys(self, attempt: Attempt) -> list[tuple[str, str]]:
        return [
            (receiver, handed[number])
            for receiver, handed in self._handed.items()
            for number in attempt.ids
            if number in handed
        ]

    def _recorded(self, future: asyncio.Future[None], waiting: asyncio.Future[None], commit: Commit) -> None:
        well = _went_well(future)
        released = self._awaited.pop(waiting, None) is None or waiting.done()
        if released:
            if well:
                for attempt in commit.attempts:
                    for key in self._keys(attempt):
                        self._told.pop(key, None)
            return
        if well:
            waiting.set_result(None)
        else:
            waiting.set_exception(future.exception() or StoreError("the store was closed"))


async def _in_time(reading: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await reading
    except TimeoutError:
        raise StoreError(f"the store did not answer within {READ_SECONDS:g} s") from None


def _went_well(future: asyncio.Future[None]) -> bool:
    return not future.cancelled() and future.exception() is None
