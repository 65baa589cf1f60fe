"""How an instance is configured, as its servers and its Patroni say: the facts that advice is given by. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from probed import quantity
from probed.evidence._taking import Taken
from probed.looking import Place
from probed.watching import InstancePlan

COLLECTORS = ("postgres_settings", "postgres_slots", "postgres_replication", "patroni_config")
Json = Mapping[str, Any]


class Server(Struct, frozen=True):
    """A node's PostgreSQL."""

    node: str
    target: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """As SHOW tells them; empty when it did not answer."""
    role: Json = field(default_factory=dict)
    """Our own: ``name``, ``superuser``, ``pg_monitor``, ``use_reserved`` (``None`` before PostgreSQL 16)."""
    pending_restart: tuple[str, ...] = ()
    role_limits: Mapping[str, int] = field(default_factory=dict)
    slots: tuple[Json, ...] = ()
    senders: tuple[Json, ...] = ()
    in_recovery: bool | None = None
    error: str = ""
    """Why it did not say."""

    @property
    def version(self) -> str:
        """``15.20``; empty when it is not known."""
        return self.settings.get("server_version", "").split(" ")[0]

    @property
    def major(self) -> int:
        """0 when it is not known."""
        first = self.version.split(".")[0]
        digits = first[: len(first) - len(first.lstrip("0123456789"))] if first else ""
        return int(digits) if digits.isdigit() else 0

    def number(self, name: str) -> float | None:
        """A setting without a unit, or ``None``."""
        try:
            return float(self.settings[name])
        except (KeyError, ValueError):
            return None

    def seconds(self, name: str) -> float | None:
        """A setting that is a duration; -1 and 0 as they are."""
        text = self.settings.get(name, "").replace("min", "m").replace("us", "ms")
        number = self.number(name)
        if number is not None:
            return number
        try:
            return quantity.seconds(text)
        except ValueError:
            return None


class Configured(Struct, frozen=True):
    """An instance."""

    instance: str
    servers: tuple[Server, ...]
    patroni: Json | None
    """Patroni's dynamic configuration; ``None`` when there is none, or it did not say."""
    patroni_target: str = ""
    etcd_members: int = 0
    """That are declared."""

    @property
    def leader(self) -> Server | None:
        """The one that takes writes; ``None`` when none said so."""
        return next((server for server in self.servers if server.in_recovery is False), None)

    @property
    def known(self) -> Sequence[Server]:
        """Those that answered."""
        return [server for server in self.servers if server.settings]


def configured(planned: InstancePlan, snapshots: Mapping[Place, Taken]) -> Configured:
    """What the collectors' snapshots of a look say."""
    servers, patroni, patroni_target = [], None, ""
    for reach in planned.reaches:
        key = reach.target.key
        if reach.target.kind == "postgres":
            servers.append(_server(reach.target.node, key, snapshots))
        elif reach.target.kind == "patroni_cluster":
            patroni_target = key
            patroni = _data(snapshots, "patroni_config", key)
    members = sum(reach.target.kind == "etcd" for reach in planned.reaches)
    return Configured(planned.name, tuple(servers), patroni, patroni_target, members)


def _server(node: str, key: str, snapshots: Mapping[Place, Taken]) -> Server:
    said = _data(snapshots, "postgres_settings", key)
    slots = _data(snapshots, "postgres_slots", key) or {}
    replication = _data(snapshots, "postgres_replication", key) or {}
    if said is None:
        taken = snapshots.get(("postgres_settings", key))
        return Server(node, key, error=taken.error if taken is not None else "it was not asked")
    recovery = replication.get("in_recovery")
    return Server(
        node,
        key,
        {str(name): str(value) for name, value in _map(said.get("settings")).items()},
        _map(said.get("own_role")),
        tuple(str(name) for name in said.get("pending_restart") or ()),
        {str(name): int(limit) for name, limit in _map(said.get("roles_with_limits")).items()},
        tuple(slot for slot in slots.get("slots") or () if isinstance(slot, Mapping)),
        tuple(row for row in replication.get("senders") or () if isinstance(row, Mapping)),
        recovery if isinstance(recovery, bool) else None,
    )


def _data(snapshots: Mapping[Place, Taken], collector: str, key: str) -> Json | None:
    taken = snapshots.get((collector, key))
    data = json.loads(taken.data) if taken is not None and taken.data else None
    return data if isinstance(data, dict) else None


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
