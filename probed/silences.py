"""Silences: what a person wants not to be told of, and when. Pure.

A silence takes nothing away: its events are recorded, shown and counted like all others, and their people are not
called. It covers what it names, and it holds between two moments, or in windows that come back between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from probed.model import OBSERVER, Event, Severity
from probed.quantity import human_seconds
from probed.recurrence import Recurrence, Window

DAY = 86400.0
MAX_SECONDS = 31 * DAY
"""How long a silence without windows may hold: what nobody wants to hear of for longer is a policy to disable."""
MAX_SPAN = 366 * DAY
"""How far ahead one may begin, and for how long one with windows may stand unless a file declares it."""
MAX_COMMENT = 500
MAX_NAMES = 50
CLOCK_ERROR_SECONDS = DAY
"""So long one that is over is still asked: the clock by which it is over may have been wrong."""
FILE = "file:"
"""What the id of a silence begins with that stands in the configuration: ``file:nightly``."""
BLINDNESS = "probe_blind"
"""The event of an instance that is about its observer."""

Problem = tuple[str, str]
"""(key, what is wrong with its value)"""


class SilenceState(StrEnum):
    PENDING = "pending"
    """It has not begun, or is between two of its windows."""
    ACTIVE = "active"
    EXPIRED = "expired"


class Scope(Struct, frozen=True):
    """Exact names. What is left open covers everything, what is named must fit; a silence names something at least."""

    instances: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.instances or self.nodes or self.events or self.severities)

    def __str__(self) -> str:
        named = (self.instances, self.nodes, self.events, self.severities)
        words = ("instance", "node", "event", "severity")
        return ", ".join(f"{word} {' or '.join(names)}" for word, names in zip(words, named, strict=True) if names)

    def covers(self, event: Event) -> bool:
        """Whether an event is meant. That the observer is blind, or did not look, is meant only when it is named."""
        own = event.target.instance == OBSERVER or event.event == BLINDNESS
        if own and OBSERVER not in self.instances and event.event not in self.events:
            return False
        return (
            _fits(event.target.instance, self.instances)
            and _fits(event.target.node, self.nodes)
            and _fits(event.event, self.events)
            and _fits(event.severity, self.severities)
        )


def _fits(name: str, names: Sequence[str]) -> bool:
    return not names or name in names


class Silence(Struct, frozen=True):
    """Times in Unix seconds."""

    id: str
    scope: Scope
    comment: str
    author: str
    created_at: float
    starts_at: float
    ends_at: float | None = None
    """``None`` only for windows that a file declares without an end."""
    every: Recurrence | None = None
    """It holds only in these windows."""
    ended_at: float | None = None
    """When somebody ended it before its time."""
    ended_by: str = ""
    where: str = ""
    """Where it is written, when that is the configuration: ``/etc/probed/probed.yml:12``."""

    @property
    def origin(self) -> str:
        return "file" if self.id.startswith(FILE) else "api"

    @property
    def over_at(self) -> float | None:
        """From when on it never holds again; ``None``: it goes on."""
        ends = [at for at in (self.ends_at, self.ended_at) if at is not None]
        return min(ends, default=None)

    def state_at(self, at: float) -> SilenceState:
        if self.over_at is not None and at >= self.over_at:
            return SilenceState.EXPIRED
        window = self.window_at(at)
        if window is None:
            return SilenceState.EXPIRED
        return SilenceState.ACTIVE if window.opens_at <= at else SilenceState.PENDING

    def window_at(self, at: float) -> Window | None:
        """The time in which it holds at ``at``, else the next one; ``None`` when there is none any more."""
        over_at = self.over_at
        end = float("inf") if over_at is None else over_at
        if self.every is None:
            return Window(self.starts_at, end) if at < end else None
        looked = max(at, self.starts_at)
        window = self.every.window_at(looked) or self.every.next_after(looked)
        if window is None or window.opens_at >= end or looked >= end:
            return None
        return Window(max(window.opens_at, self.starts_at), min(window.closes_at, end))

    def end(self, at: float, by: str) -> Silence:
        """The same, ended before its time."""
        return replace(self, ended_at=at, ended_by=by)


def wrong_span(
    starts_at: float, ends_at: float | None, every: Recurrence | None, now: float | None
) -> Iterable[Problem]:
    """What is wrong with the times of a silence; those of a file are given no ``now``: they may be long over."""
    if ends_at is None:
        if every is None:
            yield "ends_at", "expected an end: a silence that is forgotten hides the next outage"
        elif now is not None:
            yield "ends_at", "expected an end; windows that come back for good belong into probed.yml, under silences:"
        return
    longest = MAX_SECONDS if every is None else MAX_SPAN
    if ends_at <= starts_at:
        yield "ends_at", "expected an end after the start"
    elif now is not None and ends_at <= now:
        yield "ends_at", "expected an end in the future"
    elif ends_at - starts_at > longest and (every is None or now is not None):
        instead = "; to be told of something never, disable its policy" if every is None else ""
        yield "ends_at", f"expected at most {human_seconds(longest)} after the start{instead}"
    elif every is not None and Silence("", Scope(), "", "", 0, starts_at, ends_at, every).window_at(starts_at) is None:
        yield "every", "no window of it opens between the start and the end"
    if now is not None and starts_at > now + MAX_SPAN:
        yield "starts_at", f"expected a start within {human_seconds(MAX_SPAN)}"


# --- events under a silence -------------------------------------------------------------------------------


def mute(event: Event, silence: Silence, at: float) -> Event:
    """An event that a silence covers. It is ``silenced``, that is held back, unless people were told of it before."""
    return _marked(replace(event, silenced=event.held_back), silence, at)


def mute_from_birth(event: Event, silence: Silence, at: float) -> Event:
    """An event that opens or occurs under a silence: nobody has been told."""
    return _marked(replace(event, silenced=True), silence, at)


def unmute(event: Event, at: float) -> Event:
    """An event that has outlived its silence: people are told now, whether they were told before or not.

    Which silence it was stays known.
    """
    details = {**event.details, "silence": {**_noted(event), "over_at": _rfc3339(at)}}
    return replace(event, silenced=False, details=details)


def _marked(event: Event, silence: Silence, at: float) -> Event:
    note = {"comment": silence.comment, "author": silence.author, "since": _rfc3339(at)}
    return replace(event, silenced_by=silence.id, details={**event.details, "silence": note})


def _noted(event: Event) -> dict[str, object]:
    note = event.details.get("silence")
    return dict(note) if isinstance(note, dict) else {}


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
