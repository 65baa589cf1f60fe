"""How an instance came by its leader: planned, failed over, promoted in place, restarted. Pure.

Patroni's history gives every promotion the same reason, and an immediate switchover leaves no trace in its REST API. So
the class is inferred from signals, each of which is told, with a confidence: how many of them agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from msgspec import Struct
from msgspec.structs import asdict, replace

Class = Literal["planned", "automatic_failover", "manual_failover", "self_promotion", "restart", "unknown"]
Confidence = Literal["high", "medium", "low"]

LOOKS = 24
"""Looks at a troubled leader that are remembered: two minutes at 5 s."""
SHORT_OUTAGE = 10.0
"""Seconds. An orderly switchover is over by then; a failover waits for Patroni's ttl (30 s by default, at least 20)."""
LONG_OUTAGE = 120.0
"""Seconds without a leader after which it was hardly Patroni by itself that promoted somebody."""
SCHEDULE_SLACK = 60.0
ORDERLY = frozenset({"stopping", "stopped", "starting", "restarting", "running", "streaming"})


class Look(Struct, frozen=True):
    """What one round saw of the leader of the time."""

    at: float
    mono: float
    writable: bool
    database: str
    """``well``, ``failed``, or empty when nothing is known."""
    patroni: str
    """State that its Patroni reported, ``silent``, or empty when nothing is known."""
    listed: bool
    paused: bool
    scheduled: bool
    """Patroni had a switchover away from it in its calendar for about now."""
    rival: bool = False
    """Another server of the same system took writes as well."""
    lsn: float | None = None
    """Its WAL position, bytes."""

    @property
    def calm(self) -> bool:
        """Whether nothing is worth remembering of it."""
        well = self.writable and self.database == "well" and self.listed
        return well and self.patroni in ("", *ORDERLY) and not (self.rival or self.scheduled)


class Promotion(Struct, frozen=True):
    """One line of Patroni's ``/history``: the end of a timeline."""

    timeline: int
    """That ended."""
    lsn: int
    at: str
    leader: str
    """Who led the next one; empty while Patroni does not know yet."""


class Term(Struct, frozen=True):
    """One leader's time in office, as far as it was seen."""

    leader: str
    timeline: int | None
    started_at: float | None
    """Start of its server, Unix seconds."""
    lsn: float | None
    """Its newest known WAL position, bytes."""
    writable_at: float | None = None
    """Wall and monotonic time of the last look at which it took writes."""
    writable_mono: float | None = None
    looks: tuple[Look, ...] = ()
    """Since it was last calm, oldest first."""

    def seen(self, look: Look) -> Term:
        """The term after one more look."""
        # What is written beside a rival is written to be lost: that is no service.
        serves = look.writable and not look.rival
        return Term(
            self.leader,
            self.timeline,
            self.started_at,
            look.lsn if look.writable and look.lsn is not None else self.lsn,
            look.at if serves else self.writable_at,
            look.mono if serves else self.writable_mono,
            (look,) if look.calm else (*self.looks[-LOOKS + 1 :], look),
        )


