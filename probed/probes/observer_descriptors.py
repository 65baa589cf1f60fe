from probed.errors import Blind
from probed.probes import Context, Measured, probe
from probed.vitals import descriptors_used


@probe(
    kinds=("observer",),
    readings={"descriptors_used_pct": "open file descriptors of this daemon, per cent of its limit"},
)
def observer_descriptors(context: Context) -> Measured:
    """Does this daemon have file descriptors left? Without one it can neither open a connection nor accept a scrape."""
    try:
        used, limit = descriptors_used()
    except OSError as error:
        raise Blind("descriptors", f"cannot count this daemon's file descriptors: {error.strerror}") from None
    return Measured(
        {"descriptors_used_pct": 100.0 * used / limit}, reason=f"{used} of {limit} file descriptors are open"
    )
