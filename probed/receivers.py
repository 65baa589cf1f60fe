"""Who is to be told of a change. Pure: the store makes what is owed durable, couriers deliver it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from probed.model import OBSERVER, RECEIVER, Event, Severity
from probed.store import Change
from probed.store.notices import Told


class Receiver(Struct, frozen=True):
    """Somebody who is told of events, and of which."""

    name: str
    min_severity: Severity = Severity.NORMAL
    instances: frozenset[str] = frozenset()
    """Empty: all, the observer itself included."""
    events: frozenset[str] = frozenset()
    """Event types; empty: all."""
    resolved: bool = True
    """Whether it is also told that an event is over."""
    reminders: float | None = None
    """Seconds after which it is told again of what is still open and not acknowledged; ``None``: never."""

    def wants(self, event: Event) -> bool:
        return (
            event.severity.rank <= self.min_severity.rank
            and (not self.instances or event.target.instance in self.instances)
            and (not self.events or event.event in self.events)
            and not self._is_about_itself(event)
        )

    def _is_about_itself(self, event: Event) -> bool:
        """Who does not take notices is not sent one about it: there are others to be told."""
        target = event.target
        return (target.instance, target.component, target.member) == (OBSERVER, RECEIVER, self.name)


def owed(receivers: Iterable[Receiver], change: Change) -> tuple[str, ...]:
    """Names of those who are owed a change.

    That something resolved is owed to whoever was owed its opening, also if it is held back by now: the store, which
    knows who that was, makes the choice among the names given here.
    """
    match change.told:
        case None:
            return ()
        case Told.RESOLVED:
            return tuple(receiver.name for receiver in receivers if receiver.resolved)
        case _ if change.announced:
            return tuple(receiver.name for receiver in receivers if receiver.wants(change.event))
        case _:
            return ()
