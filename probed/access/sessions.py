"""Sessions of browsers: in memory, so a restart ends them; kept by the hash of what the cookie holds."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping

from msgspec import Struct

from probed.clock import Clock

IDLE_SECONDS = 12 * 3600.0
LONGEST_SECONDS = 7 * 86400.0
MAX_SESSIONS = 1024
"""The longest unused gives way: only who knows a password can make one."""


class Session(Struct):
    user: str
    hashed: str
    """The user's bcrypt hash at the login: another one ends the session."""
    csrf: str
    """What a form must repeat, because no other site can read it."""
    began: float
    used: float


class Sessions:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_digest: dict[bytes, Session] = {}

    def begin(self, user: str, hashed: str) -> tuple[str, Session]:
        """(what the cookie holds, the session)"""
        text, now = secrets.token_urlsafe(32), self._clock.mono()
        session = Session(user, hashed, secrets.token_urlsafe(32), now, now)
        if len(self._by_digest) >= MAX_SESSIONS:
            del self._by_digest[min(self._by_digest, key=lambda digest: self._by_digest[digest].used)]
        self._by_digest[_digest(text)] = session
        return text, session

    def of(self, text: str, users: Mapping[str, str]) -> Session | None:
        """The session of a cookie, while it lasts and its user is who they were."""
        digest = _digest(text)
        session = self._by_digest.get(digest)
        if session is None:
            return None
        now = self._clock.mono()
        over = now - session.used >= IDLE_SECONDS or now - session.began >= LONGEST_SECONDS
        if over or not hmac.compare_digest(users.get(session.user, ""), session.hashed):
            del self._by_digest[digest]
            return None
        session.used = now
        return session

    def end(self, text: str) -> None:
        self._by_digest.pop(_digest(text), None)

    def __len__(self) -> int:
        return len(self._by_digest)


def _digest(text: str) -> bytes:
    # Looked up by hash: a lookup's time tells nothing of a secret that one cannot steer.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
