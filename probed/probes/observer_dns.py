from probed.probes import Context, Measured, probe

SHOWN = 3


@probe(
    kinds=("observer",),
    readings={"unresolved_hosts": "names of targets that cannot be resolved"},
)
def observer_dns(context: Context) -> Measured:
    """Can this daemon resolve the names of its targets? Counted over the newest samples of all instances.

    A target whose name does not resolve is blind, never down: the fault is the resolver's, or the configuration's.
    """
    names = sorted(context.vitals.reachability.whole.unresolved)
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return Measured({"unresolved_hosts": float(len(names))}, reason=f"cannot resolve {shown}" if names else "")
