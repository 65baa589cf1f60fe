"""Calls that may hang in the kernel or the C library (a stale mount, a resolver), kept away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from probed.errors import Blind

_T = TypeVar("_T")

PATIENCE_SHARE = 0.9
"""Of the cycle's time: a call that hangs has to be told as our blindness before the deadline makes it a failure."""


IDLE_SECONDS = 90.0
"""For which a thread waits for the next call: longer than the slowest interval that ships."""
_waiting: list[_Thread] = []
_turn = threading.Lock()


class _Thread(threading.Thread):
    """Makes calls, one after the other; while one hangs, it makes no other."""

    def __init__(self, call: Callable[[], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._calls.put(call)

    def run(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self._next()()
                with _turn:
                    _waiting.append(self)

    def _next(self) -> Callable[[], None]:
        """The next call. Empty when none came for long and none will."""
        try:
            return self._calls.get(timeout=IDLE_SECONDS)
        except Empty:
            with _turn:
                if self in _waiting:
                    _waiting.remove(self)
                    raise
            return self._calls.get()  # it was chosen in this very moment

    @staticmethod
    def make(call: Callable[[], None], name: str) -> None:
        """Have a thread that waits make the call, or a new one."""
        with _turn:
            free = _waiting.pop() if _waiting else None
        if free is not None:
            free._calls.put(call)
        else:
            _Thread(call, name).start()


class OwnThread(Generic[_T]):
    """One call of ``function`` in a daemon thread that nobody else uses meanwhile.

    A daemon, so that a call that hangs cannot keep this process from ending; the shared executor's threads would, and
    a dozen hung calls would starve everybody else who uses them.
    """

    def __init__(self, function: Callable[[], _T], name: str) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the call has returned or raised; it carries neither."""
        self._value: list[_T] = []
        self._error: Exception | None = None
        _Thread.make(partial(self._run, function), name)

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
