"""The child of ``test_store_kills``: commits as fast as it can, and notes what was acknowledged until it is killed.

``python -m tests.reliability.appending STORE LEDGER``. Each line of the ledger is a transition whose future was done;
it is written and synchronised only after that. Exit 3: what the store gave back contradicts itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from probed.incidents import new_id
from probed.model import Event, EventState, Phase, Severity, Streak, Target
from probed.store import Change, Commit, Recovered
from probed.store.sqlite import SqliteStore
from probed.testing import make_sample

WATCHES = 40
"""As many events open and resolve over each other."""


def watch(number: int) -> tuple[str, Target]:
    target = Target("orders", f"node-{number}", "postgres")
    return f"database_unavailable|{target.key}", target


def opening(number: int) -> Commit:
    key, target = watch(number)
    at = time.time()
    event = Event(
        new_id(at),
        "database_unavailable",
        "Database access unavailable",
        Severity.FATAL,
        EventState.OPEN,
        target,
        at,
        "x",
    )
    before = tuple(make_sample(target=target, at=at - n) for n in range(3))
    return Commit(
        changes=(Change(event, "opened", at, before=before),), streaks={key: Streak(Phase.OPEN, 3, since_at=at)}
    )


def resolving(event: Event) -> Commit:
    at = time.time()
    done = replace(event, state=EventState.RESOLVED, resolved_at=at, resolve_reason="recovered")
    return Commit(
        changes=(Change(done, "resolved", at),), streaks={f"{event.event}|{event.target.key}": Streak(last_mono=1.0)}
    )


class Ledger:
    """Lines that are on disk when ``note`` returns; what came together is synchronised together."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._lines: list[str] = []
        self._flush: asyncio.Task[None] | None = None

    async def note(self, line: str) -> None:
        self._lines.append(line)
        if self._flush is None:
            self._flush = asyncio.create_task(self._write())
        await self._flush

    async def _write(self) -> None:
        await asyncio.sleep(0)
        lines, self._lines, self._flush = self._lines, [], None
        os.write(self._file, "".join(lines).encode())
        os.fsync(self._file)


async def toggle(store: SqliteStore, ledger: Ledger, number: int, left: Event | None) -> None:
    """Open and resolve the event of one watch for ever, beginning with what the last child left."""
    event = left
    while True:
        commit = opening(number) if event is None else resolving(event)
        await store.append(commit)
        (change,) = commit.changes
        await ledger.note(f"{change.event.id} {change.kind}\n")
        event = change.event if change.kind == "opened" else None


def contradictions(recovered: Recovered) -> Sequence[str]:
    """Open events and open streaks are written together, so they are found together."""
    events = {f"{event.event}|{event.target.key}" for event in recovered.open_events}
    streaks = {key for key, streak in recovered.streaks.items() if streak.phase is Phase.OPEN}
    return sorted(events ^ streaks)


async def main(directory: Path, ledger_path: Path) -> int:
    store = SqliteStore(directory)
    recovered = await store.open()
    wrong = contradictions(recovered)
    if wrong:
        print("an event without its streak, or a streak without its event:", *wrong, flush=True)
        return 3
    left = {event.target.node: event for event in recovered.open_events}
    ledger = Ledger(ledger_path)
    print("appending", flush=True)
    await asyncio.gather(*(toggle(store, ledger, n, left.get(f"node-{n}")) for n in range(WATCHES)))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]))))
