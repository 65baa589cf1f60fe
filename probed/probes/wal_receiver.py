from collections.abc import Mapping

from probed.errors import Blind, NotApplicable
from probed.model import Outcome
from probed.probes import Measured, Readings, View, combined

RETRY_SECONDS = 10.0
"""A receiver tries again every wal_retrieve_retry_interval (5 s), and connects: after a restart of the primary it may
take so long with nothing being wrong."""


@combined(
    scope="node",
    component="postgres",
    inputs=("postgres_stats",),
    readings={"wal_receiver_streaming": "1 while the WAL receiver streams, 0 otherwise"},
)
def wal_receiver(view: View) -> Readings | Measured:
    """Does this standby's WAL receiver stream? No row in pg_stat_wal_receiver means it does not.

    Up to PostgreSQL 18 a receiver says ``streaming`` before it has connected; one whose process is another than a
    cycle ago, or was none then, and that has received nothing since may be in a reconnect loop, and does not stream.
    For 10 s after a restart of the primary a receiver that is not back yet says nothing.

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
    before = view.before.facts if view.before is not None else {}
    primary, restarted = _primary(view, before)
    if pid is None:
        received = before.get("received")
    remembered = {"pid": pid, "received": received, "primary": primary, "restarted": restarted}
    reason = ""
    if pid is None:
        reason = "there is no WAL receiver process"
    elif status != "streaming":
        reason = f"the WAL receiver is {status}"
    elif "pid" in before and before["pid"] != pid and before["received"] == received:
        reason = "the WAL receiver was started again and has received nothing"
    if reason and restarted is not None and view.mono - restarted < RETRY_SECONDS:
        return Measured({}, reason=f"{reason}; the primary has just been restarted", facts=remembered)
    return Measured({"wal_receiver_streaming": 0.0 if reason else 1.0}, reason=reason, facts=remembered)


def _primary(view: View, before: Mapping[str, object]) -> tuple[object, float | None]:
    """((name, start time) of the primary as last seen, monotonic time at which another start time was first seen)."""
    known, restarted = before.get("primary"), before.get("restarted")
    since = restarted if isinstance(restarted, float) else None
    for node in view.nodes:
        stats = view.of("postgres_stats", node)
        if stats is not None and stats.outcome is Outcome.OBSERVED and not stats.readings["in_recovery"]:
            now = (node, stats.facts["started_at"])
            same_server = isinstance(known, tuple) and known[0] == node
            return now, view.mono if same_server and known != now else since
    return known, since
