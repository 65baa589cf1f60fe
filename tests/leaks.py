"""What a test must not leave behind, and how much memory it may take meanwhile."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TypeVar

import pytest

from probed.model import Sample

T = TypeVar("T")
MIB = 2**20
PATIENCE = 10.0
"""Seconds for what happens by itself: this machine may be busy."""


@contextlib.asynccontextmanager
async def nothing_left_behind(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Afterwards there is no descriptor and no task more, and no word in the log of an error that nobody looked at."""
    before = descriptors()
    yield
    gc.collect()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    await eventually(lambda: descriptors() <= before)
    # A fixture ends in another phase than the test that it looks after.
    records = {id(record): record for phase in ("setup", "call", "teardown") for record in caplog.get_records(phase)}
    assert [record.getMessage() for record in records.values() if record.levelno >= logging.WARNING] == []


@contextlib.contextmanager
def nothing_for_the_collector() -> Iterator[None]:
    """What came and went inside went by its counts of references: it left no cycle of ours that only a walk finds."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = collections.Counter(filter(None, map(_of_ours, gc.garbage)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == {}


def _of_ours(thing: object) -> str:
    """What it is, if it is ours: an object of the daemon's, or a frame that an error's traceback has kept."""
    if isinstance(thing, FrameType):
        return thing.f_code.co_qualname if thing.f_globals.get("__name__", "").startswith("probed.") else ""
    kind = type(thing)
    return kind.__qualname__ if kind.__module__.startswith("probed.") else ""


def descriptors() -> int:
    """Open files and sockets of this process."""
    return len(os.listdir("/proc/self/fd"))


async def eventually(condition: Callable[[], bool], within: float = PATIENCE) -> None:
    """Wait until a condition holds; polled, with a deadline."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        await asyncio.sleep(0.01)


async def unstarved(take: Callable[[], Awaitable[Sample]]) -> Sample:
    """A sample of ``take``; one that this machine starved says nothing, and another is taken."""
    while True:
        sample = await take()
        if sample.kind != "lag":
            return sample


async def peak_growth(work: Awaitable[T]) -> tuple[T, float]:
    """(what ``work`` returned, by how many MiB the process grew at most meanwhile)."""
    gc.collect()
    before = peak = _resident()
    task = asyncio.ensure_future(work)
    while not task.done():
        peak = max(peak, _resident())
        await asyncio.sleep(0.002)
    return await task, (max(peak, _resident()) - before) / MIB


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
