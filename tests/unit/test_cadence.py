"""When cycles start: a fixed grid, no drift, nothing caught up, a stable place for every name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.cadence import BUNDLE, SLOT, SPREAD, Slot, bundled, every, phase
from probed.testing import FakeClock

INTERVALS = st.sampled_from([0.1, 0.2, 0.3, 1.0, 5.0, 7.5, 15.0, 60.0, 300.0])


@contextlib.asynccontextmanager
async def running(clock: FakeClock, interval: float, start: float, work: dict[int, float]) -> AsyncIterator[list[Slot]]:
    """A round of rounds; ``work`` says how long the round of a slot takes, in fake seconds."""
    slots: list[Slot] = []

    async def follow() -> None:
        async for slot in every(interval, start, clock):
            slots.append(slot)
            await clock.sleep_until(clock.mono() + work.get(slot.number, 0.0))

    task = asyncio.create_task(follow())
    yield slots
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_rounds_start_on_a_fixed_grid() -> None:
    clock = FakeClock(now_mono=1_003.0)
    async with running(clock, 5.0, 1.25, {}) as slots:
        await clock.move(20.0)
    assert [slot.due for slot in slots] == [1_006.25, 1_011.25, 1_016.25, 1_021.25]
    assert [slot.number for slot in slots] == [201, 202, 203, 204]


async def test_the_time_that_a_round_takes_never_moves_the_next_one() -> None:
    clock = FakeClock()
    async with running(clock, 5.0, 0.0, dict.fromkeys(range(1_000), 4.9)) as slots:
        await clock.move(1_000.0)
    assert [slot.due for slot in slots] == [1_000.0 + 5.0 * index for index in range(201)]
    assert not any(slot.skipped for slot in slots)


async def test_no_drift_gathers_over_a_million_seconds() -> None:
    clock = FakeClock(now_mono=1e6)
    async with running(clock, 0.1, 0.035, {}) as slots:
        await clock.move(1.0)
    assert len(slots) == 10
    assert [slot.due for slot in slots] == pytest.approx([1e6 + 0.035 + 0.1 * index for index in range(10)], abs=1e-6)


async def test_a_round_that_overran_skips_slots_counts_them_and_catches_nothing_up() -> None:
    clock = FakeClock()
    async with running(clock, 5.0, 0.0, {201: 12.0}) as slots:
        await clock.move(30.0)
    assert [(slot.due, slot.skipped) for slot in slots] == [
        (1_000.0, 0), (1_005.0, 0), (1_020.0, 2), (1_025.0, 0), (1_030.0, 0)
    ]  # fmt: skip


async def test_after_a_suspend_the_next_slot_is_in_the_future_and_the_missed_ones_are_counted() -> None:
    clock = FakeClock()
    async with running(clock, 5.0, 0.0, {}) as slots:
        await clock.move(1.0)
        clock.step(3_600.0)
        await clock.move(5.0)
    assert [slot.skipped for slot in slots] == [0, 0, 719]
    assert slots[1].due == 1_005.0
    assert slots[2].due == 4_605.0


@given(st.text(), INTERVALS)
def test_the_place_of_a_name_is_stable_within_the_interval_and_on_a_slot_of_5_ms(name: str, interval: float) -> None:
    place = phase(name, interval)
    assert place == phase(name, interval)
    assert 0 <= place < interval
    assert place / SLOT == pytest.approx(round(place / SLOT), abs=1e-6)


@given(st.lists(st.integers(1, 2 * BUNDLE), max_size=200), st.integers(0, 5), INTERVALS)
def test_what_starts_in_one_round_starts_soon_in_few_slots_whole_groups_together(
    sizes: list[int], first: int, interval: float
) -> None:
    groups = [[(group, number) for number in range(size)] for group, size in enumerate(sizes)]
    slots = bundled(groups, interval, first)
    assert sorted(one for _, together in slots for one in together) == [one for group in groups for one in group]
    assert [slot for slot, _ in slots] == sorted({slot for slot, _ in slots})
    for slot, together in slots:
        assert 0 <= slot * SLOT < min(SPREAD, interval / 10) or slot == 0
        for group in {group for group, _ in together}:
            assert sum(one == group for one, _ in together) == sizes[group]
    # Nothing is in a second slot that had room in the first.
    if sum(sizes) <= BUNDLE:
        assert len(slots) <= 1


def test_a_large_round_is_no_herd() -> None:
    slots = bundled([[number] for number in range(10 * BUNDLE)], 5.0)
    assert [(slot, len(together)) for slot, together in slots] == [(slot, BUNDLE) for slot in range(10)]


def test_names_are_spread_over_the_interval() -> None:
    places = sorted(phase(f"instance-{index}", 5.0) for index in range(200))
    assert len(set(places)) > 150
    assert max(after - before for before, after in pairwise(places)) < 0.5


def test_the_place_of_a_name_is_the_same_in_every_release() -> None:
    """A restart, or an upgrade, must not have every daemon of a fleet probe at once."""
    assert phase("orders", 5.0) == 2.745
