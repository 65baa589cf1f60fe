"""One instance of an inspection: what is looked at, and how what was seen and is known becomes items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from probed import evidence
from probed.evidence import Collector
from probed.inspection import Inspected, Item, NodeLine, Verdict
from probed.inspection import advice as advising
from probed.inspection import history as past
from probed.inspection import trends as trending
from probed.inspection.configured import COLLECTORS, Configured, Server, configured
from probed.inspection.grading import graded, in_order
from probed.inspection.judging import Seen, judged, severity
from probed.inspection.tracing import Trace
from probed.looking import Eye, Look, look
from probed.model import Event, Outcome, Policy, Sample, Target
from probed.store import LeadershipRecord
from probed.watches import Instance
from probed.watching import InstancePlan

HEAD = ("postgres_stats", "leader")
"""Probes that tell which node is what, whatever events were chosen."""


class Background(Struct, frozen=True):
    """What is known of an instance without looking at it."""

    triggers: Mapping[str, past.Triggers]
    """By event."""
    passages: Sequence[LeadershipRecord]
    switchovers: Sequence[str]
    """Ids of their events, newest first."""
    traces: Sequence[Trace]
    traces_error: str = ""


def collectors() -> tuple[Collector, ...]:
    """Those that tell how an instance is configured."""
    return tuple(evidence.find(name) for name in COLLECTORS)


async def seen(planned: InstancePlan, chosen: frozenset[str], eye: Eye) -> Look:
    """Everything that the chosen events need, looked at once."""
    watched = {(policy.probe, target.key) for policy, target in planned.watches if policy.id in chosen}

    def wanted(probe: str, target: Target) -> bool:
        return probe in HEAD or (probe, target.key) in watched

    return await look(planned, wanted, eye, collectors())


def examined(
    planned: InstancePlan,
    chosen: Mapping[str, Policy],
    found: Look,
    state: Instance,
    known: Background,
    *,
    days: int,
    now: float,
    seconds: float,
    opened: Mapping[str, Event],
) -> Inspected:
    """``state``: what the daemon's own rounds know of it; ``opened``: every open event by id."""
    samples = {(sample.probe, sample.target.key): sample for sample in found.samples}
    events = _events(planned, chosen, samples, state, opened)
    configuration = configured(planned, found.snapshots)
    items = [*events, *_history(planned, chosen, known, days)]
    items += [trending.unread(planned.name, known.traces_error)] if known.traces_error else []
    items += trending.items(known.traces, chosen)
    items += advising.advice(configuration, now)
    items += [advising.silent(server) for server in configuration.servers if _puzzling(server, events)]
    if planned.nodes and any(cycle.probe.name == "leader" for cycle in planned.combined):
        items.append(past.switchovers(planned.name, known.passages, days, known.switchovers))
    ordered = in_order(items)
    grade, reason = graded(ordered)
    return Inspected(
        planned.name, dict(planned.labels), grade, reason, _nodes(planned, samples, configuration, events), ordered,
        trending.charts(known.traces, chosen), round(seconds, 1),
    )  # fmt: skip


def _events(
    planned: InstancePlan,
    chosen: Mapping[str, Policy],
    samples: Mapping[tuple[str, str], Sample],
    state: Instance,
    opened: Mapping[str, Event],
) -> list[Item]:
    live = {watch.key: watch.event for watch in state.watches}
    watches = []
    for policy, target in planned.watches:
        if policy.id not in chosen:
            continue
        event = live.get(f"{policy.id}|{target.key}")
        sample = samples.get((policy.probe, target.key))
        watches.append(Seen(policy, target, sample, event, severity(policy, target, event, state.shape)))
    return judged(watches, state.shape, opened)


def _history(planned: InstancePlan, chosen: Mapping[str, Policy], known: Background, days: int) -> list[Item]:
    watched = {policy.id for policy, _ in planned.watches}
    return [
        past.triggered(planned.name, policy, known.triggers.get(policy.id, past.Triggers()), days)
        for policy in chosen.values()
        if policy.id in watched
    ]


def _puzzling(server: Server, events: Sequence[Item]) -> bool:
    """Whether a server did not say how it is configured, and no event's item says why."""
    troubled = any(item.target == server.target and item.verdict is not Verdict.PASS for item in events)
    return not server.settings and not troubled


def _nodes(
    planned: InstancePlan,
    samples: Mapping[tuple[str, str], Sample],
    configuration: Configured,
    events: Sequence[Item],
) -> tuple[NodeLine, ...]:
    versions = {server.node: server.version for server in configuration.servers}
    leader = next((sample for (probe, _), sample in samples.items() if probe == "leader"), None)
    name = leader.readings.get("leader", "") if leader is not None else ""
    stats = {sample.target.node: sample for (probe, _), sample in samples.items() if probe == "postgres_stats"}
    return tuple(
        NodeLine(node, _role(node, str(name), stats.get(node)), versions.get(node, ""), _state(planned, node, events))
        for node in planned.nodes
    )


def _role(node: str, leader: str, stats: Sample | None) -> str:
    if node == leader:
        return "leader"
    if stats is None or stats.outcome is not Outcome.OBSERVED:
        return ""
    return "replica" if stats.readings.get("in_recovery") == 1.0 else "leader"


def _state(planned: InstancePlan, node: str, events: Sequence[Item]) -> str:
    own = f"{planned.name}/{node}/"
    verdicts = [item.verdict for item in events if item.target.startswith(own)]
    return min(verdicts, key=lambda verdict: verdict.rank, default=Verdict.PASS).value
