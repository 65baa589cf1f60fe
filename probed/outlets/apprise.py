"""Chat, mail, push and a hundred other services by the library Apprise, an optional extra. What it raises stays here.

The library is imported when something is sent first, and works in a thread: it blocks. Several notices that are owed
at once become one message with a list.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from probed.errors import Undelivered
from probed.model import Event, Severity
from probed.outlets import Link
from probed.outlets.wording import digest
from probed.redaction import remember_address
from probed.store.notices import Notice, Told

MISSING = "the library is not installed: pip install 'pg-probed[apprise]'"
_KINDS = {Severity.FATAL: "failure", Severity.CRITICAL: "warning", Severity.NORMAL: "info"}

Notify = Callable[[Sequence[str], str, str, str], bool]
"""(addresses, title, text, kind) -> whether all of them took it; blocks."""


def by_library(addresses: Sequence[str], title: str, text: str, kind: str) -> bool:
    """Have Apprise send. Undelivered when it is missing, or does not know an address."""
    try:
        library: Any = importlib.import_module("apprise")
    except ImportError:
        raise Undelivered(MISSING) from None
    # What it logs may hold an address with its secret.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    sender = library.Apprise()
    for number, address in enumerate(addresses, start=1):
        if not sender.add(address):
            raise Undelivered(f"address {number} in url_file is none that Apprise knows")
    return bool(sender.notify(title=title, body=text, notify_type=kind, body_format="text"))


class AppriseOutlet:
    kind = "apprise"
    batch = 100
    refresh_seconds: float | None = None

    def __init__(self, url_file: Path, *, link: Link | None = None, notify: Notify = by_library) -> None:
        self._url_file = url_file
        self._link = link or Link()
        self._notify = notify
        self._busy = False
        """With a message, whether anybody still waits for it or not."""

    async def send(self, notices: Sequence[Notice]) -> str:
        title, text = digest(notices, self._link)
        firing = [notice.event.severity for notice in notices if notice.told is not Told.RESOLVED]
        kind = _KINDS[min(firing, key=lambda severity: severity.rank)] if firing else "success"
        return await self._tell(title, text, kind)

    async def refresh(self, events: Sequence[Event]) -> str:
        return ""

    async def test(self) -> str:
        return await self._tell("[test] probed", "To see that this arrives; nothing has happened.", "info")

    async def _tell(self, title: str, text: str, kind: str) -> str:
        addresses = self._addresses()
        if self._busy:
            raise Undelivered("the library is still busy with the message before")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def work() -> None:
            problem: Undelivered | None = None
            sent = False
            try:
                sent = self._notify(addresses, title, text, kind)
            except Undelivered as error:
                problem = error
            except Exception as error:  # noqa: BLE001 - a hundred plugins; their texts may hold the address
                problem = Undelivered(f"the library failed with {type(error).__name__}")
            self._busy = False  # before anybody is told: the next message may follow at once
            with contextlib.suppress(RuntimeError):  # the loop has gone: nobody is left to be told
                loop.call_soon_threadsafe(_settle, done, sent, problem)

        # A thread of its own: what hangs in it must hold up neither the daemon's other threads nor its end.
        self._busy = True
        threading.Thread(target=work, name="apprise", daemon=True).start()
        if not await done:
            raise Undelivered("the service did not take it")
        return "sent"

    def _addresses(self) -> Sequence[str]:
        try:
            lines = [line.strip() for line in self._url_file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise Undelivered(f'cannot read url_file "{self._url_file}": {reason}') from None
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise Undelivered(f'url_file "{self._url_file}" holds no address')
        for address in found:
            remember_address(address)
        return found


def _settle(done: asyncio.Future[bool], sent: bool, problem: Undelivered | None) -> None:
    if done.done():  # whoever waited has given up
        return
    if problem is None:
        done.set_result(sent)
    else:
        done.set_exception(problem)
