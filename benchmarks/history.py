"""A long history in no time: ``write(directory, events)`` fills a store as a busy fleet would in 90 days.

Twenty instances, a few of them noisy; all event types, a few of them frequent; one event in five held back as the
consequence of another; ten samples kept before and after, as the daemon keeps them.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from probed.incidents import new_id
from probed.model import Event, EventState, Severity, Target
from probed.store.applying import SHELVE, UPSERT
from probed.store.rows import event_row, sample_json
from probed.store.sqlite import SqliteStore
from probed.testing import make_sample

DAYS = 90
INSTANCES = [f"db-{number:02}" for number in range(20)]
TYPES = (
    ("replication_lag_high", Severity.CRITICAL), ("ping_latency_high", Severity.NORMAL),
    ("cache_hit_ratio_low", Severity.NORMAL), ("connections_high", Severity.CRITICAL),
    ("rest_unavailable", Severity.CRITICAL), ("auth_unavailable", Severity.CRITICAL),
    ("deadlocks_frequent", Severity.NORMAL), ("component_abnormal", Severity.NORMAL),
    ("realtime_unavailable", Severity.CRITICAL), ("storage_unavailable", Severity.CRITICAL),
    ("studio_unavailable", Severity.NORMAL), ("api_gateway_unavailable", Severity.FATAL),
    ("haproxy_unavailable", Severity.CRITICAL), ("patroni_node_abnormal", Severity.CRITICAL),
    ("etcd_unavailable", Severity.FATAL), ("wal_receiver_interrupted", Severity.CRITICAL),
    ("database_unavailable", Severity.FATAL), ("no_leader", Severity.FATAL), ("capacity_high", Severity.CRITICAL),
    ("ha_switchover", Severity.CRITICAL), ("oom_killed", Severity.CRITICAL), ("split_brain", Severity.FATAL),
)  # fmt: skip
OCCURRENCES = {"ha_switchover", "oom_killed"}
STILL_OPEN = 200
BATCH = 5_000

_INSERT_TRANSITION = "INSERT INTO transition (event_id, kind, at) VALUES (?, ?, ?)"


def events_of(number: int, ends_at: float, seed: int = 1) -> Iterator[Event]:
    """That many, oldest first, spread over the ``DAYS`` before ``ends_at``."""
    chance = random.Random(seed)
    step = DAYS * 86400 / number
    weights = [1 / rank for rank in range(1, len(TYPES) + 1)]
    cumulative = [sum(weights[: rank + 1]) for rank in range(len(weights))]
    cause = ""
    for index in range(number):
        at = ends_at - (number - index) * step + chance.random() * step
        instance = INSTANCES[min(int(chance.expovariate(0.3)), len(INSTANCES) - 1)]
        name, severity = chance.choices(TYPES, cum_weights=cumulative)[0]
        event_id = new_id(at)
        suppressed = bool(cause) and chance.random() < 0.2
        goes_on = number - index <= STILL_OPEN and name not in OCCURRENCES
        state = EventState.OCCURRED if name in OCCURRENCES else EventState.OPEN if goes_on else EventState.RESOLVED
        resolved = state is EventState.RESOLVED
        yield Event(
            id=event_id,
            event=name,
            name=name.replace("_", " ").capitalize(),
            severity=severity,
            state=state,
            target=Target(instance, f"node-{index if goes_on else index % 3}", "postgres", "10.0.0.1:5432"),
            opened_at=at,
            message="3 of 3 samples in a row failed: connection refused",
            first_failed_at=at - 10,
            resolved_at=at + 45 if resolved else None,
            resolve_reason="recovered" if resolved else "",
            count=3,
            value=31.5,
            threshold=30.0,
            suggestion="Usually heals by itself; if it persists, look at the host and at PostgreSQL's log.",
            observer="bench",
            caused_by=cause if suppressed else None,
            suppressed=suppressed,
            labels={"env": "prod", "region": "eu-1"},
        )
        cause = cause if suppressed else event_id


def write(directory: Path, number: int, *, ends_at: float | None = None) -> Path:
    """A store of so many events below ``directory``; the path of its file."""
    asyncio.run(_make(directory))
    path = directory / "probed.db"
    failed = make_sample(reason="connection refused")
    fine = make_sample(readings={"lag_seconds": 31.5, "lag_bytes": 1.5e8})
    before, recovered = (
        json.dumps([sample_json(replace(sample, at=1.8e9 + second)) for second in range(10)])
        for sample in (failed, fine)
    )
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -200000")
    for index, event in enumerate(events_of(number, ends_at or time.time())):
        if index % BATCH == 0:
            if index:
                connection.execute(SHELVE)
                connection.execute("COMMIT")
            connection.execute("BEGIN")
        resolved = event.state is EventState.RESOLVED
        connection.execute(UPSERT, (*event_row(event), before, recovered if resolved else None))
        occurred = event.state is EventState.OCCURRED
        connection.execute(_INSERT_TRANSITION, (event.id, "occurred" if occurred else "opened", event.opened_at))
        if resolved:
            connection.execute(_INSERT_TRANSITION, (event.id, "resolved", event.resolved_at))
    connection.execute(SHELVE)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


async def _make(directory: Path) -> None:
    store = SqliteStore(directory)
    await store.open()
    await store.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
