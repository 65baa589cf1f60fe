"""Replays run beside the daemon, in a process of their own at low priority: seconds of arithmetic, and no probe late.

In a thread of the daemon they would take turns with the event loop, 5 ms each: every ping would be measured too long.
A request comes as a pickle of our own on stdin, from the parent alone; answers are JSON lines on stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probed.backtest.comparing import Figures
from probed.backtest.proposing import Survey
from probed.backtest.reporting import Backtester, Report, Request, share
from probed.errors import StoreError
from probed.recording.reading import Reading

LONGEST_SECONDS = 300.0
"""A replay that takes longer is ended."""
STEP = 0.01
"""Progress is told when so much more is done."""
MAX_LINE = 256 * 1024 * 1024
MAX_LISTED = 200
"""Events that are told of one kind and target; counted are all."""


@dataclass(frozen=True, slots=True)
class Work:
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
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "probed.backtest.beside",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MAX_LINE,
            )  # fmt: skip
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    return await _converse(child, pickle.dumps(work), progress)
            except TimeoutError:
                raise StoreError(f"the replay took longer than {LONGEST_SECONDS:g} s; ask for a shorter time") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()


async def _converse(
    child: asyncio.subprocess.Process, sent: bytes, progress: Callable[[float], None]
) -> list[dict[str, Any]]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(sent)
    child.stdin.close()
    async for line in child.stdout:
        answer = json.loads(line)
        if "progress" in answer:
            progress(answer["progress"])
        elif "error" in answer:
            raise StoreError(f"the recorded samples cannot be replayed: {answer['error']}")
        else:
            found: list[dict[str, Any]] = answer["reports"]
            return found
    raise StoreError("the replay ended without an answer; the daemon's log may tell why")


def main() -> None:
    """The child."""
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.nice(10)
    work: Work = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our parent, by a pipe that nobody else has
    told = 0.0

    def progress(done: float) -> None:
        nonlocal told
        if done - told >= STEP:
            told = done
            _say({"progress": round(done, 3)})

    try:
        with closing(Reading(work.path)) as reading:
            reading.hold()
            backtester = Backtester(reading)
            found: list[dict[str, Any]] = []
            for number, request in enumerate(work.requests):
                part = share(progress, number, len(work.requests))
                if work.survey:
                    found.append(asdict(backtester.survey(request, part)))
                else:
                    found.append(plain(backtester.run(request, part)))
    except (sqlite3.Error, ValueError, TypeError) as error:
        _say({"error": str(error)})
        return
    _say({"reports": found})


def plain(report: Report) -> dict[str, Any]:
    """As JSON objects and lists, with lists of bounded length beside whole counts."""
    data = asdict(report)
    for target in data["targets"]:
        difference = target.pop("difference")
        target["kept"] = difference["kept"]
        for kind in ("gained", "lost", "moved"):
            target[f"{kind}_count"] = len(difference[kind])
            target[kind] = difference[kind][:MAX_LISTED]
    return data


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
