"""Values to rows and back, the same for every engine."""

from __future__ import annotations

import json
import zlib
from typing import Any, Protocol

import msgspec
from msgspec.structs import asdict

from probed.model import (
    FRESH,
    Event,
    EventState,
    Evidence,
    Moment,
    Phase,
    Sample,
    Severity,
    Side,
    Streak,
    Target,
)
from probed.recurrence import Recurrence
from probed.revisions import Difference, Mark, Patch, Touched
from probed.silences import Scope, Silence
from probed.store import AuditRecord, TransitionRecord

_encode = msgspec.json.Encoder(enc_hook=dict).encode
"""Of mappings that are read-only, too."""


class Row(Protocol):
    """A database row by column name, of any engine."""

    def __getitem__(self, name: str, /) -> Any: ...


EVENT_COLUMNS = (
    "id", "event", "name", "severity", "state", "instance", "node", "component", "member", "address", "fingerprint",
    "opened_at", "first_failed_at", "resolved_at", "resolve_reason", "count", "value", "threshold", "message",
    "suggestion", "policy_version", "observer", "caused_by", "suppressed", "acked_by", "labels",
    "flapping", "details", "silenced", "silenced_by",
)  # fmt: skip


def event_row(event: Event) -> tuple[Any, ...]:
    """In the order of ``EVENT_COLUMNS``."""
    target = event.target
    return (
        event.id, event.event, event.name, event.severity.value, event.state.value, target.instance, target.node,
        target.component, target.member, target.address, event.fingerprint, event.opened_at, event.first_failed_at,
        event.resolved_at, event.resolve_reason, event.count,
        None if event.value is None else json_text(event.value), event.threshold, event.message, event.suggestion,
        event.policy_version, event.observer, event.caused_by, int(event.suppressed), event.acked_by,
        json_text(event.labels), int(event.flapping), json_text(event.details) if event.details else "{}",
        int(event.silenced), event.silenced_by,
    )  # fmt: skip


def json_text(value: object) -> str:
    """JSON; ``null`` for numbers that it has no word for. Raises what ``json.dumps`` raises."""
    try:
        return _encode(value).decode()
    except (ValueError, TypeError):  # half a surrogate pair, which JSON can escape; else it raises once more
        return json.dumps(value)


def event_of(row: Row) -> Event:
    target = Target(row["instance"], row["node"], row["component"], row["address"], member=row["member"])
    return Event(
        id=row["id"],
        event=row["event"],
        name=row["name"],
        severity=Severity(row["severity"]),
        state=EventState(row["state"]),
        target=target,
        opened_at=row["opened_at"],
        message=row["message"],
        first_failed_at=row["first_failed_at"],
        resolved_at=row["resolved_at"],
        resolve_reason=row["resolve_reason"],
        count=row["count"],
        value=None if row["value"] is None else json.loads(row["value"]),
        threshold=row["threshold"],
        suggestion=row["suggestion"],
        policy_version=row["policy_version"],
        observer=row["observer"],
        caused_by=row["caused_by"],
        suppressed=bool(row["suppressed"]),
        acked_by=row["acked_by"],
        labels=json.loads(row["labels"]),
        flapping=bool(row["flapping"]),
        details=json.loads(row["details"]),
        silenced=bool(row["silenced"]),
        silenced_by=row["silenced_by"],
    )


def transition_of(row: Row, event: Event) -> TransitionRecord:
    return TransitionRecord(row["seq"], row["kind"], row["turned_at"], event, row["who"], row["comment"])


def worth_keeping(streak: Streak) -> bool:
    """Whether a streak says anything that a fresh one does not: a healthy fleet writes nothing."""
    return (
        streak.phase is not Phase.QUIET
        or streak.baseline is not None
        or bool(streak.identity)
        or bool(streak.seen)
        or bool(streak.increments)
        or bool(streak.turns)
    )


def streak_text(streak: Streak) -> str:
    """JSON of the fields that differ from a fresh streak."""
    values = {name: value for name, value in asdict(streak).items() if value != getattr(FRESH, name)}
    return json.dumps(values)


