"""One way of hanging: 180 of 200 targets do it, and how late the cycles of the 20 honest ones start meanwhile.

``python -m benchmarks.crowd WAY SECONDS [alone]`` runs the daemon in this process, the peers in others, and prints one
JSON object. ``honest`` is the way in which nobody hangs. ``alone``: the daemon gets a core whenever it wants one, as on
a machine of its own (SCHED_RR, which takes privileges). Under a profiler: ``python -m cProfile -s tottime -m …``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from benchmarks.figures import percentile, resident
from probed import cadence
from probed.board import Entry
from probed.config import load
from probed.daemon import Daemon
from probed.model import OBSERVER, Outcome
from probed.probes import Combined, catalogue
from probed.thrift import settle
from tests.ways import DNS, HONEST, HUNG, INSTANCES, WAYS, Way, dealt, written

INTERVAL, TIMEOUT = 1.0, 0.5
"""Five times as often as by default: more of what can go wrong in the same seconds."""
WARM_UP = 3.0
COMBINED = {probe.name for probe in catalogue().values() if isinstance(probe, Combined)}


@contextlib.contextmanager
def _stub(count: int) -> Iterator[list[int]]:
    command = [sys.executable, "-m", "benchmarks.stub", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield [int(port) for port in process.stdout.readline().split()]
        process.stdin.close()
        process.terminate()


@contextlib.contextmanager
def _silent_resolver() -> Iterator[None]:
    """In a mount and network namespace of our own: the only name server is a socket that nobody reads."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink, tempfile.NamedTemporaryFile("w") as file:
        sink.bind(("127.0.0.1", 53))
        file.write("nameserver 127.0.0.1\n")
        file.flush()
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "/etc/resolv.conf"], check=True)


def ways_of(name: str) -> list[Way]:
    """``honest``, ``all`` of them by turns, or one."""
    match name:
        case "honest":
            return [Way("honest", "observed", partial(_held, HUNG))]
        case "all":
            return list(WAYS.values())
        case DNS.name:
            return [DNS]
        case _:
            return [WAYS[name]]


@contextlib.contextmanager
def _held(_: int, count: int) -> Iterator[list[int]]:
    with _stub(count) as ports:
        yield ports


def main(name: str, seconds: float, *, alone: bool = False) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with contextlib.ExitStack() as stack:
        if name == DNS.name:
            stack.enter_context(_silent_resolver())
        honest = stack.enter_context(_stub(INSTANCES))
        hung = stack.enter_context(dealt(ways_of(name), HUNG))
        if alone:
            # From here on: the peers stay behind, what is started beside the daemon comes along.
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pj-")))
        file = written(directory, hung, honest, f"{INTERVAL:g}s", f"{TIMEOUT * 1000:g}ms")
        print(json.dumps({"way": name, **asyncio.run(_measure(file, seconds))}), flush=True)
        os._exit(0) if name == DNS.name else None


class Watching:
    """Samples of all targets as they come; the board keeps the last 20 of each."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._last = {id(entry): entry.newest.mono for entry in daemon.board.entries() if entry.newest}
        self.late: list[float] = []
        self.honest: Counter[str] = Counter()
        self.hung: Counter[str] = Counter()
        self.longest = 0.0

    def look(self) -> None:
        for entry in self._daemon.board.entries():
            if entry.target.instance == OBSERVER:
                continue
            seen = self._last.get(id(entry), 0.0)
            for sample in entry.ring:
                if sample.mono <= seen:
                    continue
                self._last[id(entry)] = sample.mono
                if entry.target.component == HONEST:
                    self.honest[sample.outcome.value] += 1
                    self.late.append(_lateness(entry, sample.mono))
                elif entry.probe not in COMBINED:
                    self.hung[f"{sample.outcome.value} {sample.kind}".strip()] += 1
                    self.longest = max(self.longest, sample.duration)


def _lateness(entry: Entry, mono: float) -> float:
    """How long after its slot a cycle started; a lateness of a whole interval would be a lost slot."""
    start = cadence.phase(entry.target.instance, INTERVAL)  # an instance's ten targets share its first slot
    late = (mono - start) % INTERVAL
    return late if late < INTERVAL - 0.001 else 0.0  # the clock's grain


async def _measure(file: Path, seconds: float) -> dict[str, Any]:
    daemon = Daemon(load.load_file(file))
    blocks: list[tuple[float, float]] = []
    memory: list[float] = []
    await daemon.start()
    try:
        await asyncio.sleep(WARM_UP)
        settle()  # as the daemon does once its first rounds are over
        idle = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.idle", str(seconds), stdout=asyncio.subprocess.PIPE
        )
        watching = Watching(daemon)
        beat = asyncio.create_task(_heartbeat(blocks, memory))
        started, cpu = time.monotonic(), time.process_time()
        while time.monotonic() - started < seconds:
            await asyncio.sleep(min(5.0, max(0.01, seconds - (time.monotonic() - started))))
            watching.look()
        elapsed = time.monotonic() - started
        spent = (time.process_time() - cpu) / elapsed
        beat.cancel()
        output, _ = await idle.communicate()
        idle_p99, idle_max = (float(word) for word in output.split())
    finally:
        await daemon.stop()
    return {
        "late_p99_ms": round(percentile(watching.late, 99) * 1000, 1),
        "late_max_ms": round(max(watching.late, default=0.0) * 1000, 1),
        "blocked_max_ms": round(max(wall for wall, _ in blocks) * 1000, 1),
        "worked_max_ms": round(max(cpu for _, cpu in blocks) * 1000, 1),
        "idle_p99_ms": round(idle_p99, 1),
        "idle_max_ms": round(idle_max, 1),
        "rss_mib": max(memory),
        "cores": round(spent, 2),
        "honest_targets": INSTANCES,
        "honest_samples": len(watching.late),
        "honest_slots": round(INSTANCES * elapsed / INTERVAL),
        "honest_not_observed": sum(watching.honest.values()) - watching.honest[Outcome.OBSERVED.value],
        "hung": dict(watching.hung.most_common(6)),
        "hung_longest_s": round(watching.longest, 2),
    }


async def _heartbeat(blocks: list[tuple[float, float]], memory: list[float]) -> None:
    """How long the loop was away between two beats, and how much of that it was working and not waiting for a core."""
    while True:
        memory.append(resident())
        for _ in range(20):
            before, cpu = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.005)
            blocks.append((max(0.0, time.monotonic() - before - 0.005), time.thread_time() - cpu))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), alone="alone" in sys.argv[3:])
