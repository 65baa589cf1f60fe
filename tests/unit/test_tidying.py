"""The garbage collector's work is done a little and often, and everything is walked over seldom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator

from probed.testing import FakeClock, settle
from probed.tidying import ALL_EACH, YOUNG_EACH, tidy


class Cycle:
    """Only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


@contextlib.asynccontextmanager
async def tidied() -> AsyncIterator[FakeClock]:
    clock = FakeClock()
    task = asyncio.create_task(tidy(clock))
    await settle()
    try:
        yield clock
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_cycle_that_ends_young_goes_within_half_a_second() -> None:
    async with tidied() as clock:
        gone = weakref.ref(Cycle())
        await clock.move(YOUNG_EACH)
        assert gone() is None


async def test_what_lives_longer_is_not_walked_over_again_until_everything_is() -> None:
    async with tidied() as clock:
        kept: list[Cycle] = [Cycle()]
        gone = weakref.ref(kept[0])
        await clock.move(YOUNG_EACH)
        kept.clear()
        await clock.move(10.0)
        assert gone() is not None
        await clock.move(ALL_EACH)
        assert gone() is None


async def test_the_collector_is_left_as_it_was_found() -> None:
    before = gc.get_threshold()
    async with tidied():
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before
    assert gc.isenabled()
