from collections.abc import Sequence

from probed.errors import Blind, TargetFailed
from probed.model import Outcome, Sample
from probed.probes import Measured, Readings, View, combined

MAX_NAMED = 3
"""Members whose reasons are told one by one."""


@combined(
    scope="instance",
    component="etcd",
    inputs=("etcd_member",),
    readings={
        "healthy_members": "members that are healthy by their own word",
        "members": "members configured",
        "quorum": "healthy members without which etcd takes no writes: floor(members / 2) + 1",
    },
)
def etcd_quorum(view: View) -> Readings | Measured:
    """Does etcd as a whole take writes? The verdict over all configured members.

    Failed: fewer members than the quorum are healthy. Observed with a reason that begins with ``degraded``: some are
    not, and the quorum stands; a dead member of three is no outage. Blind: for reasons of ours too few could be asked
    to tell. With one configured address, that one decides.

    Each address under ``etcd`` counts as a member: list all of them, and each once.
    """
    samples = view.several.get("etcd_member", ())
    if not samples:
        raise Blind("no_input", "no member of etcd was asked yet")
    healthy = [sample for sample in samples if sample.readings.get("healthy") == 1.0]
    unasked = [sample for sample in samples if sample.outcome is Outcome.BLIND]
    ill = [sample for sample in samples if sample not in healthy and sample not in unasked]
    members, quorum = len(samples), len(samples) // 2 + 1
    facts = {"unhealthy": tuple(sample.target.member for sample in (*ill, *unasked))}
    if len(healthy) >= quorum:
        readings = {"healthy_members": float(len(healthy)), "members": float(members), "quorum": float(quorum)}
        reason = f"degraded: {len(healthy)} of {members} members are healthy: {_told(ill, unasked)}"
        return Measured(readings, reason=reason if ill or unasked else "", facts=facts)
    if len(healthy) + len(unasked) >= quorum:
        raise Blind(unasked[0].kind, f"too few members could be asked: {_told(unasked)}", facts=facts)
    if members == 1:
        raise TargetFailed("state", _told(ill), facts=facts)
    reason = f"{len(healthy)} of {members} members are healthy, the quorum is {quorum}: {_told(ill, unasked)}"
    raise TargetFailed("state", reason, facts=facts)


def _told(*groups: Sequence[Sample]) -> str:
    samples = [sample for group in groups for sample in group]
    told = [_reason(sample) for sample in samples[:MAX_NAMED]]
    return "; ".join(told) + (f"; and {len(samples) - MAX_NAMED} more" if len(samples) > MAX_NAMED else "")


def _reason(sample: Sample) -> str:
    reason = sample.reason or sample.outcome.value
    return reason if sample.target.member in reason else f"{sample.target.member}: {reason}"
