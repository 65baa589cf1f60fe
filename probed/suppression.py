"""Which open event explains another, and whether one is about to open: the graph of ``topology`` over live watches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from probed import topology
from probed.model import OBSERVER, Event, Phase
from probed.topology import Place, Shape
from probed.watches import Instance, Watch


class Explanation(Struct, frozen=True):
    """What may stand behind an event of a watch."""

    cause: Event | None = None
    """The open event that explains it, the root of its chain."""
    blame: Event | None = None
    """The open event that brought it about, but may not hide it: a Fatal is announced whatever caused it."""
    pending: bool = False
    """One may be about to open: until that is decided, nothing is counted."""


NO_EXPLANATION = Explanation()

# Python 3.11 calls a function for each look at a member of an enum.
_QUIET, _PENDING = Phase.QUIET, Phase.PENDING


class _Known(Struct):
    """What was found out about an instance while it has this shape."""

    shape: Shape
    causes: dict[int, Sequence[Watch]] = field(default_factory=dict)
    """By identity of a watch: who may stand behind it."""


class Suppression:
    """Finds causes. Follows the watches of an instance whenever they change."""

    def __init__(self) -> None:
        self._places: dict[str, dict[Place, list[Watch]]] = {}
        """By instance."""
        self._known: dict[str, _Known] = {}
        """By instance."""
        self._instances: Mapping[str, Instance] = {}

    def follow(self, instances: Mapping[str, Instance], changed: str) -> None:
        """The watches of ``changed`` are others now, or none."""
        self._instances = instances
        places = self._places[changed] = {}
        for watch in instances[changed].watches if changed in instances else ():
            places.setdefault(topology.place_of(watch.policy, watch.target), []).append(watch)
        if changed == OBSERVER:  # it stands behind watches of all the others
            self._known.clear()
        self._known.pop(changed, None)

    def explain(self, state: Instance, watch: Watch, *, cut_off: bool) -> Explanation:
        """``cut_off``: whether this observer seems to have lost its own network in this very round."""
        pending, blame = False, None
        for other in self._causes(state, watch):
            isolation = cut_off and other.policy.id == topology.ISOLATED
            if other.event is None and other.streak.phase is _QUIET and not other.held and not isolation:
                continue
            if not topology.may_hide(other.severity, watch.severity):
                blame = blame or other.event
                continue
            if other.event is not None:
                return Explanation(self._root(state, other.event))
            # One that is held waits for its own cause, and so does what waits for it.
            pending = pending or other.streak.phase is _PENDING or other.held or isolation
        return Explanation(None, blame, pending) if pending or blame else NO_EXPLANATION

    def _causes(self, state: Instance, watch: Watch) -> Sequence[Watch]:
        """Asked anew for each sample; the answer moves with the leader and the hosts that are dark."""
        known = self._known.get(state.name)
        if known is None or known.shape is not state.shape:
            known = self._known[state.name] = _Known(state.shape)
        causes = known.causes.get(id(watch))
        if causes is None:
            causes = tuple(other for other in self._find(state, watch) if other is not watch)
            known.causes[id(watch)] = causes
        return causes

    def _find(self, state: Instance, watch: Watch) -> Iterable[Watch]:
        if state.name != OBSERVER and state.remote:
            observer = self._instances.get(OBSERVER)
            for other in observer.watches if observer is not None else ():
                if other.policy.id == topology.ISOLATED:
                    yield other
        for place in topology.causes(state.shape, watch.policy, watch.target):
            yield from self._places.get(state.name, {}).get(place, ())

    def _root(self, state: Instance, cause: Event) -> Event:
        """Who is to blame: the cause of the cause, while that one hides it and is open itself."""
        if not cause.suppressed:
            return cause
        observer = self._instances.get(OBSERVER)
        watches = [*state.watches, *(observer.watches if observer is not None else ())]
        opened = (watch.event for watch in watches if watch.event is not None)
        return next((event for event in opened if event.id == cause.caused_by), cause)


def began_first(cause: Event, event: Event, interval: float) -> bool:
    """Whether a cause that opened after ``event`` may have brought it about all the same: it had begun no later.

    A cause is often slower to be sure of itself than its consequence is (three failures against two).
    """
    began = cause.first_failed_at if cause.first_failed_at is not None else cause.opened_at
    return began <= event.opened_at + interval
