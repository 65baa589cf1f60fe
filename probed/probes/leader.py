from collections.abc import Mapping, Sequence
from typing import cast

from msgspec.structs import replace

from probed.errors import Blind
from probed.leadership import SCHEDULE_SLACK, SETTLE_SECONDS, Look, Passage, Promotion, Term, Unsettled, passage
from probed.model import Outcome, Reading, Sample
from probed.probes import Measured, Readings, View, combined
from probed.probes._patroni import ClusterMember, Scheduled, as_nodes


@combined(
    scope="instance",
    component="postgres",
    inputs=("patroni_cluster", "patroni_rest", "postgres_stats"),
    readings={
        "has_leader": "1 while the instance has a confirmed leader, 0 when it has none",
        "leader": "name of the confirmed leader (an identity)",
        "timeline": "the leader's timeline",
        "writable_nodes": "servers that answered and are not in recovery",
        "rival_primaries": "of these, servers of one and the same database system; 2 or more is a split brain",
    },
)
def leader(view: View) -> Readings | Measured:
    """Who leads the instance, and does anybody? Patroni's word, confirmed by the servers themselves.

    There is a leader when a server answers that it is not in recovery, or when the member that Patroni lists as leader
    is running by its own REST API (or leads a standby cluster). There is none when Patroni lists no leader, or lists
    one whose database and REST API both do not confirm it (for up to its TTL a dead leader is still listed), and no
    server is writable. Patroni silent and every server in recovery is no leader too. Silence on all sides says
    nothing: another event explains it.

    The identity ``leader`` is given only when it is certain: one writable server, and Patroni naming no other. With
    another one than before comes how it got there (planned, failed over …), by what was seen of the old one.
    """
    measured, cluster = _measured(view)
    term, gone_over = _term(view, measured.readings, cluster)
    history = _history(cluster)
    facts: dict[str, object] = {"term": term, "passage": gone_over, "history": history}
    facts |= _settle(view, gone_over, history)
    series = _series(view, measured.readings)
    return Measured(measured.readings, measured.reason, series, facts)


def _measured(view: View) -> tuple[Measured, Sample | None]:
    writable, stats = _writable(view)
    standing_by = [node for node, sample in stats.items() if _recovery(sample) == 1.0]
    cluster = view.of("patroni_cluster", "")
    members: Sequence[ClusterMember] = ()
    if cluster is not None and cluster.outcome is Outcome.OBSERVED:
        members = as_nodes(view, cast(tuple[ClusterMember, ...], cluster.facts["members"]))
    listed = [member for member in members if member.leads]
    confirmed = [member for member in listed if _confirms(view, member, writable)]
    rivals, told = _rivals(writable, stats)
    readings: dict[str, Reading] = {"writable_nodes": float(len(writable)), "rival_primaries": float(rivals)}

    if writable or confirmed:
        readings["has_leader"] = 1.0
        name = _identity(view, writable, listed, confirmed, cluster)
        if name:
            readings["leader"] = name
            timeline = _timeline(name, stats, members)
            if timeline is not None:
                readings["timeline"] = timeline
        return Measured(readings, reason=told), cluster
    if members:
        if any(_open_question(view, member, stats) for member in listed):
            reason = f"{listed[0].name} is listed as leader; nothing else could be asked"
            return Measured(readings, reason=reason), cluster
        claim = _claim(view, stats) if not listed else ""
        if claim:
            reason = f"Patroni lists no leader; {claim} calls itself one, and its database cannot be asked"
            return Measured(readings, reason=reason), cluster
        reason = f"{listed[0].name} is listed as leader, but does not answer" if listed else "Patroni lists no leader"
        return Measured({**readings, "has_leader": 0.0}, reason=reason), cluster
    if stats and len(standing_by) == len(view.nodes):
        return Measured({**readings, "has_leader": 0.0}, reason="every server is in recovery"), cluster
    before = view.before.facts if view.before is not None else {}
    term = _watched(view, cast(Term | None, before.get("term")), cluster)
    facts = {"term": term, "history": _history(cluster), "unsettled": before.get("unsettled")}
    raise Blind("no_input", "neither Patroni nor every server could be asked", facts=facts)


def _rivals(writable: Sequence[str], stats: Mapping[str, Sample]) -> tuple[int, str]:
    """(how many writable servers belong to one system, who they are). Two systems in one instance are no rivals."""
    systems: dict[object, list[str]] = {}
    for node in writable:
        systems.setdefault(stats[node].facts.get("system_identifier") or node, []).append(node)
    rivals = max(systems.values(), key=len, default=[])
    if len(rivals) < 2:
        return len(rivals), ""
    told = [f"{node} (timeline {int(str(stats[node].facts.get('timeline') or '0'), 16)})" for node in rivals]
    return len(rivals), f"split brain: {' and '.join(told)} take writes at the same time"


def _series(view: View, readings: Mapping[str, Reading]) -> str:
    """System and timeline of the certain leader, by which a later daemon knows what it has missed."""
    name, timeline = readings.get("leader"), readings.get("timeline")
    stats = view.of("postgres_stats", name) if isinstance(name, str) else None
    system = stats.facts.get("system_identifier", "") if stats is not None else ""
    return f"{system}/{timeline:.0f}" if isinstance(timeline, float) else ""


