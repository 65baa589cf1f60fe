"""An instance as its topology: the way in, who leads, replicas with their lag, etcd, services. Pure.

Every part is drawn from the newest samples; what is bad and has no place in the drawing stands among the troubles, so
that nothing bad is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from probed import wording
from probed.api import states
from probed.board import Entry
from probed.model import Event, Outcome, Phase, Sample, Threshold
from probed.topology import Shape
from probed.watches import Watch
from probed.web import marks
from probed.web.marks import Mark

FIGURES = (
    ("replication_lag", "lag_seconds", "lag"),
    ("connections", "connections_used_pct", "conn"),
    ("cache_hit_ratio", "hit_ratio", "hit"),
    ("postgres_liveness", "ping_seconds", "ping"),
    ("disk_usage", "used_pct", "disk"),
)
"""What an operator looks for on a node: (probe, reading, label)."""
_DRAWN = frozenset(
    {
        "leader",
        "blindness",
        "patroni_cluster",
        "haproxy_routing",
        "haproxy_stats",
        "etcd_quorum",
        "etcd_member",
        "postgres_liveness",
    }
)
"""Instance-wide probes with a place of their own in the drawing, or none."""
MAX_TROUBLES = 8


class Figure(Struct, frozen=True):
    label: str
    value: str
    probe: str
    target: str


class Part(Struct, frozen=True):
    """One thing of the drawing."""

    name: str
    mark: Mark
    said: str = ""
    """Why it is not ok, in its own words."""
    figures: tuple[Figure, ...] = ()
    role: str = ""


class Pending(Struct, frozen=True):
    """A streak that is running and has not opened anything yet."""

    event: str
    place: str
    meeting: int
    count: int


class Trouble(Struct, frozen=True):
    """Targets that are bad for one reason."""

    mark: Mark
    places: tuple[str, ...]
    """``node-a/postgres (postgres_stats)``"""
    said: str


class Instance(Struct, frozen=True):
    """``proxy`` is ``None`` when no HAProxy is declared, ``etcd`` empty when no member is."""

    name: str
    labels: tuple[tuple[str, str], ...]
    mark: Mark
    leader: str
    timeline: str
    proxy: Part | None
    write_to: tuple[str, ...]
    """Nodes that the write port leads to, as HAProxy's statistics say; empty when they say nothing."""
    doors: tuple[Part, ...]
    """Declared write ports."""
    etcd: tuple[Part, ...]
    nodes: tuple[Part, ...]
    services: tuple[Part, ...]
    troubles: tuple[Trouble, ...]
    more_troubles: int
    unseen: int
    """Targets that cannot be seen."""
    pending: tuple[Pending, ...]
    targets: int
    summary: str
    sampled: float | None
    """Seconds since the newest sample of any target."""
    paused: bool = False
    """Patroni is in maintenance mode: nothing fails over by itself."""

    @property
    def leads_to_a_node(self) -> bool:
        """Whether HAProxy's servers are called like nodes, so that the way can be drawn to one."""
        return any(node.name in self.write_to for node in self.nodes)

    def writes_reach(self, node: Part) -> bool:
        """Whether writes through the proxy arrive at a node: by HAProxy's word, else by open write ports."""
        if self.write_to:
            return node.name in self.write_to
        doors_open = bool(self.doors) and all(door.mark is marks.OK for door in self.doors)
        return self.proxy is not None and doors_open and node.name == self.leader

    @property
    def healthy_members(self) -> int:
        return sum(part.mark is marks.OK for part in self.etcd)


class Known(Struct, frozen=True):
    """What an instance view is made of. ``now`` is monotonic."""

    name: str
    labels: Mapping[str, str]
    entries: Sequence[Entry]
    watches: Sequence[Watch]
    shape: Shape
    now: float
    paused: bool = False
    """Whether Patroni is in maintenance mode."""


