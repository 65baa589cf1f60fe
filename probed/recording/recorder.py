"""Takes every judged sample in and hands full buffers on. Lives in the event loop: no I/O, a few microseconds each."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

from probed.model import Sample
from probed.recording.chunks import Buffer, Columns

SECONDS = 300.0
"""Samples of so long are together in memory, and may be lost with the daemon."""
SAMPLES = 120
"""At this many a buffer is full earlier: while a streak is confirmed faster than usual."""


class Recorder:
    """Buffers by (probe, target key). ``keep`` takes a buffer over that is not filled any more."""

    def __init__(self, keep: Callable[[Buffer], None]) -> None:
        self._keep = keep
        self._buffers: dict[tuple[str, str], Buffer] = {}
        self._due: dict[tuple[str, str], float] = {}
        """Wall times; spread, so that not all buffers are packed at one moment."""
        self._swept_at = 0.0

    def observe(self, samples: Sequence[Sample], switched_at: float | None = None) -> None:
        """Take the samples of a round in; the pipeline's observer."""
        for sample in samples:
            key = (sample.probe, sample.target.key)
            buffer = self._buffers.get(key)
            if buffer is None:
                buffer = self._buffers[key] = Buffer(sample.probe, sample.target)
                if key not in self._due:
                    self._due[key] = sample.at + SECONDS * (0.2 + 0.8 * _share(key))
            buffer.put(sample)
            # The clock was set back: what is due then is due now.
            if not self._due[key] - SECONDS <= sample.at < self._due[key] or len(buffer) >= SAMPLES:
                self._due[key] = sample.at + SECONDS
                self._keep(self._buffers.pop(key))
        if samples and abs(samples[0].at - self._swept_at) >= SECONDS:
            self._swept_at = samples[0].at
            self._sweep(samples[0].at)

    def _sweep(self, now: float) -> None:
        """Hand on what is not probed any more."""
        for key in [key for key, due in self._due.items() if now - due > SECONDS]:
            del self._due[key]
            if key in self._buffers:
                self._keep(self._buffers.pop(key))

    def flush(self) -> None:
        """Hand everything on: at the end, or because somebody is about to read."""
        buffers = list(self._buffers.values())
        self._buffers.clear()
        for buffer in buffers:
            self._keep(buffer)

    def buffered(self, probe: str, target: str) -> Columns | None:
        """What is in memory of a place."""
        buffer = self._buffers.get((probe, target))
        return buffer.columns() if buffer is not None else None


def _share(key: tuple[str, str]) -> float:
    # A member’s name may be half a surrogate pair, which is no UTF-8.
    return zlib.crc32("|".join(key).encode("utf-8", "replace")) / 0xFFFFFFFF
