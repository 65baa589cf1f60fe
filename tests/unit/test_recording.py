"""What is recorded comes back as it was judged: every time, outcome, reading and word of it."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.model import Outcome, Reading, Sample
from probed.recording.chunks import MAX_REASONS, WAITING, Buffer, Columns, Digest, unpack
from probed.recording.packing import Reader, Writer
from probed.testing import TARGET, make_sample

PROBE = "postgres_liveness"
numbers = st.one_of(
    st.floats(),
    st.integers(-(2**53), 2**53),
    st.integers(0, 100),
    st.integers(0, 10_000_000).map(lambda number: number / 1_000_000),
)
readings = st.dictionaries(
    st.sampled_from(["lag_seconds", "deadlocks", "leader", "ping_seconds"]),
    st.one_of(numbers, st.sampled_from(["node-a", "node-b", ""]), st.text(max_size=5)),
    max_size=3,
)
millis = st.integers(0, 2_000_000_000_000)


@st.composite
def histories(draw: st.DrawFn) -> list[Sample]:
    """Samples in order, their times in whole milliseconds as probes are timed."""
    samples: list[Sample] = []
    mono = draw(st.integers(0, 10_000_000_000))
    for _ in range(draw(st.integers(1, WAITING + 4))):
        mono += draw(st.one_of(st.just(5_000), st.integers(1, 100_000_000)))
        again = draw(st.booleans())
        found = samples[-1].readings if samples and again else draw(readings)
        samples.append(
            make_sample(
                draw(st.sampled_from(Outcome)), found, probe=PROBE, mono=mono / 1000,
                at=draw(millis) / 1000, reason=draw(st.sampled_from(["", "refused", "no\nanswer ✓"])),
                kind=draw(st.sampled_from(["", "refused", "timeout"])), series=draw(st.sampled_from(["", "a/1", "a/2"])),
            )
        )  # fmt: skip
    return samples


def packed(samples: Sequence[Sample]) -> Buffer:
    buffer = Buffer(PROBE, TARGET)
    for sample in samples:
        buffer.put(sample)
    return buffer


def essence(sample: Sample) -> tuple[object, ...]:
    """All of a sample that is recorded; numbers by their bits, so that NaN and -0.0 count."""
    found = {name: _bits(reading) for name, reading in sample.readings.items()}
    return sample.outcome, sample.at, sample.mono, found, sample.reason, sample.kind, sample.series


def _bits(reading: Reading) -> object:
    return struct.pack("d", reading) if isinstance(reading, float) else reading


@given(histories())
def test_a_chunk_gives_back_every_sample_exactly(samples: list[Sample]) -> None:
    buffer = packed(samples)
    wanted = [essence(sample) for sample in samples]
    assert [essence(sample) for sample in unpack(buffer.pack(), PROBE, TARGET)] == wanted
    assert [essence(sample) for sample in buffer.columns()] == wanted


@given(histories())
def test_a_digest_says_nothing_that_a_sample_contradicts(samples: list[Sample]) -> None:
    digest = Digest.load(packed(samples).digest().dump())
    assert digest.count == len(samples)
    assert (digest.first_at, digest.last_at) == (samples[0].at, samples[-1].at)
    assert (digest.first_mono, digest.last_mono) == (samples[0].mono, samples[-1].mono)
    assert digest.outcomes == {sample.outcome for sample in samples}
    observed = [sample for sample in samples if sample.outcome is Outcome.OBSERVED]
    assert digest.series is None or all(sample.series == digest.series for sample in observed)
    for sample in samples:
        assert sample.readings.keys() <= digest.extents.keys()
    for name, extent in digest.extents.items():
        cells = [sample.readings.get(name) for sample in samples]
        assert not extent.complete or all(isinstance(cell, float | int) for cell in cells)
        assert extent.word is None or {cell for cell in cells if cell is not None} == {extent.word}
        for cell in cells:
            if isinstance(cell, float | int) and math.isfinite(cell):
                assert not extent.never(">=", cell)
                assert not extent.never("<=", cell)
                assert not extent.never("==", cell)
                assert not extent.always("!=", cell)


@given(st.lists(numbers.map(float), max_size=80))
def test_numbers_come_back_bit_by_bit(values: list[float]) -> None:
    writer = Writer()
    writer.numbers(array("d", values))
    again = Reader(bytes(writer.data)).numbers(len(values))
    assert array("d", again).tobytes() == array("d", values).tobytes()


@given(st.lists(st.integers(-(2**55), 2**55), max_size=80))
def test_whole_numbers_come_back(values: list[int]) -> None:
    writer = Writer()
    writer.ints(values)
    assert Reader(bytes(writer.data)).ints(len(values)) == values


@given(st.binary(max_size=200))
def test_what_is_no_chunk_is_refused_and_never_more_than_that(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a chunk"):
        unpack(data, PROBE, TARGET)


def test_a_peer_that_says_something_else_each_time_is_quoted_a_limited_number_of_times() -> None:
    samples = [make_sample(Outcome.FAILED, mono=5.0 * n, reason=f"error {n}", kind="protocol") for n in range(100)]
    again = list(packed(samples).columns())
    assert [sample.reason for sample in again][MAX_REASONS - 1 : MAX_REASONS + 1] == [f"error {MAX_REASONS - 1}", ""]
    assert {sample.kind for sample in again} == {"protocol"}


def test_an_endless_number_leaves_the_bounds_open() -> None:
    samples = [make_sample(readings={"lag_seconds": value}, mono=5.0 * n) for n, value in enumerate((1.0, math.nan))]
    extent = packed(samples).digest().extents["lag_seconds"]
    assert not extent.never(">=", 1e300)
    assert not extent.always(">=", 0.0)


def test_columns_know_which_series_each_sample_is_of() -> None:
    samples = [make_sample(mono=5.0 * n, series=series) for n, series in enumerate(("a", "a", "b"))]
    columns: Columns = packed(samples).columns()
    assert columns.series() == ["a", "a", "b"]
