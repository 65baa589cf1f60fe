from probed.probes import Context, Measured, probe


@probe(
    kinds=("observer",),
    readings={"loop_lag_seconds": "longest time since the last cycle for which this daemon got no processor, seconds"},
)
def observer_loop(context: Context) -> Measured:
    """Does this daemon get the processor when it needs it? Its event loop looks at the clock twice a second.

    A daemon that is starved by half a timeout or more cannot tell a slow target from its own slowness; cycles that it
    spoilt are blind.
    """
    now = context.vitals.clock.mono()
    since = context.memory.get("asked")
    context.memory["asked"] = now
    lag = context.vitals.lag_since(since if isinstance(since, float) else now - context.timeout)
    return Measured(
        {"loop_lag_seconds": lag}, reason=f"the event loop stood still for {lag:.1f} s" if lag > 0.5 else ""
    )
