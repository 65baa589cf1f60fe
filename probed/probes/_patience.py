"""Waiting for a part of a cycle's time, for probes that ask a second question when the first takes long."""

from __future__ import annotations

import asyncio
from typing import Any

from probed.errors import Blind

STARVED = 1.5
"""A wait that took so many times as long as it should was ours to blame."""


async def overdue(task: asyncio.Task[Any], seconds: float) -> bool:
    """Whether ``task`` has not ended within ``seconds``; it goes on. Blind when this daemon stood still meanwhile."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.wait((task,), timeout=seconds)
    if task.done():
        return False
    waited = loop.time() - began
    if waited > seconds * STARVED:
        raise Blind("lag", f"this daemon stood still for {waited - seconds:.1f} s during the cycle")
    return True
