from probed.probes import Context, Measured, probe

MOMENT = 1.0
"""Seconds that writing may take."""


@probe(
    kinds=("observer",),
    readings={
        "refusing_seconds": "for how long something has waited for the disk under the event store, seconds",
        "lost_commits": "commits since the start that no longer fitted into memory while the disk took nothing",
    },
)
def observer_store(context: Context) -> Measured:
    """Does the disk under the event store take what is to be durable? It is full, read-only or broken when it does not.

    What waits is kept in memory, up to 10,000 commits, told all the same, and written in order when the disk takes it.
    """
    found = context.vitals.refusal()
    reason = ""
    if found.seconds >= MOMENT:
        lost = f", {found.lost} were lost" if found.lost else ""
        reason = f"{found.error or 'no answer'}; {found.waiting} commits wait in memory{lost}"
    return Measured({"refusing_seconds": found.seconds, "lost_commits": float(found.lost)}, reason=reason)
