"""How compactly samples are recorded, by probe and over all, in the file as it lies on the disk."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.fortnight import INSTANCE, PROBES, START, samples
from probed.model import Target
from probed.recording.chunks import Buffer
from probed.recording.database import NAME, SampleFile
from probed.recording.recorder import Recorder
from probed.testing import FakeClock

_BY_PROBE = """
SELECT probe, round(1.0 * sum(length(digest) + length(data)) / sum(count), 2)
FROM chunk JOIN body ON body.id = body JOIN place ON place.id = place GROUP BY probe ORDER BY probe
"""
DAYS = 1.0
PER_SAMPLE = 100e6 / (1_000 * 17_280)
"""Bytes: 100 MB a day for 1,000 targets that are sampled each 5 s."""


async def run(seconds: float | None = None, *, alone: bool = False) -> list[dict[str, Any]]:
    days = seconds / 86_400 if seconds else DAYS
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="ps-") as name:
        directory = Path(name)
        taken = await _record(directory, list(PROBES), days)
        each = _bytes(directory) / taken
        with closing(sqlite3.connect(directory / NAME)) as connection:
            rows = connection.execute(_BY_PROBE).fetchall()
    figures += [{"figure": f"bytes per sample of {probe}, digest and body", "value": size} for probe, size in rows]
    figures.append({"figure": "bytes per sample, all probes", "value": round(each, 2), "must": round(PER_SAMPLE, 2)})
    figures.append({"figure": "MB per 1,000 targets and day at 5 s", "value": round(each * 17.28, 1), "must": 100})
    for figure in figures:
        figure["missed"] = "must" in figure and figure["value"] > figure["must"]
        print(json.dumps(figure), flush=True)
    return figures


async def _record(directory: Path, probes: list[str], days: float) -> int:
    """Through the recorder and into the file, at the pace of the writer; how many samples there were."""
    file = SampleFile(directory, FakeClock(START), retention=30 * 86_400.0, max_bytes=2**40, observer="bench")
    file.open()
    taken = waiting = 0

    def keep(buffer: Buffer) -> None:
        nonlocal waiting
        waiting += 1
        file.put(buffer)

    recorder = Recorder(keep)
    sources: list[Iterator[Any]] = [samples(probe, Target(INSTANCE, "node1", probe), days) for probe in probes]
    for source in sources:
        for sample in source:
            recorder.observe([sample])
            taken += 1
            if waiting >= 200:
                waiting = 0
                await file.written()
    recorder.flush()
    await file.written()
    await file.close()
    assert file.tally.dropped == 0, file.degraded
    return taken


def _bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())
