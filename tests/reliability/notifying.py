"""The child of ``test_notification_kills``: opens and resolves events, and delivers them, until it is killed.

``python -m tests.reliability.notifying STORE drain|go STEP:NTH NAME=URL…``. It falls dead when it passes the step of
``trapdoors`` for the nth time. ``drain`` only delivers, and ends when nothing is owed. On SIGTERM it ends as the daemon
does. Pauses are a tenth of the product's.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from probed import courier
from probed.api import shapes
from probed.couriers import Appointment, Couriers
from probed.model import Event
from probed.outlets.webhook import WebhookOutlet
from probed.probes._http import HttpClient
from probed.receivers import Receiver
from probed.store import Commit
from probed.store.sqlite import SqliteStore
from probed.telling import HttpDoor
from tests.reliability.appending import opening, resolving
from tests.reliability.trapdoors import GIVING_UP, Trapdoor, TrappedClock, TrappedStore, trapped

WATCHES = 4
PAUSE_SECONDS = 0.1
"""Between two transitions of one watch: couriers come to rest now and then, on a busy machine too."""
REMINDERS = {"steady": 0.2}
"""Who is reminded, after so many seconds."""
LONG_SECONDS = 1.0
"""How long the events of the first watch stay open: long enough for reminders."""


def own(work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
    async def run() -> None:
        await work()

    return asyncio.create_task(run(), name=name)


def appointment(name: str, url: str, http: HttpClient, trapdoor: Trapdoor) -> Appointment:
    def make() -> WebhookOutlet:
        door = HttpDoor(http, name, url)
        return WebhookOutlet(
            door, TrappedClock(trapdoor), observer="o", render=shapes.event, instant=shapes.instant
        )  # fmt: skip

    return Appointment(Receiver(name, reminders=REMINDERS.get(name)), trapped(make, trapdoor), url)


async def toggle(store: SqliteStore, couriers: Couriers, number: int, left: Event | None) -> None:
    """Open and resolve the event of one watch for ever, beginning with what the last child left."""
    event = left
    while True:
        (change,) = (opening(number) if event is None else resolving(event)).changes
        change = replace(change, owed=couriers.owed(change))
        await store.append(Commit(changes=(change,)))
        couriers.announced(change)
        event = change.event if change.kind == "opened" else None
        await asyncio.sleep(LONG_SECONDS if event is not None and number == 0 else PAUSE_SECONDS)


async def drain(store: SqliteStore, couriers: Couriers) -> bool:
    """Wait until nothing is owed; False when that takes too long."""
    ends = time.monotonic() + 120
    while await store.backlog():
        if time.monotonic() > ends:
            print("not drained:", await store.backlog(), couriers.states, flush=True)
            return False
        await asyncio.sleep(0.05)
    return True


async def main(directory: Path, mode: str, trap: str, receivers: Sequence[str]) -> int:
    step, _, nth = trap.partition(":")
    trapdoor = TrappedStore.trapdoor = Trapdoor(step, int(nth))
    courier.FIRST_PAUSE, courier.FRESH_PAUSE = 0.1, 1.5
    if step in GIVING_UP or mode == "drain":
        courier.PATIENCE, courier.FAIR_CHANCE = 0.3, 0.1
    store, http = TrappedStore(directory), HttpClient()
    recovered = await store.open()
    couriers = Couriers(store, TrappedClock(trapdoor), own=own)
    pairs = [item.partition("=") for item in receivers]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await couriers.appoint([appointment(name, url, http, trapdoor) for name, _, url in pairs])
    left = {event.target.node: event for event in recovered.open_events}
    print("going", flush=True)
    if mode == "go":
        toggles = [
            asyncio.create_task(toggle(store, couriers, n, left.get(f"node-{n}"))) for n in range(WATCHES)
        ]  # fmt: skip
        await ended.wait()
        for one in toggles:
            one.cancel()
    elif not await drain(store, couriers):
        return 3
    closing = asyncio.create_task(couriers.close())
    await asyncio.sleep(0)
    trapdoor.passed("closing")
    await closing
    trapdoor.passed("closed")
    await http.close()
    await store.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])))
