from collections.abc import Mapping
from typing import cast

from probed.errors import Blind, NotApplicable
from probed.model import Outcome, Reading
from probed.probes import Measured, Readings, View, combined

Ring = tuple[tuple[float, float], ...]
"""(mono, lsn): when the primary was first seen at or beyond a WAL position; positions rise."""

MAX_RING = 512


@combined(
    scope="node",
    component="postgres",
    inputs=("postgres_stats",),
    readings={
        "lag_seconds": "for how long the primary has had WAL that this standby has not replayed, seconds",
        "lag_bytes": "WAL that this standby has not replayed, bytes",
    },
)
def replication_lag(view: View) -> Readings | Measured:
    """Replication delay by the LSN clock: since when has the primary been ahead of what this standby replayed?

    Each cycle remembers when the primary reached a WAL position; the delay is the age of the first position beyond the
    standby's replay. An idle primary is 0, a cut-off standby grows truthfully, and no two machines' clocks are
    compared. ``now() - pg_last_xact_replay_timestamp()`` does none of this: it grows on an idle primary, and the usual
    mends of it read 0 on a standby that is cut off.

    While the primary cannot be read, the end of WAL that the streaming receiver reports stands in for it. A wanted
    delay (recovery_min_apply_delay) is subtracted. After a start of the daemon the reading is a lower bound.

    Not applicable on a primary.
    """
    stats = view.of("postgres_stats")
    if stats is None:
        return {}
    if stats.outcome is not Outcome.OBSERVED:
        raise Blind("no_input", f"postgres_stats: {stats.reason}")
    if not stats.readings["in_recovery"]:
        raise NotApplicable("a primary does not lag behind itself")
    source, position = _primary_position(view, stats.facts)
    before: Mapping[str, object] = view.before.facts if view.before is not None else {}
    # Positions of another primary or timeline are not comparable: the clock starts anew.
    ring = cast(Ring, before.get("ring", ())) if before.get("source") in (source, None) or source is None else ()
    replayed = stats.facts["replay_lsn"]
    if not isinstance(replayed, float):
        raise Blind("no_input", "this standby has not replayed anything yet")
    facts = {"ring": ring, "source": source or before.get("source")}
    if position is None and not any(lsn > replayed for _, lsn in ring):
        return Measured({}, reason="the primary's WAL position cannot be read", facts=facts)
    if position is not None and (not ring or position > ring[-1][1]):
        ring = (*ring, (view.mono, position))
    # What was replayed has no age; its newest entry stays, to know the primary's last position.
    ring = tuple(entry for entry in ring[:-1] if entry[1] > replayed) + ring[-1:]
    facts["ring"] = ring = _thin(ring)
    behind = next((seen for seen, lsn in ring if lsn > replayed), None)
    delay = stats.facts["apply_delay"]
    wanted = delay if isinstance(delay, float) else 0.0
    readings: dict[str, Reading] = {
        "lag_seconds": 0.0 if behind is None else max(0.0, view.mono - behind - wanted),
        "lag_bytes": max(0.0, ring[-1][1] - replayed),
    }
    reason = "replay is paused on this standby" if stats.facts["replay_paused"] else ""
    return Measured(readings, reason=reason, facts=facts)


def _primary_position(view: View, facts: Mapping[str, object]) -> tuple[str | None, float | None]:
    """(identity of the WAL stream, position in bytes), from the primary itself or from the standby's receiver."""
    for node in view.nodes:
        stats = view.of("postgres_stats", node)
        if stats is None or stats.outcome is not Outcome.OBSERVED or stats.readings["in_recovery"]:
            continue
        same_cluster = stats.facts["system_identifier"] == facts["system_identifier"]
        position = stats.facts["current_lsn"]
        if same_cluster and isinstance(position, float):
            return f"{node}/{stats.facts['timeline']}", position
    position = facts["latest_end_lsn"]
    if facts["receiver_status"] == "streaming" and isinstance(position, float):
        return None, position
    return None, None


def _thin(ring: Ring) -> Ring:
    """A standby that is down for days must not fill memory: every second entry goes, the first and last stay."""
    if len(ring) <= MAX_RING:
        return ring
    return (ring[0], *ring[2:-1:2], ring[-1])
