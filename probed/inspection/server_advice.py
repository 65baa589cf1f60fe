"""What the configuration of each server should be for events to be seen, and for failovers to go well. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

from probed.inspection import Item, Verdict
from probed.inspection.configured import Configured, Server
from probed.inspection.remedies import advised, patroni_also, setting
from probed.model import Reading
from probed.quantity import human_bytes, human_seconds
from probed.redaction import clean

END_OF_LIFE = {
    12: date(2024, 11, 21), 13: date(2025, 11, 13), 14: date(2026, 11, 12), 15: date(2027, 11, 11),
    16: date(2028, 11, 9), 17: date(2029, 11, 8), 18: date(2030, 11, 14),
}  # fmt: skip
"""Of PostgreSQL's major versions: the last minor release (postgresql.org/support/versioning)."""
SOON_DAYS = 183
SPARE_SENDERS = 2
"""Beside one for each standby: a base backup takes two."""
HELD_BYTES = 1 << 30
"""WAL that an inactive slot holds back before anybody must know."""
RESERVED_SINCE = 16
LOST = ("lost", "unreserved")


def _privileges(_: Configured, server: Server) -> Iterator[Item]:
    name, title = server.role.get("name"), "Privileges of the monitoring role"
    if not name:
        return
    if server.role.get("superuser"):
        yield advised(
            "privileges", title, server.target, Verdict.WARN,
            f'"{name}" is a superuser: whoever reads its password owns the database',
            f'ALTER ROLE "{name}" NOSUPERUSER; GRANT pg_monitor TO "{name}";',
        )  # fmt: skip
    elif not server.role.get("pg_monitor"):
        yield advised(
            "privileges", title, server.target, Verdict.WARN,
            f'"{name}" is not a member of pg_monitor: the WAL receiver and the exact number of connections are hidden',
            f'GRANT pg_monitor TO "{name}";',
        )  # fmt: skip
    else:
        yield advised("privileges", title, server.target, Verdict.PASS, f'"{name}" is a member of pg_monitor')


def _reserved(found: Configured, server: Server) -> Iterator[Item]:
    title = "Connections reserved for monitoring"
    if server.major < RESERVED_SINCE:
        return
    reserved, name = server.number("reserved_connections") or 0.0, server.role.get("name")
    evidence: dict[str, Reading | None] = {"reserved_connections": reserved}
    if reserved < 1:
        why = "reserved_connections is 0: when all connections are taken nobody can look at the server any more"
        remedy = setting(found, "reserved_connections", "3", restart=True)
        also = f'; GRANT pg_use_reserved_connections TO "{name}";'
        yield advised("reserved_connections", title, server.target, Verdict.WARN, why, remedy + also, evidence)
    elif not server.role.get("use_reserved") and not server.role.get("superuser"):
        why = f'"{name}" may not use the {reserved:g} reserved connections: a full server locks the monitoring out'
        grant = f'GRANT pg_use_reserved_connections TO "{name}";'
        yield advised("reserved_connections", title, server.target, Verdict.WARN, why, grant, evidence)
    else:
        told = f"{reserved:g} are reserved, and the monitoring role may use them"
        yield advised("reserved_connections", title, server.target, Verdict.PASS, told, evidence=evidence)


def _role_limit(_: Configured, server: Server) -> Iterator[Item]:
    name = str(server.role.get("name"))
    limit = server.role_limits.get(name)
    if limit is not None and limit < 3:
        yield advised(
            "role_limit", "Connection limit of the monitoring role", server.target, Verdict.WARN,
            f'"{name}" may have {limit} connections at once; probes, the fresh login and an inspection need 3',
            f'ALTER ROLE "{name}" CONNECTION LIMIT -1;', {"connection_limit": limit},
        )  # fmt: skip


