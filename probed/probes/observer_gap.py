from datetime import UTC, datetime

from probed.probes import Context, Measured, probe
from probed.vitals import Gap


@probe(
    kinds=("observer",),
    readings={"gaps": "times since the last cycle in which nothing was sampled for more than two intervals"},
)
def observer_gap(context: Context) -> Measured:
    """Was there a time in which nobody looked: was this daemon, or its machine, suspended or stopped by a signal?

    What happened meanwhile is not known; no streak is continued over it, and no late timer is taken for a fault.
    """
    gaps = context.vitals.take_gaps()
    said = "; ".join(f"nothing was sampled for {gap.seconds:.0f} s, {_span(gap)}" for gap in gaps)
    return Measured({"gaps": float(len(gaps))}, reason=said)


def _span(gap: Gap) -> str:
    began, ended = (datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S") for at in (gap.began_at, gap.ended_at))
    return f"from {began} to {ended} UTC"
