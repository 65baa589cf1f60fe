"""A scripted stack: three nodes under Patroni, etcd, HAProxy, components. What is asked of it depends on its state only.

The product's own probes ask it, over doors that look like its HTTP client and its database session.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from probed.errors import Blind, TargetFailed
from probed.probes import Context, Measured
from probed.probes._http import Answer
from probed.probes._sql_errors import TooManyConnections
from probed.probes.postgres_liveness import WRITABLE
from probed.probes.postgres_stats import IDENTITY

NODES = ("node-a", "node-b", "node-c")
ETCD = tuple(f"http://10.0.2.{number}:2379" for number in (1, 2, 3))
FRONTEND = "10.0.3.1:5000"
COMPONENTS = {
    "kong": "http://10.0.4.1:8000", "auth": "http://10.0.4.2:9999", "rest": "http://10.0.4.3:3000",
    "realtime": "http://10.0.4.4:4000", "storage": "http://10.0.4.5:5000", "studio": "http://10.0.4.6:3000",
    "meta": "http://10.0.4.7:8080",
}  # fmt: skip
FOR_EVER = 1e6
GIB = 2**30

_WELL: Mapping[str, tuple[int, Mapping[str, str], bytes]] = {
    "kong": (401, {"Server": "kong/3.9.0", "X-Kong-Response-Latency": "0"}, b'{"message":"Unauthorized"}'),
    "auth": (200, {}, b'{"name":"GoTrue","version":"v2.170"}'),
    "rest": (200, {"Server": "postgrest/12.2"}, b""),
    "realtime": (200, {}, b"ok"),
    "storage": (200, {}, b""),
    "studio": (200, {}, b'{"primary_email":"x@example.com"}'),
    "meta": (200, {}, b'{"date":"2026-01-01"}'),
}
"""Status, headers and body of a healthy answer."""


def host(node: str) -> str:
    return f"10.0.1.{NODES.index(node) + 1}"


def described() -> dict[str, Any]:
    """The instance as ``probed.yml`` has it."""
    nodes = [
        {
            "name": node,
            "local": node == NODES[0],
            "postgres": {"host": host(node)},
            "patroni": f"http://{host(node)}:8008",
        }
        for node in NODES
    ]
    nodes[0] |= {"disk": {"path": "/var/lib/postgresql"}, "oom": {}}
    return {
        "name": "orders",
        "nodes": nodes,
        "etcd": list(ETCD),
        "haproxy": {"stats": "http://10.0.3.1:7000", "frontends": [FRONTEND]},
        "components": {name: {"url": url} for name, url in COMPONENTS.items()},
    }


class Stack:
    """Its state is public: faults write it. A mechanism is a word; what it means is up to the door that it closes."""

    def __init__(self) -> None:
        self.leader = NODES[0]
        self.led = True
        """Whether anybody holds the leader's lock."""
        self.timeline = 1
        self.database: dict[str, str] = {}
        self.patroni: dict[str, str] = {}
        self.receiver: dict[str, str] = {}
        self.frozen: dict[str, float] = {}
        """Node -> since when it replays nothing."""
        self.full: dict[str, str] = {}
        self.slow: set[str] = set()
        self.cold: set[str] = set()
        self.disk = 5.0 * GIB
        self.etcd: dict[str, str] = {}
        self.haproxy = ""
        self.component: dict[str, str] = {}
        self.deadlocks: dict[str, float] = defaultdict(float)
        self.oom_kills = 0
        self.started: dict[str, float] = dict.fromkeys(NODES, 1_780_000_000.0)
        self._blocks: dict[str, tuple[float, float, float]] = {}
        self._wal, self._wal_at = 1e9, asyncio.get_running_loop().time()
        self._receiver_pids = 1000

    # --- what moves by itself -----------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def writes(self) -> bool:
        """Whether there is a primary that takes writes."""
        return self.led and self.database.get(self.leader, "auth") == "auth"

    def wal(self) -> float:
        """Position of the primary: a megabyte a second, from one change of the state to the next."""
        return self._wal + (1e6 * (self.now - self._wal_at) if self.writes else 0.0)

    def changing(self) -> None:
        """To be called before a change of who takes writes."""
        self._wal, self._wal_at = self.wal(), self.now

    def blocks(self, node: str) -> tuple[float, float]:
        """(found in cache, read) since the statistics began: a thousand a second."""
        hit, read, at = self._blocks.get(node, (1e6, 1e3, self.now))
        asked, share = 1000.0 * (self.now - at), 0.3 if node in self.cold else 0.999
        self._blocks[node] = (hit + asked * share, read + asked * (1 - share), self.now)
        return self._blocks[node][:2]

    # --- doors --------------------------------------------------------------------------------------------

    def http(self) -> Http:
        return Http(self)

    async def shut(self, mechanism: str, where: str) -> None:
        """A door that is closed in one way or another."""
        match mechanism:
            case "":
                return
            case "timeout":
                await asyncio.sleep(FOR_EVER)
            case "auth":
                raise Blind("auth", f"{where}: the password is refused")
            case _:
                raise TargetFailed(mechanism, f"{where}: {mechanism}")

    async def disk_usage(self, context: Context) -> Mapping[str, float]:
        return {"used_bytes": self.disk, "free_bytes": 100.0 * GIB, "used_pct": 10.0}

    async def oom(self, context: Context) -> Measured:
        kills, self.oom_kills = self.oom_kills, 0
        return Measured({"oom_kills": float(kills)}, series=f"{self.now:.6f}" if kills else "")

    async def haproxy_stats(self, context: Context) -> Measured:
        await self.shut(self.haproxy, "haproxy")
        return Measured({"sessions": 1.0, "servers_up": 3.0, "write_servers_up": 1.0})


