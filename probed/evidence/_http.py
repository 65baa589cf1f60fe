"""What the collectors over HTTP share: one JSON answer of one address, or of the first of several that gives one."""

from __future__ import annotations

import asyncio
from typing import Any

from probed.errors import ProbeError, TargetFailed
from probed.probes import Context
from probed.probes._http import Answer

MAX_ASKED = 4


async def first_answer(context: Context, path: str) -> Answer:
    """The first HTTP 200 of the target's addresses, which are asked at once. Else the ProbeError of the last."""
    asked = [
        asyncio.create_task(context.http.get(f"{url}{path}", access=context.access)) for url in context.urls[:MAX_ASKED]
    ]
    last: ProbeError = TargetFailed("no_answer", "no address is known")
    try:
        for ended in asyncio.as_completed(asked):
            try:
                answer = await ended
            except ProbeError as error:
                last = error.with_traceback(None)  # which holds this frame, as the frame holds the error
                continue
            if answer.status == 200:
                return answer
            last = TargetFailed("status", f"{answer.url}: HTTP {answer.status}")
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    raise last


async def part(context: Context, path: str) -> Any:
    """The JSON at an address, or a line that says why there is none: for snapshots of several parts."""
    try:
        return (await context.http.get(f"{context.urls[0]}{path}", access=context.access)).json()
    except ProbeError as error:
        return f"could not be had: {error}"
