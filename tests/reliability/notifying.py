"""The child of ``test_notification_kills``: opens and resolves events, and delivers them, until it is killed.

``python -m tests.reliability.notifying STORE drain|go NAME=URL…``. ``drain`` only delivers, and ends when nothing is owed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from probed.api import shapes
from probed.clock import SystemClock
from probed.couriers import Appointment, Couriers
from probed.model import Event
from probed.outlets.webhook import WebhookOutlet
from probed.probes._http import HttpClient
from probed.receivers import Receiver
from probed.store import Commit
from probed.store.sqlite import SqliteStore
from probed.telling import HttpDoor
from tests.reliability.appending import opening, resolving

WATCHES = 4
PAUSE_SECONDS = 0.03
"""Between two transitions of one watch: about what two receivers can be told meanwhile."""


def own(work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
    async def run() -> None:
        await work()

    return asyncio.create_task(run(), name=name)


def appointment(name: str, url: str, http: HttpClient) -> Appointment:
    def make() -> WebhookOutlet:
        door = HttpDoor(http, name, url)
        return WebhookOutlet(door, SystemClock(), observer="o", render=shapes.event, instant=shapes.instant)

    return Appointment(Receiver(name), make, url)


async def toggle(store: SqliteStore, couriers: Couriers, number: int, left: Event | None) -> None:
    """Open and resolve the event of one watch for ever, beginning with what the last child left."""
    event = left
    while True:
        (change,) = (opening(number) if event is None else resolving(event)).changes
        change = replace(change, owed=couriers.owed(change))
        await store.append(Commit(changes=(change,)))
        couriers.announced(change)
        event = change.event if change.kind == "opened" else None
        await asyncio.sleep(PAUSE_SECONDS)


async def main(directory: Path, mode: str, receivers: Sequence[str]) -> int:
    store, http = SqliteStore(directory), HttpClient()
    recovered = await store.open()
    couriers = Couriers(store, SystemClock(), own=own)
    pairs = [item.partition("=") for item in receivers]
    await couriers.appoint([appointment(name, url, http) for name, _, url in pairs])
    left = {event.target.node: event for event in recovered.open_events}
    print("going", flush=True)
    if mode == "go":
        await asyncio.gather(*(toggle(store, couriers, n, left.get(f"node-{n}")) for n in range(WATCHES)))
    ends = time.monotonic() + 120
    while await store.backlog():
        if time.monotonic() > ends:
            print("not drained:", await store.backlog(), couriers.states, flush=True)
            return 3
        await asyncio.sleep(0.05)
    await couriers.close()
    await http.close()
    await store.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])))
