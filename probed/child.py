"""Work beside the daemon, in a process of its own at low priority: seconds of arithmetic, and no probe late.

In a thread of the daemon it would take turns with the event loop, 5 ms each: every ping would be measured too long.
A request comes as a pickle of our own on stdin, from the parent alone; answers are JSON lines on stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

from probed.errors import StoreError

MAX_LINE = 256 * 1024 * 1024
STEP = 0.01
"""Progress is told when so much more is done."""


async def ask(
    module: str, request: object, *, seconds: float, what: str, progress: Callable[[float], None] = lambda _: None
) -> Any:
    """What ``module``'s ``serve`` answers to a request; ``what`` it is, for messages.

    StoreError when it cannot answer, or not within so many seconds; ended with the asker when that is cancelled.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MAX_LINE
    )
    try:
        async with asyncio.timeout(seconds):
            return await _converse(child, pickle.dumps(request), what, progress)
    except TimeoutError:
        raise StoreError(f"{what} took longer than {seconds:g} s; ask for a shorter time") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _converse(
    child: asyncio.subprocess.Process, sent: bytes, what: str, progress: Callable[[float], None]
) -> Any:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(sent)
    child.stdin.close()
    async for line in child.stdout:
        answer = json.loads(line)
        if "progress" in answer:
            progress(answer["progress"])
        elif "error" in answer:
            raise StoreError(f"{what} cannot be had from the recorded samples: {answer['error']}")
        else:
            return answer["found"]
    raise StoreError(f"{what} ended without an answer; the daemon's log may tell why")


def serve(work: Callable[[Any, Callable[[float], None]], Any], errors: tuple[type[Exception], ...]) -> None:
    """The child: one request, its progress, its answer; ``errors`` are told to the parent."""
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.nice(10)
    request = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our parent, by a pipe that nobody else has
    told = 0.0

    def progress(done: float) -> None:
        nonlocal told
        if done - told >= STEP:
            told = done
            _say({"progress": round(done, 3)})

    try:
        found = work(request, progress)
    except errors as error:
        _say({"error": str(error)})
        return
    _say({"found": found})


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
