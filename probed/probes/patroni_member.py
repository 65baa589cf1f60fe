from typing import cast

from probed.errors import Blind
from probed.model import Outcome, Reading
from probed.probes import Measured, Readings, View, combined
from probed.probes._patroni import ClusterMember, as_nodes

HEALTHY = frozenset({"running", "streaming", "in archive recovery"})
BAD = frozenset(
    {"start failed", "restart failed", "stop failed", "crashed", "stopped", "initdb failed",
     "custom bootstrap failed", "unknown", "watchdog_failed"}
)  # fmt: skip
TRANSITIONAL = frozenset({"starting", "stopping", "restarting", "starting after custom bootstrap"})
TRANSITIONAL_GRACE = 60.0
BUILDING = frozenset({"creating replica", "initializing new cluster", "running custom bootstrap script"})
BUILDING_GRACE = 6 * 3600.0


@combined(
    scope="node",
    component="patroni",
    inputs=("patroni_rest", "patroni_cluster"),
    readings={
        "healthy": "1 while Patroni's state for the node is a healthy one, 0 when it is not",
        "state": "the state that decided",
    },
)
def patroni_member(view: View) -> Readings | Measured:
    """Is this node well in Patroni's eyes, and is Patroni itself?

    Unhealthy (0): the node's REST API is silent; a state such as ``start failed``, ``crashed``, ``stopped`` (unless the
    cluster is paused) or ``unknown``; the member is missing from ``/cluster`` (a dead member disappears after its TTL
    instead of turning red). ``starting``, ``stopping`` and ``restarting`` are unhealthy only after 60 s, building a
    replica only after 6 h; until then, and for a state nobody knows, the sample says nothing.

    Healthy: ``running``, ``streaming``, ``in archive recovery``; Patroni 3 and 4 alike.
    """
    rest, cluster = view.of("patroni_rest"), view.of("patroni_cluster", "")
    if rest is None:
        return {}
    if rest.outcome is Outcome.BLIND:
        raise Blind(rest.kind, rest.reason)
    if rest.outcome is not Outcome.OBSERVED:
        return Measured({"healthy": 0.0, "state": "silent"}, reason=f"Patroni does not answer: {rest.reason}")
    state = str(rest.readings["state"])
    listed = cluster is not None and cluster.outcome is Outcome.OBSERVED
    rows = cast(tuple[ClusterMember, ...], cluster.facts["members"]) if cluster is not None and listed else ()
    members = as_nodes(view, rows)
    since = _since(view, state)
    facts = {"state": state, "since": since}
    readings: dict[str, Reading] = {"state": state}
    if listed and members and view.target.node not in {member.name for member in members}:
        return Measured({"healthy": 0.0, **readings}, reason="the node is missing from Patroni's /cluster", facts=facts)
    paused = rest.facts.get("pause") is True
    if state in HEALTHY or (state == "stopped" and paused):
        return Measured({"healthy": 1.0, **readings}, facts=facts)
    grace = TRANSITIONAL_GRACE if state in TRANSITIONAL else BUILDING_GRACE if state in BUILDING else 0.0
    if state in BAD or (grace and view.mono - since >= grace):
        return Measured({"healthy": 0.0, **readings}, reason=f'Patroni reports "{state}"', facts=facts)
    return Measured(readings, reason=f'Patroni reports "{state}"', facts=facts)


def _since(view: View, state: str) -> float:
    before = view.before.facts if view.before is not None else {}
    since = before.get("since")
    return since if before.get("state") == state and isinstance(since, float) else view.mono
