"""Passwords against their bcrypt hashes: off the event loop, one at a time, a bounded queue, right ones remembered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from probed.access.limiting import Limiter
from probed.clock import Clock

MAX_WAITING = 16
MAX_REMEMBERED = 256
USUAL_COST = 10
BCRYPT_BYTES = 72
"""What bcrypt looks at; htpasswd and Go cut off the rest silently, and so must who checks their hashes."""


class Later(Exception):
    """Too many attempts: not looked at. ``seconds`` until it may be."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"in {seconds:g} s")


class Passwords:
    def __init__(self, clock: Clock) -> None:
        self._limiter = Limiter(clock)
        self._secret = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="passwords", initializer=_give_way)
        self.checks = 0
        """Times that bcrypt was run: as often for a user that is not there."""

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def right(self, users: Mapping[str, str], name: str, password: str, client: str) -> bool:
        """Whether it is that user's. Later when ``client`` or everybody failed too often, or too many wait.

        ``users``: bcrypt hash by name.
        """
        seconds = self._limiter.wait(client)
        if seconds:
            raise Later(seconds)
        known = name in users
        hashed = users[name] if known else self._nobodys(users, name)
        key = self._key(name, hashed, password)
        if key in self._right:
            self._right.move_to_end(key)
            return True
        running = self._running.get(key)
        if running is None:
            running = self._begin(key, password, hashed, client)
        # Shielded: one of several that wait for the same answer may go away.
        return await asyncio.shield(running) and known

    def _begin(self, key: bytes, password: str, hashed: str, client: str) -> asyncio.Future[bool]:
        seconds = self._limiter.wait_for_all() or (1.0 if len(self._running) >= MAX_WAITING else 0.0)
        if seconds:
            raise Later(seconds)
        attempt = self._limiter.begin(client)
        self.checks += 1
        loop = asyncio.get_running_loop()
        running = self._running[key] = loop.run_in_executor(self._worker, _check, password, hashed)

        def done(answer: asyncio.Future[bool]) -> None:
            del self._running[key]
            if not answer.cancelled() and answer.exception() is None and answer.result():
                self._limiter.succeeded(client, attempt)
                self._right[key] = None
                if len(self._right) > MAX_REMEMBERED:
                    self._right.popitem(last=False)

        running.add_done_callback(done)
        return running

    def _key(self, *parts: str) -> bytes:
        """Of user, hash and password: keyed, and each with its length, so that no two triples share one
        (exporter-toolkit's CVE-2022-46146 joined them)."""
        mac = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            mac.update(len(encoded).to_bytes(8, "big") + encoded)
        return mac.digest()

    def _nobodys(self, users: Mapping[str, str], name: str) -> str:
        """A hash that no password has, for who is not there: looking at it costs what a real one costs. With
        several costs in use, a name always gets the same, or asking twice would tell."""
        costs = sorted({hashed[4:6] for hashed in users.values()}) or [f"{USUAL_COST:02}"]
        made_up = self._key("nobody", name)
        text = "".join(_ALPHABET[byte % 64] for byte in made_up + self._key("digest", name))[:51]
        # The last character of salt and of digest hold fewer bits: "." is valid for both.
        return f"$2b${costs[made_up[0] % len(costs)]}${text[:21]}.{text[21:51]}."


_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def _check(password: str, hashed: str) -> bool:
    import bcrypt

    encoded = password.encode("utf-8", "surrogatepass")
    if b"\0" in encoded:  # where C programs saw the end of it
        encoded = b""
    try:
        return bcrypt.checkpw(encoded[:BCRYPT_BYTES], hashed.encode())
    except ValueError:  # a salt that is none: web_config lets it pass, bcrypt does not
        return False


def _give_way() -> None:
    """Probes come first where cores are few."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
