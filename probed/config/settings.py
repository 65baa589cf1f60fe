"""``probed.yml`` as frozen values. The shape is the contract of the design page ``interface.md``, section 1."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field, model_validator

from probed.config.access import Secured, TlsFiles
from probed.config.components import Component
from probed.config.inspections import Inspection
from probed.config.notifications import Notifications
from probed.config.silences import DeclaredSilence
from probed.config.values import (
    Duration,
    HostPort,
    HttpUrl,
    Name,
    PathText,
    Port,
    Size,
    StatsAddress,
    StoreSize,
)
from probed.config.web import Web, misfits
from probed.model import OBSERVER
from probed.strict_yaml import Misplaced, Strict, did_you_mean, no_items

DEFAULT_FILE = Path("/etc/probed/probed.yml")
DEFAULT_STORAGE = Path("/var/lib/probed")


def _host_name() -> str:
    name = "".join(char for char in socket.gethostname() if char.isalnum() or char in "-_.")
    return name[:63] or "localhost"


def _used_twice(key: str, names: list[str]) -> list[tuple[tuple[str | int, ...], str]]:
    return [
        ((key, index, "name"), f'the name "{name}" is used twice')
        for index, name in enumerate(names)
        if name in names[:index]
    ]


class Samples(Strict):
    retention: Duration = Field(
        default=14 * 86400.0, description="How long every judged sample is kept, for charts and backtests."
    )
    max_size: Size = Field(
        default=2 * 1024**3, description="Of their file; beyond it the oldest go early. 100 MB a day are 1,000 targets."
    )


class Storage(Strict):
    path: PathText = Field(default=DEFAULT_STORAGE, description="Directory of the embedded SQLite store.")
    fleet: str | None = Field(default=None, description="Shared PostgreSQL that events are also shipped to.")
    retention: Duration = Field(
        default=90 * 86400.0,
        description="How long history is kept, in time that a daemon lived through: a wrong date purges nothing.",
    )
    max_size: StoreSize = Field(
        default=1 << 30, description="Bytes that the store may hold; beyond them the oldest history goes early."
    )
    samples: Samples = Field(default_factory=Samples, description="The recorded samples, in a file of their own.")


class PolicySettings(Strict):
    directory: PathText | None = Field(
        default=None, description="Overrides and additions on top of the built-in policies."
    )
    allow_sql: bool = Field(default=False, description="Policies may bring SQL statements of their own (probe: sql).")


class Defaults(Strict):
    interval: Duration = Field(default=5.0, description="Between two cycles, for every policy that names none.")
    timeout: Duration = Field(default=2.0, description="The deadline around every cycle; below the interval.")
    switchover_grace: Duration = Field(
        default=60.0, description="How long a switchover makes dependent samples inconclusive."
    )


class Postgres(Strict):
    host: str | None = Field(default=None, description="Address, or directory of a UNIX socket.")
    port: Port | None = Field(default=None, description="Default 5432.")
    user: str | None = Field(default=None, description="Default PGUSER, else probed.")
    password_file: PathText | None = Field(
        default=None, description="File with the password; default PGPASSWORD or .pgpass."
    )
    database: str | None = Field(default=None, description="Default postgres.")
    sslmode: str | None = Field(default=None, description="As in libpq; default prefer.")
    sslrootcert: PathText | None = Field(default=None, description="CA file for sslmode verify-ca and verify-full.")

    @model_validator(mode="after")
    def _known_sslmode(self) -> Postgres:
        modes = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
        if self.sslmode is not None and self.sslmode not in modes:
            raise Misplaced((("sslmode",), f'expected one of {", ".join(modes)}, got "{self.sslmode}"'))
        return self

    def over(self, base: Postgres | None) -> Postgres:
        """These settings, with what they leave open taken from ``base``."""
        if base is None:
            return self
        given = {name: value for name, value in self if value is not None}
        return base.model_copy(update=given)


class Disk(Strict):
    path: PathText = Field(
        description="The data directory (its pg_wal and tablespaces are found by themselves), or one that holds it."
    )
    wal: PathText | None = Field(
        default=None, description="Directory of the WAL, where the data directory cannot be looked into."
    )
    paths: list[PathText] = Field(
        default_factory=no_items, description="Tablespaces and whatever else must not fill up."
    )

    @property
    def more(self) -> dict[str, tuple[Path, ...]]:
        """What is measured beside ``path``, by its role."""
        return {"wal": (self.wal,) if self.wal else (), "more": tuple(self.paths)}


class Oom(Strict):
    kmsg: PathText | None = Field(
        default=None,
        description="Kernel log that names the victim: /dev/kmsg. When any source is named, only those are read.",
    )
    cgroups: list[PathText] = Field(
        default_factory=no_items,
        description="Directories of cgroups (v1 or v2), such as a service's; what is below them counts too.",
    )
    vmstat: PathText | None = Field(default=None, description="Counters of the whole machine: /proc/vmstat.")

    @property
    def places(self) -> dict[str, tuple[Path, ...]]:
        """The named sources; empty when they are to be found."""
        named = {
            "kmsg": (self.kmsg,) if self.kmsg else (),
            "cgroups": tuple(self.cgroups),
            "vmstat": (self.vmstat,) if self.vmstat else (),
        }
        return {source: paths for source, paths in named.items() if paths}


class Node(Strict):
    name: Name
    local: bool = Field(default=False, description="probed runs on this node: host probes apply.")
    postgres: Postgres | None = None
    patroni: HttpUrl | None = None
    disk: Disk | None = None
    oom: Oom | None = None


class HAProxy(Secured):
    stats: StatsAddress | None = Field(
        default=None, description="Statistics over HTTP (CSV) or unix:/path of the socket."
    )
    frontends: list[HostPort] = Field(default_factory=no_items, description="Write ports; probed like a primary.")

    @model_validator(mode="after")
    def _keys_for_something(self) -> HAProxy:
        over_http = self.stats is not None and self.stats.startswith("http")
        wrong = self.misused([self.stats] if self.stats and over_http else [])
        if self.given and not over_http:
            wrong = [((self.given[0],), "means nothing without statistics over HTTP (stats: http://…)")]
        if wrong:
            raise Misplaced(*wrong)
        return self


class Instance(Strict):
    name: Name
    labels: dict[str, str] = Field(default_factory=dict)
    postgres: Postgres | None = Field(default=None, description="Inherited by the nodes.")
    patroni: list[HttpUrl] = Field(default_factory=no_items, description="Discover nodes from Patroni's /cluster.")
    patroni_access: TlsFiles | None = Field(
        default=None, description="TLS files for Patroni's REST API, declared or discovered (restapi.verify_client)."
    )
    nodes: list[Node] = Field(default_factory=no_items)
    etcd: list[HttpUrl] = Field(default_factory=no_items, description="Every member's address.")
    etcd_access: Secured | None = Field(
        default=None, description="TLS files and credentials for the members (--client-cert-auth)."
    )
    haproxy: HAProxy | None = None
    components: dict[Name, Component] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Instance:
        wrong = _used_twice("nodes", [node.name for node in self.nodes])
        wrong += self._misused_access()
        for name, component in self.components.items():
            for key, message in component.misfits(name):
                wrong.append((("components", name, key) if key else ("components", name), message))
        if wrong:
            raise Misplaced(*wrong)
        if not (self.nodes or self.patroni or self.etcd or self.haproxy or self.components):
            raise ValueError("nothing to probe: declare nodes, patroni, etcd, haproxy or components")
        return self

    def _misused_access(self) -> list[tuple[tuple[str | int, ...], str]]:
        patroni = [*self.patroni, *(node.patroni for node in self.nodes if node.patroni)]
        wrong: list[tuple[tuple[str | int, ...], str]] = []
        for key, access, urls in (
            ("patroni_access", self.patroni_access, patroni),
            ("etcd_access", self.etcd_access, self.etcd),
        ):
            if access is not None:
                wrong += [((key, *path), message) for path, message in access.misused(urls)]
        return wrong


class Settings(Strict):
    web: Web = Field(default_factory=Web)
    storage: Storage = Field(default_factory=Storage)
    policies: PolicySettings = Field(default_factory=PolicySettings)
    defaults: Defaults = Field(default_factory=Defaults)
    observer: Name = Field(default_factory=_host_name, description="This daemon's name.")
    instances: list[Instance] = Field(min_length=1)
    notifications: Notifications | None = Field(default=None, description="Who is told of events.")
    inspections: list[Inspection] = Field(
        default_factory=no_items, description="Reports on the health of instances that come back."
    )
    silences: list[DeclaredSilence] = Field(
        default_factory=no_items, description="Maintenance windows: what people are not to be told of, and when."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        wrong = _used_twice("instances", [instance.name for instance in self.instances])
        for index, instance in enumerate(self.instances):
            if instance.name == OBSERVER:
                text = f'"{OBSERVER}" is what this daemon calls itself in its history; choose another name'
                wrong.append((("instances", index, "name"), text))
        wrong += self._misnamed_silences()
        wrong += self._misnamed_inspections()
        known = {OBSERVER, *(instance.name for instance in self.instances)}
        for path, _, receiver in self.notifications.receivers() if self.notifications else ():
            for index, name in enumerate(receiver.instances):
                if name not in known:
                    message = f'no instance is called "{name}"' + did_you_mean(name, sorted(known))
                    wrong.append((("notifications", *path, "instances", index), message))
        if self.defaults.timeout >= self.defaults.interval:
            wrong.append((("defaults", "timeout"), "expected a duration below defaults.interval"))
        if self.web.config_file is None:
            wrong += [(("web", *path), message) for path, message in misfits(self.web, None)]
        if wrong:
            raise Misplaced(*wrong)
        return self

    def _misnamed_silences(self) -> list[tuple[tuple[str | int, ...], str]]:
        wrong = _used_twice("silences", [silence.name for silence in self.silences])
        known = [OBSERVER, *(instance.name for instance in self.instances)]
        for index, silence in enumerate(self.silences):
            for number, name in enumerate(silence.instances):
                if name not in known:
                    hint = did_you_mean(name, known)
                    wrong.append((("silences", index, "instances", number), f'there is no instance "{name}"{hint}'))
        return wrong

    def _misnamed_inspections(self) -> list[tuple[tuple[str | int, ...], str]]:
        wrong = _used_twice("inspections", [inspection.name for inspection in self.inspections])
        known = [instance.name for instance in self.instances]
        for index, inspection in enumerate(self.inspections):
            for number, name in enumerate(inspection.instances):
                if name not in known:
                    hint = did_you_mean(name, known)
                    wrong.append((("inspections", index, "instances", number), f'there is no instance "{name}"{hint}'))
        return wrong

    @property
    def socket(self) -> Path:
        return self.web.socket or self.storage.path / "probed.sock"
