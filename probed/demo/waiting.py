"""Wait for a condition, with a deadline, saying what is still missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from probed.demo.errors import LabError

Progress = Callable[[str], None]
POLL_SECONDS = 0.15


def silent(message: str) -> None:
    """A progress callback that says nothing."""


async def until(
    missing: Callable[[], Awaitable[str]],
    *,
    what: str,
    seconds: float,
    progress: Progress = silent,
    log: Path | None = None,
) -> None:
    """Ask ``missing`` again and again until it answers ``""``; what it answers meanwhile goes to ``progress``.

    LabError after ``seconds``: ``what`` did not happen, what was missing last, and the end of ``log``.
    """
    deadline = time.monotonic() + seconds
    said = ""
    while True:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                answer = await missing()
        except TimeoutError:
            answer = said or "no answer"
        if not answer:
            return
        if answer != said:
            progress(f"waiting for {what}: {answer}")
            said = answer
        if time.monotonic() >= deadline:
            raise LabError(f"{what}: not within {seconds:.0f} s ({answer})", log=log)
        await asyncio.sleep(POLL_SECONDS)
