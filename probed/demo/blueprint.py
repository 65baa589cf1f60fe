"""What the lab is made of: ports, configuration files and command lines. Writes files, starts nothing."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from probed.demo.binaries import Account, Binaries, Versions
from probed.demo.errors import LabError
from probed.demo.ledger import Command, ComponentEntry, HaproxyEntry, LabState, NodeEntry
from probed.demo.ports import HOST, free_pair, free_ports
from probed.demo.processes import ProcessId, boot_id
from probed.demo.recordings import HEALTHY

SUPERUSER = "postgres"
REPLICATION_USER = "replicator"
RESERVED_CONNECTIONS = 2
"""Slots kept for pg_use_reserved_connections, from PostgreSQL 16 on."""
FOLDERS = ("conf", "data", "log", "faults", "cgroup")
OOM_EVENTS = "memory.events"
NO_KILLS = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"
"""A file of this name in ``cgroup/<node>`` stands for the kernel's, as Linux 5.17 writes it."""
COMPONENTS = ("kong", "auth", "rest", "realtime", "storage", "functions", "meta", "studio")
"""Of Supabase's stack, beside the database; each has a recording of its name."""
META = "meta"


class Settings(Struct, frozen=True):
    """How the stack is to behave. Times in seconds, as Patroni wants them."""

    nodes: int
    etcd_members: int
    haproxy: bool
    components: bool
    failsafe: bool
    ttl: int
    loop_wait: int
    retry_timeout: int
    max_connections: int

    def check(self) -> None:
        """LabError for what Patroni would quietly replace by its own defaults, or what makes no stack."""
        if not 1 <= self.nodes <= 9:
            raise LabError(f"nodes: expected 1 to 9, got {self.nodes}")
        if self.etcd_members not in (1, 3, 5):
            raise LabError(f"etcd_members: expected 1, 3 or 5, got {self.etcd_members}")
        if self.ttl < 20 or self.loop_wait < 1 or self.retry_timeout < 3:
            raise LabError(
                "Patroni's least: ttl 20, loop_wait 1, retry_timeout 3; "
                f"got {self.ttl}, {self.loop_wait}, {self.retry_timeout}"
            )
        if self.loop_wait + 2 * self.retry_timeout > self.ttl:
            raise LabError(f"Patroni demands loop_wait + 2 * retry_timeout <= ttl ({self.ttl})")
        if self.max_connections < 30:
            raise LabError(f"max_connections: expected 30 or more, got {self.max_connections}")


def draw(
    directory: Path, settings: Settings, binaries: Binaries, account: Account, versions: Versions, owner: ProcessId
) -> LabState:
    """Choose names and ports, write every configuration file into ``directory``; returns the state to begin with."""
    for folder in FOLDERS:
        (directory / folder).mkdir(exist_ok=True)
    ports = iter(free_ports(2 * settings.nodes + 2 * settings.etcd_members + 3 + len(COMPONENTS)))
    nodes = [
        NodeEntry(f"node{number}", next(ports), next(ports), str(directory / "data" / f"node{number}"))
        for number in range(1, settings.nodes + 1)
    ]
    etcd = [(f"etcd{number}", next(ports), next(ports)) for number in range(1, settings.etcd_members + 1)]
    haproxy = HaproxyEntry(next(ports), next(ports), next(ports)) if settings.haproxy else None
    components = {name: ComponentEntry(next(ports), HEALTHY) for name in COMPONENTS if settings.components}
    if components and binaries.postgres_meta is not None:
        components[META] = ComponentEntry(free_pair())  # it listens on both
    state = LabState(
        # Unique, because PostgreSQL's processes are recognised by it.
        scope=f"demo-{secrets.token_hex(4)}",
        boot_id=boot_id(),
        owner=owner,
        account=account,
        postgres_bin=str(binaries.postgres),
        postgres_major=versions.postgres,
        patroni_version=versions.patroni,
        ttl_seconds=settings.ttl,
        nodes=nodes,
        etcd_ports=[client for _, client, _ in etcd],
        haproxy=haproxy,
        components=components,
        commands={},
    )
    for name, client, peer in etcd:
        state.commands[name] = _etcd_command(directory, binaries, versions, state.scope, etcd, name, client, peer)
    for node in nodes:
        path = directory / "conf" / f"{node.name}.yml"
        config = _patroni_config(directory, settings, binaries, versions, state, node)
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        (directory / "cgroup" / node.name).mkdir()
        (directory / "cgroup" / node.name / OOM_EVENTS).write_text(NO_KILLS)
        state.commands[node.name] = Command(
            (binaries.python, "-m", "patroni", str(path)), str(directory / "log" / f"{node.name}.patroni.log")
        )
    if haproxy is not None:
        assert binaries.haproxy is not None
        path = directory / "conf" / "haproxy.cfg"
        path.write_text(_haproxy_config(haproxy, nodes))
        state.commands["haproxy"] = Command(
            (str(binaries.haproxy), "-db", "-f", str(path)), str(directory / "log" / "haproxy.log")
        )
    if components and binaries.postgres_meta is not None:
        port = haproxy.write_port if haproxy is not None else nodes[0].postgres_port
        state.commands[META] = _postgres_meta_command(directory, *binaries.postgres_meta, components[META].port, port)
    if account.switch:
        for folder in ("conf", "data", "log"):
            os.chown(directory / folder, account.uid, account.gid)
            for path in (directory / folder).iterdir():
                os.chown(path, account.uid, account.gid)
    return state


