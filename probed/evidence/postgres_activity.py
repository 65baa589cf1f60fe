from probed.evidence import Data, collector
from probed.evidence._sql import answer, fingerprinted, rows, unseen
from probed.probes import Context

ACTIVITY = """
WITH session AS MATERIALIZED (
    SELECT pid, usename, datname, application_name, client_addr, state, wait_event_type, wait_event, backend_type,
           extract(epoch FROM now() - xact_start)::int AS transaction_seconds,
           extract(epoch FROM now() - query_start)::int AS query_seconds, query
    FROM pg_catalog.pg_stat_activity WHERE pid <> pg_backend_pid()
), client AS (SELECT * FROM session WHERE backend_type = 'client backend')
SELECT json_build_object(
    'may_read', pg_has_role('pg_read_all_stats', 'usage'),
    'clients', (SELECT count(*) FROM client),
    'active', (SELECT count(*) FROM client WHERE state = 'active'),
    'idle_in_transaction', (SELECT count(*) FROM client WHERE state LIKE 'idle in transaction%'),
    'waiting_for_locks', (SELECT count(*) FROM client WHERE wait_event_type = 'Lock'),
    'limit', current_setting('max_connections')::int,
    'by_session', (SELECT json_agg(counted) FROM (
        SELECT count(*) AS sessions, usename AS "user", datname AS "database", application_name AS application,
               host(client_addr) AS client, state
        FROM client GROUP BY 2, 3, 4, 5, 6 ORDER BY 1 DESC LIMIT 20) counted),
    'waits', (SELECT json_agg(counted) FROM (
        SELECT count(*) AS sessions, wait_event_type AS type, wait_event AS event
        FROM session WHERE state = 'active' GROUP BY 2, 3 ORDER BY 1 DESC LIMIT 20) counted),
    'oldest_transactions', (SELECT json_agg(oldest) FROM (
        SELECT transaction_seconds, query_seconds, pid, usename AS "user", datname AS "database",
               application_name AS application, state, wait_event_type || ':' || wait_event AS wait,
               left(query, 1000) AS query
        FROM session WHERE transaction_seconds IS NOT NULL ORDER BY transaction_seconds DESC LIMIT 10) oldest)
)::text
"""


@collector(kinds=("postgres",), standing=True)
async def postgres_activity(context: Context) -> Data:
    """Who is connected and what they wait for: sessions by user, database, application, client and state; wait events;
    the oldest transactions with their statements, shown without literals.

    Before: a snapshot each 90 s while the server is well and has at most 500 sessions, on the connection that is
    there; the last three are kept.
    """
    found = await answer(context, ACTIVITY)
    note = unseen(context, found)
    found.pop("may_read", None)
    oldest = fingerprinted(rows(found.pop("oldest_transactions", None)))
    return {**note, **found, "oldest_transactions": oldest}
