"""What people read in chat, mail and alerts: fixed fields, no templates, nothing that a peer said can be markup."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from probed.model import Event, EventState
from probed.outlets import Link
from probed.quantity import human_seconds
from probed.redaction import clean
from probed.store.notices import Notice, Told

LISTED = 20
"""Notices that one message lists; what goes beyond is counted."""


def title(notice: Notice) -> str:
    """``[FATAL] Database access unavailable: orders/node-a/postgres``; resolved ones begin with ``[resolved]``."""
    event = notice.event
    grade = "resolved" if notice.told is Told.RESOLVED else event.severity.value.upper()
    return f"[{grade}] {summary(event)}"


def summary(event: Event) -> str:
    return clean(f"{event.name}: {event.target.key}", 300)


def text(notice: Notice, link: Link) -> str:
    """The message below the title: what was seen, since when, what to do, where to read on."""
    event = notice.event
    lines = [f"{clean(event.message, 1000)}"]
    if notice.told is Told.RESOLVED:
        lines = [f"{_over(event)}. It was: {clean(event.message, 1000)}"]
    lines.append(f"{_when(notice)} (event {event.id}, seen by {event.observer or 'probed'})")
    if notice.told is not Told.RESOLVED and event.suggestion:
        lines.append(f"What to do: {event.suggestion}")
    where = link.event(event.id)
    if where:
        lines.append(where)
    return "\n".join(lines)


def digest(notices: Sequence[Notice], link: Link) -> tuple[str, str]:
    """(title, text) of several notices in one message, in their order."""
    if len(notices) == 1:
        return title(notices[0]), text(notices[0], link)
    new = [notice.event.severity for notice in notices if notice.told is not Told.RESOLVED]
    opened = len(new)
    parts = [f"{opened} new" if opened else "", f"{len(notices) - opened} resolved" if opened < len(notices) else ""]
    lines = [f"{title(notice)} — {clean(notice.event.message, 300)}" for notice in notices[:LISTED]]
    if len(notices) > LISTED:
        lines.append(f"… and {len(notices) - LISTED} more; `probed events list` has all of them")
    if link.external_url:
        lines.append(f"{link.external_url}/")
    grade = min(new, key=lambda severity: severity.rank).value.upper() if new else "resolved"
    return f"[{grade}] {' and '.join(filter(None, parts))} events", "\n".join(lines)


def _over(event: Event) -> str:
    why = "" if event.resolve_reason in ("", "recovered") else f" ({event.resolve_reason.replace('_', ' ')})"
    if event.state is not EventState.RESOLVED or event.resolved_at is None:
        return f"Resolved{why}"
    return f"Resolved after {human_seconds(max(0.0, event.resolved_at - event.opened_at))}{why}"


def _when(notice: Notice) -> str:
    event = notice.event
    if notice.told is Told.RESOLVED:
        return f"Open from {_instant(event.opened_at)} to {_instant(event.resolved_at or event.opened_at)}"
    verb = "Happened" if notice.told is Told.OCCURRED else "Open since"
    return f"{verb} {_instant(event.opened_at)}"


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
