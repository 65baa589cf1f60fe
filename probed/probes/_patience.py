"""Waiting for a part of a cycle's time, for probes that ask a second question when the first takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from probed.errors import Blind, ProbeError

STARVED = 1.5
"""A wait that took so many times as long as it should was ours to blame."""


async def overdue(task: asyncio.Task[Any], seconds: float) -> bool:
    """Whether ``task`` has not ended within ``seconds``; it goes on. Blind when this daemon stood still meanwhile."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    # What asyncio.wait does for many, at a third of its price.
    woken = loop.create_future()

    def wake(_: object) -> None:
        if not woken.done():
            woken.set_result(None)

    timer = loop.call_later(seconds, wake, None)
    task.add_done_callback(wake)
    try:
        await woken
    finally:
        timer.cancel()
        task.remove_done_callback(wake)
    if task.done():
        return False
    waited = loop.time() - began
    if waited > seconds * STARVED:
        raise Blind("lag", f"this daemon stood still for {waited - seconds:.1f} s during the cycle")
    return True


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Have all of them end, and what they raised looked at by somebody: else it is reported as an error of ours."""
    left = []
    for task in tasks:
        if not task.done():
            task.cancel()
            left.append(task)
        elif not task.cancelled() and isinstance(error := task.exception(), ProbeError):
            error.__traceback__ = None  # it knows the caller's frame, and that the task: work for the collector
    if left:
        await asyncio.gather(*left, return_exceptions=True)
