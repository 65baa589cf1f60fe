"""Whether a cycle got through to its target's machine: "nobody there" and "there, but mute" are different news.

A cycle that ends at its deadline looks the same from outside in both cases. Only who opens the connection knows; it
tells the cycle that it works for, through a context variable, so that no probe has to pass it on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Contact:
    """What one cycle came to know of the way to its target."""

    tried: bool = False
    """A new connection was begun; otherwise an open one was used."""
    made: bool = False
    """The far side accepted one."""

    @property
    def none(self) -> bool:
        """Nobody accepted, although it was tried."""
        return self.tried and not self.made


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
    if contact is not None:
        contact.tried = True


def made() -> None:
    """The far side has accepted it."""
    contact = _of_this_cycle.get()
    if contact is not None:
        contact.tried = contact.made = True
