"""What a start costs: CPU until everything was asked once, beside the import of five libraries (P20)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.contenders import STARTED_WITHIN, daemon_command, process
from benchmarks.figures import cpu
from benchmarks.up import REQUESTS, Stack

LIBRARIES = ("aiohttp", "asyncpg", "pydantic", "prometheus_client", "yaml")
BESIDES = 2
"""Requests of a start beside those of a cycle: Patroni's member list before all, and its history with the first."""
_LOAD = (
    "import sys, time; from pathlib import Path; from probed.config import load; "
    "begun = time.process_time(); load.load_file(Path(sys.argv[1])); print(time.process_time() - begun)"
)


def first_cycle(stack: Stack, directory: Path, loop: str) -> float:
    """CPU seconds from the start of ``probed run`` until everything was asked once."""
    before, file = stack.stub.answered(), stack.settings(directory)
    with process(daemon_command(file, loop), directory / "log") as running:
        end = time.monotonic() + STARTED_WITHIN
        while stack.stub.answered() < before + REQUESTS + BESIDES:
            if time.monotonic() > end or running.poll() is not None:
                raise TimeoutError(f"no first cycle: {(directory / 'log').read_text()[-500:]}")
            time.sleep(0.005)
        return cpu(running.pid)


def imports() -> float:
    """CPU seconds of an interpreter that imports the five libraries and ends."""
    code = f"import time, {', '.join(LIBRARIES)}; print(time.process_time())"
    return float(_output(["-c", code]))


def config(stack: Stack, directory: Path, instances: int) -> float:
    """CPU seconds to read and check a file with so many instances."""
    return float(_output(["-c", _LOAD, str(stack.settings(directory, instances=instances))]))


def _output(arguments: list[str]) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout
