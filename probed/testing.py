"""Public fakes for tests: a clock that moves when it is told, samples and policies in one call, a mute server.

The subject of a test is never faked: these stand for time, for a probe's result, and for a peer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from msgspec import Struct, field

from probed.model import NO_FACTS, Condition, Detect, Outcome, Policy, Reading, Sample, Severity, Target, Threshold

SETTLE = 25
"""Passes of the event loop that a task gets to come to its next wait."""


class FakeClock(Struct):
    """Fulfils ``probed.clock.Clock``; stands still until ``move`` or ``step`` moves it.

    ``wall`` and ``mono`` move together; ``step_wall`` is somebody setting the machine's date.
    """

    now_wall: float = 1_790_000_000.0
    now_mono: float = 1_000.0
    _sleepers: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)

    def wall(self) -> float:
        return self.now_wall

    def mono(self) -> float:
        return self.now_mono

    @property
    def sleeping(self) -> int:
        """How many wait for a later moment."""
        return sum(not woken.done() for _, woken in self._sleepers)

    async def sleep_until(self, mono: float) -> None:
        if mono <= self.now_mono:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((mono, woken))
        await woken

    def step(self, seconds: float) -> None:
        """At once, as a suspended machine wakes: everybody due wakes only after all of the time has passed."""
        self.now_wall += seconds
        self.now_mono += seconds
        for due, woken in sorted(self._sleepers, key=lambda sleeper: sleeper[0]):
            if due <= self.now_mono and not woken.done():
                woken.set_result(None)
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self.now_mono]

    def step_wall(self, seconds: float) -> None:
        """Only the date changes."""
        self.now_wall += seconds

    async def move(self, seconds: float) -> None:
        """Time passes: every sleeper wakes at its own moment, and comes to its next wait before time goes on."""
        end = self.now_mono + seconds
        await settle()
        while due := [mono for mono, woken in self._sleepers if mono <= end and not woken.done()]:
            self.step(max(0.0, min(due) - self.now_mono))
            await settle()
        self.step(max(0.0, end - self.now_mono))
        await settle()


async def settle() -> None:
    """Let every task that is ready come to its next wait."""
    for _ in range(SETTLE):
        await asyncio.sleep(0)


TARGET = Target("orders", "node-a", "postgres", "10.0.0.1:5432", kind="postgres")


def make_sample(
    outcome: Outcome = Outcome.OBSERVED,
    readings: Mapping[str, Reading] | None = None,
    *,
    target: Target = TARGET,
    probe: str = "postgres_liveness",
    mono: float = 1_000.0,
    at: float | None = None,
    reason: str = "",
    kind: str = "",
    series: str = "",
    facts: Mapping[str, object] = NO_FACTS,
) -> Sample:
    """One cycle's result. ``at`` follows ``mono`` as on ``FakeClock`` unless it is given."""
    wall = 1_789_999_000.0 + mono if at is None else at
    return Sample(target, probe, outcome, wall, mono, 0.01, dict(readings or {}), reason, kind, series, facts)


def make_policy(
    detect: Detect | None = None,
    *,
    id: str = "database_unavailable",  # noqa: A002 - the policy's own word
    severity: Severity = Severity.FATAL,
    probe: str = "postgres_liveness",
    interval: float = 5.0,
    confirm_interval: float | None = None,
    replica_severity: Severity | None = None,
    switchover_grace: bool = False,
    enabled: bool = True,
) -> Policy:
    """A policy: by default three failures in a row."""
    return Policy(
        id=id,
        name=id.replace("_", " "),
        group="Test",
        severity=severity,
        probe=probe,
        detect=detect or Threshold(Condition(), 3),
        enabled=enabled,
        interval=interval,
        timeout=interval * 0.4,
        confirm_interval=confirm_interval,
        replica_severity=replica_severity,
        switchover_grace=switchover_grace,
    )


@contextlib.asynccontextmanager
async def blackhole() -> AsyncIterator[tuple[str, int]]:
    """A server that accepts every connection and never answers: (host, port). No connection outlives the context."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            while await reader.read(65536):  # what it is sent must not fill up and look like a slow peer
                pass

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield host, port
    finally:
        server.close()
        for writer in writers:
            writer.close()
        with contextlib.suppress(OSError):
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
