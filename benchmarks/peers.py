"""Other watchers of the same stack, with fixed settings: postgres_exporter, blackbox_exporter, monit, check_* plugins.

``make peers`` installs their Debian packages. Which of them is missing is said, and its ratios are left out.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from benchmarks.contenders import Driven, Forked, Resident, process, wait_for_port
from benchmarks.up import NODES, Site, Stack, programs
from probed.demo.ports import free_port

POSTGRES_EXPORTER = "prometheus-postgres-exporter"
BLACKBOX = "prometheus-blackbox-exporter"
BLACKBOX_YML = """\
modules:
  get: {prober: http, timeout: 2s, http: {method: GET, preferred_ip_protocol: ip4, valid_status_codes: [200, 401]}}
  head: {prober: http, timeout: 2s, http: {method: HEAD, preferred_ip_protocol: ip4}}
"""
PLUGINS = ("check_http", "check_pgsql", "check_disk", "check_postgres")


def installed() -> dict[str, str]:
    """Of all peers, those that are there: name and program."""
    return programs((POSTGRES_EXPORTER, BLACKBOX, "monit", *PLUGINS, "prometheus"))


def version(program: str) -> str:
    """The version of a Debian package's program, as dpkg knows it; empty when it does not."""
    owner = subprocess.run(["dpkg-query", "-S", program], capture_output=True, text=True, check=False).stdout
    package = owner.partition(":")[0]
    if not package:
        return ""
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def fetch(port: int, path: str) -> int:
    """GET as Prometheus does it, on a connection of its own; bytes received."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip", "Accept": "text/plain;version=0.0.4"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"port {port}{path[:60]}: HTTP {answer.status}")
        return len(body)
    finally:
        connection.close()


@dataclass(frozen=True)
class Exporters:
    """Two postgres_exporter, one for each node, and a blackbox_exporter that is asked for each of twelve probes."""

    postgres: Mapping[str, tuple[int, int]]
    """By node: (process, port)."""
    blackbox: tuple[int, int]
    sites: Sequence[Site]

    @property
    def pids(self) -> tuple[int, ...]:
        return (*(pid for pid, _ in self.postgres.values()), self.blackbox[0])

    def scrape(self, node: str) -> None:
        """One scrape of one node's exporter, compressed."""
        fetch(self.postgres[node][1], "/metrics")

    def probe(self) -> None:
        """The twelve probes."""
        for site in self.sites:
            target = quote(site.url, safe="")
            fetch(self.blackbox[1], f"/probe?module={site.method.lower()}&target={target}")

    def everything(self) -> None:
        for node in self.postgres:
            self.scrape(node)
        self.probe()

    def one_scrape(self) -> Driven:
        node = NODES[0]
        return Driven("postgres_exporter", (self.postgres[node][0],), partial(self.scrape, node))

    def stack(self) -> Driven:
        return Driven("exporters", self.pids, self.everything)


@contextlib.contextmanager
def exporters(stack: Stack, directory: Path, found: Mapping[str, str]) -> Iterator[Exporters]:
    """Both kinds of exporter, running."""
    with contextlib.ExitStack() as running:
        postgres = {}
        for node in NODES:
            port, log = free_port(), directory / f"postgres_exporter-{node}.log"
            command = [found[POSTGRES_EXPORTER], f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
            dsn = stack.dsn(node, user="postgres")
            one = running.enter_context(process(command, log, DATA_SOURCE_NAME=dsn))
            wait_for_port(port, one, log)
            postgres[node] = (one.pid, port)
        config, log, port = directory / "blackbox.yml", directory / "blackbox.log", free_port()
        config.write_text(BLACKBOX_YML)
        command = [found[BLACKBOX], f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
        command.append("--log.level=warn")
        one = running.enter_context(process(command, log))
        wait_for_port(port, one, log)
        yield Exporters(postgres, (one.pid, port), stack.sites)


@contextlib.contextmanager
def monit(stack: Stack, directory: Path, found: Mapping[str, str]) -> Iterator[Resident]:
    """monit with the same twelve questions, both servers' logins and a file system, each second; no statistics."""
    own = directory / "monit"
    own.mkdir()
    lines = ["set daemon 1", *(f"set {name}file {own}/{name}" for name in ("id", "state", "pid", "log"))]
    for number, site in enumerate(stack.sites):
        status = 401 if site.name == "kong" else 200
        ask = f"protocol http method {site.method.lower()} request {site.path!r} status = {status}"
        lines.append(f"check host http{number} with address 127.0.0.1\n  if failed port {site.port} {ask} then alert")
    for node, server in stack.servers.items():
        lines.append(f"check host {node} with address 127.0.0.1")
        lines.append(f"  if failed port {server.port} protocol pgsql then alert")
    lines.append(f"check filesystem data with path {stack.pair.primary.data}\n  if space usage > 99% then alert")
    file = own / "monitrc"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    with process([found["monit"], "-I", "-c", str(file)], own / "output") as running:
        yield Resident("monit", running.pid, stack)


def plugins(stack: Stack, found: Mapping[str, str]) -> Forked:
    """S22: what an Icinga or Nagios starts for the same: a program for each check."""
    commands = []
    for site in stack.sites:
        expect = "401" if site.name == "kong" else "200"
        asked = ["-I", "127.0.0.1", "-p", str(site.port), "-u", site.path, "-e", expect, "-j", site.method]
        commands.append([found["check_http"], *asked])
    for node in NODES:
        port = str(stack.servers[node].port)
        commands.append([found["check_pgsql"], "-H", "127.0.0.1", "-P", port, "-d", "postgres", "-l", "postgres"])
    for node in NODES:
        where = ["--host=127.0.0.1", f"--port={stack.servers[node].port}", "--dbuser=postgres", "--dbname=postgres"]
        commands.append([found["check_postgres"], "--action=backends", *where])
        commands.append([found["check_postgres"], "--action=hitratio", *where])
    commands.append([found["check_disk"], "-w", "1%", "-p", str(stack.pair.primary.data)])
    checked = check_patroni()
    if checked:
        doors = {site.name: f"http://127.0.0.1:{site.port}" for site in stack.sites if site.json}
        commands += [[*checked, "-e", door, "node_is_alive"] for door in doors.values()]
        commands.append([*checked, "-e", doors[NODES[0]], "cluster_has_leader"])
    return Forked("plugins", commands)


def check_patroni() -> list[str]:
    """How it is started; empty when it is not installed. It comes from PyPI, into an environment of its own."""
    found = Path(sys.prefix).parent / ".cache" / "peers" / "bin" / "check_patroni"
    return [str(found)] if found.exists() else []
