"""Calls into the kernel that may hang (a stale NFS mount), kept away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from probed.errors import Blind

_T = TypeVar("_T")


async def in_own_thread(memory: dict[str, object], function: Callable[[], _T]) -> _T:
    """Run ``function`` in a daemon thread of this target's own; at most one at a time.

    While an earlier call still hangs no second thread is started: Blind. The thread is a daemon, so that a hung mount
    cannot keep this process from ending; the shared executor's threads would.
    """
    stuck = memory.get("thread")
    if isinstance(stuck, threading.Thread) and stuck.is_alive():
        raise Blind("timeout", "an earlier call into the kernel still hangs (a stale mount?)")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(value: _T | None, error: OSError | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value: _T | None = None
        failure: OSError | None = None
        try:
            value = function()
        except OSError as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has gone: nobody is waiting any more
            loop.call_soon_threadsafe(settle, value, failure)

    thread = threading.Thread(target=run, name="probe-kernel-call", daemon=True)
    memory["thread"] = thread
    thread.start()
    return await done
