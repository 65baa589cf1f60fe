"""What happened in the last days: how often each chosen event was triggered, and how leaders changed. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from probed.inspection import Item, Section, Verdict
from probed.model import Event, Policy, Reading
from probed.quantity import human_seconds
from probed.store import LeadershipRecord

MAX_LINKS = 20
LONG_OUTAGE_SECONDS = 30.0
"""Without writes, by one switchover: longer than an orderly one, about what Patroni's default ttl costs."""
ORDERLY = ("planned", "restart")


class Triggers(Struct, frozen=True):
    """Of one event on one instance, over the days that count."""

    by_day: Mapping[str, int] = field(default_factory=dict)
    """``2026-11-22`` -> how often."""
    newest: tuple[Event, ...] = ()
    """At most ``MAX_LINKS``, the newest first; suppressed ones are not among them."""

    @property
    def total(self) -> int:
        return sum(self.by_day.values())


def triggered(instance: str, policy: Policy, triggers: Triggers, days: int) -> Item:
    """How often an event was announced or would have been."""
    ids = tuple(event.id for event in triggers.newest)
    if not triggers.total:
        return Item(
            Section.HISTORY, policy.id, policy.name, instance, Verdict.PASS, f"not triggered in {_days(days)}",
            evidence={"triggers": 0}, severity=policy.severity.value,
        )  # fmt: skip
    worst, most = max(triggers.by_day.items(), key=lambda item: (item[1], item[0]))
    flaps = sum(event.flapping for event in triggers.newest)
    told = [f"triggered {_times(triggers.total)} in {_days(days)}"]
    if len(triggers.by_day) > 1 or triggers.total > 1:
        told.append(f"at most {_times(most)} on one day ({worst})")
    if flaps:
        told.append(f"{flaps} of the newest {len(triggers.newest)} flapping")
    evidence: dict[str, Reading | None] = {"triggers": triggers.total, "most_per_day": most, "flapping": flaps}
    suggestion = policy.suggestion
    if flaps:
        suggestion = f"it comes and goes: probed policy proposals names a value that tells less. {suggestion}".strip()
    return Item(
        Section.HISTORY, policy.id, policy.name, instance, Verdict.WARN, ", ".join(told), suggestion,
        evidence=evidence, events=ids, severity=policy.severity.value,
    )  # fmt: skip


def switchovers(instance: str, passages: Sequence[LeadershipRecord], days: int, events: Sequence[str]) -> Item:
    """How leaders changed; ``events``: ids of the switchovers, newest first."""
    changes = [one.details for one in passages if one.details.get("old_leader") != one.details.get("new_leader")]
    in_place = [one.details for one in passages if one.details.get("old_leader") == one.details.get("new_leader")]
    classes = Counter(str(details.get("class")) for details in changes)
    outages = [
        float(outage) for one in passages if isinstance(outage := one.details.get("write_outage_seconds"), float | int)
    ]
    lost = sum(float(details.get("lost_bytes") or 0.0) for details in changes)
    longest = max(outages, default=0.0)
    evidence: dict[str, Reading | None] = {"switchovers": len(changes), **dict(sorted(classes.items()))}
    evidence |= {"restarts": len(in_place)} if in_place else {}
    if outages:
        evidence |= {
            "write_outage_seconds": round(sum(outages), 1),
            "longest_write_outage_seconds": round(longest, 1),
        }
    if lost:
        evidence["lost_bytes"] = lost
    if not passages:
        told = f"the leader did not change in {_days(days)}"
        return Item(
            Section.SWITCHOVERS, "switchovers", "Changes of the leader", instance, Verdict.PASS, told, evidence=evidence
        )
    parts = [f"{_count(len(changes), 'switchover')} in {_days(days)}"]
    if classes:
        kinds = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in sorted(classes.items()))
        parts[0] += f" ({kinds})"
    if in_place:
        parts.append(f"{_count(len(in_place), 'restart')} or promotions in place" if len(in_place) > 1 else "1 restart")
    if outages:
        parts.append(f"no writes for at most {human_seconds(round(sum(outages), 1))} in all")
        parts.append(f"{human_seconds(round(longest, 1))} at the longest")
    if lost:
        parts.append(f"at least {lost:.0f} bytes of WAL lost")
    disorderly = any(kind not in ORDERLY for kind in classes) or longest > LONG_OUTAGE_SECONDS or lost > 0
    suggestion = (
        "look at each one's signals and evidence; failovers that nobody wanted come from a short ttl, slow disks of "
        "etcd or memory pressure"
        if disorderly
        else ""
    )
    return Item(
        Section.SWITCHOVERS, "switchovers", "Changes of the leader", instance,
        Verdict.WARN if disorderly else Verdict.PASS, ", ".join(parts), suggestion, evidence=evidence,
        events=tuple(events[:MAX_LINKS]),
    )  # fmt: skip


def _days(days: int) -> str:
    return "the last day" if days == 1 else f"{days} days"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
