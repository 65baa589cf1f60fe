"""What receivers are owed of transitions, and what became of it. Values only; ``outbox`` has the SQL."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from probed.model import Event


class Told(StrEnum):
    """What a receiver hears of an event."""

    OPENED = "opened"
    RESOLVED = "resolved"
    OCCURRED = "occurred"
    REMINDED = "reminded"
    """It is still open, and nobody has acknowledged it."""


def transition_id(event_id: str, told: Told, at: float) -> str:
    """What a receiver knows a transition by: the same in every attempt, and whether it is durable or not."""
    return f"{event_id}-{told.value}-{at * 1000:.0f}"


class Fate(StrEnum):
    """What became of a notice."""

    OWED = "owed"
    """Not yet delivered, or tried in vain; it will be tried (again)."""
    DELIVERED = "delivered"
    REFUSED = "refused"
    """The receiver said that it never will take it (HTTP 410)."""
    EXPIRED = "expired"
    """It was tried for a day in vain."""
    DROPPED = "dropped"
    """Its receiver is not configured any more."""


class Notice(Struct, frozen=True):
    """One transition that one receiver is to be told of."""

    id: int
    """Ascending in the order of transitions."""
    transition: str
    """The transition's id: the same in every attempt and for every receiver."""
    told: Told
    event: Event
    """As it was at the transition."""
    owed_at: float
    attempts: int = 0


class Attempt(Struct, frozen=True):
    """What came of sending some notices of one receiver at once; Unix seconds."""

    ids: tuple[int, ...]
    at: float
    fate: Fate
    """``OWED`` when it failed and will be tried again."""
    answer: str
    """``HTTP 503``, ``refused`` …: one line without secrets."""


class GivenUp(Struct, frozen=True):
    """Everything that a receiver is owed, or what of it is older than ``owed_before``, is not tried any more."""

    receiver: str
    at: float
    fate: Fate
    answer: str
    owed_before: float | None = None


class Reminder(Struct, frozen=True):
    """A receiver is to be told again of an event, if that is still open and not acknowledged."""

    event_id: str
    receiver: str
    at: float


class Resend(Struct, frozen=True):
    """Somebody has a receiver told after all of an event that was given up, as that is by now."""

    event_id: str
    receiver: str
    at: float
    who: str
    comment: str = ""


class Delivery(Struct, frozen=True):
    """The history of one notice."""

    id: int
    receiver: str
    transition: str
    event_id: str
    event: str
    instance: str
    told: Told
    fate: Fate
    owed_at: float
    attempts: int
    tried_at: float | None
    """The newest attempt."""
    settled_at: float | None
    """When it was delivered or given up."""
    answer: str
    dead_letter: bool = False
    """Whether it was given up, and the receiver neither has nor is owed anything later of the event."""


class DeliveryQuery(Struct, frozen=True):
    """Filters of the delivery history; newest first."""

    receiver: str | None = None
    fate: Fate | None = None
    event_id: str | None = None
    limit: int = 100
    before_id: int | None = None


class Backlog(Struct, frozen=True):
    """What one receiver is owed."""

    notices: int
    oldest_at: float
