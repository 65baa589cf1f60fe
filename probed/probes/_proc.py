"""Calls that may hang in the kernel or the C library (a stale mount, a resolver), kept away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import ClassVar, Generic, TypeVar

from probed.errors import Blind

_T = TypeVar("_T")

PATIENCE_SHARE = 0.9
"""Of the cycle's time: a call that hangs has to be told as our blindness before the deadline makes it a failure."""


class _Worker:
    """A daemon thread that does one thing after the other. While it hangs in one, nobody gives it another."""

    MOST_IDLE = 4
    """That wait for work; a thread costs ten times what it costs to wake one."""
    _idle: ClassVar[deque[_Worker]] = deque()

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @classmethod
    def do(cls, work: Callable[[], None], name: str) -> None:
        """Have ``work``, which does not raise, done at once: by one that is idle, else by a new one."""
        try:
            worker = cls._idle.pop()
        except IndexError:
            worker = cls()
        worker._thread.name = name
        worker._work.put(work)

    def _run(self) -> None:
        while True:
            self._work.get()()
            if len(self._idle) >= self.MOST_IDLE:
                return
            self._idle.append(self)


class OwnThread(Generic[_T]):
    """One call of ``function`` in a daemon thread that it has to itself.

    A daemon, so that a call that hangs cannot keep this process from ending; the shared executor's threads would, and
    a dozen hung calls would starve everybody else who uses them.
    """

    def __init__(self, function: Callable[[], _T], name: str) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the call has returned or raised; it carries neither."""
        self._value: list[_T] = []
        self._error: Exception | None = None
        _Worker.do(partial(self._run, function), name)

    def result(self) -> _T:
        """What the call returned; raises what it raised. Only once ``ended`` is done."""
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _run(self, function: Callable[[], _T]) -> None:
        try:
            self._value.append(function())
        except Exception as error:  # noqa: BLE001 - result() raises it in the caller's task
            self._error = error
        with contextlib.suppress(RuntimeError):  # the loop has gone: nobody is waiting any more
            self.ended.get_loop().call_soon_threadsafe(self.ended.set_result, None)


def hangs(memory: Mapping[str, object]) -> bool:
    """Whether a call of this target's has not returned yet."""
    earlier = memory.get("call")
    return isinstance(earlier, OwnThread) and not earlier.ended.done()


async def in_own_thread(memory: dict[str, object], function: Callable[[], _T], patience: float) -> _T:
    """Run ``function`` in a daemon thread of this target's own; at most one at a time.

    Blind when it has not returned within ``patience`` seconds; and at once, without a second thread, while an earlier
    call of this target still hangs.
    """
    if hangs(memory):
        raise Blind("timeout", "an earlier call into the kernel still hangs (a stale mount?)")
    memory["call"] = call = OwnThread(function, "probe-kernel-call")
    await asyncio.wait({call.ended}, timeout=patience)
    if not call.ended.done():
        raise Blind("timeout", f"a call into the kernel hangs for {patience:.1f} s (a stale mount?)")
    return call.result()
