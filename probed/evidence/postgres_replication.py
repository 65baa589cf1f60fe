from probed.evidence import Data, Recall, collector
from probed.evidence._sql import answer, instant, lsn, only, rows, unseen
from probed.model import Sample
from probed.probes import Context

SENDER = (
    "application_name", "client_addr", "state", "sync_state", "sent_lsn", "write_lsn", "flush_lsn", "replay_lsn",
    "write_lag", "flush_lag", "replay_lag", "reply_time", "backend_start",
)  # fmt: skip

REPLICATION = """
SELECT json_build_object(
    'may_read', pg_has_role('pg_read_all_stats', 'usage'),
    'in_recovery', pg_is_in_recovery(),
    'started_at', pg_postmaster_start_time(),
    'timeline', CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)
                     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
    'current_lsn', CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END,
    'receive_lsn', pg_last_wal_receive_lsn(),
    'replay_lsn', pg_last_wal_replay_lsn(),
    'last_replayed_transaction', pg_last_xact_replay_timestamp(),
    'replay_paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END,
    'receiver', (SELECT status FROM pg_catalog.pg_stat_wal_receiver),
    'senders', (SELECT json_agg(to_jsonb(s)) FROM (
        SELECT * FROM pg_catalog.pg_stat_replication ORDER BY application_name LIMIT 50) s)
)::text
"""


def told(sample: Sample) -> Data | None:
    facts = sample.facts
    positions = ("current_lsn", "receive_lsn", "replay_lsn", "latest_end_lsn")
    shown = {name: text for name in positions if (text := lsn(facts.get(name))) is not None}
    flags = only(facts, ("in_recovery", "receiver_status", "replay_paused"))
    if not flags:
        return None
    timeline = facts.get("timeline")  # as WAL file names write it
    flags["timeline"] = int(timeline, 16) if isinstance(timeline, str) else facts.get("received_tli")
    return {**flags, "started_at": instant(facts.get("started_at")), **shown}


@collector(kinds=("postgres",), scope="instance", recall=Recall("postgres_stats", told), recovery=True)
async def postgres_replication(context: Context) -> Data:
    """Both ends of replication, on every node: WAL positions, timeline, time of the start, and who is sent what
    (pg_stat_replication with its lags).

    What the old leader had last, and the new one replayed, bounds what a failover can have lost. Before: the positions
    of the newest sample.
    """
    found = await answer(context, REPLICATION)
    note = unseen(context, found)
    found.pop("may_read", None)
    senders = [only(row, SENDER) for row in rows(found.pop("senders", None))]
    return {**note, **{name: value for name, value in found.items() if value is not None}, "senders": senders}
