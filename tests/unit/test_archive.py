"""Recorded samples live in a file of their own: bounded, read with what is in memory, and never in the daemon's way."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from probed.errors import StoreError
from probed.model import Outcome, Sample
from probed.recording.archive import Archive
from probed.recording.chunks import Buffer
from probed.recording.database import FULL, NAME, PURGE_SECONDS, SLICE
from probed.recording.reading import Reading
from probed.recording.recorder import SAMPLES, SECONDS, Recorder
from probed.testing import TARGET, FakeClock, make_sample

PROBE = "postgres_liveness"
DAY = 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def opened(directory: Path, clock: FakeClock, *, retention: float = 14 * DAY, max_bytes: int = 2**30) -> Archive:
    archive = Archive(directory, clock, retention=retention, max_bytes=max_bytes, observer="test")
    archive.open()
    return archive


@pytest.fixture
async def archive(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Archive]:
    made = opened(tmp_path, clock)
    yield made
    await made.close()


def sampled(archive: Archive, clock: FakeClock, count: int, every: float = 5.0) -> list[Sample]:
    """So many samples of one target, as rounds bring them."""
    taken = []
    for _ in range(count):
        clock.step(every)
        number = round(clock.mono() * 1000) * 2654435761 % 2**32 / 2**20  # as good as chance: it does not deflate
        sample = make_sample(readings={"ping_seconds": number}, mono=clock.mono(), at=clock.wall(), reason="")
        archive.observe([sample], None)
        taken.append(sample)
    return taken


async def all_of(archive: Archive, since: float = 0.0, until: float = 1e11, limit: int = 100_000) -> list[Sample]:
    return list(await archive.samples(PROBE, TARGET.key, since, until, limit))


def told(samples: list[Sample]) -> list[tuple[float, object]]:
    return [(sample.at, sample.readings["ping_seconds"]) for sample in samples]


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path / NAME)) as connection:
        return connection.execute(sql).fetchall()


async def test_what_is_in_the_file_and_what_is_in_memory_are_read_as_one(archive: Archive, clock: FakeClock) -> None:
    taken = sampled(archive, clock, 200)
    assert told(await all_of(archive)) == told(taken)
    await archive.written()
    assert told(await all_of(archive)) == told(taken)
    more = sampled(archive, clock, 7)
    assert told(await all_of(archive)) == told([*taken, *more])


async def test_a_span_is_answered_from_its_first_sample_to_before_its_end(archive: Archive, clock: FakeClock) -> None:
    taken = sampled(archive, clock, 300)
    found = await all_of(archive, taken[100].at, taken[200].at)
    assert told(found) == told(taken[100:200])
    assert told(await all_of(archive, taken[100].at, taken[200].at, limit=3)) == told(taken[100:103])


async def test_the_next_daemon_finds_what_the_last_one_recorded(tmp_path: Path, clock: FakeClock) -> None:
    first = opened(tmp_path, clock)
    taken = sampled(first, clock, 20)
    await first.close()
    second = opened(tmp_path, clock)
    taken += sampled(second, clock, 20)
    assert told(await all_of(second)) == told(taken)
    await second.close()
    assert rows(tmp_path, "SELECT count(DISTINCT run) FROM chunk") == [(2,)]


async def test_small_chunks_are_merged_by_the_hour(tmp_path: Path, archive: Archive, clock: FakeClock) -> None:
    taken = sampled(archive, clock, 2 * FULL)
    await archive.written()
    counts = [int(str(count)) for (count,) in rows(tmp_path, "SELECT count FROM chunk ORDER BY mono")]
    assert counts[0] >= FULL
    assert sum(counts[1:]) < FULL
    assert rows(tmp_path, "SELECT count(*) FROM body") == [(len(counts),)]
    assert told(await all_of(archive)) == told(taken)


async def test_what_is_sampled_once_a_minute_is_merged_too(tmp_path: Path, archive: Archive, clock: FakeClock) -> None:
    taken = sampled(archive, clock, 400, every=60)
    await archive.written()
    counts = [int(str(count)) for (count,) in rows(tmp_path, "SELECT count FROM chunk ORDER BY mono")]
    assert len(counts) < 400 / 20
    assert told(await all_of(archive)) == told(taken)


async def test_chunks_never_overlap_however_samples_come(tmp_path: Path, archive: Archive, clock: FakeClock) -> None:
    taken = []
    for number in range(60):  # now and then a streak is confirmed once a second
        taken += sampled(archive, clock, 100, every=1) if number % 7 == 3 else sampled(archive, clock, 20, every=60)
    await archive.written()
    assert told(await all_of(archive)) == told(taken)


async def test_what_is_older_than_the_retention_goes(tmp_path: Path, clock: FakeClock) -> None:
    archive = opened(tmp_path, clock, retention=DAY)
    old = sampled(archive, clock, 50)
    await archive.written()
    clock.step(2 * DAY)
    new = sampled(archive, clock, 50)
    await archive.written()
    clock.step(PURGE_SECONDS)
    for _ in range(3):
        await archive.written()
    assert told(await all_of(archive)) == told(new)
    assert old
    await archive.close()


async def test_the_file_stays_within_its_size_by_losing_the_oldest(tmp_path: Path, clock: FakeClock) -> None:
    archive = opened(tmp_path, clock, max_bytes=400_000)
    taken = []
    for _ in range(4 * SLICE):
        taken += sampled(archive, clock, 4 * SAMPLES, every=7)
        await archive.written()
        clock.step(PURGE_SECONDS)
        await archive.written()
    left = told(await all_of(archive))
    assert 0 < len(left) < len(taken)
    assert left == told(taken)[-len(left) :]
    assert (tmp_path / NAME).stat().st_size < 800_000
    await archive.close()


async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, clock: FakeClock) -> None:
    first = opened(tmp_path, clock)
    sampled(first, clock, 50)
    await first.close()
    raw = bytearray((tmp_path / NAME).read_bytes())
    raw[100:] = os.urandom(len(raw) - 100)
    (tmp_path / NAME).write_bytes(bytes(raw))
    second = opened(tmp_path, clock)
    taken = sampled(second, clock, 50)
    await second.written()
    assert told(await all_of(second)) == told(taken)
    assert (tmp_path / f"{NAME}.damaged").read_bytes() == bytes(raw)
    await second.close()


async def test_something_that_is_no_database_is_set_aside(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / NAME).write_text("not a database" * 1000)
    archive = opened(tmp_path, clock)
    taken = sampled(archive, clock, 3)
    await archive.written()
    assert told(await all_of(archive)) == told(taken)
    await archive.close()


async def test_a_disk_that_refuses_costs_the_samples_of_the_moment_and_nothing_else(
    tmp_path: Path, clock: FakeClock
) -> None:
    blocked = tmp_path / "nowhere"
    archive = opened(blocked, clock)  # the directory does not exist
    sampled(archive, clock, 50)
    await archive.written()
    assert archive.file.tally.dropped == 50
    assert "unable to open" in archive.file.degraded
    with pytest.raises(StoreError, match="cannot be read"):
        await all_of(archive)
    blocked.mkdir()
    taken = sampled(archive, clock, 50)
    await archive.written()
    assert told(await all_of(archive)) == told(taken)
    assert archive.file.degraded == ""
    await archive.close()


async def test_a_chunk_that_cannot_be_unpacked_is_told_and_does_not_stop_the_recording(
    tmp_path: Path, archive: Archive, clock: FakeClock
) -> None:
    sampled(archive, clock, SAMPLES)
    await archive.written()
    with closing(sqlite3.connect(tmp_path / NAME)) as connection, connection:
        connection.execute("UPDATE body SET data = x'00'")
    taken = sampled(archive, clock, FULL)
    await archive.written()
    assert told(await all_of(archive, taken[0].at)) == told(taken)
    assert archive.file.tally.dropped == 0


async def test_a_long_span_is_thinned_to_its_extremes(archive: Archive, clock: FakeClock) -> None:
    def round_of(value: float, outcome: Outcome = Outcome.OBSERVED) -> None:
        clock.step(5)
        readings = {"ping_seconds": value} if outcome is Outcome.OBSERVED else {}
        archive.observe([make_sample(outcome, readings, mono=clock.mono(), at=clock.wall())])

    start = clock.wall()
    for number in range(3000):
        round_of(0.001, Outcome.FAILED) if number == 1234 else round_of(0.9 if number == 2111 else 0.001)
    thinned = await archive.thinned(PROBE, TARGET.key, start, clock.wall() + 1, 60)
    assert 30 <= len(thinned) <= 70
    assert [sample.at for sample in thinned] == sorted(sample.at for sample in thinned)
    assert max(sample.readings.get("ping_seconds", 0.0) for sample in thinned) == 0.9
    assert [sample.outcome for sample in thinned].count(Outcome.FAILED) == 1


def test_buffers_are_handed_on_when_they_are_full_or_old_and_when_a_target_is_gone() -> None:
    kept: list[Buffer] = []
    recorder = Recorder(kept.append)
    for number in range(400):
        recorder.observe([make_sample(mono=5.0 * number, at=1_790_000_000 + 5.0 * number)])
    assert all(len(buffer) <= SECONDS / 5 for buffer in kept)
    assert len(kept) >= 400 * 5 / SECONDS - 1
    kept.clear()
    for number in range(400):
        sample = make_sample(probe="connections", mono=0.1 * number, at=1_790_010_000 + 0.1 * number)
        recorder.observe([sample])
    assert {buffer.probe for buffer in kept} == {PROBE, "connections"}
    assert SAMPLES / 2 < max(map(len, kept)) <= SAMPLES


def test_what_is_sampled_often_is_not_all_packed_at_one_moment() -> None:
    kept: list[Buffer] = []
    recorder = Recorder(kept.append)
    targets = [replace(TARGET, instance=f"i{number}") for number in range(40)]
    at_once = []
    for number in range(4 * SAMPLES):
        at = 0.1 * number
        recorder.observe([make_sample(target=target, mono=at, at=1_790_000_000 + at) for target in targets])
        at_once.append(len(kept))
        kept.clear()
    assert 3 * len(targets) <= sum(at_once)
    assert max(at_once) <= len(targets) / 4


def test_a_clock_that_is_set_back_keeps_no_buffer_for_ever() -> None:
    kept: list[Buffer] = []
    recorder = Recorder(kept.append)
    recorder.observe([make_sample(mono=1.0, at=1_790_000_000.0)])
    recorder.observe([make_sample(mono=2.0, at=1_700_000_000.0)])
    assert [len(buffer) for buffer in kept] == [2]


async def test_places_tell_how_much_there_is(tmp_path: Path, archive: Archive, clock: FakeClock) -> None:
    taken = sampled(archive, clock, 30)
    await archive.written()
    (one,) = await archive.recorded()
    assert (one.place.probe, one.place.target) == (PROBE, TARGET)
    assert (one.first_at, one.last_at, one.samples) == (taken[0].at, taken[-1].at, 30)
    assert await archive.recorded("orders/node-z/postgres") == []
    with closing(Reading(tmp_path / NAME)) as reading, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reading._connection.execute("DELETE FROM chunk")
