"""The silences that may still hold, and which of them holds over an event."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field

from probed.model import Event
from probed.recurrence import Window
from probed.silences import Silence, SilenceState


class _Held(Struct):
    silence: Silence
    deadline: float | None = None
    """Monotonic: when its time has passed, whatever became of the wall clock."""
    window: Window | None = None
    """As found last: finding one takes the zone's calendar."""
    found_at: float = 0.0


class Silencing(Struct):
    """The silences that may still hold. They are asked by the wall clock, for people's calendars are.

    A clock that is set back must not make people deaf for longer than they wanted: one without windows also ends
    when as many seconds as it was to last have really passed.
    """

    _held: dict[str, _Held] = field(default_factory=dict)

    def put(self, silence: Silence) -> None:
        """A new one, or one that was ended."""
        if silence.ended_at is None:
            self._held[silence.id] = _Held(silence)
        else:
            self._held.pop(silence.id, None)

    def declare(self, silences: Iterable[Silence]) -> None:
        """What the configuration says now, in place of what it said."""
        self._held = {key: held for key, held in self._held.items() if held.silence.origin != "file"}
        for silence in silences:
            self.put(silence)

    def get(self, silence_id: str) -> Silence | None:
        held = self._held.get(silence_id)
        return None if held is None else held.silence

    def all(self) -> tuple[Silence, ...]:
        return tuple(held.silence for held in self._held.values())

    def state(self, silence: Silence, at: float, mono: float) -> SilenceState:
        """``at`` by the wall clock, ``mono`` by the monotonic one, of the same moment."""
        held = self._held.get(silence.id)
        if held is not None and silence.every is not None:
            return _state_by_window(held, at)
        state = silence.state_at(at)
        if state is not SilenceState.ACTIVE or held is None or silence.ends_at is None:
            return state
        if held.deadline is None:
            held.deadline = mono + min(silence.ends_at - at, silence.ends_at - silence.starts_at)
        return state if mono < held.deadline else SilenceState.EXPIRED

    def active(self, at: float, mono: float) -> int:
        """How many hold now."""
        return sum(self.state(silence, at, mono) is SilenceState.ACTIVE for silence in self.all())

    def over(self, event: Event, at: float, mono: float) -> Silence | None:
        """The silence that holds over an event: the one that it is noted under while that holds, else the longest."""
        holding = [
            held.silence
            for held in self._held.values()
            if held.silence.scope.covers(event) and self.state(held.silence, at, mono) is SilenceState.ACTIVE
        ]
        noted = next((silence for silence in holding if silence.id == event.silenced_by), None)
        return noted or max(holding, key=lambda silence: _closes_at(silence, at), default=None)

    def forget_expired(self, before: float) -> None:
        """Let go of those that were over at ``before`` already."""
        over = [key for key, held in self._held.items() if held.silence.state_at(before) is SilenceState.EXPIRED]
        for key in over:
            del self._held[key]


def _state_by_window(held: _Held, at: float) -> SilenceState:
    if held.window is None or not held.found_at <= at < held.window.closes_at:
        held.window, held.found_at = held.silence.window_at(at), at
    if held.window is None:
        return SilenceState.EXPIRED
    return SilenceState.ACTIVE if held.window.opens_at <= at else SilenceState.PENDING


def _closes_at(silence: Silence, at: float) -> float:
    window = silence.window_at(at)
    return window.closes_at if window is not None else 0.0
