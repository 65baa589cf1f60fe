"""Patroni's member rows as values, and which of our nodes each of them is. No I/O, no judging."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from probed.model import Outcome
from probed.probes import View

LEADER_ROLES = frozenset({"leader", "master", "standby_leader", "primary"})


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """One row of ``/cluster``. ``lag`` is bytes, or ``None`` when Patroni does not know it."""

    name: str
    role: str
    state: str
    host: str
    port: int
    api_url: str
    timeline: int | None
    lag: int | None

    @property
    def leads(self) -> bool:
        return self.role in LEADER_ROLES


def as_nodes(view: View, members: Sequence[ClusterMember]) -> tuple[ClusterMember, ...]:
    """The members under the names of our nodes: operators may have named a node otherwise than Patroni does.

    A member is the node of the same name; else the node whose Patroni calls itself so; else the one at its address.
    """
    return tuple(replace(member, name=_node_of(view, member)) for member in members)


def _node_of(view: View, member: ClusterMember) -> str:
    if member.name in view.nodes:
        return member.name
    doors = [(node, view.of("patroni_rest", node), view.of("postgres_stats", node)) for node in view.nodes]
    for node, rest, stats in doors:
        if rest is not None and rest.outcome is Outcome.OBSERVED and rest.facts.get("name") == member.name:
            return node
        if rest is not None and member.api_url and _door(rest.target.address) == _door(member.api_url):
            return node
        if stats is not None and stats.target.address == f"{member.host}:{member.port}":
            return node
    return member.name


def _door(url: str) -> str:
    return urlsplit(url).netloc


def member_of(row: object) -> ClusterMember | None:
    """A row in our words; ``None`` when it does not even have a name."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row["name"]:
        return None
    text: Mapping[str, Any] = row
    api_url = _text(text.get("api_url"))
    return ClusterMember(
        name=_text(text["name"]),
        role=_text(text.get("role")),
        state=_text(text.get("state")),
        host=_text(text.get("host")) or (urlsplit(api_url).hostname or "" if api_url else ""),
        port=_int(text.get("port")) or 5432,
        api_url=_base(api_url),
        timeline=_int(text.get("timeline")),
        lag=_int(text.get("lag")),
    )


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""


def _int(value: object) -> int | None:
    # "unknown" is a string where Patroni does not know; true is not a number.
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _base(api_url: str) -> str:
    try:
        parts = urlsplit(api_url)
        return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") and parts.hostname else ""
    except ValueError:
        return ""
