"""The JSON of every answer, as the design page ``interface.md`` (section 4, "Shapes") promises it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast, overload

from probed.api import schemas
from probed.board import Entry
from probed.courier import ReceiverState
from probed.couriers import Tested
from probed.model import (
    Change,
    Condition,
    Detect,
    Event,
    Evidence,
    HttpQuestion,
    Increase,
    Occurrence,
    Policy,
    Reading,
    Sample,
    SqlQuestion,
    TcpQuestion,
    Threshold,
)
from probed.policy import words
from probed.recording.reading import Recorded
from probed.recurrence import WEEKDAYS, Recurrence, Window
from probed.silences import Silence, SilenceState
from probed.store import (
    AuditRecord,
    DailyCount,
    EventDetail,
    GapRecord,
    LeadershipRecord,
    TokenRecord,
    TransitionRecord,
)
from probed.store.notices import Backlog, Delivery

Json = dict[str, Any]
_Item = TypeVar("_Item")


@overload
def instant(at: float) -> str: ...
@overload
def instant(at: None) -> None: ...
@overload
def instant(at: float | None) -> str | None: ...
def instant(at: float | None) -> str | None:
    """RFC 3339 in UTC with milliseconds: ``2026-11-22T10:00:00.000Z``."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page(items: Sequence[_Item], next_cursor: str | None) -> schemas.Page[_Item]:
    return {"items": list(items), "next_cursor": next_cursor}


def event(event: Event) -> schemas.Event:
    return {
        "id": event.id,
        "event": event.event,
        "name": event.name,
        "severity": event.severity.value,
        "state": event.state.value,
        "instance": event.target.instance,
        "node": event.target.node or None,
        "component": event.target.component or None,
        "target": event.target.key,
        "opened_at": instant(event.opened_at),
        "first_failed_at": instant(event.first_failed_at),
        "resolved_at": instant(event.resolved_at),
        "resolve_reason": event.resolve_reason or None,
        "count": event.count,
        "value": number(event.value),
        "threshold": number(event.threshold),
        "message": event.message,
        "suggestion": event.suggestion,
        "policy_version": event.policy_version,
        "observer": event.observer,
        "fingerprint": event.fingerprint,
        "caused_by": event.caused_by,
        "suppressed": event.suppressed,
        "acked_by": event.acked_by,
        "labels": dict(event.labels),
        "flapping": event.flapping,
        "details": dict(event.details),
        "silenced": event.silenced,
        "silenced_by": event.silenced_by,
    }


def silence(
    silence: Silence, state: SilenceState, window: Window | None, open_events: Sequence[str]
) -> schemas.Silence:
    every = silence.every
    return {
        "id": silence.id,
        "state": state.value,
        "origin": silence.origin,
        "where": silence.where or None,
        "instances": list(silence.scope.instances),
        "nodes": list(silence.scope.nodes),
        "events": list(silence.scope.events),
        "severities": [severity.value for severity in silence.scope.severities],
        "comment": silence.comment,
        "author": silence.author,
        "created_at": instant(silence.created_at or None),
        "starts_at": instant(silence.starts_at or None),
        "ends_at": instant(silence.ends_at),
        "every": None if every is None else str(every),
        "recurrence": None if every is None else _recurrence(every),
        "window": None if window is None or state is SilenceState.EXPIRED else _window(window),
        "ended_at": instant(silence.ended_at),
        "ended_by": silence.ended_by or None,
        "open_events": list(open_events),
    }


def _recurrence(every: Recurrence) -> schemas.Recurrence:
    return {
        "weekdays": [WEEKDAYS[day] for day in every.weekdays],
        "monthdays": list(every.monthdays),
        "start": f"{every.start // 60:02d}:{every.start % 60:02d}",
        "length_seconds": every.length * 60,
        "zone": every.zone,
    }


def _window(window: Window) -> schemas.Window:
    closes_at = window.closes_at if math.isfinite(window.closes_at) else None
    return {"opens_at": instant(window.opens_at or None), "closes_at": instant(closes_at)}


def leadership(record: LeadershipRecord) -> schemas.Leadership:
    """A passage from leader to leader, or of one in place: ``class``, ``signals``, ``write_outage_seconds`` …"""
    told = {"instance": record.instance, "at": instant(record.at), **record.details}
    return cast(schemas.Leadership, told)


