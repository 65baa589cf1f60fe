from probed.evidence import Data, collector
from probed.evidence._sql import answer, only, rows
from probed.probes import Context

COLUMNS = (
    "slot_name", "plugin", "slot_type", "database", "temporary", "active", "active_pid", "restart_lsn",
    "confirmed_flush_lsn", "wal_status", "safe_wal_size", "inactive_since", "invalidation_reason", "conflicting",
    "synced", "failover", "retained_bytes",
)  # fmt: skip

SLOTS = """
SELECT json_build_object(
    'max_slot_wal_keep_size', current_setting('max_slot_wal_keep_size', true),
    'max_replication_slots', current_setting('max_replication_slots')::int,
    'wal_keep_size', current_setting('wal_keep_size', true),
    'slots', (SELECT json_agg(to_jsonb(s)) FROM (
        SELECT *, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                       ELSE pg_current_wal_lsn() END, restart_lsn)::float8 AS retained_bytes
        FROM pg_catalog.pg_replication_slots ORDER BY restart_lsn NULLS LAST LIMIT 50) s)
)::text
"""


@collector(kinds=("postgres",), scope="instance")
async def postgres_slots(context: Context) -> Data:
    """Replication slots of every node: active or not, how much WAL each holds back, whether it was lost."""
    found = await answer(context, SLOTS)
    slots = [only(row, COLUMNS) for row in rows(found.pop("slots", None))]
    return {**{name: value for name, value in found.items() if value is not None}, "slots": slots}