class Http:
    """Looks like ``probed.probes._http.HttpClient``."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def get(self, url: str, *, headers: Any = None, access: Any = None) -> Answer:
        parts = urlsplit(url)
        door = f"{parts.scheme}://{parts.netloc}"
        if parts.port == 8008:
            return await self._patroni(url, NODES[int(str(parts.hostname).rpartition(".")[2]) - 1], parts.path)
        if door in ETCD:
            return await self._etcd(url, door)
        return await self._component(url, next(name for name, at in COMPONENTS.items() if at == door))

    head = get

    async def _patroni(self, url: str, node: str, path: str) -> Answer:
        stack = self._stack
        mechanism = stack.patroni.get(node, "")
        if mechanism in ("refused", "timeout"):
            await stack.shut(mechanism, url)
        if path == "/patroni":
            leads = stack.led and node == stack.leader
            crashed = stack.database.get(node) in ("refused", "starting")
            state = mechanism if mechanism in ("start failed", "starting") else "crashed" if crashed else "running"
            role = "primary" if leads else "replica"
            return _json(url, {"state": state, "role": role, "timeline": stack.timeline, "patroni": {"name": node}})
        if stack.etcd:
            raise TargetFailed("closed", f"{url}: the connection was closed without an answer")
        return _json(url, [] if path == "/history" else {"members": self._members()})

    def _members(self) -> list[dict[str, object]]:
        stack = self._stack
        return [
            {
                "name": node, "role": "leader" if stack.led and node == stack.leader else "replica", "state": "running",
                "host": host(node), "port": 5432, "api_url": f"http://{host(node)}:8008/patroni",
                "timeline": stack.timeline,
            }
            for node in NODES
            if stack.patroni.get(node) != "missing"
        ]  # fmt: skip

    async def _etcd(self, url: str, door: str) -> Answer:
        mechanism = self._stack.etcd.get(door, "") or self._stack.component.get(door, "")
        if mechanism == "alarm":
            return Answer(url, 503, {}, b'{"health":"false","reason":"RAFT NO LEADER"}')
        await self._stack.shut(mechanism, url)
        return _json(url, {"health": "true"})

    async def _component(self, url: str, name: str) -> Answer:
        mechanism = self._stack.component.get(name, "")
        if mechanism == "status":
            return Answer(url, 500, {}, b"oops")
        await self._stack.shut(mechanism, url)
        if name == "rest" and not self._stack.writes:
            return Answer(url, 503, {"Server": "postgrest/12.2"}, b'{"code":"PGRST001","message":"no connection"}')
        status, headers, body = _WELL[name]
        return Answer(url, status, headers, body)


def _json(url: str, body: object) -> Answer:
    return Answer(url, 200, {}, json.dumps(body).encode())


class Session:
    """Looks like ``probed.probes._sql.Session``; ``node`` is empty for the write port."""

    server_version = 18

    def __init__(self, stack: Stack, node: str) -> None:
        self._stack, self._node = stack, node
        self._turn = asyncio.Lock()
        self.warm = False
        self.system_identifier = ""
        self._login_at, self._failing = -1e9, False
        self.login = self
        self.address = f"{host(node)}:5432" if node else FRONTEND

    role, database = "probed", "postgres"

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._turn:
            yield

    @property
    def login_due(self) -> bool:
        return not self.warm or self._failing or self._stack.now - self._login_at >= 30.0

    async def ping(self) -> float:
        await self._ask()
        return 0.25 if self._node in self._stack.slow else 0.001

    async def value(self, query: str) -> object:
        await self._ask()
        return {IDENTITY: "7000000000000000001", WRITABLE: not self._stack.writes}[query]

    async def row(self, query: str) -> Mapping[str, object]:
        await self._ask()
        return self._statistics()

    async def fresh_login(self, statement: str) -> tuple[float, object]:
        await self._log_in()
        return 0.01, not self._stack.writes if statement == WRITABLE else 1

    def forget(self) -> None:
        self.warm, self.system_identifier = False, ""

    async def _ask(self) -> None:
        if not self.warm:
            await self._log_in()
            return
        try:
            await self._stack.shut(self._mechanism(), self.address)
        except BaseException:
            self.forget()
            raise

    async def _log_in(self) -> None:
        self._failing = True
        await self._stack.shut(self._mechanism(), self.address)
        if self._stack.full.get(self._node) == "slots":
            self.forget()
            raise TooManyConnections(f"{self.address}: sorry, too many clients already")
        self.warm, self._login_at, self._failing = True, self._stack.now, False

    def _mechanism(self) -> str:
        stack = self._stack
        if self._node:
            return stack.database.get(self._node, "")
        if stack.haproxy:
            return "timeout" if stack.haproxy == "timeout" else "refused"
        if stack.led and stack.database.get(stack.leader) == "timeout":
            return "timeout"
        return "" if stack.writes else "closed"

    def _statistics(self) -> Mapping[str, object]:
        stack, node = self._stack, self._node
        leads = stack.led and node == stack.leader
        hit, read = stack.blocks(node)
        used = 95 if node in stack.full else 20
        wal = stack.wal()
        row: dict[str, object] = dict.fromkeys(
            ("current_lsn", "timeline", "replay_lsn", "receive_lsn", "replay_paused", "receiver_pid", "receiver_status",
             "received_tli", "latest_end_lsn")
        )  # fmt: skip
        row |= {
            "in_recovery": not leads, "backends": used, "client_backends": used, "usable": 97, "may_read": True,
            "deadlocks": stack.deadlocks[node], "blocks_hit": hit, "blocks_read": read, "stats_reset": None,
            "started_at": datetime.fromtimestamp(stack.started[node], UTC), "apply_delay": 0.0,
        }  # fmt: skip
        if leads:
            return row | {"current_lsn": wal, "timeline": f"{stack.timeline:08X}"}
        replayed = stack.frozen.get(node, wal)
        row |= {"replay_lsn": replayed, "receive_lsn": wal, "replay_paused": node in stack.frozen}
        mechanism = stack.receiver.get(node, "")
        if mechanism == "gone" or not stack.led or stack.database.get(stack.leader) in ("refused", "starting"):
            return row
        if mechanism == "loop":
            self._stack._receiver_pids += 1
            return row | {
                "receiver_pid": self._stack._receiver_pids, "receiver_status": "streaming", "latest_end_lsn": replayed,
            }  # fmt: skip
        status = "waiting" if mechanism == "waiting" else "streaming"
        return row | {"receiver_pid": 77, "receiver_status": status, "latest_end_lsn": replayed if mechanism else wal}