def gap(record: GapRecord) -> schemas.Gap:
    return {
        "began_at": instant(record.began_at),
        "ended_at": instant(record.ended_at),
        "seconds": round(record.ended_at - record.began_at, 3),
        "observer": record.observer,
        "reason": record.reason,
    }


def event_detail(detail: EventDetail) -> schemas.EventDetail:
    return {
        **event(detail.event),
        "samples": {
            "before": [_kept_sample(sample) for sample in detail.before],
            "after": [_kept_sample(sample) for sample in detail.after],
        },
        "evidence": [_evidence(item) for item in detail.evidence],
        "deliveries": [delivery(one) for one in reversed(detail.deliveries)],
        "consequences": list(detail.consequences),
        "history": [transition(record) for record in detail.history],
    }


def transition(record: TransitionRecord) -> schemas.Transition:
    return {
        "seq": record.seq,
        "kind": cast(schemas.TransitionWord, record.kind),
        "at": instant(record.at),
        "who": record.who or None,
        "comment": record.comment or None,
    }


def streamed(record: TransitionRecord) -> schemas.StreamedEvent:
    """The event as it is by now, and the transition that is told of."""
    return {**event(record.event), "transition": transition(record)}


def delivery(one: Delivery) -> schemas.Delivery:
    return {
        "transition": one.transition,
        "receiver": one.receiver,
        "event_id": one.event_id,
        "event": one.event,
        "instance": one.instance,
        "told": one.told.value,
        "fate": one.fate.value,
        "owed_at": instant(one.owed_at),
        "attempts": one.attempts,
        "tried_at": instant(one.tried_at),
        "settled_at": instant(one.settled_at),
        "answer": one.answer,
        "dead_letter": one.dead_letter,
    }


def receiver(state: ReceiverState, backlog: Backlog | None, dead_letters: int) -> schemas.Receiver:
    return {
        "name": state.name,
        "kind": cast(Literal["alertmanager", "webhook", "apprise"], state.kind),
        "owed": backlog.notices if backlog else 0,
        "oldest_owed_at": instant(backlog.oldest_at) if backlog else None,
        "dead_letters": dead_letters,
        "failing_since": instant(state.failing_since),
        "answer": state.answer,
    }


def tested(one: Tested) -> schemas.Tested:
    return {
        "receiver": one.receiver,
        "delivered": one.delivered,
        "answer": one.answer,
        "seconds": round(one.seconds, 3),
    }


def _evidence(item: Evidence) -> schemas.Evidence:
    shown: schemas.Evidence = {
        "collector": item.collector,
        "target": item.target or None,
        "taken_at": instant(item.taken_at),
        "when": item.side.value,
        "moment": item.moment.value,
    }
    if item.error:
        shown["error"] = item.error
    else:
        shown["data"] = json.loads(item.data)
    return shown


def token(record: TokenRecord, now: float) -> schemas.Token:
    expired = record.expires_at is not None and record.expires_at <= now
    return {
        "id": record.id,
        "name": record.name,
        "role": record.role,
        "scopes": list(record.scopes),
        "state": "revoked" if record.revoked_at is not None else "expired" if expired else "live",
        "created_at": instant(record.created_at),
        "created_by": record.created_by,
        "expires_at": instant(record.expires_at),
        "revoked_at": instant(record.revoked_at),
        "used_at": instant(record.used_at),
    }


def audit(record: AuditRecord) -> schemas.Audit:
    return {
        "seq": record.seq,
        "at": instant(record.at),
        "who": record.who,
        "via": record.via,
        "client": record.client or None,
        "action": record.action,
        "subject": record.subject,
        "reason": record.reason,
        "before": record.before,
        "after": record.after,
    }


def daily(zone: str, counts: Sequence[DailyCount]) -> schemas.Daily:
    items: list[schemas.DailyCount] = [
        {
            "date": count.date,
            "event": count.event,
            "instance": count.instance,
            "severity": count.severity.value,
            "count": count.count,
        }
        for count in counts
    ]
    return {"tz": zone, "items": items}


def target(entry: Entry) -> schemas.Target:
    """A probe on a target with its newest sample; ``outcome`` and times are null before the first one."""
    newest = entry.newest
    return {
        "component": entry.target.component or None,
        "probe": entry.probe,
        "address": entry.target.address or None,
        "outcome": newest.outcome.value if newest else None,
        "since": instant(entry.since) if newest else None,
        "last_sample_at": instant(newest.at) if newest else None,
        "readings": _readings(newest.readings) if newest else {},
        "reason": newest.reason if newest else "",
    }


