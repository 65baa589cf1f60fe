from probed.probes import Context, Measured, probe

SHOWN = 5


@probe(
    kinds=("observer",),
    readings={
        "silent_hosts_pct": "share of the independent machines of all targets from which nothing comes back, per cent",
        "silent_hosts": "machines from which nothing comes back: no answer, no refusal, no route, no address",
        "heard_hosts": "machines that answered, refused, reset, or accepted a connection",
    },
)
def observer_sight(context: Context) -> Measured:
    """Can this daemon still see, or has its own network gone? Counted over the newest samples of all instances.

    A machine that refuses a connection has been heard. When more than half of the machines are silent at once, it is
    rather this observer that is cut off; what it then believes of its targets is held back. Two machines at least are
    wanted for such a verdict; where all targets are on one, all of them (three or more) must be silent.
    """
    seen = context.vitals.reachability.whole
    silent = sorted(seen.silent)
    shown = ", ".join(silent[:SHOWN]) + (f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else "")
    reason = f"nothing comes back from {shown}" if silent else ""
    readings = {
        "silent_hosts_pct": seen.share,
        "silent_hosts": float(len(silent)),
        "heard_hosts": float(len(seen.heard)),
    }
    return Measured(readings, reason=reason)
