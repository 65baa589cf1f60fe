"""What must and must not have been recorded of a run: a model of its own, by events.md, evaluators.md and reliability.md.

It knows the faults and their lengths, counts nothing, and calls no evaluator. Where another fault may have kept the
product from looking, or may explain what it saw, it says so (a *veil* over a place) and demands nothing there; what it
could not judge is counted apart, as grey.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from probed.model import Event
from tests.reliability.accuracy.contract import RULES, E, Place, T, may_cause
from tests.reliability.accuracy.faults import Fault
from tests.reliability.accuracy.simulation import GRACE, Run
from tests.reliability.accuracy.veils import OFF_THE_LEADER, Span, clear_of, veils_of

SWITCHOVER: Place = ("ha_switchover", "postgres")
DEADLOCKS = 5
BESIDE = "probe_blind"
"""Not one of the 21: what long blindness rightly leads to."""


@dataclass(slots=True)
class Told:
    """One event over its life, as recorded."""

    event: Event
    place: Place
    opened: float
    resolved: float | None = None
    announced_at: float | None = None
    """When it was first not held back."""

    def __str__(self) -> str:
        state = "held back" if self.announced_at is None else f"announced {self.announced_at:.1f}"
        return f"{self.place[0]} on {self.place[1]} opened {self.opened:.1f}, resolved {self.resolved}, {state}"


@dataclass(slots=True)
class Verdict:
    """What a run came to. Every line of ``wrong`` is a broken promise."""

    seed: int
    faults: int
    judged: int = 0
    """Faults of which an event was demanded, and faults of which none was allowed."""
    grey: int = 0
    wrong: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    """Of what was wrong."""
    latencies: list[float] = field(default_factory=list)
    """From fault to commit, as a share of its bound."""
    demanded: Counter[str] = field(default_factory=Counter)
    """Events demanded, by policy."""

    def say(self, kind: str, text: str) -> None:
        self.kinds[kind] += 1
        self.wrong.append(f"{kind}: {text}")


def judge(run: Run) -> Verdict:
    """Hold a run against the contract."""
    verdict = Verdict(run.seed, len(run.faults))
    told = _told(run)
    for one in told:
        _explained(run, told, one, verdict)
        if one.place[0] not in ("ha_switchover", "oom_killed"):
            _resolved(run, one, verdict)
    for fault in run.faults:
        if fault.kind.name != "switchover":
            _demanded(run, told, fault, verdict)
    _switchovers(run, told, verdict)
    return verdict


def _told(run: Run) -> list[Told]:
    found: dict[str, Told] = {}
    for record in run.records:
        change = record.change
        event = change.event
        if event.event == BESIDE:
            continue
        if event.id not in found:
            found[event.id] = Told(event, (event.event, event.target.key.partition("/")[2]), record.at)
        one = found[event.id]
        one.event = event
        if change.kind == "resolved":
            one.resolved = record.at
        if not event.suppressed and one.announced_at is None:
            one.announced_at = record.at
    return list(found.values())


# --- what is demanded -----------------------------------------------------------------------------------------


def _demanded(run: Run, told: Sequence[Told], fault: Fault, verdict: Verdict) -> None:
    """A fault that lasts D has its event within D; one that is too short for so many samples has none."""
    if not fault.own:
        verdict.judged += 1  # whatever it brought about would be unexplained
        return
    place = fault.own[0]
    rule = RULES[place[0]]
    events = [one for one in told if one.place == place and fault.start <= one.opened <= _over(fault, place)]
    # What another reason has opened goes on for this one.
    events += [one for one in told if one.place == place and one.opened < fault.start < (one.resolved or run.ended)]
    if fault.kind.instant:
        lasted = Span(fault.start, fault.start + rule.opens_within)
    else:
        lasted = Span(fault.start + fault.delay, fault.end)
    bound = rule.opens_within + (T if fault.kind.delay else 0.0)
    if lasted.end - lasted.start < rule.never_below:
        verdict.judged += 1
        alone = [one for one in events if _reasons(run, one) == [fault]]
        if alone:
            verdict.say("false", f"{fault} was too short, yet {alone[0]}")
        return
    clear = [part for part in clear_of(lasted, veils_of(run, place, fault)) if part.end - part.start >= bound]
    if not clear:
        verdict.grey += 1
        return
    verdict.judged += 1
    verdict.demanded[place[0]] += 1
    deadline = clear[0].start + bound
    in_time = [one for one in events if one.opened <= deadline and (one.resolved or run.ended) > clear[0].start]
    if not in_time:
        late = f"late: {events[0]}" if events else "nothing was recorded"
        verdict.say("late" if events else "missed", f"{fault}: {place[0]} until {deadline:.1f}, {late}")
        return
    if clear[0].start == lasted.start and in_time[0].opened >= fault.start:
        verdict.latencies.append((in_time[0].opened - lasted.start) / bound)
        if in_time[0].announced_at is None or in_time[0].announced_at > deadline:
            verdict.say("wrong", f"{fault}: nothing explains it, yet {in_time[0]}")
    fresh = [one for one in events if one.opened >= fault.start]
    if len(fresh) > 1 and not _veils_within(run, place, fault):
        verdict.say("double", f"{fault}: {'; '.join(map(str, events))}")
    _severity(run, fault, in_time[0], verdict)


def _veils_within(run: Run, place: Place, fault: Fault) -> bool:
    span = Span(fault.start, _over(fault, place))
    return any(veil.meets(span) for veil in veils_of(run, place, fault))


def _severity(run: Run, fault: Fault, one: Told, verdict: Verdict) -> None:
    if one.place[0] != "database_unavailable" or not fault.node:
        return
    if any(fault.start - GRACE <= at <= one.opened for at, *_ in run.switchovers):
        return
    wanted = "fatal" if fault.on_leader else "critical"
    if one.event.severity.value != wanted:
        verdict.say("wrong", f"{fault}: expected {wanted}, {one} is {one.event.severity.value}")


def _switchovers(run: Run, told: Sequence[Told], verdict: Verdict) -> None:
    """Each change of the primary is told once, as what it was."""
    events = [one for one in told if one.place == SWITCHOVER]
    for number, (at, old, new) in enumerate(run.switchovers):
        following = run.switchovers[number + 1][0] if number + 1 < len(run.switchovers) else run.ended
        near = [one for one in events if at <= one.opened < following]
        if not clear_of(Span(at, at + RULES["ha_switchover"].opens_within), _uncertain(run, new)):
            verdict.grey += 1
            continue
        verdict.judged += 1
        verdict.demanded["ha_switchover"] += 1
        if len(near) != 1:
            verdict.say(
                "missed" if not near else "double", f"switchover {old} -> {new} at {at:.1f} was told {len(near)} times"
            )
            continue
        verdict.latencies.append((near[0].opened - at) / RULES["ha_switchover"].opens_within)
        if near[0].event.value != new:
            verdict.say("wrong", f"switchover {old} -> {new} at {at:.1f} was told as {near[0].event.message}")
        if near[0].opened > at + RULES["ha_switchover"].opens_within and not _uncertain_at(run, new, at):
            verdict.say("late", f"switchover {old} -> {new} at {at:.1f} was told at {near[0].opened:.1f}")


def _uncertain(run: Run, new: str) -> list[Span]:
    """When it cannot be said for certain who leads."""
    return [
        Span(fault.start, fault.end + 3 * T)
        for fault in run.faults
        if fault.start
        and (fault.kind.name == "etcd" or (fault.node == new and fault.kind.name in ("database", "machine", "blind", "patroni", "connections")))
    ]  # fmt: skip


def _uncertain_at(run: Run, new: str, at: float) -> bool:
    return any(span.meets(Span(at, at + 4 * T)) for span in _uncertain(run, new))


# --- what is allowed ------------------------------------------------------------------------------------------


def _over(fault: Fault, place: Place) -> float:
    """Until when a fault may still be the reason for an opening."""
    rule = RULES[place[0]]
    return fault.end + rule.opens_within + rule.window


def _reasons(run: Run, one: Told) -> list[Fault]:
    return [
        fault
        for fault in run.faults
        if fault.start
        and one.place in (*fault.own, *fault.consequences)
        and fault.start <= one.opened <= _seen_by(run, fault, one.place)
    ]


def _seen_by(run: Run, fault: Fault, place: Place) -> float:
    """Until when a fault may be the reason for an opening; a counter tells what it did when it can be read again."""
    over = _over(fault, place)
    if fault.kind.instant:
        behind = [veil.end for veil in veils_of(run, place, fault) if veil.start <= over and veil.end > fault.start]
        over = max([over, *(end + T for end in behind)])
    return over


def _explained(run: Run, told: Sequence[Told], one: Told, verdict: Verdict) -> None:
    """Every event has a fault behind it, and is held back when that fault has a graver name."""
    if one.place == SWITCHOVER:
        if not any(at <= one.opened <= at + 1e3 for at, *_ in run.switchovers):
            verdict.say("false", f"nobody switched: {one}")
        return
    reasons = _reasons(run, one)
    if not reasons:
        if not _adds_up(run, one):
            verdict.say("false", f"no fault is behind {one}: {one.event.message}")
        return
    _cause_is_right(told, one, verdict)
    if any(one.place in fault.own for fault in reasons) or one.announced_at is None:
        return
    for fault in reasons:
        if fault.kind.name == "etcd" and _somebody_away(run, one.opened):
            continue  # with a server away and without Patroni's word nobody can say that there is no leader
        named = [
            other
            for other in told
            if other.place in fault.own and fault.start <= other.opened <= _over(fault, other.place)
        ]
        for other in named:
            if fault.start <= one.announced_at < (other.resolved or run.ended) and other.place != one.place:
                verdict.say("beside", f"{one} was announced beside {other}, which {fault} explains")
                return


def _adds_up(run: Run, one: Told) -> bool:
    """Whether deadlocks that were too few each came to be read within a minute, some of them after blind time."""
    if one.place[0] != "deadlocks_frequent":
        return False
    counted = [
        fault.amount
        for fault in run.faults
        if fault.amount and one.place[1] == f"{fault.node}/postgres"
        and fault.start <= one.opened <= _seen_by(run, fault, one.place) + RULES[one.place[0]].window
    ]  # fmt: skip
    return sum(counted) >= DEADLOCKS


def _somebody_away(run: Run, at: float) -> bool:
    return any(
        fault.start <= at <= fault.end + T and fault.kind.name in ("database", "machine", "blind", "connections")
        for fault in run.faults
    )


def _cause_is_right(told: Sequence[Told], one: Told, verdict: Verdict) -> None:
    """A consequence names a cause that was open, of a kind that can bring it about, and as grave as it."""
    if not one.event.suppressed or one.event.caused_by is None:
        return
    cause = next((other for other in told if other.event.id == one.event.caused_by), None)
    if cause is None:
        verdict.say("wrong", f"{one} names a cause that does not exist")
        return
    if not cause.opened <= one.opened <= (cause.resolved or one.opened):
        verdict.say("wrong", f"{one} names a cause that was not open: {cause}")
    if cause.place[0] not in may_cause(one.place[0]):
        verdict.say("wrong", f"{one} names {cause.place[0]} as its cause")
    if one.event.severity.value == "fatal" and cause.event.severity.value != "fatal":
        verdict.say("wrong", f"{one} is fatal and held back under {cause}, which is not")


def _resolved(run: Run, one: Told, verdict: Verdict) -> None:
    """An event ends within C of its last reason, and not before the reason does."""
    reasons = _reasons(run, one)
    if not reasons:
        return
    rule = RULES[one.place[0]]
    alike = [
        fault
        for fault in run.faults
        if fault.start and one.place in (*fault.own, *fault.consequences)
        and one.opened <= fault.start + rule.window and fault.start <= (one.resolved or run.ended)
    ]  # fmt: skip
    end = max(fault.end for fault in (*reasons, *alike))
    deadline = end + rule.resolves_within
    veils = sorted(veils_of(run, one.place), key=lambda span: span.start)
    for veil in veils:
        if veil.start <= deadline and veil.end > end:
            deadline = max(deadline, veil.end + rule.resolves_within)
    if one.resolved is None and deadline < run.ended:
        verdict.say("stuck", f"{one} is open still, due {deadline:.1f}")
    elif one.resolved is not None and one.resolved > deadline:
        verdict.say("stuck", f"{one}, due {deadline:.1f}")
    own = [fault for fault in reasons if one.place in fault.own and not fault.kind.instant]
    if not own or one.resolved is None or one.resolved >= own[-1].end - E:
        return
    # What cannot be seen never closes an event; what is well again, or another's now, does.
    if not _rightly_over(run, own[-1], Span(one.opened, one.resolved)):
        verdict.say("early", f"{own[-1]} was not over: {one}")


def _rightly_over(run: Run, fault: Fault, span: Span) -> bool:
    """Whether something else may have ended an event before its fault: a role that changed, a cache made cold anew."""
    policy = fault.own[0][0]
    if policy == "cache_hit_ratio_low":
        return any(veil.meets(span) for veil in veils_of(run, fault.own[0], fault))
    if policy in OFF_THE_LEADER and any(span.start <= at <= span.end for at, *_ in run.switchovers):
        return True
    without_etcd = any(
        other.kind.name == "etcd" and Span(other.start, other.end + T).meets(span) for other in run.faults
    )
    return fault.mechanism == "missing" and without_etcd  # Patroni's list cannot be read then


def summary(verdicts: Sequence[Verdict]) -> str:
    """The figures of a protocol, in a few lines."""
    wrong = sum((verdict.kinds for verdict in verdicts), Counter[str]())
    demanded = sum((verdict.demanded for verdict in verdicts), Counter[str]())
    shares = [share for verdict in verdicts for share in verdict.latencies]
    median = statistics.median(shares) if shares else 0.0
    faults, judged, grey = (sum(getattr(one, name) for one in verdicts) for name in ("faults", "judged", "grey"))
    return (
        f"{len(verdicts)} seeds, {faults} faults: {judged} judged, {grey} grey\n"
        f"{sum(demanded.values())} events demanded of {len(demanded)} policies: {wrong['missed']} missed, "
        f"{wrong['late']} late\n"
        f"{wrong['false']} false, {wrong['wrong']} of the wrong kind, {wrong['double']} double, "
        f"{wrong['beside']} announced beside their cause, {wrong['early']} closed early, {wrong['stuck']} stuck open\n"
        f"from fault to committed event: median {100 * median:.0f} %, at most {100 * max(shares, default=0.0):.0f} % of D"
    )
