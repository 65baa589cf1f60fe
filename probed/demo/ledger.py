"""lab.json: what the lab consists of and which processes it started, shared by every process that touches it.

The starter, its warden, ``probed demo break`` and ``heal`` are different processes, so the file is the only truth:
nobody keeps process ids in memory. Changes are made under a lock and replace the file whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from probed.demo.binaries import Account
from probed.demo.errors import LabError
from probed.demo.processes import ProcessId

FORMAT = 2


class NodeEntry(Struct, frozen=True):
    """One Patroni node; both ports listen on 127.0.0.1."""

    name: str
    postgres_port: int
    patroni_port: int
    data_dir: str


class HaproxyEntry(Struct, frozen=True):
    """HAProxy's ports on 127.0.0.1: ``write`` leads to the leader, ``read`` to the replicas."""

    stats_port: int
    write_port: int
    read_port: int


class ComponentEntry(Struct, frozen=True):
    """One component of the stack on 127.0.0.1: a stand-in in a recorded ``state``, or a real one without a state."""

    port: int
    state: str = ""


class Command(Struct, frozen=True):
    """How a process of the stack is started, and started again; ``variables`` go on top of the lab's environment."""

    argv: tuple[str, ...]
    log: str
    variables: dict[str, str] = field(default_factory=dict)


class LabState(Struct):
    """The content of lab.json. Keys of ``commands`` and ``processes`` are the same names (``etcd1``, ``node1``)."""

    scope: str
    """Patroni's cluster name; unique to this lab, for PostgreSQL's processes carry it in their title."""
    boot_id: str
    owner: ProcessId
    """The process whose end is the lab's end."""
    account: Account
    postgres_bin: str
    """Directory of PostgreSQL's programs."""
    postgres_major: int
    patroni_version: str
    ttl_seconds: int
    nodes: list[NodeEntry]
    etcd_ports: list[int]
    haproxy: HaproxyEntry | None
    components: dict[str, ComponentEntry]
    commands: dict[str, Command]
    processes: dict[str, ProcessId] = field(default_factory=dict)
    ending: bool = False
    """Set once the lab is being ended: from then on nothing may be started in it."""


class Ledger:
    """lab.json in a lab's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "lab.json"
        self._lock_path = directory / "lab.lock"

    def exists(self) -> bool:
        return self.path.exists()

    def read(self) -> LabState:
        """The state now. LabError when there is no lab, or the file is not one of ours."""
        try:
            return _from_json(json.loads(self.path.read_text()))
        except FileNotFoundError:
            message = f"no lab runs in {self.directory}: `probed demo` starts one, --directory says where it is"
            raise LabError(message) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabError(f"{self.path} cannot be read as a lab's state: {error!r}") from error

    def write_new(self, state: LabState) -> None:
        """Begin a lab. LabError when the file is there already."""
        with self._locked():
            if self.exists():
                raise LabError(f"a lab already runs in {self.directory}: stop it first")
            self._replace(state)

    @contextlib.contextmanager
    def change(self) -> Iterator[LabState]:
        """Read, let the caller modify, write back; alone among all processes. Not written when the block raises."""
        with self._locked():
            state = self.read()
            yield state
            self._replace(state)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _replace(self, state: LabState) -> None:
        temporary = self.path.with_suffix(".json.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(_to_json(state), file, indent=1)
        os.replace(temporary, self.path)


def _process_to_json(process: ProcessId) -> dict[str, int]:
    return {"pid": process.pid, "started": process.started}


def _process_from_json(raw: dict[str, int]) -> ProcessId:
    return ProcessId(int(raw["pid"]), int(raw["started"]))


def _to_json(state: LabState) -> dict[str, Any]:
    account, haproxy = state.account, state.haproxy
    return {
        "format": FORMAT,
        "scope": state.scope,
        "boot_id": state.boot_id,
        "owner": _process_to_json(state.owner),
        "account": {
            "name": account.name,
            "uid": account.uid,
            "gid": account.gid,
            "switch": account.switch,
            "capability": account.capability,
        },
        "postgres_bin": state.postgres_bin,
        "postgres_major": state.postgres_major,
        "patroni_version": state.patroni_version,
        "ttl_seconds": state.ttl_seconds,
        "nodes": [
            {
                "name": node.name,
                "postgres_port": node.postgres_port,
                "patroni_port": node.patroni_port,
                "data_dir": node.data_dir,
            }
            for node in state.nodes
        ],
        "etcd_ports": state.etcd_ports,
        "haproxy": haproxy
        and {
            "stats_port": haproxy.stats_port,
            "write_port": haproxy.write_port,
            "read_port": haproxy.read_port,
        },
        "components": {name: {"port": entry.port, "state": entry.state} for name, entry in state.components.items()},
        "commands": {
            name: {"argv": list(command.argv), "log": command.log, "variables": command.variables}
            for name, command in state.commands.items()
        },
        "processes": {name: _process_to_json(process) for name, process in state.processes.items()},
        "ending": state.ending,
    }


def _from_json(raw: dict[str, Any]) -> LabState:
    if raw["format"] != FORMAT:
        raise ValueError(f"format {raw['format']}, expected {FORMAT}")
    return LabState(
        scope=raw["scope"],
        boot_id=raw["boot_id"],
        owner=_process_from_json(raw["owner"]),
        account=Account(**raw["account"]),
        postgres_bin=raw["postgres_bin"],
        postgres_major=raw["postgres_major"],
        patroni_version=raw["patroni_version"],
        ttl_seconds=raw["ttl_seconds"],
        nodes=[NodeEntry(**node) for node in raw["nodes"]],
        etcd_ports=list(raw["etcd_ports"]),
        haproxy=HaproxyEntry(**raw["haproxy"]) if raw["haproxy"] else None,
        components={name: ComponentEntry(**entry) for name, entry in raw["components"].items()},
        commands={name: Command(tuple(c["argv"]), c["log"], c["variables"]) for name, c in raw["commands"].items()},
        processes={name: _process_from_json(process) for name, process in raw["processes"].items()},
        ending=raw["ending"],
    )
