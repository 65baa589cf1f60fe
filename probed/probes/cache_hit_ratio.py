from probed.errors import Blind
from probed.model import Outcome, Reading
from probed.probes import Measured, Readings, View, combined


@combined(
    scope="node",
    component="postgres",
    inputs=("postgres_stats",),
    readings={
        "hit_ratio": "blocks found in shared buffers since the last cycle, per cent of all blocks asked for",
        "blocks": "blocks asked for since the last cycle",
        "up_seconds": "time since the server started or was promoted, as far as it is known, seconds",
    },
)
def cache_hit_ratio(view: View) -> Readings | Measured:
    """The cache hit ratio of the last cycle, never of the server's lifetime.

    Computed from the counters' increase since this probe's last cycle; a reset, a restart or a crash (counters fall)
    starts anew and yields no reading. An idle server has no ratio: ``blocks`` says whether there was enough traffic to
    judge. Blocks served by the operating system's cache count as read.
    """
    stats = view.of("postgres_stats")
    if stats is None:
        return {}
    if stats.outcome is not Outcome.OBSERVED:
        raise Blind("no_input", f"postgres_stats: {stats.reason}")
    hit, read = stats.readings.get("blocks_hit"), stats.readings.get("blocks_read")
    started = stats.facts["started_at"]
    if not isinstance(hit, float) or not isinstance(read, float) or not isinstance(started, float):
        return {}
    recovery = stats.readings["in_recovery"]
    before = view.before.facts if view.before is not None else {}
    promoted = before.get("promoted_at")
    if before.get("in_recovery") and not recovery:
        promoted = stats.at
    facts = {"series": stats.series, "hit": hit, "read": read, "in_recovery": recovery, "promoted_at": promoted}
    since = max(started, promoted if isinstance(promoted, float) else started)
    readings: dict[str, Reading] = {"up_seconds": max(0.0, stats.at - since)}
    last_hit, last_read = before.get("hit"), before.get("read")
    if before.get("series") == stats.series and isinstance(last_hit, float) and isinstance(last_read, float):
        hits, reads = hit - last_hit, read - last_read
        if hits >= 0 and reads >= 0:
            readings["blocks"] = hits + reads
            # Without traffic there is no ratio; 100 keeps a policy without min_blocks from opening on nothing.
            readings["hit_ratio"] = 100.0 * hits / (hits + reads) if hits + reads else 100.0
    return Measured(readings, facts=facts)
