"""What the daemon grows by over many cycles: all healthy, and half of them failing (P22).

Twenty instances at a compressed interval; each has healthy components and a database. Failing: others beside them that
refuse, hang and break off, and databases whose sessions an administrator ends each second.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.contenders import default_loop
from benchmarks.goals import Goal, tell, versions
from benchmarks.up import NODES, Stack, up
from tests.hostile import crowd, refusing

CYCLES, SECONDS = 100_000, 300.0
"""Of each half, whichever comes first: on a busy machine there are fewer, and that is told."""
INSTANCES, COMPONENTS = 20, 4
INTERVAL_MS = 150
TIMEOUT_SHARE = 0.8
BUFFER = 120
"""Samples of a target that are kept in memory until they are written: a warm-up fills each buffer once."""
ENDED_EACH = 1.0
END_SESSIONS = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'probed'"


async def run(
    seconds: float | None = None, *, cycles: int | None = None, markdown: bool = False, alone: bool = False
) -> list[dict[str, Any]]:
    goals = measure(cycles or CYCLES, seconds or SECONDS)
    return tell(goals, versions(loop=default_loop()), markdown=markdown)


def measure(cycles: int, seconds: float) -> list[Goal]:
    """Growth of memory, descriptors and tasks; half of the cycles healthy, then as many with failing ones."""
    goals = []
    with tempfile.TemporaryDirectory(prefix="pk-") as name, up(Path(name)) as stack:
        for failing, must, aim in ((False, 1.0, 0.3), (True, 2.0, 0.5)):
            with _targets(stack, Path(name) / f"failing-{failing}", failing=failing) as file:
                told = _soak(file, cycles, seconds)
            how = "half of them failing" if failing else "healthy"
            also = {"outcomes": told["outcomes"], "held": told["held"], "seconds": told["seconds"]}
            grew, which = told["grew"], f"P22 {'failing' if failing else 'healthy'}"
            what = f"growth of memory over {told['cycles']:,} cycles, {how}"
            goals.append(Goal(which, what, [grew["mib"]], must, aim, unit="MiB", also=also))
            goals.append(Goal(f"{which}, fds", "growth of descriptors", [grew["fds"]], 0))
            goals.append(Goal(f"{which}, tasks", "growth of tasks", [grew["tasks"]], 0))
    return goals


def _soak(file: Path, cycles: int, seconds: float) -> dict[str, Any]:
    warm_up = BUFFER * INSTANCES * (COMPONENTS + 2)
    command = [sys.executable, "-m", "benchmarks.soaking", str(file), str(warm_up), str(cycles), str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextlib.contextmanager
def _targets(stack: Stack, directory: Path, *, failing: bool) -> Iterator[Path]:
    """``probed.yml``; when failing, half of the components are ill and sessions are ended for as long as it is used."""
    directory.mkdir()
    kong = next(site for site in stack.sites if site.name == "kong")
    with contextlib.ExitStack() as peers:
        ports = [kong.port] * COMPONENTS
        if failing:
            hung = peers.enter_context(crowd("accept_and_hang", 1))
            broken = peers.enter_context(crowd("reset_in_body", 1))
            ports = [kong.port, refusing(), *hung, *broken]
            peers.enter_context(_sessions_end(stack))
        components = ", ".join(
            f"c{number}: {{url: http://127.0.0.1:{port}/plain}}" for number, port in enumerate(ports)
        )
        lines = []
        for number in range(INSTANCES):
            server = stack.servers[NODES[number % 2]]
            node = f"{{name: a, postgres: {{host: 127.0.0.1, port: {server.port}, user: probed}}}}"
            lines.append(f"  - {{name: i{number}, nodes: [{node}], components: {{{components}}}}}")
        file = directory / "probed.yml"
        file.write_text(
            f"storage: {{path: {directory}/store}}\n"
            f"defaults: {{interval: {INTERVAL_MS}ms, timeout: {INTERVAL_MS * TIMEOUT_SHARE:.0f}ms}}\n"
            "instances:\n" + "\n".join(lines) + "\n"
        )
        yield file


@contextlib.contextmanager
def _sessions_end(stack: Stack) -> Iterator[None]:
    over = Event()

    def end() -> None:
        while not over.wait(ENDED_EACH):
            for server in stack.servers.values():
                server.sql(END_SESSIONS)

    thread = Thread(target=end)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
