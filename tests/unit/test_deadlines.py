"""A deadline ends whom it is for, in time, and nobody else."""

from __future__ import annotations

import asyncio
import time

import pytest

from probed.deadlines import Deadline


async def late(seconds: float, lasts: float) -> str:
    began = time.monotonic()
    try:
        with Deadline(seconds):
            await asyncio.sleep(lasts)
    except TimeoutError:
        assert time.monotonic() - began >= seconds - 0.001
        return "late"
    return "in time"


async def test_each_ends_by_its_own_deadline_and_what_is_done_is_left_alone() -> None:
    many = [late(0.05, 30.0) for _ in range(50)] + [late(0.1, 30.0)] + [late(30.0, 0.01) for _ in range(50)]
    assert await asyncio.gather(*many) == ["late"] * 51 + ["in time"] * 50


async def test_a_cancellation_from_elsewhere_is_no_timeout() -> None:
    task = asyncio.create_task(late(30.0, 30.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def both() -> None:
        with Deadline(0.01):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(30.0)

    with pytest.raises(asyncio.CancelledError):
        await both()


async def test_what_is_raised_within_passes_and_what_comes_after_is_not_cancelled() -> None:
    with pytest.raises(KeyError), Deadline(0.01):
        raise KeyError
    await asyncio.sleep(0.03)
    with pytest.raises(TimeoutError), Deadline(0.01), Deadline(10.0):
        await asyncio.sleep(30.0)
    await asyncio.sleep(0)
