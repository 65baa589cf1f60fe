import re

from probed.evidence import Data, Recall, collector
from probed.evidence._sql import answer, lsn, only, rows, unseen
from probed.model import Sample
from probed.probes import Context

COLUMNS = (
    "pid", "status", "receive_start_lsn", "receive_start_tli", "written_lsn", "flushed_lsn", "received_lsn",
    "received_tli", "last_msg_send_time", "last_msg_receipt_time", "latest_end_lsn", "latest_end_time", "slot_name",
    "sender_host", "sender_port",
)  # fmt: skip

RECEIVER = """
SELECT json_build_object(
    'may_read', pg_has_role('pg_read_all_stats', 'usage'),
    'in_recovery', pg_is_in_recovery(),
    'receiver', (SELECT json_agg(to_jsonb(r)) FROM pg_catalog.pg_stat_wal_receiver r),
    'primary_conninfo', current_setting('primary_conninfo', true),
    'primary_slot_name', current_setting('primary_slot_name', true),
    'wal_receiver_timeout', current_setting('wal_receiver_timeout'),
    'recovery_min_apply_delay', current_setting('recovery_min_apply_delay'),
    'receive_lsn', pg_last_wal_receive_lsn(),
    'replay_lsn', pg_last_wal_replay_lsn(),
    'conflicts', (SELECT sum(confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin + confl_deadlock)
                  FROM pg_catalog.pg_stat_database_conflicts)
)::text
"""
_PUBLIC = re.compile(r"\b(host|hostaddr|port|user|application_name|sslmode)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s']+)")


def told(sample: Sample) -> Data | None:
    facts = sample.facts
    if not facts.get("in_recovery"):
        return None
    shown = only(facts, ("receiver_pid", "receiver_status", "received_tli", "replay_paused"))
    positions = {
        name: text for name in ("receive_lsn", "replay_lsn", "latest_end_lsn") if (text := lsn(facts.get(name)))
    }
    return {**shown, **positions} if shown or positions else None


@collector(kinds=("postgres",), recall=Recall("postgres_stats", told), recovery=True)
async def postgres_receiver(context: Context) -> Data:
    """The receiving end of a standby: pg_stat_wal_receiver, whom it is told to follow, positions, recovery conflicts.

    Of primary_conninfo only host, port, user, application_name and sslmode are kept. Before: the receiver's state in
    the newest sample.
    """
    found = await answer(context, RECEIVER)
    note = unseen(context, found)
    found.pop("may_read", None)
    receiver = [only(row, COLUMNS) for row in rows(found.pop("receiver", None))]
    follows = dict(_PUBLIC.findall(str(found.pop("primary_conninfo", None) or "")))
    kept = {name: value for name, value in found.items() if value not in (None, "")}
    return {**note, **kept, "receiver": receiver[0] if receiver else "none", "primary_conninfo": follows}
