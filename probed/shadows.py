"""Shadow policies: a changed version of a policy that runs beside the live one, and tells nobody.

What it would have opened and resolved is kept, for people to look at before they make the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from probed.model import Reading, Streak

MAX_EVENTS = 10_000
"""Kept of one shadow; the oldest go first."""

WatchPlace = tuple[str, str]
"""(policy, target key)"""


class Shadow(Struct, frozen=True):
    """A merge patch over the policy as it is, at every moment: when that is edited, its shadow follows."""

    policy: str
    patch: Mapping[str, Any]
    created_at: float
    """Unix seconds."""
    author: str
    reason: str = ""


class ShadowEvent(Struct, frozen=True):
    """What would have been an event. Known by policy, target and ``opened_at``; times are Unix seconds."""

    policy: str
    target: str
    opened_at: float
    first_failed_at: float | None = None
    resolved_at: float | None = None
    """``None`` while it is open, and for an occurrence."""
    resolve_reason: str = ""
    occurred: bool = False
    count: int = 1
    value: Reading | None = None


class ShadowChanges(Struct, frozen=True):
    """What becomes durable of shadows in one commit."""

    laid: tuple[Shadow, ...] = ()
    """New ones. What was kept of an older shadow of the same policy goes."""
    removed: tuple[str, ...] = ()
    """Policies whose shadow goes, with everything kept of it."""
    events: tuple[ShadowEvent, ...] = ()
    streaks: Mapping[WatchPlace, Streak] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.laid or self.removed or self.events or self.streaks)


class RecoveredShadows(Struct, frozen=True):
    """What a start finds."""

    shadows: tuple[Shadow, ...] = ()
    streaks: Mapping[WatchPlace, Streak] = field(default_factory=dict)
    open_events: tuple[ShadowEvent, ...] = ()
