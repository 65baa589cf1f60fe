"""The shape of answers about replays: backtests, shadows and proposals; see ``schemas``."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from probed.api.schemas import Instant


class Told(TypedDict):
    """One event as a replay tells it."""

    opened_at: Instant
    first_failed_at: Instant | None
    resolved_at: Instant | None
    """null: still open at the end, or an occurrence."""
    occurred: bool
    count: int
    value: float | str | None
    flapping: bool


class Moved(TypedDict):
    present: Told
    changed: Told


class Figures(TypedDict):
    events: int
    flaps: int
    """Openings that come so soon after others that not each would be announced."""
    short: int
    """Episodes that were over within a minute."""
    open_seconds: float
    detect_seconds: float | None
    """From the first sample that met the condition to the opening: the median."""
    detect_seconds_max: float | None


class BacktestTarget(TypedDict):
    target: str
    samples: int
    first_at: Instant | None
    last_at: Instant | None
    present: Figures
    changed: Figures
    kept: int
    gained_count: int
    gained: list[Told]
    """At most 200 of each kind are told."""
    lost_count: int
    lost: list[Told]
    moved_count: int
    moved: list[Moved]


class Backtest(TypedDict):
    policy: str
    patch: dict[str, Any]
    since: Instant
    until: Instant
    samples: int
    present: Figures
    changed: Figures
    kept: int
    gained: int
    lost: int
    moved: int
    targets: list[BacktestTarget]
    notes: list[str]
    """What this replay cannot tell, in words."""


class Shadow(TypedDict):
    policy: str
    patch: dict[str, Any]
    """Over the policy as it is, at every moment."""
    created_at: Instant
    author: str
    reason: str
    rule: str | None
    """In words; null while the patch does not fit the policy any more."""
    problem: str | None
    """Why it judges nothing at present."""


class ShadowEvent(TypedDict):
    target: str
    opened_at: Instant
    first_failed_at: Instant | None
    resolved_at: Instant | None
    resolve_reason: str | None
    occurred: bool
    count: int
    value: float | str | None


class ShadowDetail(Shadow):
    items: list[ShadowEvent]
    next_cursor: str | None
    live_events: int
    """Events of the policy itself since the shadow was laid, to compare."""
    live_suppressed: int
    """Of these, how many a cause explained: a shadow knows no causes."""


class Proposal(TypedDict):
    policy: str
    kind: Literal["noisy", "silent"]
    says: str
    """Why, in words, with the figures that it follows from."""
    patch: dict[str, Any] | None
    """null: no value speaks for itself."""
    targets: int
    samples: int
    present: Figures
    changed: Figures | None
    """With the patch; null without one, as are the next three."""
    gained: int | None
    lost: int | None
    moved: int | None


class Proposals(TypedDict):
    items: list[Proposal]
    since: Instant
    until: Instant
    computed_at: Instant
    """An answer stands for ten minutes, while no policy changes."""
