"""As many probes as a core can make: ``python -m benchmarks.saturation WAY LOOP SECONDS PATH PORT...``, a JSON object.

64 are in flight all the time, each to a port in turn. WAY is one of

``pipeline``: the daemon's own rounds: schedule, deadline, probe, policy, recorder, metrics
``aiohttp``: a session, a deadline, and nothing else
``protocol``: bytes written to and read from a transport of the event loop
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import aiohttp
import structlog

from benchmarks.contenders import loop_factory
from probed.board import Board
from probed.clock import SystemClock
from probed.config.settings import Settings
from probed.metrics import Metrics
from probed.pipeline import Pipeline
from probed.policy.load import load
from probed.probes import Context, catalogue
from probed.probes._http import HttpClient
from probed.reaching import context_for
from probed.recording.recorder import Recorder
from probed.rounds import Contexts, Pulse, Rounds
from probed.watching import Cycle, plan
from tests.unit.bench import Ledger

IN_FLIGHT = 64
TIMEOUT = 2.0
WARM_UP = 0.5
"""Seconds: connections, and the first of everything."""
Probe = Callable[[int], Awaitable[None]]


async def measure(probe: Probe, seconds: float) -> dict[str, float]:
    """Have ``probe`` called by so many workers, each with its own number, and count."""
    made = 0
    ends = time.monotonic() + WARM_UP

    async def work(number: int) -> None:
        nonlocal made
        while time.monotonic() < ends:
            await probe(number)
            made += 1

    await asyncio.gather(*(work(number) for number in range(IN_FLIGHT)))
    made, ends = 0, time.monotonic() + seconds
    before = time.process_time()
    await asyncio.gather(*(work(number) for number in range(IN_FLIGHT)))
    spent = time.process_time() - before
    return {"probes": made, "cpu": spent, "per_core": made / spent}


async def pipeline(urls: Sequence[str], seconds: float) -> dict[str, float]:
    """An instance for each worker, with one component; its rounds follow each other without a pause."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    instances = [
        {"name": f"i{number}", "components": {"service": {"url": urls[number % len(urls)]}}}
        for number in range(IN_FLIGHT)
    ]
    given = Settings.model_validate({"instances": instances})
    probes, clock, board, metrics, http = catalogue(), SystemClock(), Board(), Metrics(), HttpClient()
    policies = load(None, {name: frozenset(probe.readings) for name, probe in probes.items()}, given.defaults)
    judge = Pipeline(cast(Any, Ledger()), board, clock, observer="bench", switchover_grace=60.0)
    judge.on_round(Recorder(lambda _: None).observe)
    pulse = Pulse(late=metrics.late, skipped=metrics.skipped)

    def context(cycle: Cycle) -> Context:
        return context_for(cycle.reach, TIMEOUT, http)

    rounds: list[Rounds] = []
    for instance in given.instances:
        planned = plan(instance, (), policies, probes, given.defaults)
        for cycle in planned.cycles:
            board.expect(cycle.probe.name, cycle.reach.target, cycle.interval)
        judge.bind(planned.name, planned.labels, planned.nodes, planned.watches, all_policies=policies)
        rounds.append(Rounds(planned, given.defaults.interval, judge, Contexts(context).of, clock, pulse))

    async def probe(number: int) -> None:
        await rounds[number].round(clock.mono() - 1.0, number)

    told = await measure(probe, seconds)
    wrong = [entry.newest for entry in board.entries() if entry.newest and entry.newest.outcome.value == "failed"]
    assert not wrong, wrong[0]
    await http.close()
    return told


async def bare(urls: Sequence[str], seconds: float) -> dict[str, float]:
    """aiohttp as a prober would use it at its fastest."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def probe(number: int) -> None:
            async with asyncio.timeout(TIMEOUT), session.get(urls[number % len(urls)]) as response:
                await response.read()

        return await measure(probe, seconds)


class _Line(asyncio.Protocol):
    """One question at a time; an answer is over when its announced length is there."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._seen = b""
        self._answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, stop, body = self._seen.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
        if stop and len(body) >= length and self._answered is not None:
            self._seen = b""
            self._answered.set_result(None)

    async def ask(self, request: bytes) -> None:
        assert self.transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(TIMEOUT):
            await self._answered


async def protocol(urls: Sequence[str], seconds: float) -> dict[str, float]:
    """Bytes on a transport."""
    loop = asyncio.get_running_loop()
    lines, requests = list[_Line](), list[bytes]()
    for number in range(IN_FLIGHT):
        host, _, path = urls[number % len(urls)].removeprefix("http://").partition("/")
        name, port = host.split(":")
        _, line = await loop.create_connection(_Line, name, int(port))
        lines.append(line)
        requests.append(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: probed\r\n\r\n".encode())

    async def probe(number: int) -> None:
        await lines[number].ask(requests[number])

    return await measure(probe, seconds)


WAYS = {"pipeline": pipeline, "aiohttp": bare, "protocol": protocol}


def main(way: str, loop: str, seconds: str, path: str, *ports: str) -> None:
    urls = [f"http://127.0.0.1:{port}{path}" for port in ports]
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        print(json.dumps(runner.run(WAYS[way](urls, float(seconds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
