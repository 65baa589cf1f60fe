"""The overview: is anything wrong, what is the cause, since when, what was held back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from probed import wording
from probed.model import Event, EventState, Severity
from probed.watches import Watch
from probed.web import marks
from probed.web.marks import Mark
from probed.web.places import Instance

MAX_EVENTS = 50
UNFOLDED = 3
"""So few instances are all shown whole."""
MAX_UNFOLDED = 10
LATELY_SECONDS = 3600.0


class Headline(Struct, frozen=True):
    """One open or recent event with what was held back under it."""

    event: Event
    mark: Mark
    where: str
    held: tuple[Event, ...] = ()
    recovering: str = ""
    """``1 of 2 good samples``: how far it is on its way to be resolved."""
    cause: str = ""
    """Id of the cause that it outlived, or that a fatal one has beside it."""


class Folded(Struct, frozen=True):
    """An instance in one line, or whole."""

    instance: Instance
    whole: bool


class Overview(Struct, frozen=True):
    verdict: str
    """The first thing that is read: ``1 fatal, 1 critical`` or ``all well``."""
    worst: Mark
    open: tuple[Headline, ...]
    more_open: int
    lately: tuple[Headline, ...]
    instances: tuple[Folded, ...]
    hidden: int
    """Instances that the filter leaves out."""
    total: int
    filter: str
    sampled: float | None


def overview(
    instances: Sequence[Instance],
    open_events: Sequence[Event],
    recent: Iterable[Event],
    watches: Mapping[str, Watch],
    *,
    now: float,
    wanted: str = "",
    unfolded: frozenset[str] = frozenset(),
) -> Overview:
    """``watches`` by event id, for how far an open event is on its way; ``now`` is Unix seconds; ``wanted`` filters."""
    shown = [instance for instance in instances if _matches(instance, wanted)]
    shown.sort(key=lambda instance: (instance.mark.rank, instance.name))
    names = {instance.name for instance in shown} if wanted else None
    events = [event for event in open_events if names is None or event.target.instance in names]
    headlines = headed(events, watches)
    whole = {
        instance.name
        for number, instance in enumerate(shown)
        if len(shown) <= UNFOLDED or (instance.mark.bad and number < MAX_UNFOLDED) or instance.name in unfolded
    }
    return Overview(
        verdict=_verdict(shown, events),
        worst=min((instance.mark for instance in shown), key=lambda mark: mark.rank, default=marks.WAITING),
        open=tuple(headlines[:MAX_EVENTS]),
        more_open=max(0, len(headlines) - MAX_EVENTS),
        lately=tuple(_lately(recent, names, now)),
        instances=tuple(Folded(instance, instance.name in whole) for instance in shown),
        hidden=len(instances) - len(shown),
        total=len(instances),
        filter=wanted,
        sampled=min((item.sampled for item in instances if item.sampled is not None), default=None),
    )


def headed(events: Sequence[Event], watches: Mapping[str, Watch]) -> list[Headline]:
    """The gravest first, what a cause explains under the topmost cause that is open itself."""
    by_id = {event.id: event for event in events}
    held: dict[str, list[Event]] = {}
    tops: list[Event] = []
    for event in events:
        top = _top(event, by_id)
        if event.suppressed and top is not event:
            held.setdefault(top.id, []).append(event)
        else:
            tops.append(event)
    tops.sort(key=lambda event: (event.severity.rank, event.opened_at))
    return [
        Headline(
            event,
            marks.of_severity(event.severity),
            where(event),
            tuple(sorted(held.get(event.id, ()), key=lambda item: item.opened_at)),
            recovering(watches.get(event.id)),
            event.caused_by or "",
        )
        for event in tops
    ]


def where(event: Event) -> str:
    """``orders / node-a``, ``orders / rest``."""
    target = event.target
    return " / ".join(part for part in (target.instance, target.node or target.component) if part)


def _top(event: Event, by_id: Mapping[str, Event]) -> Event:
    seen = {event.id}
    while event.suppressed and event.caused_by and event.caused_by in by_id and event.caused_by not in seen:
        event = by_id[event.caused_by]
        seen.add(event.id)
    return event


def recovering(watch: Watch | None) -> str:
    """How far an open event is on its way to be resolved; empty when it is not."""
    if watch is None or not watch.streak.clearing:
        return ""
    needed = getattr(watch.policy.detect, "resolve_count", 1)
    return f"recovering: {watch.streak.clearing} of {wording.count(needed, 'good sample')}"


def _lately(recent: Iterable[Event], names: set[str] | None, now: float) -> Iterable[Headline]:
    for event in recent:
        at = event.resolved_at or event.opened_at
        if event.state is EventState.OPEN or event.suppressed or now - at > LATELY_SECONDS:
            continue
        if names is None or event.target.instance in names:
            mark = marks.RESOLVED if event.state is EventState.RESOLVED else marks.of_severity(event.severity)
            yield Headline(event, mark, where(event))


def _matches(instance: Instance, wanted: str) -> bool:
    """Whether every word of the filter is in the name, a label, a node or the state's word."""
    texts = [instance.name, instance.mark.word, *(f"{key}={value}" for key, value in instance.labels)]
    texts += [node.name for node in instance.nodes]
    joined = " ".join(texts).lower()
    return all(word in joined for word in wanted.lower().split())


def _verdict(instances: Sequence[Instance], events: Sequence[Event]) -> str:
    told = [event for event in events if not event.suppressed]
    counts = [(severity, sum(event.severity is severity for event in told)) for severity in Severity]
    said = [f"{number} {severity.value}" for severity, number in counts if number]
    blind = sum(item.unseen for item in instances)
    unseen = f"{wording.count(blind, 'target')} cannot be seen" if blind else ""
    if said:
        return ", ".join(said) + (f"; {unseen}" if unseen else "")
    if not instances:
        return "Nothing is watched here"
    failing = sum(item.mark is marks.FAILING for item in instances)
    if failing:
        return f"Nothing is open; {wording.count(failing, 'instance')} failing" + (f", {unseen}" if unseen else "")
    if unseen:
        return f"Nothing is open; {unseen}"
    if all(item.mark is marks.WAITING for item in instances):
        return "Waiting for the first samples"
    return "All is well"