class Passage(Struct, frozen=True):
    """From one term to the next; JSON-able by ``as_details``."""

    kind: Class
    confidence: Confidence
    signals: tuple[str, ...]
    old_leader: str
    new_leader: str
    old_timeline: int | None = None
    new_timeline: int | None = None
    scheduled: bool = False
    inferred: bool = False
    """It happened while nobody looked."""
    write_outage_seconds: float | None = None
    """From the last sample that could write to the first one that could again: the outage was no longer than this."""
    lost_bytes: float | None = None
    """WAL that the old leader had written and the new one does not have; at least this much."""
    switchovers: int = 1

    @property
    def role_changed(self) -> bool:
        return self.old_leader != self.new_leader

    def as_details(self) -> dict[str, object]:
        """As told in the API: ``class`` instead of ``kind``, plain lists, seconds rounded to milliseconds."""
        details = {key: value for key, value in asdict(self).items() if key != "kind"}
        outage = self.write_outage_seconds
        details["write_outage_seconds"] = None if outage is None else round(outage, 3)
        return {"class": self.kind, **details, "signals": list(self.signals)}

    def __str__(self) -> str:
        """One clause for a message: what it was, how sure, what it cost."""
        said = [f"{_WORDS[self.kind]}{' as scheduled' if self.scheduled else ''}, confidence {self.confidence}"]
        if self.write_outage_seconds is not None:
            said.append(f"no writes for at most {self.write_outage_seconds:.1f} s")
        if self.lost_bytes:
            said.append(f"at least {self.lost_bytes:.0f} bytes of WAL lost")
        if self.inferred:
            said.append("it happened while nobody looked")
        return "; ".join(said)


_WORDS: Mapping[Class, str] = {
    "planned": "planned switchover",
    "automatic_failover": "automatic failover",
    "manual_failover": "manual failover",
    "self_promotion": "promoted in place",
    "restart": "restart",
    "unknown": "of unknown class",
}


class Unsettled(Struct, frozen=True):
    """A passage of which it is not known yet what was lost by it: Patroni writes its history some seconds later."""

    at: float
    mono: float
    term: Term
    """The old leader's."""
    passage: Passage

    def settled(self, history: Sequence[Promotion]) -> Passage | None:
        """The passage with what was lost, once the history tells."""
        lost = _lost(self.term, history)
        return None if lost is None else replace(self.passage, lost_bytes=lost)


SETTLE_SECONDS = 60.0


def passage(term: Term, new: Term, last: Look, history: Sequence[Promotion]) -> Passage | None:
    """How ``new`` came after ``term``; ``None`` when nothing has changed.

    ``last`` is what this round saw of the old leader, ``new.writable_mono`` the time of the first look at which the
    new one took writes.
    """
    if new.leader == term.leader:
        return _in_place(term, new)
    scheduled = last.scheduled or any(look.scheduled for look in term.looks)
    outage = _outage(term, new)
    lost = _lost(term, history)
    trouble, calm = _signals(term, last, outage, lost)
    paused = last.paused or any(look.paused for look in term.looks)
    kind: Class
    confidence: Confidence
    if scheduled:
        kind, confidence, signals = "planned", "high", ["Patroni had the switchover in its calendar", *calm]
    elif paused and trouble:
        kind, signals = "manual_failover", ["Patroni was paused, so it promoted nobody by itself", *trouble]
        confidence = "medium"
    elif trouble and outage is not None and outage >= LONG_OUTAGE:
        kind, signals = "manual_failover", [f"nobody led for {outage:.0f} s, longer than Patroni waits", *trouble]
        confidence = "low"
    elif len(trouble) > len(calm):
        kind, signals = "automatic_failover", trouble
        confidence = "high" if len(trouble) >= 2 and not calm else "medium"
    elif calm:
        kind, signals = "planned", calm
        confidence = "medium" if not trouble else "low"
    else:
        kind, signals, confidence = "unknown", [], "low"
    return Passage(
        kind, confidence, tuple(signals), term.leader, new.leader, term.timeline, new.timeline, scheduled,
        write_outage_seconds=outage, lost_bytes=lost, switchovers=_changes(term, new, history),
    )  # fmt: skip


def _in_place(term: Term, new: Term) -> Passage | None:
    """The same node leads: on a new timeline it was promoted in place, with a new start time it was restarted."""
    outage = _outage(term, new)
    same_server = new.started_at is None or term.started_at is None or abs(new.started_at - term.started_at) < 1.0
    if term.timeline is not None and new.timeline is not None and new.timeline > term.timeline:
        signals = [f"the same node leads on timeline {new.timeline} instead of {term.timeline}"]
        return Passage(
            "self_promotion", "high", tuple(signals), term.leader, new.leader, term.timeline, new.timeline,
            write_outage_seconds=outage,
        )  # fmt: skip
    if same_server:
        return None
    return Passage(
        "restart", "high", ("the same server has a new start time",), term.leader, new.leader, term.timeline,
        new.timeline, write_outage_seconds=outage,
    )  # fmt: skip


