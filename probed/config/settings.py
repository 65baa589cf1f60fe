"""``probed.yml`` as frozen values. The shape is the contract of the design page ``interface.md``, section 1."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from probed import quantity
from probed.strict_yaml import Misplaced, Strict

DEFAULT_FILE = Path("/etc/probed/probed.yml")
DEFAULT_STORAGE = Path("/var/lib/probed")
DEFAULT_LISTEN = "127.0.0.1:7432"


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return quantity.seconds(value)
    raise ValueError(f'expected a duration with its unit such as 500ms, 10s or 5m, got "{value}"')


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("expected a duration above 0")
    return value


def _address(value: str) -> str:
    split_address(value)
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'expected an address such as http://10.0.0.1:8008, got "{value}"')
    if parts.username or parts.password:
        raise ValueError("credentials do not belong into an address; use a *_file key")
    _port_of(parts, value)
    return value.rstrip("/")


def _stats_address(value: str) -> str:
    return value if value.startswith("unix:/") else _http_url(value)


def _component_url(value: str) -> str:
    if not value.startswith("tcp://"):
        return _http_url(value)
    try:
        split_address(value.removeprefix("tcp://"))
    except ValueError:
        raise ValueError(f'expected an address such as tcp://10.0.0.1:6432, got "{value}"') from None
    return value


def _port_of(parts: Any, value: str) -> None:
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f'expected a port from 1 to 65535, got "{value}"') from None


def _name(value: str) -> str:
    if not value or len(value) > 63 or not all(char.isalnum() or char in "-_." for char in value):
        raise ValueError(f'expected a name of letters, digits, "-", "_" and "." (at most 63), got "{value}"')
    return value


_DurationText = Annotated[str, Field(pattern=r"^(\d+(\.\d+)?(ms|s|m|h|d|w))+$", examples=["5s"])]
Duration = Annotated[float, BeforeValidator(_duration, json_schema_input_type=_DurationText), AfterValidator(_positive)]
HostPort = Annotated[str, AfterValidator(_address)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
ComponentUrl = Annotated[str, AfterValidator(_component_url)]
StatsAddress = Annotated[str, AfterValidator(_stats_address)]
Name = Annotated[str, AfterValidator(_name)]
PathText = Annotated[Path, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value)]
Port = Annotated[int, Field(ge=1, le=65535)]


def split_address(value: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` -> (host, port). ValueError names the form."""
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = int(port) if port.isascii() and port.isdigit() else 0
    if not colon or not host or not 0 < number < 65536 or (":" in host and not value.startswith("[")):
        raise ValueError(f'expected host:port, got "{value}"')
    return host, number


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name counts when it is ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_name() -> str:
    name = "".join(char for char in socket.gethostname() if char.isalnum() or char in "-_.")
    return name[:63] or "localhost"


def _used_twice(key: str, names: list[str]) -> list[tuple[tuple[str | int, ...], str]]:
    return [
        ((key, index, "name"), f'the name "{name}" is used twice')
        for index, name in enumerate(names)
        if name in names[:index]
    ]


class Web(Strict):
    listen: list[HostPort] = Field(
        default_factory=lambda: [DEFAULT_LISTEN], description="Addresses of the one listener."
    )
    config_file: PathText | None = Field(default=None, description="exporter-toolkit web-config.yml: TLS and users.")
    socket: PathText | None = Field(
        default=None, description="UNIX socket for the CLI; default probed.sock in storage.path."
    )
    insecure: bool = Field(default=False, description="Allow a non-loopback address without authentication.")


class Storage(Strict):
    path: PathText = Field(default=DEFAULT_STORAGE, description="Directory of the embedded SQLite store.")
    fleet: str | None = Field(default=None, description="Shared PostgreSQL that events are also shipped to.")
    retention: Duration = Field(default=90 * 86400.0, description="How long history is kept.")


