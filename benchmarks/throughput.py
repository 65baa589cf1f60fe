"""How many probes a core can make, 64 in flight: the whole pipeline, what it is made of, and blackbox (P8, P9).

Each in a process of its own, by turns; told are probes per second of CPU, so that a busy machine matters little.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks import peers
from benchmarks.contenders import default_loop, process, wait_for_port
from benchmarks.figures import cpu
from benchmarks.goals import Goal, tell, versions
from benchmarks.saturation import WAYS
from benchmarks.up import stubs
from probed.demo.ports import free_port

ROUNDS, SECONDS = 3, 4.0
PORTS = 16


async def run(
    seconds: float | None = None, *, rounds: int | None = None, loop: str | None = None, markdown: bool = False,
    alone: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    loop = loop or default_loop()
    goals = measure(rounds or ROUNDS, seconds or SECONDS, loop)
    return tell(goals, versions(loop=loop), markdown=markdown)


def measure(rounds: int, seconds: float, loop: str) -> list[Goal]:
    """Probes per CPU second of each way, and their ratios."""
    found = peers.installed()
    made: dict[str, list[float]] = {name: [] for name in (*WAYS, peers.BLACKBOX)}
    with tempfile.TemporaryDirectory(prefix="pt-") as place, stubs(PORTS) as stub:
        for _ in range(rounds):
            for way in WAYS:
                made[way].append(_saturate(way, loop, seconds, "/", stub.ports)["per_core"])
            if peers.BLACKBOX in found:
                made[peers.BLACKBOX].append(_blackbox(found[peers.BLACKBOX], Path(place), loop, seconds, stub.ports))
    told = [Goal(f"probes:{way}", f"probes/s/core, {way}", one, skipped="not installed")
            for way, one in made.items()]  # fmt: skip

    def ratio(other: str) -> list[float]:
        return [a / b for a, b in zip(made["pipeline"], made[other], strict=False)]

    missing = "not installed: make peers"
    return [
        *told,
        Goal("P8", "probes/s/core of the whole pipeline / bare aiohttp", ratio("aiohttp"), 0.6, 0.8, more=True),
        Goal("P8b", "same / blackbox_exporter, saturated", ratio(peers.BLACKBOX), 3, 5, more=True, skipped=missing),
        Goal("P9", "same / a bare protocol", ratio("protocol"), None, 0.5, more=True),
    ]


def _saturate(way: str, loop: str, seconds: float, path: str, ports: list[int]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.saturation", way, loop, str(seconds), path, *map(str, ports)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _blackbox(program: str, place: Path, loop: str, seconds: float, ports: list[int]) -> float:
    """Asked by as many at a time, over lines that are kept; its own CPU counts."""
    config, log, port = place / "blackbox.yml", place / "blackbox.log", free_port()
    config.write_text(peers.BLACKBOX_YML)
    command = [program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with process(command, log) as running:
        wait_for_port(port, running, log)
        target = quote(f"http://127.0.0.1:{ports[0]}/", safe="")
        before = cpu(running.pid)
        _saturate("protocol", loop, 0.5, f"/probe?module=get&target={target}", [port])
        warm = cpu(running.pid)
        made = _saturate("protocol", loop, seconds, f"/probe?module=get&target={target}", [port])["probes"]
        # The warm-up of the second run is not in its count: what the first one of the same length took is taken off.
        spent = cpu(running.pid) - warm
        return made / (spent - (warm - before) / 2)
