"""Names to addresses, beside the event loop's shared executor.

``getaddrinfo`` blocks its thread and cannot be cancelled: in the default executor a dozen hung lookups make every
other name time out, those of the hosts file included. Here a name has at most one thread, and waits for no other.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from probed import steps
from probed.errors import Blind
from probed.probes._proc import OwnThread

FRESH = 10.0
"""Seconds for which an answer is used without asking again."""
STALE = 300.0
"""Seconds for which the last answer is used while the resolver is silent or out of order."""
PATIENCE = 0.25
"""Seconds that a cycle waits for a lookup; the lookup itself goes on, and the next cycle finds its answer."""
MAX_ADDRESSES = 8
NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

Lookup = Callable[[str], Sequence[str]]


def system_lookup(host: str) -> Sequence[str]:
    """What the system's resolver says. gaierror when it has no answer."""
    found: list[Any] = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [_text(sockaddr) for *_, sockaddr in found]


class _Answer(Struct, frozen=True):
    addresses: tuple[str, ...]
    at: float


class _Pending(Struct, frozen=True):
    call: OwnThread[Sequence[str]]
    since: float


class Resolver:
    """Looks names up for one user of it (the HTTP client, a database session) and remembers the answers."""

    def __init__(self, lookup: Lookup = system_lookup, now: Callable[[], float] = time.monotonic) -> None:
        self._lookup, self._now = lookup, now
        self._known: dict[str, _Answer] = {}
        self._pending: dict[str, _Pending] = {}

    async def addresses(self, host: str) -> Sequence[str]:
        """Numeric addresses of ``host``, in the system's order of preference; literals are their own.

        Blind (``dns``) when there is no such name, or when the resolver is silent and no answer of the last 5 minutes
        is known.
        """
        if _is_literal(host):
            return (host,)
        with steps.step("resolve", host):
            return await self._looked_up(host)

    async def _looked_up(self, host: str) -> Sequence[str]:
        known, now = self._known.get(host), self._now()
        if known is not None and now - known.at < FRESH:
            return known.addresses
        pending = self._pending.get(host)
        if pending is None:
            pending = self._pending[host] = self._begin(host, now)
        await asyncio.wait({pending.call.ended}, timeout=max(0.0, pending.since + PATIENCE - now))
        if not pending.call.ended.done():
            return self._last(host, "the resolver does not answer")
        try:
            pending.call.result()
        except (OSError, ValueError) as error:
            if isinstance(error, socket.gaierror) and error.errno not in NO_SUCH_NAME:
                return self._last(host, error.strerror or str(error))
            self._known.pop(host, None)
            raise Blind("dns", f"cannot resolve {host}: {getattr(error, 'strerror', None) or error}") from None
        return self._last(host, "it has no address")

    def _begin(self, host: str, now: float) -> _Pending:
        call = OwnThread(partial(self._lookup, host), f"lookup-{host[:40]}")
        # Also when nobody waits for it any more: the next cycle finds the answer.
        call.ended.add_done_callback(lambda _: self._ended(host, call))
        return _Pending(call, now)

    def _ended(self, host: str, call: OwnThread[Sequence[str]]) -> None:
        del self._pending[host]
        try:
            addresses = tuple(dict.fromkeys(call.result()))[:MAX_ADDRESSES]
        except (OSError, ValueError):
            return
        if addresses:
            self._known[host] = _Answer(addresses, self._now())

    def _last(self, host: str, why_not_newer: str) -> Sequence[str]:
        known = self._known.get(host)
        if known is None or self._now() - known.at >= STALE:
            raise Blind("dns", f"cannot resolve {host}: {why_not_newer}")
        return known.addresses


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _text(sockaddr: tuple[Any, ...]) -> str:
    scope = sockaddr[3] if len(sockaddr) == 4 else 0
    address = str(sockaddr[0]).partition("%")[0]
    return f"{address}%{scope}" if scope else address