class PolicySettings(Strict):
    directory: PathText | None = Field(
        default=None, description="Overrides and additions on top of the built-in policies."
    )


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
    paths: list[PathText] = Field(default_factory=list, description="Tablespaces and whatever else must not fill up.")

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
        default_factory=list,
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


class HAProxy(Strict):
    stats: StatsAddress | None = Field(
        default=None, description="Statistics over HTTP (CSV) or unix:/path of the socket."
    )
    frontends: list[HostPort] = Field(default_factory=list, description="Write ports; probed like a primary.")


OWN_INSTANCE = "observer"
"""The instance that a daemon is to itself."""
GATEWAYS = ("kong", "envoy", "generic")
SERVICES = ("auth", "rest", "realtime", "storage", "studio")
PRESETS = ("meta", "functions", "imgproxy", "analytics", "logflare", "vector", "supavisor")
NAMED = ("kong", *SERVICES, *PRESETS)
"""Names under which a component is taken for that product without a ``type``."""
RESERVED = ("postgres", "patroni", "etcd", "haproxy", "host")


class BasicAuth(Strict):
    username: str = Field(min_length=1)
    password_file: PathText = Field(description="File with the password.")


class Component(Strict):
    url: ComponentUrl = Field(
        description="Base address; the probe knows the path. With expect_*, or an unknown name: asked as it stands."
    )
    type: str | None = Field(
        default=None,
        description="Which product it is, when the name does not say: kong, envoy or generic (a gateway), auth …",
    )
    admin_url: HttpUrl | None = Field(
        default=None, description="PostgREST's admin server (then decides); Kong's status or Envoy's admin (annotates)."
    )
    expect_status: list[Annotated[int, Field(ge=100, le=599)]] | None = Field(
        default=None, min_length=1, description="Any of these is healthy."
    )
    expect_json: dict[str, Any] | None = Field(
        default=None, min_length=1, description="Values that the JSON answer must hold, among others."
    )
    expect_body: str | None = Field(default=None, min_length=1, description="Text that the answer must contain.")
    ca_file: PathText | None = Field(default=None, description="CA to verify the server by, instead of the system's.")
    cert_file: PathText | None = Field(default=None, description="Client certificate, sent to url only.")
    key_file: PathText | None = Field(default=None, description="Its key, unencrypted; default: in cert_file.")
    bearer_token_file: PathText | None = Field(default=None, description="File with a token, sent to url only.")
    basic_auth: BasicAuth | None = Field(default=None, description="User and password, sent to url only.")

    @model_validator(mode="after")
    def _consistent(self) -> Component:
        wrong: list[tuple[tuple[str | int, ...], str]] = []
        known = tuple(dict.fromkeys((*GATEWAYS, *NAMED)))
        if self.type is not None and self.type not in known:
            wrong.append((("type",), f'expected one of {", ".join(known)}, got "{self.type}"'))
        over_http = [key for key in _HTTP_ONLY if getattr(self, key) is not None]
        if self.url.startswith("tcp:") and over_http:
            wrong.append(((over_http[0],), "means nothing for a tcp:// address, which is only connected to"))
        tls = [key for key in ("ca_file", "cert_file", "key_file") if getattr(self, key) is not None]
        if tls and not any(url and url.startswith("https:") for url in (self.url, self.admin_url)):
            wrong.append(((tls[0],), "means nothing without an https:// address"))
        if self.key_file is not None and self.cert_file is None:
            wrong.append((("key_file",), "needs the certificate that it belongs to: cert_file"))
        if self.bearer_token_file is not None and self.basic_auth is not None:
            wrong.append((("basic_auth",), "cannot stand beside bearer_token_file: a request carries one of them"))
        if wrong:
            raise Misplaced(*wrong)
        return self

    def type_as(self, name: str) -> str:
        """Which product a component of that name is; empty when nobody said."""
        return self.type or (name if name in NAMED else "")

    def misfits(self, name: str) -> list[tuple[str, str]]:
        """(key, message) of what does not go with what the component is."""
        wrong = []
        product = self.type_as(name)
        expects = self.expect_status or self.expect_json or self.expect_body
        if name in RESERVED:
            wrong.append(("", f'"{name}" has a place of its own in an instance; choose another name'))
        if self.url.startswith("tcp:") and product in (*GATEWAYS, *SERVICES):
            wrong.append(("url", f"{name} is probed over HTTP: expected an http:// or https:// address"))
        if self.admin_url is not None and (expects or product not in ("kong", "envoy", "rest")):
            wrong.append(("admin_url", "is used for kong, envoy and rest only, and not together with expect_*"))
        if product in GATEWAYS and not expects and (self.bearer_token_file or self.basic_auth):
            key = "bearer_token_file" if self.bearer_token_file else "basic_auth"
            wrong.append((key, "a gateway is asked without credentials: that it refuses shows that it works"))
        if product in (*GATEWAYS, *SERVICES) and not expects and urlsplit(self.url).query:
            wrong.append(("url", "expected a base address without a query; with expect_* it is asked as it stands"))
        return wrong


