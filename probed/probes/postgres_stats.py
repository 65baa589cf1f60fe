from collections.abc import Mapping
from typing import Any

from probed.errors import Blind, TargetFailed
from probed.model import Reading
from probed.probes import Context, Measured, probe
from probed.probes._sql import grants

OLDEST, NEWEST = 12, 18

IDENTITY = "SELECT system_identifier::text FROM pg_control_system()"

STATS = """
WITH totals AS MATERIALIZED (
    SELECT coalesce(sum(numbackends), 0)::int AS backends, sum(deadlocks)::float8 AS deadlocks,
           sum(blks_hit)::float8 AS blocks_hit, sum(blks_read)::float8 AS blocks_read, max(stats_reset) AS stats_reset
    FROM pg_catalog.pg_stat_database
), limits AS MATERIALIZED (
    SELECT current_setting('max_connections')::int
           - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true), '0')::int AS usable,
           pg_has_role('pg_read_all_stats', 'usage') AS may_read
)
SELECT pg_is_in_recovery() AS in_recovery, totals.*, limits.*, pg_postmaster_start_time() AS started_at,
    CASE WHEN limits.may_read AND totals.backends >= 0.78 * limits.usable
         THEN (SELECT count(*)::int FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')
    END AS client_backends,
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn() - '0/0'::pg_lsn END::float8 AS current_lsn,
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline,
    CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::float8 END AS replay_lsn,
    CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::float8 END AS receive_lsn,
    CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END AS replay_paused,
    extract(epoch FROM current_setting('recovery_min_apply_delay')::interval)::float8 AS apply_delay,
    receiver.pid AS receiver_pid, receiver.status AS receiver_status, receiver.received_tli,
    (receiver.latest_end_lsn - '0/0'::pg_lsn)::float8 AS latest_end_lsn
FROM totals CROSS JOIN limits LEFT JOIN pg_catalog.pg_stat_wal_receiver receiver ON true
"""
# One text serves 12 to 18: what differs between them (reserved_connections, from 16) is asked for with missing_ok.
# Connections come from sum(numbackends), whose cost does not grow with the number of clients; it also counts autovacuum
# and parallel workers, so from 78 % of the usable slots on the exact count is taken, by the same statement.


@probe(
    kinds=("postgres",),
    readings={
        "in_recovery": "1 on a standby, 0 on a writable server",
        "deadlocks": "deadlocks since the statistics were reset, all databases (counter)",
        "blocks_hit": "blocks found in shared buffers, all databases (counter)",
        "blocks_read": "blocks asked of the operating system, all databases (counter)",
        "backends": "sessions in all databases, background workers included",
    },
)
async def postgres_stats(context: Context) -> Measured:
    """Everything the policies need of one server, in one statement on the warm connection.

    Its cost does not grow with the number of client connections. The combined probes (connections, replication_lag,
    wal_receiver, cache_hit_ratio, leader) read their part from its sample.

    Needs a role with pg_monitor; without it the parts that would silently be wrong (WAL receiver, exact number of
    connections) are left out and their probes are blind, with the GRANT that mends it.
    """
    session = context.sql
    async with session.turn():
        if not session.warm or not session.system_identifier:
            session.system_identifier = str(await session.value(IDENTITY))
        version = session.server_version
        if version < OLDEST:
            raise Blind("unsupported", f"PostgreSQL {version} is too old: {OLDEST} to {NEWEST} are supported")
        row = dict(await session.row(STATS))
        identifier = session.system_identifier
    if not identifier:
        raise TargetFailed("closed", f"{session.login.address}: the connection was lost between two statements")
    try:
        return _measured(row, identifier, version, grants(session.login.role, session.login.database))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        text = f"{session.login.address}: the answer is not PostgreSQL's: {type(error).__name__}: {error}"
        raise TargetFailed("protocol", text) from None


def _measured(row: Mapping[str, Any], identifier: str, version: int, mending: str) -> Measured:
    readings: dict[str, Reading] = {
        "in_recovery": 1.0 if row["in_recovery"] else 0.0,
        "backends": float(row["backends"]),
    }
    for counter in ("deadlocks", "blocks_hit", "blocks_read"):
        if row[counter] is not None:
            readings[counter] = float(row[counter])
    started, reset = row["started_at"].timestamp(), row["stats_reset"]
    remedy = "" if row["may_read"] else f"needs more privileges; run: {mending}"
    facts = {**row, "system_identifier": identifier, "started_at": started, "version": version, "remedy": remedy}
    facts["stats_reset"] = reset.timestamp() if reset is not None else None
    return Measured(readings, reason=remedy, series=f"{identifier}/{started:.6f}/{reset}", facts=facts)
