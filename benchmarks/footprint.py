"""Memory and load of a daemon on one real two-node instance: its own, and what it puts on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import resident
from probed.demo.lab import Lab

SECONDS = 60.0


async def run(seconds: float | None = None, *, alone: bool = False) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="pf-") as name:
        directory = Path(name)
        os.chmod(directory, 0o755)
        lab = await Lab.start(directory / "lab")
        try:
            figures = await _measure(directory, lab, seconds or SECONDS)
        finally:
            await lab.stop()
    for figure in figures:
        figure["missed"] = "must" in figure and figure["value"] > figure["must"]
        print(json.dumps(figure), flush=True)
    return figures


async def _measure(directory: Path, lab: Lab, seconds: float) -> list[dict[str, Any]]:
    (directory / "password").write_text(lab.monitor_password)
    urls = ", ".join(node.patroni_url for node in lab.nodes.values())
    config = directory / "probed.yml"
    config.write_text(
        f'web: {{listen: ["127.0.0.1:7499"]}}\nstorage: {{path: {directory}/store}}\ninstances:\n'
        f"  - {{name: bench, patroni: [{urls}],\n"
        f"     postgres: {{user: {lab.monitor_user}, password_file: {directory}/password}}}}\n"
    )
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "probed", "run", "--config.file", str(config), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.sleep(15)
        cpu, sessions = _cpu(daemon.pid), await _sessions(lab)
        started = time.monotonic()
        await asyncio.sleep(seconds)
        elapsed = time.monotonic() - started
        spent = _cpu(daemon.pid) - cpu
        connections = await _connections(lab)
        opened = await _sessions(lab) - sessions
        return [
            {"figure": "resident memory, MiB, one two-node instance", "value": resident(daemon.pid), "must": 60.0},
            {"figure": "CPU, ms per instance cycle", "value": round(1000 * spent / (elapsed / 5), 2)},
            {"figure": "connections per node", "value": connections / len(lab.nodes), "must": 1.0},
            {"figure": f"logins per node in {seconds:g} s (one each 30 s)", "value": opened, "must": seconds / 30 + 1},
        ]
    finally:
        daemon.terminate()
        await daemon.wait()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def _connections(lab: Lab) -> int:
    total = 0
    for name in lab.nodes:
        total += int(await _ask(lab, name, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'probed'"))
    return total


async def _sessions(lab: Lab) -> float:
    """Sessions that ever ended in the daemon's database on a replica, where nobody else logs in but Patroni."""
    leader = await lab.leader()
    replica = next(name for name in lab.nodes if name != leader)
    return await _ask(lab, replica, "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'")


async def _ask(lab: Lab, node: str, query: str) -> float:
    """From another database, so as not to count ourselves."""
    connection = await lab.connect(node, database="template1")
    try:
        return float(await connection.fetchval(query))
    finally:
        await connection.close()
