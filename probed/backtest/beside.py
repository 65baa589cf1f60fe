"""Replays run beside the daemon, in a process of their own at low priority (``child``)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from probed import child
from probed.backtest.comparing import Figures
from probed.backtest.proposing import Survey
from probed.backtest.reporting import Backtester, Report, Request, share
from probed.recording.reading import Reading

LONGEST_SECONDS = 300.0
"""A replay that takes longer is ended."""
MAX_LISTED = 200
"""Events that are told of one kind and target; counted are all."""


class Work(Struct, frozen=True):
    """What the child does: replays of one file, in order."""

    path: Path
    requests: Sequence[Request]
    survey: bool = False
    """Only look at what the present policies tell, for proposals."""


class Beside:
    """Has replays run, one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = asyncio.Lock()

    @property
    def busy(self) -> bool:
        return self._turn.locked()

    async def reports(
        self, requests: Sequence[Request], progress: Callable[[float], None] = lambda _: None
    ) -> list[dict[str, Any]]:
        """``Report`` as plain data for each request. StoreError when the recorded samples cannot be read."""
        found: list[dict[str, Any]] = await self._answer(Work(self._path, requests), progress)
        return found

    async def surveys(self, requests: Sequence[Request]) -> list[Survey]:
        """Of the present policy of each request. StoreError as above."""
        found = await self._answer(Work(self._path, requests, survey=True), lambda _: None)
        return [Survey(**{**item, "figures": Figures(**item["figures"])}) for item in found]

    async def _answer(self, work: Work, progress: Callable[[float], None]) -> list[dict[str, Any]]:
        async with self._turn:
            found: list[dict[str, Any]] = await child.ask(
                __name__, work, seconds=LONGEST_SECONDS, what="the replay", progress=progress
            )
            return found


def main() -> None:
    """The child."""
    child.serve(_work, (sqlite3.Error, ValueError, TypeError))


def _work(work: Work, progress: Callable[[float], None]) -> list[dict[str, Any]]:
    with closing(Reading(work.path)) as reading:
        reading.hold()
        backtester = Backtester(reading)
        found: list[dict[str, Any]] = []
        for number, request in enumerate(work.requests):
            part = share(progress, number, len(work.requests))
            if work.survey:
                found.append(to_builtins(backtester.survey(request, part)))
            else:
                found.append(plain(backtester.run(request, part)))
        return found


def plain(report: Report) -> dict[str, Any]:
    """As JSON objects and lists, with lists of bounded length beside whole counts."""
    data: dict[str, Any] = to_builtins(report)
    for target in data["targets"]:
        difference = target.pop("difference")
        target["kept"] = difference["kept"]
        for kind in ("gained", "lost", "moved"):
            target[f"{kind}_count"] = len(difference[kind])
            target[kind] = difference[kind][:MAX_LISTED]
    return data


if __name__ == "__main__":
    main()
