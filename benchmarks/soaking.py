"""The daemon of a file for so many cycles: ``python -m benchmarks.soaking FILE WARM_UP CYCLES SECONDS`` at most.

Prints a JSON object: what it holds (memory, descriptors, tasks) after the warm-up, and after the cycles.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from benchmarks.contenders import default_loop, loop_factory
from benchmarks.figures import resident
from probed.config import load
from probed.daemon import Daemon
from probed.life import settle_down

LOOKS = 50
"""Of which, for memory, the median counts; of descriptors and tasks the fewest, when the least is under way."""


async def main(file: Path, warm_up: int, cycles: int, seconds: float) -> dict[str, Any]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    daemon = Daemon(load.load_file(file))
    made = 0

    def count(_: float, cycles: int) -> None:
        nonlocal made
        made += cycles

    await daemon.start()
    try:
        daemon.on_late(count)
        await settle_down(daemon)  # gives back what the start needed, and what each round needs again: no growth
        settled = made
        while made < settled + warm_up:  # noqa: ASYNC110 - a count wakes nobody
            await asyncio.sleep(0.05)
        before, since, begun = await _held(), time.monotonic(), made
        while made < begun + cycles and time.monotonic() < since + seconds:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        after = await _held()
        outcomes: dict[str, int] = {}
        for entry in daemon.board.entries():
            for outcome, number in entry.runs.items():
                outcomes[outcome.value] = outcomes.get(outcome.value, 0) + number
    finally:
        await daemon.stop()
    grew = {name: round(after[name] - before[name], 2) for name in before}
    return {
        "grew": grew,
        "held": after,
        "cycles": made - begun,
        "outcomes": outcomes,
        "seconds": round(time.monotonic() - since),
    }


async def _held() -> dict[str, float]:
    gc.collect()
    looks = list[tuple[float, int, int]]()
    for _ in range(LOOKS):
        await asyncio.sleep(0.05)
        looks.append((resident(), len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())))
    memory, descriptors, tasks = (sorted(column) for column in zip(*looks, strict=True))
    return {"mib": memory[LOOKS // 2], "fds": descriptors[0], "tasks": tasks[0]}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory(default_loop())) as runner:
        print(json.dumps(runner.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))))