def instance(known: Known) -> Instance:
    now, entries = known.now, known.entries
    events = [watch.event for watch in known.watches if watch.event is not None]
    by_node: dict[str, list[Entry]] = {node: [] for node in known.shape.nodes}
    general: list[Entry] = []
    for entry in entries:
        (by_node.setdefault(entry.target.node, []) if entry.target.node else general).append(entry)
    certain = states.leader(entries, "", now)
    nodes = tuple(_node(name, own, events, certain, now) for name, own in by_node.items())
    doors = [entry for entry in general if entry.probe == "postgres_liveness"]
    members = [entry for entry in general if entry.probe == "etcd_member"]
    ways = [entry for entry in general if entry.probe == "haproxy_stats"]
    others: dict[str, list[Entry]] = {}
    for entry in general:
        if entry.probe not in _DRAWN:
            others.setdefault(_called(entry), []).append(entry)
    services = tuple(_part(name, own, events, now) for name, own in others.items())
    bad = [entry for entry in entries if _troubles(entry, now)]
    drawn = {part.said for part in (*nodes, *services)}
    troubles = _by_reason([entry for entry in bad if _said(entry, now) not in drawn], now)
    return Instance(
        name=known.name,
        labels=tuple(known.labels.items()),
        mark=marks.of_state(states.state(entries, events, now)),
        leader=states.leader(entries, known.shape.leader, now) or "",
        timeline=_timeline(general, now),
        proxy=_proxy([*ways, *doors], events, now),
        write_to=_write_to(general, now),
        doors=tuple(_part(entry.target.address or entry.target.key, [entry], events, now) for entry in doors),
        etcd=tuple(_part(entry.target.address or entry.target.key, [entry], (), now) for entry in members),
        # The leader stands first, wherever it moved to.
        nodes=tuple(sorted(nodes, key=lambda node: (node.role not in ("primary", "standby_leader"), node.name))),
        services=services,
        troubles=tuple(troubles[:MAX_TROUBLES]),
        more_troubles=max(0, len(troubles) - MAX_TROUBLES),
        unseen=_unseen(entries, now),
        pending=tuple(_pending(watch) for watch in known.watches if watch.streak.phase is Phase.PENDING),
        targets=len(entries),
        summary=_summary(entries, now),
        sampled=_sampled(entries, now),
        paused=known.paused,
    )


def glance(known: Known) -> Instance:
    """An instance in one line: the same without its drawing, for a fleet of which few are shown whole."""
    now, entries = known.now, known.entries
    events = [watch.event for watch in known.watches if watch.event is not None]
    mark = marks.of_state(states.state(entries, events, now))
    return Instance(
        name=known.name,
        labels=tuple(known.labels.items()),
        mark=mark,
        leader=states.leader(entries, known.shape.leader, now) or "",
        timeline="",
        proxy=None,
        write_to=(),
        doors=(),
        etcd=(),
        nodes=tuple(Part(node, mark) for node in known.shape.nodes),
        services=(),
        troubles=(),
        more_troubles=0,
        unseen=_unseen(entries, now) if mark.bad else 0,
        pending=(),
        targets=len(entries),
        summary=_summary(entries, now),
        sampled=_sampled(entries, now),
        paused=known.paused,
    )


def _unseen(entries: Iterable[Entry], now: float) -> int:
    """Targets that cannot be seen."""
    own = (marks.of_entry(entry, now) for entry in entries if not entry.computed and entry.newest is not None)
    return sum(mark.bad and mark.look == marks.BLIND.look for mark in own)


def _sampled(entries: Iterable[Entry], now: float) -> float | None:
    newest = max((entry.ring[-1].mono for entry in entries if entry.ring), default=None)
    return None if newest is None else now - newest


def _node(name: str, entries: Sequence[Entry], events: Sequence[Event], certain: str | None, now: float) -> Part:
    own = [event for event in events if event.target.node == name]
    role = states.role(entries, certain == name, now) or ("leader" if certain == name else "")
    return Part(
        name,
        marks.of_state(states.state(entries, own, now)),
        _worst_words(entries, own, now),
        tuple(_figures(entries, now)),
        role,
    )


def _figures(entries: Sequence[Entry], now: float) -> Iterable[Figure]:
    for probe, reading, label in FIGURES:
        for entry in entries:
            sample = observed(entry, now) if entry.probe == probe else None
            if sample is not None and reading in sample.readings:
                yield Figure(label, wording.quantity(reading, sample.readings[reading]), probe, entry.target.key)
                break


def observed(entry: Entry, now: float) -> Sample | None:
    """The newest sample while it says something about now, and has readings."""
    newest = states.fresh(entry, now)
    return newest if newest is not None and newest.outcome is Outcome.OBSERVED else None


def _part(name: str, entries: Sequence[Entry], events: Iterable[Event], now: float) -> Part:
    own = [event for event in events if any(event.target.key == entry.target.key for entry in entries)]
    found = [marks.of_entry(entry, now) for entry in entries]
    if not own and found and all(mark is marks.NOT_APPLICABLE for mark in found):
        return Part(name, marks.NOT_APPLICABLE)
    return Part(name, marks.of_state(states.state(entries, own, now)), _worst_words(entries, own, now))


def _proxy(entries: Sequence[Entry], events: Sequence[Event], now: float) -> Part | None:
    return _part("HAProxy", entries, events, now) if entries else None


