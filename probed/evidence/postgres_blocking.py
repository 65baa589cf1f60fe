from probed.evidence import Data, collector
from probed.evidence._sql import Row, answer, fingerprinted, rows, unseen
from probed.probes import Context

MAX_DEPTH = 8

BLOCKING = """
WITH waiting AS MATERIALIZED (
    SELECT pid, pg_blocking_pids(pid) AS blocked_by FROM (
        SELECT pid FROM pg_catalog.pg_stat_activity
        WHERE wait_event_type = 'Lock' ORDER BY query_start LIMIT 50) longest
), involved AS (
    SELECT pid FROM waiting UNION SELECT unnest(blocked_by) FROM waiting
)
SELECT json_build_object(
    'may_read', pg_has_role('pg_read_all_stats', 'usage'),
    'waiting', (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE wait_event_type = 'Lock'),
    'sessions', (SELECT json_agg(shown) FROM (
        SELECT s.pid, waiting.blocked_by, s.usename AS "user", s.datname AS "database",
               s.application_name AS application, s.state,
               extract(epoch FROM now() - s.xact_start)::int AS transaction_seconds,
               extract(epoch FROM now() - s.state_change)::int AS state_seconds,
               (SELECT l.locktype || coalesce(' ' || l.relation::regclass::text, '') || ' ' || l.mode
                FROM pg_catalog.pg_locks l WHERE l.pid = s.pid AND NOT l.granted LIMIT 1) AS wants,
               left(s.query, 1000) AS query
        FROM pg_catalog.pg_stat_activity s JOIN involved USING (pid) LEFT JOIN waiting USING (pid)
        LIMIT 100) shown)
)::text
"""


@collector(kinds=("postgres",))
async def postgres_blocking(context: Context) -> Data:
    """Who blocks whom: a tree of sessions that wait for locks below those that hold them, with what each one wants.

    From ``pg_blocking_pids`` of the 50 that have waited longest; statements without literals. A deadlock that the
    server has broken already leaves nothing to see here.
    """
    found = await answer(context, BLOCKING)
    sessions = {row["pid"]: row for row in fingerprinted(rows(found.get("sessions")))}
    return {**unseen(context, found), "waiting": found.get("waiting"), "tree": tree(sessions)}


def tree(sessions: dict[int, Row]) -> list[Row]:
    """Sessions that nobody blocks, each with those that it blocks; of a ring, one that closes it stands on top."""
    below: dict[int, list[int]] = {}
    for pid, row in sessions.items():
        for blocker in row.get("blocked_by") or ():
            below.setdefault(blocker, []).append(pid)
    shown: set[int] = set()

    def branch(pid: int, depth: int) -> Row:
        shown.add(pid)
        row = {key: value for key, value in sessions.get(pid, {"pid": pid}).items() if key != "blocked_by"}
        waiting = [branch(other, depth + 1) for other in below.get(pid, ()) if other not in shown and depth < MAX_DEPTH]
        return {**row, "blocks": waiting} if waiting else row

    roots = [pid for pid in below if not sessions.get(pid, {}).get("blocked_by")]
    found = [branch(pid, 0) for pid in roots]
    for pid in below:
        if pid not in shown:
            found.append(branch(pid, 0))
    return found