def streak_of(text: str) -> Streak:
    """Unknown fields, left by another version, are dropped."""
    values = {name: value for name, value in json.loads(text).items() if name in Streak.__struct_fields__}
    if "phase" in values:
        values["phase"] = Phase(values["phase"])
    if "increments" in values:
        values["increments"] = tuple((float(mono), float(delta)) for mono, delta in values["increments"])
    if "turns" in values:
        values["turns"] = tuple(float(at) for at in values["turns"])
    return Streak(**values)


def sample_json(sample: Sample) -> dict[str, Any]:
    """A sample in the API's shape, ``at`` as Unix seconds (the API renders times)."""
    return {
        "at": sample.at,
        "outcome": sample.outcome.value,
        "readings": dict(sample.readings),
        "reason": sample.reason,
        "duration_ms": round(sample.duration * 1000, 3),
    }


def touched_row(version: int, item: Touched) -> tuple[Any, ...]:
    """policy, version, before, after, differences, marks."""
    differences = [[each.path, each.before, each.after] for each in item.differences]
    marks = {path: [mark.version, mark.author] for path, mark in item.marks.items()}
    return (
        item.policy, version, json.dumps(item.before), json.dumps(item.after), json.dumps(differences),
        json.dumps(marks),
    )  # fmt: skip


def touched_of(row: Row) -> Touched:
    return Touched(
        row["policy"],
        json.loads(row["before"]),
        json.loads(row["after"]),
        tuple(Difference(*each) for each in json.loads(row["differences"])),
        _marks(row),
    )


def patch_of(row: Row) -> Patch:
    """Of a touched row with its revision's author."""
    return Patch(row["version"], row["author"], json.loads(row["after"]), _marks(row))


def _marks(row: Row) -> dict[str, Mark]:
    return {path: Mark(*mark) for path, mark in json.loads(row["marks"]).items()}


EVIDENCE_COLUMNS = ("event_id", "moment", "side", "collector", "target", "taken_at", "error", "data")


def evidence_row(event_id: str, item: Evidence) -> tuple[Any, ...]:
    """In the order of ``EVIDENCE_COLUMNS``."""
    data = zlib.compress(item.data.encode()) if item.data else None
    return (event_id, item.moment.value, item.side.value, item.collector, item.target, item.taken_at, item.error, data)


def evidence_of(row: Row) -> Evidence:
    return Evidence(
        collector=row["collector"],
        target=row["target"],
        taken_at=row["taken_at"],
        side=Side(row["side"]),
        moment=Moment(row["moment"]),
        data=zlib.decompress(row["data"]).decode() if row["data"] is not None else "",
        error=row["error"],
    )


def audit_of(row: Row) -> AuditRecord:
    before, after = (None if row[side] is None else json.loads(row[side]) for side in ("before", "after"))
    return AuditRecord(
        row["at"], row["who"], row["via"], row["client"], row["action"], row["subject"], row["reason"], before, after,
        row["seq"],
    )  # fmt: skip


SILENCE_COLUMNS = (
    "id", "scope", "comment", "author", "created_at", "starts_at", "ends_at", "every", "ended_at", "ended_by",
)  # fmt: skip


def silence_row(silence: Silence) -> tuple[Any, ...]:
    """In the order of ``SILENCE_COLUMNS``."""
    every = None if silence.every is None else json.dumps(asdict(silence.every))
    return (
        silence.id, json.dumps(asdict(silence.scope)), silence.comment, silence.author, silence.created_at,
        silence.starts_at, silence.ends_at, every, silence.ended_at, silence.ended_by,
    )  # fmt: skip


def silence_of(row: Row) -> Silence:
    scope = {name: tuple(names) for name, names in json.loads(row["scope"]).items()}
    scope["severities"] = tuple(map(Severity, scope["severities"]))
    every = json.loads(row["every"]) if row["every"] is not None else None
    if every is not None:
        every = {name: tuple(value) if isinstance(value, list) else value for name, value in every.items()}
    return Silence(
        id=row["id"],
        scope=Scope(**scope),
        comment=row["comment"],
        author=row["author"],
        created_at=row["created_at"],
        starts_at=row["starts_at"],
        ends_at=row["ends_at"],
        every=None if every is None else Recurrence(**every),
        ended_at=row["ended_at"],
        ended_by=row["ended_by"],
    )
