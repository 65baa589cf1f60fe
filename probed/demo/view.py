"""A lab seen from outside: its addresses, and what its servers answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import asyncpg
from msgspec import Struct

from probed.demo import components
from probed.demo.blueprint import SUPERUSER
from probed.demo.errors import LabError
from probed.demo.ledger import LabState
from probed.demo.ports import HOST
from probed.demo.waiting import Progress, until

HEALTHY_SECONDS = 90.0
ANSWER_SECONDS = 2.0
NO_ANSWER = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises of a server that does not answer; the last one where it ends in the middle of a login."""
APP_USER = "lab_app"
"""An ordinary LOGIN role: what a lab's applications connect as."""
APP_PASSWORD = "lab_app"


class LabNode(Struct, frozen=True):
    """One node: a PostgreSQL on ``host:postgres_port`` and its Patroni at ``patroni_url`` (no trailing slash)."""

    name: str
    host: str
    postgres_port: int
    patroni_url: str
    data_dir: Path


class LabView:
    """What can be asked of a running lab. Asks the servers each time; remembers addresses only."""

    monitor_user = "probed"
    """A LOGIN role with pg_monitor, and pg_use_reserved_connections where PostgreSQL has it (16 and later)."""
    monitor_password = "probed"

    def __init__(self, state: LabState, progress: Progress) -> None:
        self.progress = progress
        self.scope = state.scope
        self.postgres_major = state.postgres_major
        self.patroni_version = state.patroni_version
        self.ttl_seconds = state.ttl_seconds
        self.nodes: Mapping[str, LabNode] = MappingProxyType(
            {
                entry.name: LabNode(
                    entry.name,
                    HOST,
                    entry.postgres_port,
                    f"http://{HOST}:{entry.patroni_port}",
                    Path(entry.data_dir),
                )
                for entry in state.nodes
            }
        )
        self.etcd_urls: Sequence[str] = tuple(f"http://{HOST}:{port}" for port in state.etcd_ports)
        self.components: Mapping[str, str] = MappingProxyType(
            {name: f"http://{HOST}:{entry.port}" for name, entry in state.components.items()}
        )
        self.stand_ins: Sequence[str] = tuple(name for name, entry in state.components.items() if entry.state)
        self._components = dict(state.components)
        self.haproxy_stats_url: str | None = None
        self.haproxy_write_address: str | None = None
        self.haproxy_read_address: str | None = None
        if state.haproxy is not None:
            self.haproxy_stats_url = f"http://{HOST}:{state.haproxy.stats_port}/;csv"
            self.haproxy_write_address = f"{HOST}:{state.haproxy.write_port}"
            self.haproxy_read_address = f"{HOST}:{state.haproxy.read_port}"

    async def leader(self) -> str | None:
        """The leader's name as Patroni knows it, asked of any node that answers; None when there is none.

        Patroni's knowledge is that of the DCS: a leader that died is named until its lock expires (``ttl``).
        """
        view = await self._cluster_view()
        return None if view is None else _leader_in(view)

    async def replicas_streaming(self) -> bool:
        """Whether every node but the leader streams from it, asked of the leader's pg_stat_replication."""
        leader = await self.leader()
        return leader is not None and not await self._streaming_missing(leader)

    async def unhealthy(self) -> str:
        """What is missing for the lab to be well, in words; ``""`` when nothing is."""
        return await self.health_missing()

    async def wait_healthy(self, *, seconds: float = HEALTHY_SECONDS) -> None:
        """Wait until a leader runs, every replica streams and everything else answers. LabError after ``seconds``."""
        await until(self.health_missing, what="a healthy cluster", seconds=seconds, progress=self.progress)

    async def connect(
        self, node: str, *, user: str = SUPERUSER, database: str = "postgres", timeout: float = 5.0
    ) -> asyncpg.Connection:
        """A connection straight to a node's PostgreSQL, within ``timeout`` seconds. asyncpg's and OS errors pass."""
        target = self.node(node)
        return await self._connect_to(target.host, target.postgres_port, user, database, timeout)

    async def _connect_to(self, host: str, port: int, user: str, database: str, timeout: float) -> asyncpg.Connection:
        passwords = {self.monitor_user: self.monitor_password, APP_USER: APP_PASSWORD}
        return await asyncpg.connect(
            host=host,
            port=port,
            user=user,
            database=database,
            password=passwords.get(user, ""),
            ssl=False,
            timeout=timeout,
            server_settings={"application_name": "probed-lab"},
        )

    @contextlib.asynccontextmanager
    async def session(self, node: str, *, seconds: float = ANSWER_SECONDS) -> AsyncIterator[asyncpg.Connection]:
        """A superuser's connection for at most ``seconds``; dropped, not closed, at the end.

        LabError when the node does not answer in time, or refuses.
        """
        try:
            async with asyncio.timeout(seconds):
                connection = await self.connect(node, timeout=seconds)
                try:
                    yield connection
                finally:
                    # Not close(): that waits for the server, which may be frozen.
                    connection.terminate()
        except NO_ANSWER as error:
            raise LabError(f"PostgreSQL of {node}: {reason(error)}") from error

    async def patroni(self, node: str, path: str = "/patroni") -> dict[str, Any]:
        """What a node's Patroni answers to ``GET path``, whatever the status. LabError when it does not within 2 s."""
        return await self._get_json(self.node(node).patroni_url + path, f"Patroni of {node}")

    async def _get_json(self, url: str, whose: str) -> dict[str, Any]:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as http,
                http.get(url) as response,
            ):
                answer = await response.json(content_type=None)
        except (OSError, aiohttp.ClientError, ValueError) as error:
            raise LabError(f"{whose}: {reason(error)}") from error
        if not isinstance(answer, dict):
            raise LabError(f"{whose} answers with something else than an object")
        return answer

    async def _cluster_view(self) -> dict[str, Any] | None:
        """Patroni's /cluster from whichever node answers first with members in it."""
        tasks = [asyncio.ensure_future(self.patroni(name, "/cluster")) for name in self.nodes]
        try:
            for task in asyncio.as_completed(tasks):
                try:
                    view = await task
                except LabError:
                    continue
                if isinstance(view.get("members"), list):
                    return view
            return None
        finally:
            for pending in tasks:
                pending.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- what is still missing (each answers "" or words) ---------------------------------------------------------

    async def etcd_missing(self) -> str:
        for url in self.etcd_urls:
            try:
                answer = await self._get_json(f"{url}/health", f"etcd at {url}")
            except LabError as error:
                return error.what
            if answer.get("health") != "true":
                return f"etcd at {url} says {answer}"
        return ""

    async def _streaming_missing(self, leader: str) -> str:
        try:
            async with self.session(leader) as connection:
                if await connection.fetchval("SELECT pg_is_in_recovery()"):
                    return f"{leader} does not take writes yet"
                rows = await connection.fetch("SELECT application_name, state FROM pg_stat_replication")
        except LabError as error:
            return error.what
        streaming = {row["application_name"] for row in rows if row["state"] == "streaming"}
        waited_for = sorted(set(self.nodes) - {leader} - streaming)
        return f"{', '.join(waited_for)} to stream from {leader}" if waited_for else ""

    async def health_missing(self) -> str:
        """Everything that makes the lab fit for the next fault; cheap questions first."""
        if missing := await self.etcd_missing():
            return missing
        view = await self._cluster_view()
        if view is None:
            return "no Patroni answers"
        leader = _leader_in(view)
        if leader is None:
            return "no leader"
        members = {member.get("name"): member for member in view["members"]}
        for name in self.nodes:
            if name not in members:
                return f"{name} is not in Patroni's member list"
            state = members[name].get("state")
            if state != ("running" if name == leader else "streaming"):
                return f"{name} is {state}"
            if members[name].get("timeline") != members[leader].get("timeline"):
                return f"{name} is on another timeline than {leader}"
        answers = await asyncio.gather(*(self.patroni(name) for name in self.nodes), return_exceptions=True)
        for name, answer in zip(self.nodes, answers, strict=True):
            if isinstance(answer, LabError):
                return answer.what
            if isinstance(answer, BaseException):
                raise answer
            if answer.get("state") != "running":
                return f"{name} is {answer.get('state')}"
        return (
            await self._streaming_missing(leader)
            or await self._haproxy_missing(leader)
            or await components.missing(self._components)
        )

    async def _haproxy_missing(self, leader: str) -> str:
        if self.haproxy_write_address is None:
            return ""
        host, _, port = self.haproxy_write_address.rpartition(":")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = await self._connect_to(host, int(port), SUPERUSER, "postgres", ANSWER_SECONDS)
                try:
                    reached = await connection.fetchval("SELECT inet_server_port()")
                finally:
                    connection.terminate()
        except NO_ANSWER as error:
            return f"HAProxy's write port: {reason(error)}"
        return "" if reached == self.nodes[leader].postgres_port else f"HAProxy does not lead to {leader} yet"

    def node(self, name: str) -> LabNode:
        """The node of this name. LabError with the known names when there is none."""
        try:
            return self.nodes[name]
        except KeyError:
            raise LabError(f"no node {name!r} in this lab; there are {', '.join(self.nodes)}") from None


def reason(error: Exception) -> str:
    """A few words for the errors of sockets, HTTP and SQL."""
    cause = getattr(error, "os_error", error)  # aiohttp wraps the operating system's
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return str(cause) or type(cause).__name__


def _leader_in(view: Mapping[str, Any]) -> str | None:
    for member in view["members"]:
        if member.get("role") in ("leader", "standby_leader") and member.get("state") == "running":
            return str(member["name"])
    return None
