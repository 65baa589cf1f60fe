from collections.abc import Sequence
from typing import cast

from probed.errors import Blind, NotApplicable
from probed.model import Outcome, Sample
from probed.probes import Measured, View, combined
from probed.probes._haproxy import SERVER, Row
from probed.probes._patroni import ClusterMember, as_nodes

PATIENCE = 3
"""Samples in a row that may disagree before a word is said: HAProxy's own checks (3 s, fall 3) need their time."""


@combined(
    scope="instance",
    component="haproxy",
    inputs=("haproxy_stats", "patroni_cluster", "patroni_rest", "postgres_stats"),
    needs=("haproxy_stats",),
    readings={
        "agrees": "1 while HAProxy's write backend leads to the leader and to nobody else, 0 otherwise",
        "disagreeing_samples": "for how many samples in a row, this one included, it has not",
    },
)
def haproxy_routing(view: View) -> Measured:
    """Does HAProxy send writes to whom Patroni calls the leader?

    Compared are the servers that are up in the write backend and the leader by Patroni's list (without Patroni: the one
    writable server). HAProxy's servers are told apart by address (the ``addr`` column, which a socket of level operator
    gives, and the page with ``stats show-legends``), else by name, else by host. More than 3 samples in a row that
    disagree are told in the reason; no event follows by itself, yet a policy may judge ``agrees``.

    Without a reading, and with a word, when no server can be told to be the leader's. Blind: nobody says who leads. Not
    applicable: no statistics, or no backend that is known for the write backend.
    """
    statistics = view.of("haproxy_stats", "")
    if statistics is None or statistics.outcome is not Outcome.OBSERVED:
        raise Blind("no_input", "HAProxy's statistics were not read")
    backend = str(statistics.facts.get("write_backend") or "")
    if not backend:
        raise NotApplicable("HAProxy's statistics show no write backend")
    leader, names, addresses = _leader(view)
    servers = [row for row in cast(Sequence[Row], statistics.facts["rows"]) if row.proxy == backend]
    servers = [row for row in servers if row.type == SERVER]
    ours = _server(servers, names, addresses)
    if ours is None:
        remedy = "name it like the node, or let the statistics tell addresses (stats show-legends)"
        return Measured({}, reason=f"none of the servers of {backend} can be told to be {leader}'s: {remedy}")
    up = [row for row in servers if row.up]
    agrees = up == [ours]
    before = view.before.facts.get("disagreeing") if view.before is not None else 0
    disagreeing = 0 if agrees else (before if isinstance(before, int) else 0) + 1
    reason = _told(backend, leader, ours, up, disagreeing) if disagreeing > PATIENCE else ""
    facts = {"leader": leader, "leads_to": tuple(row.name for row in up), "disagreeing": disagreeing}
    readings = {"agrees": 1.0 if agrees else 0.0, "disagreeing_samples": float(disagreeing)}
    return Measured(readings, reason=reason, facts=facts)


def _leader(view: View) -> tuple[str, set[str], set[str]]:
    """(the leader's node, names it goes by, addresses of its database). Blind when nobody says who it is."""
    cluster = view.of("patroni_cluster", "")
    stats = {node: sample for node in view.nodes if (sample := view.of("postgres_stats", node)) is not None}
    if cluster is not None:
        if cluster.outcome is not Outcome.OBSERVED:
            raise Blind("no_input", "Patroni does not say who leads")
        members = cast(tuple[ClusterMember, ...], cluster.facts["members"])
        leading = [
            (node.name, member)
            for node, member in zip(as_nodes(view, members), members, strict=True)
            if member.leads and member.state in ("running", "streaming")
        ]
        if len(leading) != 1:
            raise Blind("no_input", "Patroni lists no leader" if not leading else "Patroni lists several leaders")
        node, member = leading[0]
        return node, {node, member.name}, {f"{_bracketed(member.host)}:{member.port}", *_address(stats.get(node))}
    writable = [node for node, sample in stats.items() if sample.readings.get("in_recovery") == 0.0]
    if len(writable) != 1:
        raise Blind("no_input", f"{len(writable)} servers are writable, so there is no one leader")
    return writable[0], set(writable), set(_address(stats[writable[0]]))


def _address(sample: Sample | None) -> list[str]:
    if sample is None:
        return []
    host, _, port = sample.target.address.rpartition(":")
    return [f"{_bracketed(host)}:{port}"]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _server(servers: Sequence[Row], names: set[str], addresses: set[str]) -> Row | None:
    """The leader's server, if it can be told without guessing."""
    hosts = {address.rpartition(":")[0] for address in addresses}
    for found in (
        [row for row in servers if row.address in addresses],
        [row for row in servers if row.name in names],
        [row for row in servers if row.address.rpartition(":")[0] in hosts],
    ):
        if len(found) == 1:
            return found[0]
    return None


def _told(backend: str, leader: str, ours: Row, up: Sequence[Row], samples: int) -> str:
    since = f"for {samples} samples"
    others = ", ".join(row.name for row in up if row is not ours)
    if not up:
        said = f" ({ours.status}, {ours.check})" if ours.check else f" ({ours.status})"
        return f"{backend} leads to nobody {since}, while {leader} leads; HAProxy calls its server {ours.name}{said}"
    if ours in up:
        return f"{backend} leads to {others} as well {since}, while {leader} alone leads"
    return f"stale routing {since}: {backend} leads to {others}, while {leader} (server {ours.name}) leads"
