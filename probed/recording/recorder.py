"""Takes every judged sample in and hands full buffers on. Lives in the event loop: no I/O, a few microseconds each."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

from msgspec import Struct

from probed.model import Sample
from probed.recording.chunks import Buffer, Columns

SECONDS = 300.0
"""Samples of so long are together in memory, and may be lost with the daemon."""
SAMPLES = 120
"""At this many, at the latest, a buffer is full earlier: of short intervals, or while a streak is confirmed faster."""


class _Place(Struct):
    """What is kept of one probe and target. When a buffer is full is spread: not all are to be packed at one moment."""

    due: float
    """Wall time at which it is."""
    most: int
    """Samples with which it is."""
    buffer: Buffer | None = None


class Recorder:
    """Buffers by (probe, target key). ``keep`` takes a buffer over that is not filled any more."""

    def __init__(self, keep: Callable[[Buffer], None]) -> None:
        self._keep = keep
        self._places: dict[tuple[str, str], _Place] = {}
        self._swept_at = 0.0

    def observe(self, samples: Sequence[Sample], switched_at: float | None = None) -> None:
        """Take the samples of a round in; the pipeline's observer."""
        places = self._places
        for sample in samples:
            key = (sample.probe, sample.target.key)
            place = places.get(key)
            if place is None:
                share = _share(key)
                due, most = sample.at + SECONDS * (0.2 + 0.8 * share), round(SAMPLES * (1 - share / 4))
                place = places[key] = _Place(due, most)
            buffer = place.buffer
            if buffer is None:
                buffer = place.buffer = Buffer(sample.probe, sample.target)
            count = buffer.put(sample)
            # The clock was set back: what is due then is due now.
            if not place.due - SECONDS <= sample.at < place.due or count >= place.most:
                place.due = sample.at + SECONDS
                self._hand_on(place)
        if samples and abs(samples[0].at - self._swept_at) >= SECONDS:
            self._swept_at = samples[0].at
            self._sweep(samples[0].at)

    def _hand_on(self, place: _Place) -> None:
        full, place.buffer = place.buffer, None
        if full is not None:
            self._keep(full)

    def _sweep(self, now: float) -> None:
        """Hand on what is not probed any more."""
        for key in [key for key, place in self._places.items() if now - place.due > SECONDS]:
            self._hand_on(self._places.pop(key))

    def flush(self) -> None:
        """Hand everything on: at the end, or because somebody is about to read."""
        for place in self._places.values():
            self._hand_on(place)

    def buffered(self, probe: str, target: str) -> Columns | None:
        """What is in memory of a place."""
        place = self._places.get((probe, target))
        return place.buffer.columns() if place is not None and place.buffer is not None else None


def _share(key: tuple[str, str]) -> float:
    # A member’s name may be half a surrogate pair, which is no UTF-8.
    return zlib.crc32("|".join(key).encode("utf-8", "replace")) / 0xFFFFFFFF
