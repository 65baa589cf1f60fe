"""Patroni's member rows as values, and which of our nodes each of them is. No I/O, no judging."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from probed.leadership import Promotion
from probed.model import Outcome
from probed.probes import View

MAX_TIMELINE = 2**32 - 1
MAX_LAG = 2**63 - 1
MAX_ADDRESS = 1000
"""Characters; what is longer is no address."""
_HOST = re.compile(r"[A-Za-z0-9_.:%-]{1,255}")

LEADER_ROLES = frozenset({"leader", "master", "standby_leader", "primary"})


class ClusterMember(Struct, frozen=True):
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
    if {member.name for member in members}.issubset(view.nodes):
        return tuple(members)
    named = ((member, _node_of(view, member)) for member in members)
    return tuple(member if member.name == node else replace(member, name=node) for member, node in named)


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
    """A row in our words; ``None`` when it does not even have a name. What is not plausible counts as absent."""
    fields: Mapping[str, Any] = row if isinstance(row, dict) else {}
    name = name_of(fields.get("name"))
    if not name:
        return None
    api_url = fields.get("api_url")
    plausible = isinstance(api_url, str) and len(api_url) <= MAX_ADDRESS
    api_host, api_url = _door_of(api_url) if plausible else ("", "")
    return ClusterMember(
        name=name,
        role=text_of(fields.get("role")),
        state=text_of(fields.get("state")),
        host=_host(fields.get("host")) or api_host,
        port=_int(fields.get("port"), 1, 65535) or 5432,
        api_url=api_url,
        timeline=_int(fields.get("timeline"), 1, MAX_TIMELINE),
        lag=_int(fields.get("lag"), 0, MAX_LAG),
    )


MAX_HISTORY = 50
MAX_LSN = 2**63 - 1


def history_of(value: object) -> tuple[Promotion, ...]:
    """The newest lines of ``/history``, oldest first: ``[timeline, lsn, reason, timestamp, new leader]``.

    The last two are missing until Patroni has enriched a line. What is no such line is left out.
    """
    lines = []
    for row in value[-MAX_HISTORY:] if isinstance(value, list) else ():
        fields = row if isinstance(row, list) else []
        timeline, lsn = (_int(field, 0, MAX_LSN) for field in (*fields, None, None)[:2])
        if timeline is not None and lsn is not None:
            at, leader = (text_of(field) for field in (*fields[3:], "", "")[:2])
            lines.append(Promotion(timeline, lsn, at, name_of(leader)))
    return tuple(lines)


class Scheduled(Struct, frozen=True):
    """A switchover in Patroni's calendar; times in Unix seconds, names empty where it leaves them open."""

    at: float
    leaving: str
    to: str


def scheduled_of(value: object) -> Scheduled | None:
    if not isinstance(value, dict):
        return None
    try:
        at = datetime.fromisoformat(text_of(value.get("at"))).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return Scheduled(at, name_of(value.get("from")), name_of(value.get("to")))


def text_of(value: object) -> str:
    """One short printable line of what Patroni sent; empty when it is not text."""
    text = value[:200] if isinstance(value, str) else ""
    return text if text.isprintable() else "".join(char for char in text if char.isprintable())


def name_of(value: object) -> str:
    """A member's name as a node's: it becomes part of target keys, whose parts a slash divides."""
    return text_of(value).replace("/", "_")[:63]


def _int(value: object, lowest: int, highest: int) -> int | None:
    # "unknown" is a string where Patroni does not know; true is not a number.
    whole = isinstance(value, int) and not isinstance(value, bool)
    return cast(int, value) if whole and lowest <= cast(int, value) <= highest else None


def _host(value: object) -> str:
    # A path would lead the database driver to a UNIX socket, a comma to a list of hosts.
    return value if isinstance(value, str) and _HOST.fullmatch(value) else ""


@lru_cache(maxsize=1024)
def _door_of(api_url: str) -> tuple[str, str]:
    """(host, address without path and credentials) of a member's REST API; empty when it is none."""
    try:
        parts = urlsplit(api_url)
        host, port = _host(parts.hostname), parts.port
    except ValueError:
        return "", ""
    if not host or parts.scheme not in ("http", "https"):
        return "", ""
    shown = f"[{host}]" if ":" in host else host
    return host, f"{parts.scheme}://{shown}:{port}" if port else f"{parts.scheme}://{shown}"
