"""The page: how soon and how large the overview of a hundred instances is, and how late it makes probes."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.figures import percentile
from probed.api.app import serve
from tests.unit.serving import free_port
from tests.unit.theatre import leave, play, stage

INSTANCES = 100
PAGE_MS, PAGE_BYTES, LATE_MS = 50.0, 150 * 1024, 100.0
BEAT = 0.005


async def run(seconds: float | None = None, *, alone: bool = False) -> list[dict[str, Any]]:
    """One reader asks for the overview again and again, while a sleeper in the daemon's loop says how late it wakes."""
    del alone
    with tempfile.TemporaryDirectory() as directory:
        made = await stage(Path(directory), tuple(f"db-{number:03}" for number in range(INSTANCES - 1)))
        made.watch_oneself()
        await play(made)
        address = f"127.0.0.1:{free_port()}"
        close = await serve(made, addresses=[address], socket_path=None)
        late: list[float] = []
        sleeper = asyncio.create_task(_sleep(late))
        cpu = time.process_time()
        first, took, size = await _ask(f"http://{address}/", seconds or 10.0)
        cpu = (time.process_time() - cpu) / (len(took) + 1)
        sleeper.cancel()
        await close()
        await leave(made)
    figures: list[dict[str, Any]] = [
        {"figure": "page_first_ms", "value": _ms(first)},
        {
            "figure": "page_ms",
            "value": _ms(statistics.median(took)),
            "p99": _ms(percentile(took, 99)),
            "cpu": _ms(cpu),
            "must": PAGE_MS,
        },
        {"figure": "page_bytes", "value": size, "must": PAGE_BYTES},
        {"figure": "loop_late_ms", "value": _ms(percentile(late, 99)), "max": _ms(max(late)), "must": LATE_MS},
    ]
    for one in figures:
        one["missed"] = "must" in one and one["value"] > one["must"]
        print(json.dumps(one), flush=True)
    return figures


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


async def _ask(url: str, seconds: float) -> tuple[float, list[float], int]:
    """(seconds of the very first page, seconds to the first byte of each other, bytes of one)"""
    took: list[float] = []
    size = 0
    async with aiohttp.ClientSession() as session:
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(took) < 2:
            begun = time.perf_counter()
            async with session.get(url) as response:
                took.append(time.perf_counter() - begun)
                size = len(await response.read())
            await asyncio.sleep(0.1)
    return took[0], took[1:], size


async def _sleep(late: list[float]) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(BEAT)
        late.append(time.monotonic() - before - BEAT)