def _etcd_command(
    directory: Path,
    binaries: Binaries,
    versions: Versions,
    token: str,
    members: list[tuple[str, int, int]],
    name: str,
    client: int,
    peer: int,
) -> Command:
    argv = [
        str(binaries.etcd),
        f"--name={name}",
        f"--data-dir={directory / 'data' / name}",
        f"--listen-client-urls=http://{HOST}:{client}",
        f"--advertise-client-urls=http://{HOST}:{client}",
        f"--listen-peer-urls=http://{HOST}:{peer}",
        f"--initial-advertise-peer-urls=http://{HOST}:{peer}",
        "--initial-cluster=" + ",".join(f"{other}=http://{HOST}:{port}" for other, _, port in members),
        "--initial-cluster-state=new",
        f"--initial-cluster-token={token}",
        "--log-level=warn",
    ]
    if versions.etcd_skips_fsync:
        # A lab's etcd need not survive a power cut, and a slow disk must not cost the leader its lock.
        argv.append("--unsafe-no-fsync")
    return Command(tuple(argv), str(directory / "log" / f"{name}.log"))


def _postgres_meta_command(directory: Path, node: Path, program: Path, port: int, postgres_port: int) -> Command:
    variables = {
        "PG_META_HOST": HOST,
        "PG_META_PORT": str(port),
        "PG_META_DB_URL": f"postgresql://{SUPERUSER}@{HOST}:{postgres_port}/postgres",
        "PG_CONN_TIMEOUT_SECS": "5",
    }
    return Command((str(node), str(program)), str(directory / "log" / f"{META}.log"), variables)


def _patroni_config(
    directory: Path, settings: Settings, binaries: Binaries, versions: Versions, state: LabState, node: NodeEntry
) -> dict[str, Any]:
    parameters: dict[str, Any] = {"max_connections": settings.max_connections}
    if versions.postgres >= 16:
        parameters["reserved_connections"] = RESERVED_CONNECTIONS
    return {
        "scope": state.scope,
        "name": node.name,
        "restapi": {
            "listen": f"{HOST}:{node.patroni_port}",
            "connect_address": f"{HOST}:{node.patroni_port}",
        },
        "etcd3": {"hosts": [f"{HOST}:{port}" for port in state.etcd_ports]},
        "bootstrap": {
            "dcs": {
                "ttl": settings.ttl,
                "loop_wait": settings.loop_wait,
                "retry_timeout": settings.retry_timeout,
                "maximum_lag_on_failover": 16 * 1024 * 1024,
                "failsafe_mode": settings.failsafe,
                "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": parameters},
            },
            "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums", "no-sync"],
        },
        "postgresql": {
            "listen": f"{HOST}:{node.postgres_port}",
            "connect_address": f"{HOST}:{node.postgres_port}",
            "data_dir": node.data_dir,
            "bin_dir": str(binaries.postgres),
            "pgpass": str(directory / "conf" / f"{node.name}.pgpass"),
            "authentication": {
                "superuser": {"username": SUPERUSER},
                "replication": {"username": REPLICATION_USER},
            },
            "parameters": {
                # TCP only: a lab's directory may be too long for the 107 bytes of a socket's path, and
                # Debian's default directory belongs to another user.
                "unix_socket_directories": "",
                "shared_buffers": "16MB",
                # In the data directory instead of /dev/shm, where a killed server would leave its files.
                "dynamic_shared_memory_type": "mmap",
                # A replica that comes up before its slot is made (every loop_wait) must not then wait 5 s.
                "wal_retrieve_retry_interval": "1s",
                "logging_collector": "on",
                "log_directory": str(directory / "log"),
                "log_filename": f"{node.name}.postgresql.log",
                "log_line_prefix": "%m [%p] %q%u@%d %a ",
            },
            "basebackup": [{"checkpoint": "fast"}, "no-sync"],
            "pg_hba": [
                f"host all {SUPERUSER} {HOST}/32 trust",
                f"host replication {REPLICATION_USER} {HOST}/32 trust",
                f"host all all {HOST}/32 scram-sha-256",
            ],
        },
    }


def _haproxy_config(ports: HaproxyEntry, nodes: list[NodeEntry]) -> str:
    """As Patroni's sample has it, only checked faster: a dead leader is out of the way within 3 s."""
    servers = "\n".join(
        f"    server {node.name} {HOST}:{node.postgres_port} maxconn 100 check port {node.patroni_port}"
        for node in nodes
    )
    check = """\
    http-check expect status 200
    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions"""
    return f"""\
global
    maxconn 200

defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 2s

listen stats
    mode http
    bind {HOST}:{ports.stats_port}
    stats enable
    stats uri /

listen primary
    bind {HOST}:{ports.write_port}
    option httpchk OPTIONS /primary
{check}
{servers}

listen replicas
    bind {HOST}:{ports.read_port}
    option httpchk OPTIONS /replica
{check}
{servers}
"""
