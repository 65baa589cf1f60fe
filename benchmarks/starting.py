"""A daemon's start as far as its store is concerned: ``python -m benchmarks.starting DIRECTORY``, for its CPU time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from probed import daemon
from probed.metrics import Metrics
from probed.store.purging import Limits
from probed.store.sqlite import SqliteStore


async def main(directory: Path) -> None:
    store = SqliteStore(directory, limits=Limits(age=1e9, size=1 << 50))
    await store.open()
    Metrics().restore(await store.counts())
    daemon.settle()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
