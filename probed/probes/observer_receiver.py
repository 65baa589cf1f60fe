from probed.errors import NotApplicable
from probed.probes import Context, Measured, probe


@probe(
    kinds=("receiver",),
    readings={
        "failing_seconds": "for how long the receiver has taken nothing of what it was sent, seconds; 0 while it does; "
        "at least a day from when a notice was given up until it takes one again",
    },
)
def observer_receiver(context: Context) -> Measured:
    """Does a receiver of notices take what it is sent? It is not asked: what became of the last attempts is known.

    Before anything was sent to it, after a start, nothing is said of it.
    """
    name = context.target.member
    fares = context.vitals.faring(name)
    if fares is None:
        raise NotApplicable(f"no receiver is called {name}")
    if fares.failing_seconds is None:
        return Measured({}, reason="nothing has been sent to it yet")
    lost = f"; {fares.given_up} notices were given up" if fares.given_up else ""
    reason = f"{name}: {fares.answer}{lost}" if fares.failing_seconds else ""
    return Measured({"failing_seconds": fares.failing_seconds}, reason=reason)
