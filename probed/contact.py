"""Whether a cycle got through to its target's machine: "nobody there" and "there, but mute" are different news.

A cycle that ends at its deadline looks the same from outside in both cases. Only who opens the connection knows; it
tells the cycle that it works for, through a context variable, so that no probe has to pass it on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Contact:
    """What one cycle came to know of the way to its target."""

    tried_at: float | None = None
    """Monotonic time at which a new connection was first begun; ``None`` while an open one is used."""
    made: bool = False
    """The far side accepted one."""

    def waited(self) -> float:
        """For how many seconds nobody has accepted, although it was tried."""
        return 0.0 if self.made or self.tried_at is None else time.monotonic() - self.tried_at


_of_this_cycle: ContextVar[Contact | None] = ContextVar("contact", default=None)


@contextlib.contextmanager
def noted() -> Iterator[Contact]:
    """Note what happens within, also in tasks that are started within."""
    contact = Contact()
    token = _of_this_cycle.set(contact)
    try:
        yield contact
    finally:
        _of_this_cycle.reset(token)


def trying() -> None:
    """A connection is being opened."""
    contact = _of_this_cycle.get()
    if contact is not None and contact.tried_at is None:
        contact.tried_at = time.monotonic()


def made() -> None:
    """The far side has accepted it."""
    contact = _of_this_cycle.get()
    if contact is not None:
        contact.made = True
