"""Those who watch the same two nodes and twelve components, each in its turn: what a cycle of theirs costs.

A contender is started once and stopped (SIGSTOP) while others are measured. A window is some cycles at the pace; its
cost is the CPU time of the contender's processes, and of both servers' for their clients.
"""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import functools
import importlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import probed
from benchmarks.figures import cpu, cpu_of_sessions
from benchmarks.up import REQUESTS, Stack
from probed.demo import servers

WARM_UP = 2
"""Cycles after a pause that are not measured."""
STARTED_WITHIN = 60.0
SETTLED = 20.0
"""Seconds after a daemon's start at which nothing of it is left: it settles after 15 (life.SETTLED_AFTER)."""


@dataclass(frozen=True)
class Cost:
    """Of one cycle, milliseconds."""

    cpu: float
    server: float
    """CPU of both PostgreSQL servers."""
    cycles: float
    """How many there were, by the requests that the components answered where they tell."""


class Servers:
    """Both PostgreSQL servers' CPU for their clients: what they do by themselves is not in it."""

    def __init__(self, stack: Stack) -> None:
        self._masters = [servers.postmasters(str(one.data))[0].pid for one in stack.servers.values()]

    def spent(self) -> float:
        """CPU seconds of postmasters, backends, and backends that have ended (these to 10 ms)."""
        return sum(cpu_of_sessions(pid) for pid in self._masters)


class Resident:
    """A process that does its cycles by itself, at the pace."""

    def __init__(self, name: str, pid: int, stack: Stack, per_cycle: int = REQUESTS) -> None:
        self.name, self.pid = name, pid
        self._stack, self._per_cycle = stack, per_cycle

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def window(self, cycles: int, pace: float, server: Servers) -> Cost:
        """Go on, warm up, and be measured for so many cycles, from one quiet moment to another."""
        self.go_on()
        try:
            self._until_quiet(pace)
            time.sleep(WARM_UP * pace)
            self._until_quiet(pace)
            answered, own, theirs = self._stack.stub.answered(), cpu(self.pid), server.spent()
            time.sleep(cycles * pace)
            own, theirs = cpu(self.pid) - own, server.spent() - theirs
            answered = self._stack.stub.answered() - answered
        finally:
            self.pause()
        counted = answered / self._per_cycle
        if not 0.5 * cycles <= counted <= 1.2 * cycles:  # monit pauses for so long between two cycles
            raise AssertionError(f"{self.name} made {counted:g} cycles instead of {cycles}: is it what was meant?")
        return Cost(1000 * own / counted, 1000 * theirs / counted, counted)

    def _until_quiet(self, pace: float) -> None:
        """Until the requests of a cycle have just been answered and no more come for a third of the pace."""
        end = time.monotonic() + STARTED_WITHIN
        seen, at = self._stack.stub.answered(), time.monotonic()
        begun = False
        while not begun or time.monotonic() - at < pace / 3:
            time.sleep(pace / 50)
            now = self._stack.stub.answered()
            if now != seen:
                seen, at, begun = now, time.monotonic(), True
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name} asked nothing, or without a pause, for {STARTED_WITHIN:g} s")


@dataclass(frozen=True)
class Driven:
    """Processes that work when asked: ``once`` is a cycle of theirs."""

    name: str
    pids: Sequence[int]
    once: Callable[[], None]

    def window(self, cycles: int, pace: float, server: Servers) -> Cost:
        """Asked once at each pace."""
        for _ in range(WARM_UP):
            self.once()
            time.sleep(pace)
        own, theirs, since = self._spent(), server.spent(), time.monotonic()
        for number in range(cycles):
            self.once()
            time.sleep(max(0.0, since + (number + 1) * pace - time.monotonic()))
        own, theirs = self._spent() - own, server.spent() - theirs
        return Cost(1000 * own / cycles, 1000 * theirs / cycles, cycles)

    def _spent(self) -> float:
        return sum(cpu(pid) for pid in self.pids)


@dataclass(frozen=True)
class Forked:
    """Programs that are started anew for each check."""

    name: str
    commands: Sequence[Sequence[str]]

    def window(self, cycles: int, pace: float, server: Servers) -> Cost:
        """A third of the cycles, at least one: each lasts longer than the pace anyway."""
        sweeps = max(1, cycles // 8)
        before, theirs = os.times(), server.spent()
        for _ in range(sweeps):
            for command in self.commands:
                subprocess.run(command, capture_output=True, check=False, timeout=60)
        after, theirs = os.times(), server.spent() - theirs
        own = after.children_user + after.children_system - before.children_user - before.children_system
        return Cost(1000 * own / sweeps, 1000 * theirs / sweeps, sweeps)


Contender = Resident | Driven | Forked

WITHOUT_UVLOOP = (
    "import runpy, sys; sys.modules['uvloop'] = None; runpy.run_module('probed', run_name='__main__', alter_sys=True)"
)


def default_loop() -> str:
    """Whose event loop the daemon takes: uvloop's where it is installed."""
    return "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """For asyncio.Runner; None is asyncio's own loop."""
    found: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        found = importlib.import_module("uvloop").new_event_loop
    return found


@functools.cache
def _compile() -> None:
    """As pip installs it, with its bytecode: a checkout may have none, and where Python is told to write none it
    compiles 48,000 lines at each start."""
    compileall.compile_dir(Path(probed.__file__).parent, quiet=2)


def daemon_command(file: Path, loop: str) -> list[str]:
    """``probed run`` with this file; on asyncio's own loop it is kept from finding uvloop."""
    _compile()
    start = ["-m", "probed"] if loop == "uvloop" else ["-c", WITHOUT_UVLOOP]
    return [sys.executable, *start, "run", "--config.file", str(file), "--log.level", "warning"]


@contextlib.contextmanager
def process(command: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Running for as long as the context lasts, also when it was stopped meanwhile."""
    with log.open("wb") as told:
        running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=told, stderr=told, env={**os.environ, **environment}
        )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGCONT)
            running.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(10)
        if running.poll() is None:
            running.kill()
        running.wait()


@contextlib.contextmanager
def daemon(stack: Stack, directory: Path, loop: str, *, interval: str = "1s", instances: int = 1) -> Iterator[int]:
    """``probed run`` on the stack; its process number."""
    file = stack.settings(directory, interval=interval, instances=instances)
    with process(daemon_command(file, loop), directory / "log") as running:
        yield running.pid


@contextlib.contextmanager
def floor(stack: Stack, directory: Path, loop: str, *, interval: float = 1.0) -> Iterator[int]:
    """``benchmarks.floor`` on the stack; its process number."""
    file = stack.floor(directory, interval)
    command = [sys.executable, "-m", "benchmarks.floor", str(file), loop]
    with process(command, directory / "floor.log") as running:
        yield running.pid


def wait_for_port(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    """Until it accepts. RuntimeError, with its last words, when the process has ended."""
    end = time.monotonic() + STARTED_WITHIN
    while True:
        with socket.socket() as door:
            if door.connect_ex(("127.0.0.1", port)) == 0:
                return
        if running.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"nothing at port {port}: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.05)
