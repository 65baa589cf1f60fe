"""A stage for the page: a daemon's worth of state with a day behind it, as an operator would meet it at three at night.

``orders`` has lost its primary and has just been taken over, ``billing`` cannot be seen in part, ``crm`` is well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import yaml
from msgspec.structs import replace

from probed.config.settings import Instance
from probed.incidents import new_id
from probed.model import (
    Event,
    EventState,
    Evidence,
    Moment,
    Outcome,
    Reading,
    Sample,
    Severity,
    Side,
    Target,
)
from probed.policy.library import Library, Signed
from probed.probes._patroni import name_of
from probed.revisions import MergePatch, RevisionKind
from probed.silences import Scope, Silence
from probed.store import Change, Commit, GapRecord, LeadershipRecord, Member
from tests.unit import reports
from tests.unit.serving import NOON, ORDERS, Stack, stack

COMPONENTS: dict[str, object] = {
    "kong": {"url": "http://10.0.0.1:8000"},
    "auth": {"url": "http://10.0.0.1:9999"},
    "rest": {"url": "http://10.0.0.1:3000"},
    "realtime": {"url": "http://10.0.0.1:4000"},
    "storage": {"url": "http://10.0.0.1:5000"},
    "functions": {"url": "http://10.0.0.1:9000/"},
}
ETCD = [f"http://10.0.0.{number}:2379" for number in (1, 2, 3)]
HAPROXY = {"stats": "http://10.0.0.1:7000/;csv", "frontends": ["10.0.0.1:5000"]}


def like_orders(name: str, **more: object) -> dict[str, object]:
    return {**ORDERS, "name": name, "etcd": ETCD, "haproxy": HAPROXY, "components": COMPONENTS, **more}


async def stage(directory: Path, others: tuple[str, ...] = ("billing", "crm")) -> Stack:
    """``leave`` it when done."""
    made = await stack(directory, **like_orders("orders"))
    made.archive.open()
    instances = [made.settings.instances[0], *(Instance.model_validate(like_orders(name)) for name in others)]
    made.settings = made.settings.model_copy(update={"instances": instances})
    for instance in instances[1:]:
        made.watch(instance)
    return made


async def leave(made: Stack) -> None:
    """The end of the play."""
    await made.archive.close()
    await made.store.close()


READINGS: Mapping[str, Mapping[str, Reading]] = {
    "postgres_liveness": {"ping_seconds": 0.0004, "login_seconds": 0.011},
    "connections": {"connections_used": 34.0, "connections_usable": 100.0, "connections_used_pct": 34.0},
    "cache_hit_ratio": {"hit_ratio": 99.2, "blocks": 41_211.0},
    "disk_usage": {"used_pct": 41.0, "used_bytes": 41e9, "free_bytes": 59e9},
    "replication_lag": {"lag_seconds": 0.0, "lag_bytes": 0.0},
    "etcd_member": {"healthy": 1.0},
    "haproxy_stats": {"sessions": 21.0, "servers_up": 2.0, "write_servers_up": 1.0},
    "auth": {"http_status": 200.0},
}


def healthy(made: Stack, instance: str, leader: str = "node-a", *, skip: frozenset[str] = frozenset()) -> list[Sample]:
    """One round in which all is well."""
    samples = []
    for entry in made.pipeline.board.entries(instance):
        if f"{entry.probe}@{entry.target.node}" in skip or entry.probe in skip:
            continue
        leads = entry.target.node == leader
        readings = dict(READINGS.get(entry.probe, {}))
        outcome, facts = Outcome.OBSERVED, {}
        if entry.probe in ("wal_receiver", "replication_lag") and leads:
            outcome, readings = Outcome.NOT_APPLICABLE, {}
        if entry.probe == "wal_receiver" and not leads:
            readings = {"wal_receiver_streaming": 1.0}
        if entry.probe == "postgres_stats":
            readings = {"in_recovery": 0.0 if leads else 1.0}
        if entry.probe == "patroni_rest":
            readings = {"role": "primary" if leads else "replica", "state": "running"}
        if entry.probe == "leader":
            readings = {"has_leader": 1.0, "leader": leader, "timeline": 7.0 if leader == "node-a" else 8.0}
        if entry.probe == "haproxy_routing":
            facts = {"leads_to": (leader,)}
        at, mono = made.clock.wall(), made.clock.mono()
        samples.append(Sample(entry.target, entry.probe, outcome, at, mono, 0.004, readings, facts=facts))
    return samples


async def play(made: Stack, reason: str = "10.0.0.1:5432: connection refused") -> str:
    """A night: history, a blind component, then the primary of orders dies. Returns the id of the outage."""
    history = _history()
    ill = reports.ill(events=[change.event.id for change in history])
    nightly = reports.report(ill)
    both = reports.report(ill, reports.well(), id=reports.FLEET_ID, began_at=reports.NIGHT - 86_400, ended_at=None)
    await made.store.append(
        Commit(
            changes=tuple(history),
            inspections=(reports.kept(both), reports.kept(nightly)),
            gaps=(GapRecord(NOON - 40_000, NOON - 38_500, "watcher", "stopped"),),
            leadership=(
                LeadershipRecord(
                    "orders",
                    NOON - 86_400 * 3,
                    {"class": "planned", "old_leader": "node-b", "new_leader": "node-a", "write_outage_seconds": 3.1},
                ),
            ),
        )
    )
    for _ in range(12):
        made.clock.step(5)
        for name in list(made.pipeline.instances):
            samples = healthy(made, name) if name != "observer" else []
            if name == "billing":
                samples = [_blind(sample) if sample.target.component == "functions" else sample for sample in samples]
            made.pipeline.accept(name, samples)
    dead = frozenset(
        {
            "postgres_liveness@node-a",
            "postgres_stats@node-a",
            "connections@node-a",
            "cache_hit_ratio@node-a",
            "wal_receiver@node-a",
            "replication_lag@node-a",
            "patroni_rest@node-a",
            "leader",
            "rest",
        }
    )
    for _number in range(4):
        made.clock.step(5)
        bad = [
            _failed(sample, reason)
            for sample in healthy(made, "orders")
            if _key(sample) in dead or sample.probe in dead
        ]
        made.pipeline.accept("orders", [*healthy(made, "orders", skip=dead), *bad])
        for name in ("billing", "crm"):
            if name in made.pipeline.instances:
                made.pipeline.accept(
                    name,
                    [
                        _blind(sample) if sample.target.component == "functions" and name == "billing" else sample
                        for sample in healthy(made, name)
                    ],
                )
    await made.settle()
    outage = next(
        watch.event
        for watch in made.pipeline.instances["orders"].watches
        if watch.event is not None and watch.policy.id == "database_unavailable" and watch.target.node
    )
    assert outage is not None
    await made.store.append(Commit(evidence={outage.id: tuple(_evidence(outage))}))
    return outage.id


def _key(sample: Sample) -> str:
    return f"{sample.probe}@{sample.target.node}"


def _failed(sample: Sample, reason: str) -> Sample:
    if sample.probe == "leader":
        return replace(sample, readings={"has_leader": 0.0}, reason="node-a is listed as leader, but does not answer")
    if sample.probe in ("connections", "cache_hit_ratio", "wal_receiver", "replication_lag"):
        return replace(
            sample, outcome=Outcome.BLIND, readings={}, reason="no sample of postgres_stats", kind="no_input"
        )
    return replace(sample, outcome=Outcome.FAILED, readings={}, reason=reason, kind="refused")


def _blind(sample: Sample) -> Sample:
    return replace(
        sample,
        outcome=Outcome.BLIND,
        readings={},
        reason="HTTP 401 with the configured token; set bearer_token_file",
        kind="auth",
    )


def _history() -> list[Change]:
    """A month of events, most of them by the book."""
    names = {
        "deadlocks_frequent": ("Frequent deadlocks", Severity.NORMAL),
        "replication_lag_high": ("Primary/replica replication delay too high", Severity.CRITICAL),
        "connections_high": ("Number of database connections too high", Severity.CRITICAL),
        "auth_unavailable": ("Authentication service unavailable", Severity.CRITICAL),
    }
    changes = []
    for number in range(140):
        event, (name, severity) = list(names.items())[number * 7 % 4]
        at = NOON - 900 - (number * number * 131 % (29 * 86_400))
        target = Target(
            ("orders", "billing", "crm")[number % 3],
            "" if event == "auth_unavailable" else f"node-{'ab'[number % 2]}",
            "auth" if event == "auth_unavailable" else "postgres",
            member=f"h{number}",
        )
        changes.append(
            Change(
                Event(
                    new_id(at),
                    event,
                    name,
                    severity,
                    EventState.RESOLVED,
                    target,
                    at,
                    f"{event} was seen in 2 of 2 samples in a row",
                    first_failed_at=at - 10,
                    resolved_at=at + 60 + number % 50 * 30,
                    resolve_reason="recovered",
                    observer="watcher",
                ),
                "opened",
                at,
            )
        )
    at = NOON - 1500
    story = {
        "class": "automatic_failover",
        "confidence": "high",
        "old_leader": "node-b",
        "new_leader": "node-a",
        "old_timeline": 6,
        "new_timeline": 7,
        "write_outage_seconds": 22.9,
        "lost_bytes": 0,
        "signals": ["the database of node-b had failed 3 cycles before", "Patroni of node-b was silent, for 3 cycles"],
    }
    changes.append(
        Change(
            Event(
                new_id(at),
                "ha_switchover",
                "Database HA primary/replica switchover",
                Severity.CRITICAL,
                EventState.OCCURRED,
                Target("billing", "", "patroni"),
                at,
                "node-a became the primary in place of node-b (timeline 7): automatic failover, confidence high; no writes for at most 22.9 s",
                details={"switchover": story},
                observer="watcher",
            ),
            "occurred",
            at,
        )
    )
    return changes


def _evidence(event: Event) -> list[Evidence]:
    cluster = [
        {
            "members": [
                {"name": "node-a", "role": "leader", "state": state, "timeline": 7},
                {"name": "node-b", "role": "replica", "state": "streaming", "timeline": 7, "lag": 0},
            ]
        }
        for state in ("running", "stopped")
    ]
    activity = {
        "clients": 33,
        "limit": 100,
        "active": 4,
        "idle_in_transaction": 1,
        "waiting_for_locks": 2,
        "by_session": [{"sessions": 12, "state": "idle", "user": "app", "database": "orders", "application": "web"}],
        "waits": [],
        "oldest_transactions": [
            {
                "pid": 4211,
                "transaction_seconds": 331.0,
                "user": "app",
                "state": "active",
                "query": "UPDATE orders SET paid = $1 WHERE id = $2",
            }
        ],
    }
    at = event.opened_at
    return [
        Evidence("patroni_cluster", "orders/patroni", at - 15, Side.BEFORE, Moment.TRIGGER, json.dumps(cluster[0])),
        Evidence("patroni_cluster", "orders/patroni", at - 5, Side.BEFORE, Moment.TRIGGER, json.dumps(cluster[0])),
        Evidence("patroni_cluster", "orders/patroni", at + 1, Side.AFTER, Moment.TRIGGER, json.dumps(cluster[1])),
        Evidence(
            "postgres_activity", "orders/node-a/postgres", at - 15, Side.BEFORE, Moment.TRIGGER, json.dumps(activity)
        ),
        Evidence(
            "postgres_activity",
            "orders/node-a/postgres",
            at + 1,
            Side.AFTER,
            Moment.TRIGGER,
            error="10.0.0.1:5432: connection refused",
        ),
    ]


async def record_texts(made: Stack, texts: Sequence[str]) -> list[str]:
    """Events of ``orders`` whose message, suggestion, labels, samples and evidence are these; the ids of a few."""
    ids, changes, evidence = [], [], {}
    for number, text in enumerate(texts):
        at = made.clock.wall() - 30 - number
        target = Target("orders", "node-a", "postgres", member=f"t{number}")
        state = EventState.OPEN if number % 2 else EventState.OCCURRED
        sample = Sample(target, "postgres_liveness", Outcome.FAILED, at, 0.0, 0.1, {text[:40] or "x": text}, text)
        event = Event(
            new_id(at),
            "database_unavailable",
            text or "x",
            Severity.FATAL,
            state,
            target,
            at,
            text,
            suggestion=text,
            labels={text: text},
            observer=text,
            details={"switchover": {"class": text, "signals": [text], "old_leader": text}},
        )
        changes.append(Change(event, "opened", at, before=(sample,)))
        data = json.dumps({text: text, "rows": [{text: text}]})
        evidence[event.id] = (
            Evidence(text or "x", text, at, Side.AFTER, Moment.TRIGGER, data),
            Evidence("c", text, at, Side.BEFORE, Moment.TRIGGER, error=text or "x"),
        )
        ids.append(event.id)
    await made.store.append(Commit(changes=tuple(changes), evidence=evidence))
    return ids[:: max(1, len(ids) // 40)]


async def hostile_stage(directory: Path, texts: Sequence[str]) -> tuple[Stack, tuple[str, ...]]:
    """A stage on which others wrote nothing but these, and addresses of pages that show them.

    They are the names of discovered nodes, texts of answers and errors, labels, policies, what people gave as reason
    or comment, and events with all that is kept of them.
    """
    _write_policies(directory / "policies.d", texts)
    made = await stage(directory, ("billing",))
    made.watch_oneself()
    found = Instance.model_validate({"name": "found", "patroni": ["http://10.0.0.1:8008"], "labels": _numbered(texts)})
    made.settings = made.settings.model_copy(update={"instances": [*made.settings.instances, found]})
    named = dict.fromkeys(name for text in texts if (name := name_of(text)))
    made.watch(found, [Member("found", name, name, 5432, "http://10.0.0.2:8008") for name in named])
    await play(made, reason="x")
    samples = []
    for number, entry in enumerate(made.pipeline.board.entries("found")):
        text = texts[number % len(texts)]
        outcome = (Outcome.FAILED, Outcome.BLIND, Outcome.OBSERVED)[number % 3]
        at, mono = made.clock.wall(), made.clock.mono()
        samples.append(Sample(entry.target, entry.probe, outcome, at, mono, 0.1, {text or "x": text}, text, "status"))
    made.pipeline.accept("found", samples)
    policies = [name for name in made.policies if name.startswith("own_")]
    now = made.clock.wall()
    silences = tuple(
        Silence(f"s{number}", Scope(nodes=(text or "x",)), text, text, now, now, now + 3600)
        for number, text in enumerate(texts[:200])
    )
    await made.store.append(Commit(silences=silences))
    for number, text in enumerate(texts[-20:]):
        patch = {"severity": ("fatal", "critical")[number % 2]}
        by = Signed(now, text, "socket", text)
        await made.editor.revise(RevisionKind.EDIT, partial(_edited, policies[0], patch), by, lambda _: ())
    ids = await record_texts(made, texts)
    keys = [(entry.target.key, entry.probe) for entry in made.pipeline.board.entries("found")]
    pages = (
        "/", "/?q=found", "/events", "/instances/found", "/instances/orders", "/silences", "/notifications", "/about", "/policies",
        *(f"/policies/{name}" for name in policies[::20]),
        *(f"/readings?{urlencode({'target': key, 'probe': probe})}" for key, probe in keys[:: max(1, len(keys) // 10)]),
        *(f"/events/{one}" for one in ids),
    )  # fmt: skip
    return made, pages


def _edited(policy: str, patch: MergePatch, library: Library) -> Mapping[str, MergePatch]:
    return {policy: library.edited(policy, patch)}


def _numbered(texts: Sequence[str]) -> dict[str, str]:
    return {f"key{number}": text for number, text in enumerate(texts)}


def _write_policies(directory: Path, texts: Sequence[str]) -> None:
    directory.mkdir(parents=True)
    for number, text in enumerate(texts):
        policy = {
            "id": f"own_{number}", "name": text or "x", "group": text or "x", "severity": "normal", "description": text,
            "suggestion": text, "probe": "postgres_liveness", "detect": {"type": "threshold", "when": "failed", "count": 2},
            "instances": ["billing"],
            "examples": [{"says": text or "x", "samples": "F F ok", "events": ". O R"}],
        }  # fmt: skip
        (directory / f"own_{number}.yaml").write_text(yaml.safe_dump(policy))