def _history(cluster: Sample | None) -> tuple[Promotion, ...]:
    known = cluster.facts.get("history") if cluster is not None and cluster.outcome is Outcome.OBSERVED else None
    return cast(tuple[Promotion, ...], known or ())


def _settle(view: View, gone_over: Passage | None, history: Sequence[Promotion]) -> dict[str, object]:
    """What is still to be learned of the last passage, and what was learned of it in this round."""
    before = view.before.facts if view.before is not None else {}
    term, unsettled = before.get("term"), before.get("unsettled")
    if gone_over is not None and gone_over.lost_bytes is None and isinstance(term, Term):
        return {"unsettled": Unsettled(view.at, view.mono, term, gone_over)}
    if not isinstance(unsettled, Unsettled) or view.mono - unsettled.mono > SETTLE_SECONDS:
        return {}
    settled = unsettled.settled(history)
    return {"unsettled": unsettled} if settled is None else {"settled": (unsettled.at, settled)}


def _term(view: View, readings: Mapping[str, Reading], cluster: Sample | None) -> tuple[Term | None, Passage | None]:
    """The term that is running after this round, and how it came about if it is another than before."""
    before = cast(Term | None, view.before.facts.get("term")) if view.before is not None else None
    name = readings.get("leader")
    if not isinstance(name, str) or not name:
        return _watched(view, before, cluster), None
    stats, timeline = view.of("postgres_stats", name), readings.get("timeline")
    facts = stats.facts if stats is not None and stats.outcome is Outcome.OBSERVED else {}
    writable = stats is not None and _recovery(stats) == 0.0
    started, lsn = facts.get("started_at"), facts.get("current_lsn")
    new = Term(
        name,
        int(timeline) if isinstance(timeline, float) else None,
        started if isinstance(started, float) else None,
        lsn if isinstance(lsn, float) else None,
        view.at if writable else None,
        view.mono if writable else None,
    )
    if before is None:
        return new, None
    look = _look(view, before.leader, cluster)
    if not writable and before.leader == name:
        return before.seen(look), None
    gone_over = passage(before, new, look, _history(cluster))
    if before.leader == name and gone_over is None:
        seen = before.seen(look)
        told = (new.timeline or seen.timeline, new.started_at or seen.started_at)
        if told != (seen.timeline, seen.started_at):
            seen = replace(seen, timeline=told[0], started_at=told[1])
        return seen, None
    return replace(new, looks=(_look(view, name, cluster),)), gone_over


def _watched(view: View, term: Term | None, cluster: Sample | None) -> Term | None:
    """The old term after a round in which nobody certainly led."""
    return None if term is None else term.seen(_look(view, term.leader, cluster))


def _look(view: View, node: str, cluster: Sample | None) -> Look:
    """What this round saw of a leader."""
    stats, rest = view.of("postgres_stats", node), view.of("patroni_rest", node)
    listed, paused, scheduled = True, False, None
    if cluster is not None and cluster.outcome is Outcome.OBSERVED:
        members = as_nodes(view, cast(tuple[ClusterMember, ...], cluster.facts["members"]))
        listed = not members or node in {member.name for member in members}
        paused = cluster.facts.get("pause") is True
        scheduled = cast(Scheduled | None, cluster.facts.get("scheduled"))
    database = ""
    if stats is not None:
        database = {Outcome.OBSERVED: "well", Outcome.FAILED: "failed"}.get(stats.outcome, "")
    state = ""
    if rest is not None and rest.outcome is Outcome.OBSERVED:
        state = str(rest.readings.get("state", ""))
    elif rest is not None and rest.outcome is Outcome.FAILED:
        state = "silent"
    due = scheduled is not None and scheduled.at - view.at < SCHEDULE_SLACK and scheduled.leaving in ("", node)
    writable = stats is not None and _recovery(stats) == 0.0
    lsn = stats.facts.get("current_lsn") if stats is not None and writable else None
    rivals, _ = _rivals(*_writable(view))
    return Look(
        view.at, view.mono, writable, database, state, listed, paused, due, rivals > 1,
        lsn if isinstance(lsn, float) else None,
    )  # fmt: skip


def _writable(view: View) -> tuple[list[str], dict[str, Sample]]:
    """(names of the servers that answered and are not in recovery, every server's sample)."""
    stats = {node: sample for node in view.nodes if (sample := view.of("postgres_stats", node)) is not None}
    return [node for node, sample in stats.items() if _recovery(sample) == 0.0], stats


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


def _claim(view: View, stats: Mapping[str, Sample]) -> str:
    """A node whose own Patroni says that it leads, and whose database we are blind to: it may be right."""
    for node in view.nodes:
        rest, sample = view.of("patroni_rest", node), stats.get(node)
        said = rest.readings if rest is not None and rest.outcome is Outcome.OBSERVED else {}
        blind = sample is None or sample.outcome is Outcome.BLIND
        if blind and (said.get("role"), said.get("state")) == ("primary", "running"):
            return node
    return ""


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
