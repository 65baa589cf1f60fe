"""How often somebody may fail: so many attempts a minute from one place, and so many from everywhere."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque

from probed.clock import Clock

WINDOW_SECONDS = 60.0
PER_PLACE = 10
IN_ALL = 60
"""Of failed logins a minute: at bcrypt's usual cost, some 4 s of one core."""
MAX_PLACES = 4096


class Limiter:
    """Counts attempts when they begin, so that a thousand at once are not all let in; success takes its own back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_place: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque()

    def wait(self, client: str) -> float:
        """Seconds until ``client`` may be heard at all; 0 when it may now."""
        return self._wait(self._by_place.get(place_of(client)), PER_PLACE)

    def wait_for_all(self) -> float:
        """Seconds until anybody may try what was not right before; 0 when now."""
        return self._wait(self._all, IN_ALL)

    def begin(self, client: str) -> float:
        """An attempt, as failed until ``succeeded``; what to give back then."""
        now, place = self._clock.mono(), place_of(client)
        attempts = self._by_place.setdefault(place, deque())
        self._by_place.move_to_end(place)
        while len(self._by_place) > MAX_PLACES:
            self._by_place.popitem(last=False)
        attempts.append(now)
        self._all.append(now)
        return now

    def succeeded(self, client: str, attempt: float) -> None:
        for attempts in (self._by_place.get(place_of(client)), self._all):
            if attempts is not None and attempt in attempts:
                attempts.remove(attempt)

    def _wait(self, attempts: deque[float] | None, most: int) -> float:
        if attempts is None:
            return 0.0
        now = self._clock.mono()
        while attempts and now - attempts[0] >= WINDOW_SECONDS:
            attempts.popleft()
        return 0.0 if len(attempts) < most else WINDOW_SECONDS - (now - attempts[-most])


def place_of(client: str) -> str:
    """Where an address belongs to: itself, or its /64, of which one machine has all."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
