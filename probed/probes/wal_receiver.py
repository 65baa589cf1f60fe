from probed.errors import Blind, NotApplicable
from probed.model import Outcome
from probed.probes import Measured, Readings, View, combined


@combined(
    scope="node",
    component="postgres",
    inputs=("postgres_stats",),
    readings={"wal_receiver_streaming": "1 while the WAL receiver streams, 0 otherwise"},
)
def wal_receiver(view: View) -> Readings | Measured:
    """Does this standby's WAL receiver stream? No row in pg_stat_wal_receiver means it does not.

    Up to PostgreSQL 18 a receiver says ``streaming`` before it has connected; one whose process is another than a
    cycle ago and that has received nothing since is in a reconnect loop, and does not stream.

    Not applicable on a primary. Blind without pg_monitor: the status of the row is then hidden.
    """
    stats = view.of("postgres_stats")
    if stats is None:
        return {}
    if stats.outcome is not Outcome.OBSERVED:
        raise Blind("no_input", f"postgres_stats: {stats.reason}")
    facts = stats.facts
    if not stats.readings["in_recovery"]:
        raise NotApplicable("a primary has no WAL receiver")
    if not facts["may_read"]:
        raise Blind("privilege", str(facts["remedy"]))
    pid, status, received = facts["receiver_pid"], facts["receiver_status"], facts["latest_end_lsn"]
    remembered = {"pid": pid, "received": received}
    if pid is None:
        return Measured({"wal_receiver_streaming": 0.0}, reason="there is no WAL receiver process", facts=remembered)
    if status != "streaming":
        return Measured({"wal_receiver_streaming": 0.0}, reason=f"the WAL receiver is {status}", facts=remembered)
    before = view.before.facts if view.before is not None else {}
    if before.get("pid") not in (None, pid) and before.get("received") == received:
        reason = "the WAL receiver was started again and has received nothing"
        return Measured({"wal_receiver_streaming": 0.0}, reason=reason, facts=remembered)
    return Measured({"wal_receiver_streaming": 1.0}, facts=remembered)
