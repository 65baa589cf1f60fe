"""The daemon of a file, telling what it announces and when: ``python -m benchmarks.detecting FILE``.

A line for each change of an event, once it is durable: monotonic time, kind, event, instance, component. ``late``
on stdin is answered with the lateness of all cycles since it was last asked: p99 in ms, and how many there were. It
ends with stdin.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import structlog

from benchmarks.contenders import default_loop, loop_factory
from benchmarks.figures import percentile
from benchmarks.punctual import AFTER_SETTLING
from probed.config import load
from probed.daemon import Daemon
from probed.store import Change
from probed.tidying import settle

WARM_UP = 6.0


async def main(file: Path) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    daemon = Daemon(load.load_file(file))
    late = list[float]()

    def told(change: Change) -> None:
        event = change.event
        print(time.monotonic(), change.kind, event.event, event.target.instance, event.target.component, flush=True)

    await daemon.start()
    try:
        await asyncio.sleep(WARM_UP)
        settle()
        await asyncio.sleep(AFTER_SETTLING)
        daemon.on_late(lambda seconds, cycles: late.extend([seconds] * cycles))
        daemon.pipeline.on_announce(told)
        print(time.monotonic(), "ready", "-", "-", "-", flush=True)
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while await orders.readline():
            print(round(1000 * percentile(late, 99), 2), "late", len(late), "-", "-", flush=True)
            late.clear()
    finally:
        await daemon.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory(default_loop())) as runner:
        runner.run(main(Path(sys.argv[1])))
