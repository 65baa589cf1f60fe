"""The recorded samples as the daemon has them: recorder, file, and reading both as one."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from probed.clock import Clock
from probed.errors import StoreError
from probed.model import Sample
from probed.recording.chunks import Columns
from probed.recording.database import SampleFile
from probed.recording.reading import Reading, Recorded
from probed.recording.recorder import Recorder
from probed.recording.thinning import Thinning

_T = TypeVar("_T")
BREATH_SECONDS = 0.002
"""Between two chunks that are unpacked: the probes come first."""


class Archive:
    """Every judged sample, for as long as settings say. Nothing of it can hold up or end the daemon."""

    def __init__(self, directory: Path, clock: Clock, *, retention: float, max_bytes: int, observer: str) -> None:
        self.file = SampleFile(directory, clock, retention=retention, max_bytes=max_bytes, observer=observer)
        self._recorder = Recorder(self.file.put)
        self.observe = self._recorder.observe
        """To be told of each judged round."""
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="samples-read")

    def open(self) -> None:
        self.file.open()

    async def close(self) -> None:
        """Write what is in memory, then close."""
        self._recorder.flush()
        await self.file.close()
        self._reader.shutdown(wait=False)

    def keep_within(self, retention: float, max_bytes: int) -> None:
        """Take other limits, in seconds and bytes; the next purge works by them."""
        self.file.retention, self.file.max_bytes = retention, max_bytes

    async def written(self) -> None:
        """Have everything sampled so far in the file, for a reader in another process."""
        self._recorder.flush()
        await self.file.written()

    # --- reading ------------------------------------------------------------------------------------------

    async def recorded(self, target: str | None = None) -> Sequence[Recorded]:
        """What there is of which probe and target, but for the last minutes. StoreError when it cannot be read."""
        return await self._read(lambda reading: reading.recorded(target))

    async def samples(self, probe: str, target: str, since: float, until: float, limit: int) -> Sequence[Sample]:
        """The oldest ``limit`` samples of a span, oldest first. Unix seconds, ``until`` exclusive."""
        buffered = await self._buffered(probe, target)

        def collect(reading: Reading) -> list[Sample]:
            found: list[Sample] = []
            for columns in _columns(reading, probe, target, since, until, buffered):
                for index, at in enumerate(columns.ats):
                    if since <= at < until:
                        found.append(columns.sample(index))
                        if len(found) == limit:
                            return found
            return found

        return await self._read(collect)

    async def thinned(self, probe: str, target: str, since: float, until: float, points: int) -> Sequence[Sample]:
        """About so many samples of a span that show its shape: the extremes of each part of it, and every outcome."""
        buffered = await self._buffered(probe, target)

        def collect(reading: Reading) -> list[Sample]:
            thinning = Thinning(since, until, points)
            for columns in _columns(reading, probe, target, since, until, buffered):
                thinning.take(columns)
            return thinning.samples()

        return await self._read(collect)

    async def _buffered(self, probe: str, target: str) -> Columns | None:
        """What is in memory of a place, once everything older is in the file."""
        await self.file.written()
        return self._recorder.buffered(probe, target)

    async def _read(self, work: Callable[[Reading], _T]) -> _T:
        def run() -> _T:
            try:
                with closing(Reading(self.file.path)) as reading:
                    reading.hold()
                    return work(reading)
            except (sqlite3.Error, ValueError, TypeError) as error:
                raise StoreError(f"the recorded samples cannot be read: {error}") from None

        return await asyncio.get_running_loop().run_in_executor(self._reader, run)


def _columns(
    reading: Reading, probe: str, target: str, since: float, until: float, buffered: Columns | None
) -> Iterator[Columns]:
    """File, then memory; a buffer that was written meanwhile is not seen twice."""
    end = until if buffered is None else min(until, buffered.ats[0])
    for place in reading.places(probe, target):
        for chunk in reading.chunks(place, since, end):
            columns = chunk.load()
            if buffered is None or columns.ats[0] < buffered.ats[0]:
                yield columns
            time.sleep(BREATH_SECONDS)
    if buffered is not None:
        yield buffered
