"""Takes snapshots: each at most once per moment, on a connection that is not the probes' own, all within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from probed.clock import Clock
from probed.errors import ProbeError
from probed.evidence import Collector
from probed.evidence._taking import Taken, take
from probed.probes._http import HttpClient
from probed.probes._sql import Session
from probed.reaching import Reach, context_for

DEADLINE = 5.0
"""Seconds that one collector may take on one target."""
NODE_SECONDS = 10.0
"""All of them together on one server, which are asked one after the other on one connection."""
STATEMENT_SECONDS = 3.0
"""The server ends a statement of a collector itself."""
BORROWED_SECONDS = 1.0
"""On the probes' own connection: the cycles of the next round must find it idle."""
BORROWED_MS = 500
"""The same as the server is told it, for what must not be interrupted from here."""
SHARED_SECONDS = 10.0
"""For how long a snapshot may serve another event whose moment it followed, too."""
MAX_LOCKS = 1000


class Doors(Struct, frozen=True):
    """How targets are reached: the shared HTTP client, and the probes' own database sessions by target key."""

    http: HttpClient
    session: Callable[[str], Session | None]


Key = tuple[str, str]
"""(collector, target key)"""


class Snapshots:
    def __init__(self, clock: Clock, doors: Doors) -> None:
        self._clock, self._doors = clock, doors
        self._locks: dict[str, asyncio.Lock] = {}
        self._recent: dict[Key, Taken] = {}

    async def all(self, wanted: Sequence[tuple[Collector, Reach]], since: float) -> dict[Key, Taken]:
        """Snapshots of targets, none older than ``since`` (wall time): of each one its data, or why there is none."""
        at_servers: dict[str, tuple[Reach, list[Collector]]] = {}
        asked: list[Awaitable[dict[Key, Taken]]] = []
        for collector, reach in wanted:
            if reach.login is not None:
                at_servers.setdefault(reach.target.key, (reach, []))[1].append(collector)
            else:
                asked.append(self._one(collector, reach, since))
        asked += [self._at_server(reach, collectors, since) for reach, collectors in at_servers.values()]
        found: dict[Key, Taken] = {}
        for taken in await asyncio.gather(*asked):
            found.update(taken)
        now = self._clock.wall()
        self._recent = {key: taken for key, taken in self._recent.items() if now - taken.at < SHARED_SECONDS}
        return found

    async def standing(self, collector: Collector, reach: Reach) -> Taken | None:
        """A snapshot on the probes' own connection while it is idle; ``None`` when it is not."""
        session = self._doors.session(reach.target.key)
        if session is None or not session.idle:
            return None
        async with session.turn():
            return await self._take(collector, reach, BORROWED_SECONDS, session)

    async def _one(self, collector: Collector, reach: Reach, since: float) -> dict[Key, Taken]:
        key = (collector.name, reach.target.key)
        async with self._lock("/".join(key)):
            taken = self._shared(key, since)
            if taken is None:
                taken = self._recent[key] = await self._take(collector, reach, DEADLINE)
        return {key: taken}

    async def _at_server(self, reach: Reach, collectors: Sequence[Collector], since: float) -> dict[Key, Taken]:
        """Several collectors on one PostgreSQL server: one at a time, on one connection that is not the probes' own."""
        assert reach.login is not None
        found: dict[Key, Taken] = {}
        async with self._lock(reach.target.key):
            session = Session(reach.login, STATEMENT_SECONDS)
            session.outlives_cancels = True
            end = self._clock.mono() + NODE_SECONDS
            lost: Taken | None = None
            try:
                for collector in collectors:
                    key = (collector.name, reach.target.key)
                    taken = self._shared(key, since) or lost
                    if taken is None and self._clock.mono() >= end:
                        text = f"not asked: the server's other snapshots took {NODE_SECONDS:g} s"
                        taken = Taken(self._clock.wall(), error=text)
                    if taken is None:
                        taken = await self._take(collector, reach, DEADLINE, session)
                        if taken.full:
                            taken = await self._borrowed(collector, reach) or taken
                        elif taken.error and not session.warm:
                            lost = taken  # nobody is there to be asked for the rest
                    found[key] = self._recent[key] = taken
            finally:
                session.drop()
        return found

    async def _borrowed(self, collector: Collector, reach: Reach) -> Taken | None:
        """A full server can still be seen by the connection that the probes hold; it must not be lost by that."""
        session = self._doors.session(reach.target.key)
        if session is None or not session.idle:
            return None
        async with session.turn():
            # A statement that is interrupted from here would take the connection along: the server ends it.
            session.outlives_cancels = True
            try:
                async with asyncio.timeout(BORROWED_SECONDS):
                    await session.ping(f"SET statement_timeout = {BORROWED_MS}")
                taken = await self._take(collector, reach, BORROWED_SECONDS, session)
                async with asyncio.timeout(BORROWED_SECONDS):
                    await session.ping("RESET statement_timeout")
            except (ProbeError, TimeoutError):
                return None
            finally:
                session.outlives_cancels = False
        return taken

    async def _take(self, collector: Collector, reach: Reach, deadline: float, session: Session | None = None) -> Taken:
        context = context_for(reach, deadline, self._doors.http, session)
        return await take(collector, context, deadline, self._clock.wall())

    def _shared(self, key: Key, since: float) -> Taken | None:
        recent = self._recent.get(key)
        if recent is None or recent.at < since or self._clock.wall() - recent.at >= SHARED_SECONDS:
            return None
        return recent

    def _lock(self, key: str) -> asyncio.Lock:
        if len(self._locks) > MAX_LOCKS:
            self._locks = {name: lock for name, lock in self._locks.items() if lock.locked()}
        return self._locks.setdefault(key, asyncio.Lock())
