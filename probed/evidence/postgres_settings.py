from probed.evidence import Data, collector
from probed.evidence._sql import answer
from probed.probes import Context

NAMES = (
    "archive_mode", "autovacuum", "autovacuum_max_workers", "checkpoint_timeout", "data_checksums",
    "deadlock_timeout", "default_transaction_read_only", "effective_cache_size", "fsync", "full_page_writes",
    "hot_standby_feedback", "huge_pages", "idle_in_transaction_session_timeout", "lock_timeout",
    "maintenance_work_mem", "max_connections", "max_locks_per_transaction", "max_prepared_transactions",
    "max_replication_slots", "max_slot_wal_keep_size", "max_standby_streaming_delay", "max_wal_senders",
    "max_wal_size", "max_worker_processes", "recovery_min_apply_delay", "reserved_connections", "server_version",
    "shared_buffers", "statement_timeout", "superuser_reserved_connections", "synchronous_commit",
    "synchronous_standby_names", "temp_buffers", "temp_file_limit", "wal_keep_size", "wal_level", "wal_log_hints",
    "wal_receiver_timeout", "wal_sender_timeout", "work_mem",
)  # fmt: skip

SETTINGS = f"""
SELECT json_build_object(
    'settings', (SELECT json_object_agg(name, current_setting(name) ORDER BY name)
                 FROM pg_catalog.pg_settings WHERE name IN ({", ".join(f"'{name}'" for name in NAMES)})),
    'own_role', (SELECT json_build_object(
        'name', rolname, 'superuser', rolsuper,
        'pg_monitor', pg_has_role('pg_monitor', 'usage'),
        'use_reserved', (SELECT pg_has_role(oid, 'usage') FROM pg_catalog.pg_roles
                         WHERE rolname = 'pg_use_reserved_connections'))
        FROM pg_catalog.pg_roles WHERE rolname = current_user),
    'pending_restart', (SELECT json_agg(name) FROM pg_catalog.pg_settings WHERE pending_restart),
    'roles_with_limits', (SELECT json_object_agg(rolname, rolconnlimit) FROM (
        SELECT rolname, rolconnlimit FROM pg_catalog.pg_roles WHERE rolconnlimit >= 0 ORDER BY 1 LIMIT 20) r),
    'databases_with_limits', (SELECT json_object_agg(datname, datconnlimit) FROM (
        SELECT datname, datconnlimit FROM pg_catalog.pg_database WHERE datconnlimit >= 0 ORDER BY 1 LIMIT 20) d)
)::text
"""  # noqa: S608 - names are constants


@collector(kinds=("postgres",))
async def postgres_settings(context: Context) -> Data:
    """Settings that explain events: connections and who is limited, memory, WAL, timeouts, replication; what waits for
    a restart; what our own role may."""
    return {name: value for name, value in (await answer(context, SETTINGS)).items() if value is not None}
