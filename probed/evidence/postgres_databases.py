from probed.evidence import Data, collector
from probed.evidence._sql import answer, only, rows
from probed.probes import Context

COLUMNS = (
    "datname", "numbackends", "xact_commit", "xact_rollback", "blks_read", "blks_hit", "temp_files", "temp_bytes",
    "deadlocks", "conflicts", "sessions", "sessions_abandoned", "sessions_fatal", "sessions_killed", "stats_reset",
)  # fmt: skip

DATABASES = """
SELECT json_build_object('databases', (SELECT json_agg(to_jsonb(d)) FROM (
    SELECT * FROM pg_catalog.pg_stat_database ORDER BY blks_hit + blks_read DESC LIMIT 20) d))::text
"""


@collector(kinds=("postgres",), standing=True)
async def postgres_databases(context: Context) -> Data:
    """Counters of each database: commits and rollbacks, blocks hit and read, deadlocks, temporary files, sessions lost.

    What grew between the snapshots before and the one after is where the event comes from. Before: a snapshot each 90 s
    while the server is well.
    """
    found = await answer(context, DATABASES)
    return {"databases": [only(row, COLUMNS) for row in rows(found.get("databases"))]}
