from collections.abc import Sequence
from typing import cast

from probed.errors import Blind
from probed.model import Outcome, Reading, Sample
from probed.probes import Measured, Readings, View, combined
from probed.probes._patroni import ClusterMember, as_nodes


@combined(
    scope="instance",
    component="postgres",
    inputs=("patroni_cluster", "patroni_rest", "postgres_stats"),
    readings={
        "has_leader": "1 while the instance has a confirmed leader, 0 when it has none",
        "leader": "name of the confirmed leader (an identity)",
        "timeline": "the leader's timeline",
        "writable_nodes": "servers that answered and are not in recovery",
    },
)
def leader(view: View) -> Readings | Measured:
    """Who leads the instance, and does anybody? Patroni's word, confirmed by the servers themselves.

    There is a leader when a server answers that it is not in recovery, or when the member that Patroni lists as leader
    is running by its own REST API (or leads a standby cluster). There is none when Patroni lists no leader, or lists
    one whose database and REST API both do not confirm it (for up to its TTL a dead leader is still listed), and no
    server is writable. Patroni silent and every server in recovery is no leader too. Silence on all sides says
    nothing: another event explains it.

    The identity ``leader`` is given only when it is certain: one writable server, and Patroni naming no other.
    """
    stats = {node: sample for node in view.nodes if (sample := view.of("postgres_stats", node)) is not None}
    writable = [node for node, sample in stats.items() if _recovery(sample) == 0.0]
    standing_by = [node for node, sample in stats.items() if _recovery(sample) == 1.0]
    cluster = view.of("patroni_cluster", "")
    members: Sequence[ClusterMember] = ()
    if cluster is not None and cluster.outcome is Outcome.OBSERVED:
        members = as_nodes(view, cast(tuple[ClusterMember, ...], cluster.facts["members"]))
    listed = [member for member in members if member.leads]
    confirmed = [member for member in listed if _confirms(view, member, writable)]
    readings: dict[str, Reading] = {"writable_nodes": float(len(writable))}

    if writable or confirmed:
        readings["has_leader"] = 1.0
        name = _identity(view, writable, listed, confirmed, cluster)
        if name:
            readings["leader"] = name
            timeline = _timeline(name, stats, members)
            if timeline is not None:
                readings["timeline"] = timeline
        return Measured(readings)
    if members:
        if any(_open_question(view, member, stats) for member in listed):
            return Measured(readings, reason=f"{listed[0].name} is listed as leader; nothing else could be asked")
        reason = f"{listed[0].name} is listed as leader, but does not answer" if listed else "Patroni lists no leader"
        return Measured({**readings, "has_leader": 0.0}, reason=reason)
    if stats and len(standing_by) == len(view.nodes):
        return Measured({**readings, "has_leader": 0.0}, reason="every server is in recovery")
    raise Blind("no_input", "neither Patroni nor every server could be asked")


def _recovery(sample: Sample) -> Reading | None:
    return sample.readings.get("in_recovery") if sample.outcome is Outcome.OBSERVED else None


def _confirms(view: View, member: ClusterMember, writable: Sequence[str]) -> bool:
    """Whether a listed leader is one by its own word."""
    if member.name in writable:
        return True
    stats, rest = view.of("postgres_stats", member.name), view.of("patroni_rest", member.name)
    if member.role == "standby_leader":
        # The leader of a standby cluster is in recovery by design.
        return stats is not None and _recovery(stats) == 1.0
    if stats is not None and _recovery(stats) == 1.0:
        return False
    if rest is None or rest.outcome is not Outcome.OBSERVED:
        return False
    return rest.readings.get("role") == "primary" and rest.readings.get("state") == "running"


def _open_question(view: View, member: ClusterMember, stats: dict[str, Sample]) -> bool:
    """A listed leader is refuted by its database, or by its own Patroni's word for another role.

    A database that we are blind to (no login, wrong password, no free slot) beside a silent Patroni refutes nothing.
    """
    sample, rest = stats.get(member.name), view.of("patroni_rest", member.name)
    database = sample is not None and sample.outcome in (Outcome.OBSERVED, Outcome.FAILED)
    full = sample is not None and sample.kind == "too_many_connections"
    door = rest is not None and rest.outcome is Outcome.OBSERVED
    return not ((database and not full) or door)


def _identity(
    view: View,
    writable: Sequence[str],
    listed: Sequence[ClusterMember],
    confirmed: Sequence[ClusterMember],
    cluster: Sample | None,
) -> str:
    """The certain leader's name, or nothing: two writable servers, or two opinions, are no identity."""
    if len(writable) > 1 or len(listed) > 1:
        return ""
    if writable:
        name = writable[0]
        if listed:
            return name if listed[0].name == name else ""
        if cluster is None or (cluster.outcome is Outcome.OBSERVED and not cluster.facts["members"]):
            return name
        # Patroni answers and lists nobody, or is silent: only the node's own REST API makes it certain.
        rest = view.of("patroni_rest", name)
        leads = rest is not None and rest.outcome is Outcome.OBSERVED and rest.readings.get("role") == "primary"
        return name if leads else ""
    return confirmed[0].name


def _timeline(name: str, stats: dict[str, Sample], members: Sequence[ClusterMember]) -> float | None:
    sample = stats.get(name)
    text = sample.facts.get("timeline") if sample is not None else None
    if isinstance(text, str):
        return float(int(text, 16))
    member = next((member for member in members if member.name == name), None)
    return float(member.timeline) if member is not None and member.timeline is not None else None
