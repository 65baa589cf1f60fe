from probed.probes import Context, Measured, probe


@probe(
    kinds=("observer",),
    readings={"inspections": "inspections of the schedule that have ended since the last cycle"},
)
def observer_inspections(context: Context) -> Measured:
    """Has an inspection that comes back (``inspections:``) ended, and with which grade?

    What people start themselves is theirs to look at, and is not told here.
    """
    said = context.vitals.take_inspections()
    return Measured({"inspections": float(len(said))}, reason="; ".join(said))
