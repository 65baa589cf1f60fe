"""Evidence for people: whatever a snapshot holds, it can be shown; what matters stands in a few lines."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from probed import evidence
from probed.digests import digest
from probed.outline import outline

_KEYS = st.sampled_from(
    ["members", "switches", "rows", "tree", "slots", "databases", "mounts", "lines", "largest", "load", "health",
     "clients", "in_recovery", "status", "failed", "note", "name", "proxy", "pid", "used_bytes", "query"]
) | st.text(max_size=5)  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.sampled_from([*sorted(evidence.names()), "a_later_one"]), _JSON)
def test_whatever_a_snapshot_holds_it_can_be_shown(collector: str, data: Any) -> None:
    assert all(isinstance(line, str) for line in digest(collector, data, data))


@given(_JSON)
def test_any_json_becomes_visible_lines(data: Any) -> None:
    assert all(line.isprintable() for line in outline(data))


def test_counters_are_compared_with_the_snapshot_before() -> None:
    def counted(deadlocks: int, read: int) -> dict[str, Any]:
        row = {"datname": "app", "deadlocks": deadlocks, "xact_rollback": 1, "blks_read": read, "blks_hit": 7}
        return {"databases": [row, {"datname": "idle", "deadlocks": 0}]}

    assert list(digest("postgres_databases", counted(9, 50), counted(4, 20))) == [
        "app: 5 deadlocks, 0 rollbacks, 30 blocks read, 0 hit more than before"
    ]
    assert next(digest("postgres_databases", counted(9, 50))).endswith("since the reset")


def test_a_backend_is_one_line_with_its_servers_and_a_frontend_only_when_it_is_full() -> None:
    def row(proxy: str, name: str, status: str, **more: Any) -> dict[str, Any]:
        return {"proxy": proxy, "name": name, "status": status, "sessions": 3.0, "limit": 3.0, **more}

    rows = [
        row("primary", "node1", "DOWN", check="L4CON", said="Connection refused"),
        row("primary", "node2", "UP", check="L7OK"),
        row("primary", "BACKEND", "UP", queued=2.0),
        row("primary", "FRONTEND", "FULL"),
        row("stats", "FRONTEND", "OPEN"),
    ]
    assert list(digest("haproxy_rows", {"rows": rows, "write_backend": "primary"})) == [
        "primary (write) UP, 2 queued: node1 DOWN L4CON Connection refused, node2 UP L7OK",
        "frontend primary: FULL, 3 of 3 sessions",
    ]


def test_blocked_sessions_stand_below_their_blocker() -> None:
    waiting = {"pid": 2, "user": "b", "state": "active", "wants": "transactionid ShareLock", "query": "UPDATE t"}
    holder = {"pid": 1, "user": "a", "state": "idle in transaction", "transaction_seconds": 95, "query": "UPDATE t"}
    assert list(digest("postgres_blocking", {"waiting": 1, "tree": [{**holder, "blocks": [waiting]}]})) == [
        "1 a idle in transaction for 1 min 35 s: UPDATE t",
        "  blocks 2 b active: wants transactionid ShareLock, UPDATE t",
    ]