def _senders(found: Configured, server: Server) -> Iterator[Item]:
    most, standbys = server.number("max_wal_senders"), len(found.servers) - 1
    if most is None or standbys < 1:
        return
    needed = standbys + SPARE_SENDERS
    evidence: dict[str, Reading | None] = {"max_wal_senders": most, "needed": needed}
    enough = most >= needed
    told = f"max_wal_senders is {most:g}, {standbys} for the standbys and {SPARE_SENDERS} for a base backup are needed"
    yield advised(
        "wal_senders", "WAL senders", server.target, Verdict.PASS if enough else Verdict.WARN,
        told if enough else f"{told}: a lost standby cannot be rebuilt",
        "" if enough else setting(found, "max_wal_senders", str(max(10, needed)), restart=True), evidence,
    )  # fmt: skip


def _slots(found: Configured, server: Server) -> Iterator[Item]:
    most, title = server.number("max_replication_slots"), "Replication slots"
    if most is None or len(found.servers) < 2:
        return
    used, evidence = len(server.slots), {"max_replication_slots": most}
    if used >= most:
        why = f"all {most:g} replication slots are taken: a new standby gets none, and may lose its place in the WAL"
        remedy = setting(found, "max_replication_slots", f"{max(10, 2 * most):g}", restart=True)
        yield advised("slots", title, server.target, Verdict.WARN, why, remedy, evidence)
        return
    bad = [slot for slot in server.slots if slot.get("wal_status") in LOST]
    if bad:
        names = ", ".join(clean(str(slot.get("slot_name")), 60) for slot in bad[:5])
        why = f"the WAL that these slots promised is gone or about to go: {names}; what read from them must be rebuilt"
        drop = f"SELECT pg_drop_replication_slot('{clean(str(bad[0].get('slot_name')), 60)}');"
        yield advised(
            "slots", title, server.target, Verdict.FAIL, why, f"rebuild the standby (patronictl reinit), or {drop}",
            evidence,
        )  # fmt: skip
        return
    idle = [slot for slot in server.slots if _holds_back(found, slot)]
    if idle:
        worst = max(idle, key=lambda slot: float(slot["retained_bytes"]))
        name = clean(str(worst.get("slot_name")), 60)
        held = human_bytes(float(worst["retained_bytes"]))
        why = f'nobody reads from the slot "{name}", and it holds back {held} of WAL'
        drop = f"if its reader is gone for good: SELECT pg_drop_replication_slot('{name}');"
        yield advised("slots", title, server.target, Verdict.WARN, why, drop, evidence)
        return
    told = f"none is lost, and none is forgotten; {most:g} can be had"
    yield advised("slots", title, server.target, Verdict.PASS, told, evidence=evidence)


def _holds_back(found: Configured, slot: object) -> bool:
    """Whether a slot that is no member's of Patroni keeps WAL for nobody: members' slots are Patroni's to mind."""
    if not isinstance(slot, dict) or slot.get("active") or not isinstance(slot.get("retained_bytes"), float | int):
        return False
    members = {server.node.lower().replace("-", "_").replace(".", "_") for server in found.servers}
    return slot["retained_bytes"] >= HELD_BYTES and slot.get("slot_name") not in members


def _slot_limit(found: Configured, server: Server) -> Iterator[Item]:
    limit, title = server.settings.get("max_slot_wal_keep_size"), "Limit of what slots hold back"
    if limit is None or not server.slots:
        return
    if limit == "-1":
        why = "max_slot_wal_keep_size is -1: a standby that stays away fills the disk of the primary until that stops"
        remedy = setting(found, "max_slot_wal_keep_size", "20GB") + " (less than what is free beside the data)"
        yield advised("slot_wal_limit", title, server.target, Verdict.WARN, why, remedy)
    else:
        yield advised("slot_wal_limit", title, server.target, Verdict.PASS, f"max_slot_wal_keep_size is {limit}")


def _wal_kept(found: Configured, server: Server) -> Iterator[Item]:
    kept = server.settings.get("wal_keep_size", server.settings.get("wal_keep_segments"))
    if kept is None or server.in_recovery is not False or len(found.servers) < 2:
        return
    physical = any(slot.get("slot_type") == "physical" for slot in server.slots)
    title = "WAL kept for standbys"
    if kept in ("0", "0MB") and not physical:
        why = "wal_keep_size is 0 and no standby has a slot: one that is away for a moment must be rebuilt"
        remedy = setting(found, "wal_keep_size", "1GB") + patroni_also(found, "postgresql.use_slots=true")
        yield advised("wal_kept", title, server.target, Verdict.WARN, why, remedy)
    else:
        told = "the standbys have slots" if physical else f"wal_keep_size is {kept}"
        yield advised("wal_kept", title, server.target, Verdict.PASS, told)