def _worst_words(entries: Sequence[Entry], events: Sequence[Event], now: float) -> str:
    """The reason of the worst target; of an open event its own words."""
    worst = min(entries, key=lambda entry: marks.of_entry(entry, now).rank, default=None)
    if worst is not None and marks.of_entry(worst, now).bad:
        return _said(worst, now)
    return min(events, key=lambda event: event.severity.rank).message if events else ""


def _said(entry: Entry, now: float) -> str:
    newest = entry.newest
    if newest is None:
        return "not sampled yet"
    if states.fresh(entry, now) is None:
        return f"last sample {wording.ago(now - newest.mono)}"
    return newest.reason


def _called(entry: Entry) -> str:
    return "/".join(part for part in (entry.target.component or entry.probe, entry.target.member) if part)


def _troubles(entry: Entry, now: float) -> bool:
    mark = marks.of_entry(entry, now)
    # What is blind for want of another probe's sample is told with that probe.
    return mark.bad and entry.newest is not None and not (entry.computed and mark.look == marks.BLIND.look)


def _by_reason(entries: Iterable[Entry], now: float) -> list[Trouble]:
    """The worst first; the same reason once, with all of its places."""
    found: dict[tuple[Mark, str], list[str]] = {}
    for entry in entries:
        target = entry.target
        place = "/".join(part for part in (target.node, target.component, target.member) if part) or target.instance
        found.setdefault((marks.of_entry(entry, now), _said(entry, now)), []).append(f"{place} ({entry.probe})")
    troubles = [Trouble(mark, tuple(places), said) for (mark, said), places in found.items()]
    return sorted(troubles, key=lambda trouble: trouble.mark.rank)


def _pending(watch: Watch) -> Pending:
    rule = watch.policy.detect
    place = watch.target.node or watch.target.component or watch.target.instance
    return Pending(watch.policy.id, place, watch.streak.meeting, rule.count if isinstance(rule, Threshold) else 1)


def _timeline(entries: Iterable[Entry], now: float) -> str:
    for entry in entries:
        sample = observed(entry, now) if entry.probe == "leader" else None
        if sample is not None and "timeline" in sample.readings:
            return wording.quantity("timeline", sample.readings["timeline"])
    return ""


def _write_to(entries: Iterable[Entry], now: float) -> tuple[str, ...]:
    for entry in entries:
        sample = observed(entry, now) if entry.probe == "haproxy_routing" else None
        leads_to: Any = sample.facts.get("leads_to") if sample is not None else None
        if isinstance(leads_to, tuple):
            return tuple(str(name) for name in leads_to)
    return ()


def _summary(entries: Sequence[Entry], now: float) -> str:
    """``all 19 targets ok``, ``17 ok, 1 failing, 1 blind``; what does not apply is counted as neither."""
    counts: dict[str, int] = {}
    for entry in entries:
        mark = marks.of_entry(entry, now)
        if mark is not marks.NOT_APPLICABLE:
            counts[mark.word] = counts.get(mark.word, 0) + 1
    if not counts:
        return "no target is known yet"
    if set(counts) == {marks.OK.word}:
        return f"all {wording.count(counts['ok'], 'target')} ok"
    order = [mark.word for mark in (marks.FAILING, marks.BLIND, marks.STALE, marks.WAITING, marks.OK)]
    return ", ".join(f"{counts[word]} {word}" for word in order if word in counts)


# --- the table of targets -----------------------------------------------------------------------------------------


class Row(Struct, frozen=True):
    """One probe on one target."""

    key: str
    node: str
    component: str
    probe: str
    computed: bool
    address: str
    mark: Mark
    since: float | None
    """Unix seconds since which the outcome is what it is."""
    sampled: float | None
    """Unix seconds."""
    readings: tuple[tuple[str, str], ...]
    said: str


def rows(entries: Iterable[Entry], now: float) -> tuple[Row, ...]:
    """The worst first, then by node and probe."""
    found = [_row(entry, now) for entry in entries]
    return tuple(sorted(found, key=lambda row: (row.mark.rank, row.node, row.component, row.probe)))


def _row(entry: Entry, now: float) -> Row:
    newest, target = entry.newest, entry.target
    component = "/".join(part for part in (target.component, target.member) if part)
    return Row(
        target.key,
        target.node,
        component,
        entry.probe,
        entry.computed,
        target.address,
        marks.of_entry(entry, now),
        entry.since if newest else None,
        newest.at if newest else None,
        wording.readings(newest.readings) if newest else (),
        _said(entry, now),
    )
