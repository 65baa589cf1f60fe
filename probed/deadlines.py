"""Deadlines of many cycles that begin together: one timer for all that end in the same 5 ms, instead of one each."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import ClassVar

GRAIN = 0.005
"""Seconds by which a deadline may come late."""


class _Timer:
    """Cancels whoever is still waiting when its time comes."""

    __slots__ = ("_handle", "_key", "_loop", "_waiting")

    _running: ClassVar[dict[tuple[int, int], _Timer]] = {}
    """By (event loop, time in grains)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, key: tuple[int, int]) -> None:
        self._loop, self._key = loop, key
        self._waiting: set[Deadline] = set()
        self._handle = loop.call_at(key[1] * GRAIN, self._end)

    @classmethod
    def at(cls, loop: asyncio.AbstractEventLoop, time: float, deadline: Deadline) -> _Timer:
        key = (id(loop), math.ceil(time / GRAIN))
        timer = cls._running.get(key)
        if timer is None or timer._loop is not loop:
            timer = cls._running[key] = cls(loop, key)
        timer._waiting.add(deadline)
        return timer

    def leave(self, deadline: Deadline) -> None:
        """It needs no timer any more; the last one takes the timer along, which would wake the loop for nobody."""
        self._waiting.discard(deadline)
        if not self._waiting:
            self._handle.cancel()
            self._forget()

    def _end(self) -> None:
        self._forget()
        for deadline in list(self._waiting):
            deadline.expire()

    def _forget(self) -> None:
        if self._running.get(self._key) is self:
            del self._running[self._key]


class Deadline:
    """``with Deadline(2.0): await …``: what ``asyncio.timeout`` is, within a task that knows no other cancellation.

    TimeoutError when it came first; a cancellation from elsewhere passes.
    """

    __slots__ = ("_cancelling", "_expired", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        loop = task.get_loop()
        self._timer = _Timer.at(loop, loop.time() + self._seconds, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.leave(self)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()