_HTTP_ONLY = (
    "admin_url", "expect_status", "expect_json", "expect_body", "ca_file", "cert_file", "key_file",
    "bearer_token_file", "basic_auth",
)  # fmt: skip


class Instance(Strict):
    name: Name
    labels: dict[str, str] = Field(default_factory=dict)
    postgres: Postgres | None = Field(default=None, description="Inherited by the nodes.")
    patroni: list[HttpUrl] = Field(default_factory=list, description="Discover nodes from Patroni's /cluster.")
    nodes: list[Node] = Field(default_factory=list)
    etcd: list[HttpUrl] = Field(default_factory=list)
    haproxy: HAProxy | None = None
    components: dict[Name, Component] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Instance:
        wrong = _used_twice("nodes", [node.name for node in self.nodes])
        for name, component in self.components.items():
            for key, message in component.misfits(name):
                wrong.append((("components", name, key) if key else ("components", name), message))
        if wrong:
            raise Misplaced(*wrong)
        if not (self.nodes or self.patroni or self.etcd or self.haproxy or self.components):
            raise ValueError("nothing to probe: declare nodes, patroni, etcd, haproxy or components")
        return self


class Notifications(Strict):
    alertmanager: list[HttpUrl] = Field(default_factory=list)
    webhooks: list[dict[str, Any]] = Field(default_factory=list)
    apprise: list[dict[str, Any]] = Field(default_factory=list)
    heartbeat: dict[str, Any] | None = None


class Inspection(Strict):
    name: Name
    schedule: str
    instances: list[Name] = Field(default_factory=list)


class Settings(Strict):
    web: Web = Field(default_factory=Web)
    storage: Storage = Field(default_factory=Storage)
    policies: PolicySettings = Field(default_factory=PolicySettings)
    defaults: Defaults = Field(default_factory=Defaults)
    observer: Name = Field(default_factory=_host_name, description="This daemon's name.")
    instances: list[Instance] = Field(min_length=1)
    notifications: Notifications | None = None
    inspections: list[Inspection] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        wrong = _used_twice("instances", [instance.name for instance in self.instances])
        for index, instance in enumerate(self.instances):
            if instance.name == OWN_INSTANCE:
                text = f'"{OWN_INSTANCE}" is what this daemon calls itself in its history; choose another name'
                wrong.append((("instances", index, "name"), text))
        if self.defaults.timeout >= self.defaults.interval:
            wrong.append((("defaults", "timeout"), "expected a duration below defaults.interval"))
        for index, listen in enumerate(self.web.listen):
            host, _ = split_address(listen)
            if not is_loopback(host) and self.web.config_file is None and not self.web.insecure:
                message = (
                    f"{listen} can be reached from other machines without authentication; listen on "
                    "127.0.0.1, or set web.insecure: true if something in front of it authenticates"
                )
                wrong.append((("web", "listen", index), message))
        if wrong:
            raise Misplaced(*wrong)
        return self

    @property
    def socket(self) -> Path:
        return self.web.socket or self.storage.path / "probed.sock"