def _signals(term: Term, last: Look, outage: float | None, lost: float | None) -> tuple[list[str], list[str]]:
    """(what speaks for a failover, what speaks for a planned switchover)."""
    trouble, calm = [], []
    before = [look for look in term.looks if not look.writable]
    failed = sum(look.database == "failed" for look in before)
    silent = sum(look.patroni == "silent" for look in term.looks)
    rivals = sum(look.rival for look in term.looks)
    name = term.leader
    if rivals:
        trouble.append(f"{name} and another server took writes at the same time, in {rivals} cycles")
    if failed:
        trouble.append(f"the database of {name} had failed {'a cycle' if failed == 1 else f'{failed} cycles'} before")
    if silent:
        trouble.append(f"Patroni of {name} was silent, for {silent} cycles")
    if last.patroni == "silent":
        trouble.append(f"Patroni of {name} does not answer")
    elif last.patroni in ORDERLY:
        calm.append(f'Patroni of {name} answers, its state is "{last.patroni}"')
    elif last.patroni:
        trouble.append(f'Patroni of {name} reports "{last.patroni}"')
    if not last.listed:
        trouble.append(f"{name} has left Patroni's list")
    if not term.looks or term.looks[-1].calm:
        calm.append(f"{name} took writes at the look before")
    if outage is not None:
        (calm if outage < SHORT_OUTAGE else trouble).append(f"nobody could write for at most {outage:.1f} s")
    if lost:
        trouble.append(f"{name} had written {lost:.0f} bytes that its successor does not have")
    return trouble, calm


def _outage(term: Term, new: Term) -> float | None:
    if term.writable_mono is None or new.writable_mono is None or any(look.rival for look in term.looks):
        return None
    return max(0.0, new.writable_mono - term.writable_mono)


def _lost(term: Term, history: Sequence[Promotion]) -> float | None:
    """What the old leader was seen to have written beyond the point where its timeline was left."""
    end = next((line.lsn for line in history if line.timeline == term.timeline), None)
    return None if end is None or term.lsn is None else max(0.0, term.lsn - end)


def _changes(term: Term, new: Term, history: Sequence[Promotion]) -> int:
    """How many times the leader's name changed, by the history in between; at least once."""
    if term.timeline is None or new.timeline is None:
        return 1
    named = [line.leader for line in history if term.timeline <= line.timeline < new.timeline and line.leader]
    names = [term.leader, *named, new.leader]
    return max(1, sum(a != b for a, b in pairwise(names)))


def missed(
    old_leader: str, old_timeline: int | None, leader: str, timeline: int | None, history: Sequence[Promotion]
) -> Passage | None:
    """What happened while nobody looked, from what was last known; ``None`` when the leader's name never changed."""
    term, new = Term(old_leader, old_timeline, None, None), Term(leader, timeline, None, None)
    known = old_timeline is not None and timeline is not None
    switchovers = _changes(term, new, history) if known else 1
    between = [
        line for line in history
        if old_timeline is not None and timeline is not None and old_timeline <= line.timeline < timeline
    ]  # fmt: skip
    if old_leader == leader and not any(line.leader and line.leader != leader for line in between):
        return None
    signals = [
        f"Patroni's history: timeline {line.timeline} ended{f' at {line.at}' if line.at else ''}"
        + (f", {line.leader} led the next" if line.leader else "")
        for line in between
    ]
    return Passage(
        "unknown", "low", tuple(signals), old_leader, leader, old_timeline, timeline, inferred=True,
        switchovers=switchovers,
    )  # fmt: skip