def node(name: str, role: str | None, state: str, entries: Sequence[Entry]) -> schemas.Node:
    return {"name": name, "role": role, "state": state, "targets": [target(entry) for entry in entries]}


def policy(policy: Policy) -> schemas.Policy:
    """The effective policy: keys as in a policy file, ``rule`` in words; durations and sizes in seconds and bytes."""
    shown: schemas.Policy = {
        "id": policy.id,
        "name": policy.name,
        "group": policy.group,
        "severity": policy.severity.value,
        "replica_severity": policy.replica_severity.value if policy.replica_severity else None,
        "enabled": policy.enabled,
        "can_disable": policy.can_disable,
        "fixed": policy.fixed,
        "description": policy.description,
        "suggestion": policy.suggestion,
        "rule": words.rule(policy),
        "probe": policy.probe,
        "instances": list(policy.instances),
        "params": dict(policy.params),
        "detect": _detect(policy.detect),
        "interval": policy.interval,
        "timeout": policy.timeout,
        "confirm_interval": policy.confirm_interval,
        "switchover_grace": policy.switchover_grace,
        "evidence": list(policy.evidence),
        "examples": [
            {"says": example.says, "samples": " ".join(example.samples), "events": " ".join(example.events)}
            for example in policy.examples
        ],
        "version": policy.version,
    }
    question = _question(policy)
    return cast(schemas.Policy, {**shown, **question})


def _question(policy: Policy) -> Json:
    """What it asks by itself, under the probe's name as in its file; without what may be secret."""
    given: Json = {}
    match policy.question:
        case None:
            return {}
        case TcpQuestion() as question:
            host = f"[{question.host}]" if ":" in question.host else question.host
            given = {"address": f"{host}:{question.port}"}
        case SqlQuestion() as question:
            given = {"statement": question.statement, "on": question.on, "database": question.database}
            given["expect"] = question.expect
        case HttpQuestion() as question:
            expect = question.expect
            given = {"url": question.url.partition("?")[0], "method": question.method}
            given["expect_status"] = list(expect.status)
            given["expect_json"], given["expect_body"] = dict(expect.json), expect.body
    return {policy.probe: {key: value for key, value in given.items() if value not in (None, "", [], {})}}


def _detect(rule: Detect) -> schemas.Detect:
    match rule:
        case Threshold():
            return {
                "type": "threshold",
                "when": _condition(rule.when),
                "count": rule.count,
                "resolve_when": _condition(rule.resolve_when) if rule.resolve_when else None,
                "resolve_count": rule.resolve_count,
                "max_gap": rule.max_gap,
            }
        case Increase():
            return {
                "type": "increase",
                "reading": rule.reading,
                "window": rule.window,
                "at_least": rule.at_least,
                "resolve_count": rule.resolve_count,
            }
        case Change():
            return {"type": "change", "reading": rule.reading}
        case Occurrence():
            return {"type": "occurrence", "reading": rule.reading}


def _condition(condition: Condition) -> str:
    if condition.on_failure:
        return "failed"
    return " and ".join(
        f"{part.reading} {part.op} {part.parameter or f'{part.value:g}'}" for part in condition.comparisons
    )


def _kept_sample(sample: Mapping[str, Any]) -> schemas.Sample:
    kept = {**sample, "at": instant(sample["at"]), "readings": _readings(sample["readings"])}
    return cast(schemas.Sample, kept)


def recorded_sample(sample: Sample) -> schemas.RecordedSample:
    return {
        "at": instant(sample.at),
        "outcome": sample.outcome.value,
        "readings": _readings(sample.readings),
        "reason": sample.reason,
        "kind": sample.kind,
        "duration_ms": None,
    }


def recorded(one: Recorded) -> schemas.Recorded:
    target = one.place.target
    return {
        "probe": one.place.probe,
        "target": target.key,
        "instance": target.instance,
        "node": target.node or None,
        "component": target.component or None,
        "first_at": instant(one.first_at),
        "last_at": instant(one.last_at),
        "samples": one.samples,
    }


def _readings(readings: Mapping[str, Reading]) -> schemas.Readings:
    return {name: value if isinstance(value, str) else number(value) for name, value in readings.items()}


def number(value: Reading | None) -> float | None:
    """JSON knows neither NaN nor infinity, and an identity is no number: null."""
    return value if isinstance(value, float | int) and math.isfinite(value) else None
