"""Clients that hold a connection and ask nothing: ``python -m benchmarks.clients COUNT DSN...``, COUNT to each.

Prints ``ready`` and holds them until stdin ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import asyncpg


async def main(count: int, dsns: Sequence[str]) -> None:
    held = [await asyncpg.connect(dsn) for dsn in dsns for _ in range(count)]
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for connection in held:
        connection.terminate()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
