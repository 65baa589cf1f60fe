"""Start lateness at 200 targets, half of them hung, and the longest block of the event loop, beside an idle control."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog

from probed.config import load
from probed.daemon import Daemon, settle

INSTANCES, SECONDS = 100, 30.0
PATRONI = {"state": "running", "role": "primary", "timeline": 1, "patroni": {"version": "4.1.5", "scope": "bench"}}
CLUSTER = {"members": [{"name": "n", "role": "leader", "state": "running", "api_url": "", "host": "", "timeline": 1}]}


async def run() -> list[dict[str, Any]]:
    blocks: list[float] = []
    beat = asyncio.create_task(_heartbeat(blocks))
    await asyncio.sleep(10)
    beat.cancel()
    control = _figure("event loop blocked, max ms, idle control: what the machine itself does", max(blocks) * 1000)
    return [control, *await _measure(hung=0), *await _measure(hung=INSTANCES // 2)]


async def _measure(hung: int) -> list[dict[str, Any]]:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.stub", str(hung), str(INSTANCES), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    ports = json.loads(await server.stdout.readline())
    try:
        with tempfile.TemporaryDirectory() as directory:
            return await _watch(Path(directory), ports, hung)
    finally:
        server.terminate()
        await server.wait()


async def _watch(directory: Path, ports: list[int], hung: int) -> list[dict[str, Any]]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    lines = [
        f"  - {{name: i{number}, nodes: [{{name: n, patroni: http://127.0.0.1:{port}}}]}}"
        for number, port in enumerate(ports)
    ]
    file = directory / "probed.yml"
    head = f"storage: {{path: {directory}/store}}\ndefaults: {{interval: 1s, timeout: 500ms}}\ninstances:\n"
    file.write_text(head + "\n".join(lines) + "\n")
    daemon = Daemon(load.load_file(file))
    late: list[float] = []
    blocks: list[float] = []
    await daemon.start()
    await asyncio.sleep(3)
    settle()
    daemon.on_late(late.append)
    beat = asyncio.create_task(_heartbeat(blocks))
    started, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(SECONDS)
    spent = (time.process_time() - cpu) / (time.monotonic() - started)
    beat.cancel()
    await daemon.stop()
    what = f"{2 * INSTANCES} targets each second, {hung} hosts hung"
    return [
        _figure(f"start lateness p99, ms, {what}", _percentile(late, 99) * 1000, must=10.0),
        _figure(f"start lateness max, ms, {what}", max(late) * 1000),
        _figure(f"event loop blocked, max ms, {what}", max(blocks) * 1000, must=50.0),
        _figure(f"cores used, {what}", spent),
        _figure(f"cycles started, {what}", float(len(late))),
    ]


async def _heartbeat(blocks: list[float]) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.005)
        blocks.append(max(0.0, time.monotonic() - before - 0.005))


def _percentile(values: list[float], rank: int) -> float:
    return statistics.quantiles(values, n=100)[rank - 1]


def _figure(name: str, value: float, **more: float) -> dict[str, Any]:
    return {"figure": name, "value": round(value, 3), **more}
