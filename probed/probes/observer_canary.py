from probed.errors import NotApplicable
from probed.probes import Context, Measured, probe


@probe(
    kinds=("observer",),
    readings={
        "canaries_due": "1 while a canary is to be sent the way of an alarm",
        "canaries_missing": "1 while a canary has not come back in time, 0 from when one does",
    },
)
def observer_canary(context: Context) -> Measured:
    """Does an event of our own come back that is judged, recorded, owed and brought as every event is?

    Until the first one after a start has come back or is overdue, nothing is said of the second reading.
    """
    due, trip = context.vitals.canary_due(), context.vitals.trip()
    if not trip.sent:
        raise NotApplicable("no canary is sent: nobody is told of events, or notifications.canary is off")
    readings = {"canaries_due": float(due)}
    if trip.overdue_seconds is not None:
        readings["canaries_missing"] = float(trip.overdue_seconds > 0)
    reason = f"a canary did not come back in time; it is {trip.where}" if trip.overdue_seconds else ""
    return Measured(readings, reason=reason)
