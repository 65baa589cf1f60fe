"""The few lines of each kind of evidence that an operator reads first. Pure; a collector without any is outlined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from probed.outline import outline, text
from probed.quantity import human_bytes, human_seconds

Data = Mapping[str, Any]
NEWEST_LINES = 5


def digest(collector: str, data: Any, before: Any = None) -> Iterator[str]:
    """Lines, whatever shape the data has, for it may come from another version.

    ``before`` is the snapshot of the same thing that comes before this one, for what only a comparison tells.
    """
    tell = _DIGESTS.get(collector)
    if tell is not None and isinstance(data, Mapping):
        try:
            compared = tell is _databases and isinstance(before, Mapping)
            lines = [str(line) for line in (_databases(data, before) if compared else tell(data))]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            lines = []
        if lines:
            note = data.get("note")
            yield from lines if not note else [*lines, str(note)]
            return
    yield from outline(data)


def _cluster(data: Data) -> Iterator[str]:
    for member in data["members"]:
        lag = member.get("lag")
        behind = f", lag {human_bytes(lag) if isinstance(lag, int) else lag}" if lag not in (None, 0, "") else ""
        yield f"{member['name']}: {member.get('role')} {member.get('state')}, timeline {member.get('timeline')}{behind}"
    if data.get("pause"):
        yield "the cluster is paused"
    if data.get("scheduled_switchover"):
        yield f"switchover scheduled: {text(data['scheduled_switchover'])}"


def _history(data: Data) -> Iterator[str]:
    for switch in list(data["switches"])[-3:]:
        leader = f" to {switch['leader']}" if switch.get("leader") else ""
        ended = f"ended at {switch.get('lsn')}, {switch.get('at', 'time unknown')}"
        yield f"timeline {switch.get('timeline')} {ended}{leader}"
    if not data["switches"]:
        yield "no failover or switchover is written down yet"


def _patroni_node(data: Data) -> Iterator[str]:
    xlog = data.get("xlog") or data.get("wal") or {}
    flags = [
        name for name in ("pause", "cluster_unlocked", "failsafe_mode_is_active", "pending_restart") if data.get(name)
    ]
    more = f"; {', '.join(flags)}" if flags else ""
    yield f"{data.get('role')} {data['state']}, timeline {data.get('timeline')}, {text(xlog)}{more}"


def _etcd(data: Data) -> Iterator[str]:
    version = data.get("version")
    shown = f", version {version.get('etcdserver')}" if isinstance(version, Mapping) else ""
    yield f"health {text(data['health'])}{shown}"
    metrics = data.get("metrics")
    if isinstance(metrics, Mapping) and metrics:
        size, quota = (
            metrics.get(f"etcd_{name}") for name in ("mvcc_db_total_size_in_bytes", "server_quota_backend_bytes")
        )
        parts = [f"leader seen {text(metrics.get('etcd_server_has_leader'))}"]
        parts.append(f"leader changes {text(metrics.get('etcd_server_leader_changes_seen_total'))}")
        if size and quota:
            parts.append(f"database {human_bytes(size)} of {human_bytes(quota)}")
        for name, what in (("wal_fsync", "WAL fsync"), ("backend_commit", "commit")):
            total = metrics.get(f"etcd_disk_{name}_duration_seconds_sum")
            number = metrics.get(f"etcd_disk_{name}_duration_seconds_count")
            if total is not None and number:
                parts.append(f"{what} {human_seconds(total / number)} on average")
        yield ", ".join(parts)


def _haproxy(data: Data) -> Iterator[str]:
    """A line per backend with its servers; frontends only where something is wrong with them."""
    proxies: dict[str, list[Data]] = {}
    for row in data["rows"]:
        proxies.setdefault(row["proxy"], []).append(row)
    for proxy, rows in proxies.items():
        status = next((row["status"] for row in rows if row["name"] == "BACKEND"), "")
        write = " (write)" if proxy == data.get("write_backend") else ""
        queued = sum(row.get("queued") or 0 for row in rows if row["name"] == "BACKEND")
        servers = [
            " ".join(str(row.get(key) or "") for key in ("name", "status", "check", "said")).strip()
            for row in rows
            if row["name"] not in ("BACKEND", "FRONTEND")
        ]
        if servers:
            yield f"{proxy}{write} {status}{f', {queued:g} queued' if queued else ''}: {', '.join(servers)}"
        for row in rows:
            if row["name"] == "FRONTEND" and row["status"] != "OPEN":
                yield f"frontend {proxy}: {row['status']}, {row['sessions']:g} of {row['limit']:g} sessions"


def _activity(data: Data) -> Iterator[str]:
    yield (
        f"{data['clients']} clients of {data.get('limit')}: {data.get('active')} active, "
        f"{data.get('idle_in_transaction')} idle in transaction, {data.get('waiting_for_locks')} waiting for locks"
    )
    for row in (data.get("by_session") or ())[:3]:
        who = "/".join(str(row.get(key) or "-") for key in ("user", "database", "application"))
        yield f"{row['sessions']} {row.get('state') or 'without a state'}: {who}"
    waits = [
        f"{row['sessions']} {row.get('type') or 'CPU'}:{row.get('event') or ''}" for row in data.get("waits") or ()
    ]
    if waits:
        yield f"active ones wait for: {', '.join(waits[:5])}"
    for row in (data.get("oldest_transactions") or ())[:2]:
        age = human_seconds(row["transaction_seconds"])
        who = f"{row['pid']} {row.get('user', '')} {row.get('state', '')}"
        yield f"transaction open for {age}: {who}: {row.get('query', '')}"


def _blocking(data: Data) -> Iterator[str]:
    if not data["tree"]:
        yield "nobody waits for a lock"
    for row in data["tree"]:
        yield from _branch(row, "")


def _branch(row: Data, indent: str) -> Iterator[str]:
    wants = f" wants {row['wants']}," if row.get("wants") else ""
    age = f" for {human_seconds(row['transaction_seconds'])}" if row.get("transaction_seconds") else ""
    yield f"{indent}{row['pid']} {row.get('user', '')} {row.get('state', '')}{age}:{wants} {row.get('query', '')}"
    for below in row.get("blocks") or ():
        yield from _branch(below, indent + "  blocks ")


def _replication(data: Data) -> Iterator[str]:
    role = "standby" if data["in_recovery"] else "primary"
    names = ("current_lsn", "receive_lsn", "replay_lsn", "latest_end_lsn")
    positions = ", ".join(f"{name.removesuffix('_lsn')} {data[name]}" for name in names if data.get(name))
    receiver = data.get("receiver") or data.get("receiver_status")
    parts = [role, f"timeline {data['timeline']}" if data.get("timeline") else "", positions]
    parts += [f"receiver {receiver}"] if receiver else []
    yield ", ".join(part for part in parts if part)
    if data.get("replay_paused"):
        yield "replay is paused"
    for row in data.get("senders") or ():
        lag = f", replay lag {row['replay_lag']}" if row.get("replay_lag") else ""
        state = f"{row.get('state')}, {row.get('sync_state')}, replayed {row.get('replay_lsn')}"
        yield f"sends to {row.get('application_name')}: {state}{lag}"


def _receiver(data: Data) -> Iterator[str]:
    receiver = data.get("receiver")
    if isinstance(receiver, Mapping):
        yield (
            f"{receiver.get('status')} from {receiver.get('sender_host')}:{receiver.get('sender_port')}, slot "
            f"{receiver.get('slot_name') or 'none'}, last message {receiver.get('last_msg_receipt_time')}"
        )
    else:
        yield f"receiver: {receiver or data.get('receiver_status') or 'none'}"
    if data.get("primary_conninfo"):
        yield f"told to follow {text(data['primary_conninfo'])}"
    yield f"received {data.get('receive_lsn')}, replayed {data.get('replay_lsn')}"


def _slots(data: Data) -> Iterator[str]:
    for slot in data["slots"]:
        held = f", holds back {human_bytes(slot['retained_bytes'])}" if slot.get("retained_bytes") is not None else ""
        active = "active" if slot.get("active") else "inactive"
        yield f"{slot['slot_name']}: {slot.get('slot_type')} {active}, WAL {slot.get('wal_status', 'unknown')}{held}"
    if not data["slots"]:
        yield "no replication slots"


_COUNTERS = {"deadlocks": "deadlocks", "xact_rollback": "rollbacks", "blks_read": "blocks read", "blks_hit": "hit"}


def _databases(data: Data, before: Data | None = None) -> Iterator[str]:
    """With a snapshot before it, what grew since; else the counters."""
    earlier = {row.get("datname"): row for row in before["databases"]} if before else {}
    grown = []
    for row in data["databases"]:
        since = earlier.get(row.get("datname"), {})
        counts = {key: row.get(key, 0) - since.get(key, 0) for key in _COUNTERS}
        if any(counts.values()):
            grown.append((row.get("datname") or "shared", counts))
    grown.sort(key=lambda item: (-item[1]["deadlocks"], -item[1]["blks_read"]))
    for name, counts in grown[:5]:
        shown = ", ".join(f"{counts[key]} {what}" for key, what in _COUNTERS.items())
        yield f"{name}: {shown} {'more than before' if before else 'since the reset'}"


def _wal(data: Data) -> Iterator[str]:
    yield f"{data['files']} files, {human_bytes(data['bytes'])} (max_wal_size {data.get('max_wal_size')})"
    archiver = data.get("archiver") or {}
    if archiver.get("failed_count"):
        yield f"archiving failed {archiver['failed_count']} times, last {archiver.get('last_failed_time')}"


def _pressure(data: Data) -> Iterator[str]:
    load = data["load"]
    yield f"load {load['1m']} {load['5m']} {load['15m']}"
    for name in ("cpu", "memory", "io"):
        lines = data.get(name)
        if isinstance(lines, list):
            yield f"{name}: {'; '.join(line.partition(' avg60')[0] for line in lines)} (% of the last 10 s)"
    memory = data.get("memory_kib") or {}
    if "MemAvailable" in memory:
        available, total = human_bytes(memory["MemAvailable"] * 1024), human_bytes(memory["MemTotal"] * 1024)
        yield f"memory: {available} of {total} available; {text(data.get('events_since_boot'))}"


def _top_memory(data: Data) -> Iterator[str]:
    largest = [f"{row['name']} ({row['pid']}) {human_bytes(row['resident_bytes'])}" for row in data["largest"]]
    yield f"{data['processes']} processes; {', '.join(largest[:5])}"


def _disk(data: Data) -> Iterator[str]:
    if data.get("hangs"):
        yield f"{data['hangs']} hangs"
    for row in data["mounts"]:
        if "used_bytes" in row:
            used = f"{row['used_pct']:g} % used, {human_bytes(row['free_bytes'])} free"
            yield f"{row['mount']}: {used}, inodes {text(row.get('inodes_used_pct'))} %"
        else:
            yield f"{row['mount']}: {row.get('error')}"


def _kernel_log(data: Data) -> Iterator[str]:
    lines = data["lines"]
    yield from lines[-NEWEST_LINES:] or ["nothing in the last five minutes"]


def _component(data: Data) -> Iterator[str]:
    if "failed" in data:
        yield f"{data['failed']}; the port: {data.get('port')}"
    elif "status" in data:
        took = f"in {data.get('milliseconds')} ms from {data.get('url')}"
        yield f"HTTP {data['status']} {took}, {text(data.get('headers'))}"
        if data.get("body"):
            yield f"says: {data['body']}"
    else:
        yield f"the port: {data['port']}"
    if data.get("admin"):
        yield f"admin door: {text(data['admin'])}"


_DIGESTS: Mapping[str, Callable[[Data], Iterator[str]]] = {
    "patroni_cluster": _cluster,
    "patroni_history": _history,
    "patroni_node": _patroni_node,
    "etcd_status": _etcd,
    "haproxy_rows": _haproxy,
    "postgres_activity": _activity,
    "postgres_blocking": _blocking,
    "postgres_replication": _replication,
    "postgres_receiver": _receiver,
    "postgres_slots": _slots,
    "postgres_databases": _databases,
    "postgres_wal": _wal,
    "pressure": _pressure,
    "top_memory": _top_memory,
    "disk": _disk,
    "kernel_log": _kernel_log,
    "component_answer": _component,
}
