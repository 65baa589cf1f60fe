"""Failed authentications: counted, told in the log and the audit log, and bounded, whoever knocks how often."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict

import structlog
from aiohttp import web

from probed.access.limiting import place_of
from probed.api.served import Served
from probed.store import AuditRecord, Commit

_log = structlog.get_logger(__name__)

QUIET_SECONDS = 60.0
"""Of one place, and one way to log in, one line in so long; it says how many there were."""
MAX_RECORDS = 30
"""From everywhere, in so long: an attacker with a network of addresses must not fill the disk."""
MAX_PLACES = 4096


class Failures:
    def __init__(self, served: Served) -> None:
        self._served = served
        self._untold: Counter[tuple[str, str]] = Counter()
        self._told_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._recent: list[float] = []

    def note(self, request: web.Request, via: str, name: str) -> None:
        """One more. ``name``: of a user or token that there is; of others it may be a password in the wrong field."""
        self._served.metrics.login_failed(via)
        client, now = request.remote or "", self._served.clock.mono()
        key = (place_of(client), via)
        self._untold[key] += 1
        if now - self._told_at.get(key, -QUIET_SECONDS) < QUIET_SECONDS:
            return
        self._recent = [at for at in self._recent if now - at < QUIET_SECONDS]
        if len(self._recent) >= MAX_RECORDS:
            return
        self._recent.append(now)
        self._told_at[key] = now
        self._told_at.move_to_end(key)
        while len(self._told_at) > MAX_PLACES:
            forgotten, _ = self._told_at.popitem(last=False)
            self._untold.pop(forgotten, None)
        failures = self._untold.pop(key)
        _log.warning("access.failed", client=client, via=via, user=name or None, failures=failures)
        record = AuditRecord(
            self._served.clock.wall(), name, via, client, "login.failed", "", after={"failures": failures}
        )
        self._served.store.append(Commit(audit=(record,))).add_done_callback(passed_over)


def passed_over(future: asyncio.Future[None]) -> None:
    """For a commit that nobody waits for: the disk's trouble is told by the store itself."""
    if not future.cancelled():
        future.exception()
