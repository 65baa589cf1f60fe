"""API tokens: what a program shows instead of a password. Minted here, shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator

from probed.store import TokenRecord

SCOPES = ("metrics", "api")
"""``metrics``: GET /metrics; ``api``: everything else."""
SECRET_BYTES = 32
USED_SECONDS = 600.0
"""The time of last use is kept to so many seconds: a scrape every 15 s is not worth a write."""

_FORM = re.compile(r"probed_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


def mint() -> tuple[str, str, str]:
    """(id, the token itself, its digest). The prefix lets scanners of repositories and our own redaction know it."""
    token_id = secrets.token_hex(8)
    text = f"probed_{token_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return token_id, text, digest_of(text)


def digest_of(text: str) -> str:
    # Not bcrypt: of 256 random bits nothing can be guessed, and a slow hash would cost each scrape 60 ms of a core.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Tokens:
    """All of them, by id; answers from memory, so that a revoked one is dead at once."""

    def __init__(self, records: Iterable[TokenRecord] = ()) -> None:
        self._by_id = {record.id: record for record in records}

    def __iter__(self) -> Iterator[TokenRecord]:
        return iter(sorted(self._by_id.values(), key=lambda record: (record.created_at, record.id)))

    def put(self, record: TokenRecord) -> None:
        self._by_id[record.id] = record

    def get(self, token_id: str) -> TokenRecord | None:
        return self._by_id.get(token_id)

    def named(self, name: str, now: float) -> TokenRecord | None:
        """The live one of that name."""
        return next((record for record in self._by_id.values() if record.name == name and record.live(now)), None)

    def of(self, text: str, now: float) -> TokenRecord | None:
        """The live token that ``text`` is; ``None`` for all others, without a word why."""
        match = _FORM.fullmatch(text)
        record = self._by_id.get(match[1]) if match else None
        expected = record.digest if record is not None else "0" * 64
        right = hmac.compare_digest(digest_of(text), expected)
        return record if right and record is not None and record.live(now) else None