def _rewind(found: Configured, server: Server) -> Iterator[Item]:
    checksums, hints = server.settings.get("data_checksums"), server.settings.get("wal_log_hints")
    if checksums is None:
        return
    title = "Data checksums"
    if checksums == "on":
        yield advised("checksums", title, server.target, Verdict.PASS, "data checksums are on")
        return
    more = "" if hints == "on" else ", and pg_rewind cannot bring back an old primary"
    why = f"data checksums are off: a damaged block is not noticed, and is copied to the standbys{more}"
    remedy = "stop the server, pg_checksums --enable, one node after the other; until then " + setting(
        found, "wal_log_hints", "on", restart=True
    )
    yield advised("checksums", title, server.target, Verdict.WARN, why, remedy)


def _durable(found: Configured, server: Server) -> Iterator[Item]:
    off = [name for name in ("fsync", "full_page_writes") if server.settings.get(name) == "off"]
    if off:
        why = f"{' and '.join(off)} off: a crash of the machine can damage the data beyond repair"
        remedy = " ".join(setting(found, name, "on") for name in off)
        yield advised("durability", "Durable writes", server.target, Verdict.FAIL, why, remedy)


def _standby_queries(found: Configured, server: Server) -> Iterator[Item]:
    delay, feedback = server.seconds("max_standby_streaming_delay"), server.settings.get("hot_standby_feedback")
    if delay is None or len(found.servers) < 2:
        return
    title = "Queries on standbys"
    if delay < 0:
        why = "max_standby_streaming_delay is -1: one long query holds up replay, and with it any failover, without end"
        remedy = setting(found, "max_standby_streaming_delay", "30s")
        yield advised("standby_queries", title, server.target, Verdict.WARN, why, remedy)
        return
    told = f"they hold up replay for at most {human_seconds(delay)}"
    told += "; hot_standby_feedback is on, so long ones bloat the primary" if feedback == "on" else ""
    yield advised("standby_queries", title, server.target, Verdict.PASS, told)


def _restart(found: Configured, server: Server) -> Iterator[Item]:
    if server.pending_restart:
        names = ", ".join(sorted(server.pending_restart)[:5])
        how = f"patronictl restart CLUSTER {server.node}" if found.patroni is not None else "restart it"
        yield advised(
            "pending_restart", "Settings that wait for a restart", server.target, Verdict.WARN,
            f"{names}: what is configured is not what is in force", f"{how}, the standbys first",
        )  # fmt: skip


def end_of_life(server: Server, today: date) -> Iterator[Item]:
    """Whether its version still gets fixes."""
    end, title = END_OF_LIFE.get(server.major), "Support of the version"
    if end is None:
        return
    name, evidence = f"PostgreSQL {server.version}", {"end_of_life": end.isoformat()}
    advice = f"plan the upgrade to PostgreSQL {max(END_OF_LIFE)} (pg_upgrade, or logical replication)"
    if today > end:
        why = f"{name}: version {server.major} gets no fixes any more since {end}, not for security either"
        yield advised("end_of_life", title, server.target, Verdict.WARN, why, advice, evidence)
    elif (end - today).days <= SOON_DAYS:
        why = f"{name}: version {server.major} gets its last fixes on {end}"
        yield advised("end_of_life", title, server.target, Verdict.WARN, why, advice, evidence)
    else:
        told = f"{name} gets fixes until {end}"
        yield advised("end_of_life", title, server.target, Verdict.PASS, told, evidence=evidence)


RULES: tuple[Callable[[Configured, Server], Iterator[Item]], ...] = (
    _privileges, _reserved, _role_limit, _senders, _slots, _slot_limit, _wal_kept, _rewind, _durable,
    _standby_queries, _restart,
)  # fmt: skip
