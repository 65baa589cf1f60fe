"""One CloudEvent per transition by POST, signed as Standard Webhooks says.

``webhook-id`` is the transition's id and the same in every attempt: a receiver that remembers it never acts twice.
One request per transition, never a batch: so that the id is worth something.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from probed.clock import Clock
from probed.errors import Undelivered
from probed.model import Event
from probed.outlets import TEST_EVENT, Door, Link, post
from probed.outlets.wording import title
from probed.redaction import remember
from probed.store.notices import Notice

_MAX_SECRETS = 8


class WebhookOutlet:
    kind = "webhook"
    batch = 1
    refresh_seconds: float | None = None

    def __init__(
        self,
        door: Door,
        clock: Clock,
        *,
        observer: str,
        render: Callable[[Event], Mapping[str, Any]],
        instant: Callable[[float], str | None],
        secret_file: Path | None = None,
        link: Link | None = None,
    ) -> None:
        """``render``: an event as the API shows it. ``instant``: Unix seconds as the API shows them."""
        self._door, self._clock = door, clock
        self._source = f"urn:probed:{quote(observer, safe='')}"
        self._render, self._instant = render, instant
        self._secret_file = secret_file
        self._link = link or Link()

    async def send(self, notices: Sequence[Notice]) -> str:
        (notice,) = notices
        event = notice.event
        url = self._link.event(event.id)
        envelope = {
            "type": f"probed.event.{notice.told.value}",
            "id": notice.transition,
            "time": self._instant(notice.owed_at),
            "subject": event.target.key,
            "data": {**self._render(event), "title": title(notice), **({"url": url} if url else {})},
        }
        return await self._post(notice.transition, envelope)

    async def refresh(self, events: Sequence[Event]) -> str:
        return ""

    async def test(self) -> str:
        now = self._clock.wall()
        identity = f"test-{now:.3f}"
        envelope = {
            "type": "probed.test",
            "id": identity,
            "time": self._instant(now),
            "subject": TEST_EVENT,
            "data": {"title": "[test] Message of probed to see that it arrives; nothing has happened"},
        }
        return await self._post(identity, envelope)

    async def _post(self, identity: str, envelope: Mapping[str, Any]) -> str:
        whole = {
            "specversion": "1.0",
            "source": self._source,
            "datacontenttype": "application/json",
            **envelope,
        }
        body = json.dumps(whole, ensure_ascii=True, allow_nan=False).encode()
        stamp = str(int(self._clock.wall()))
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": identity,
            "webhook-timestamp": stamp,
        }
        if self._secret_file is not None:
            headers["webhook-signature"] = sign(secrets_in(self._secret_file), identity, stamp, body)
        return await post(self._door, body, headers)


def sign(secrets: Sequence[bytes], identity: str, stamp: str, body: bytes) -> str:
    """``v1,<base64 of HMAC-SHA256>``, one for each secret, parted by blanks."""
    signed = f"{identity}.{stamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode() for secret in secrets
    )


def secrets_in(path: Path) -> Sequence[bytes]:
    """The signing secrets of a file, one a line: ``whsec_`` and base64, or any text as it stands. Undelivered."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise Undelivered(f'cannot read secret_file "{path}": {reason}') from None
    if not lines or len(lines) > _MAX_SECRETS:
        raise Undelivered(f'secret_file "{path}" does not hold 1 to {_MAX_SECRETS} lines with a secret each')
    for line in lines:
        remember(line.removeprefix("whsec_"))
    return [_key(line, path) for line in lines]


def _key(line: str, path: Path) -> bytes:
    if not line.startswith("whsec_"):
        return line.encode()
    word = line.removeprefix("whsec_")
    try:
        key = base64.b64decode(word + "=" * (-len(word) % 4), validate=True)  # some services leave the padding out
    except binascii.Error:
        key = b""
    if not key:  # what an empty key signs, anybody could have signed
        raise Undelivered(f'secret_file "{path}": expected base64 behind whsec_')
    return key
