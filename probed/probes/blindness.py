from typing import cast

from probed.model import Outcome
from probed.probes import Measured, Readings, View, combined

SHOWN = 3
CONSEQUENCES = ("no_input", "transition")
_BLIND = Outcome.BLIND


@combined(
    scope="instance",
    component="observer",
    inputs=(
        "api_gateway", "auth", "component", "etcd_member", "haproxy_stats", "patroni_cluster", "patroni_rest",
        "http", "postgres_liveness", "postgres_stats", "realtime", "rest", "sql", "storage", "studio", "tcp",
    ),
    readings={
        "blind_seconds": "for how long the longest-lasting blindness to a target has gone on, seconds",
        "blind_targets": "targets that cannot be seen now",
    },
)  # fmt: skip
def blindness(view: View) -> Readings | Measured:
    """Which targets of the instance can this daemon not see, and since when?

    Blind is neither healthy nor down: a wrong password hides an outage as well as it hides health. Counted are samples
    that are blind for a reason of ours, of every probe that reaches out; what is blind for want of another probe's
    sample is its consequence, and not counted once more.
    """
    samples = [*view.samples.values(), *(sample for several in view.several.values() for sample in several)]
    unseen = [sample for sample in samples if sample.outcome is _BLIND and sample.kind not in CONSEQUENCES]
    if not unseen:
        return {"blind_seconds": 0.0, "blind_targets": 0.0}
    before = cast(dict[str, float], view.before.facts.get("since", {})) if view.before is not None else {}
    blind = {sample.target.key: sample for sample in unseen}
    since = {key: before.get(key, sample.mono) for key, sample in blind.items()}
    longest = sorted(blind.values(), key=lambda sample: since[sample.target.key])
    shown = "; ".join(f"{sample.target.key}: {sample.reason}" for sample in longest[:SHOWN])
    more = f" and {len(blind) - SHOWN} more targets" if len(blind) > SHOWN else ""
    readings = {
        "blind_seconds": max(view.mono - at for at in since.values()),
        "blind_targets": float(len(blind)),
    }
    return Measured(readings, reason=shown + more, facts={"since": since})
