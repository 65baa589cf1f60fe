"""A real PostgreSQL HA stack on loopback: etcd, Patroni nodes that stream, HAProxy if wanted.

    lab = await Lab.start(Path("/tmp/lab"))
    await lab.switchover()
    await lab.stop()

Everything lives in one directory: ``lab.json`` (what runs), ``conf``, ``data``, ``log``, ``faults``. Another process
takes part with ``Lab.attach(directory)``. The lab ends with the process that started it, however that process ends.

Linux only (/proc). Works as an ordinary user; as root the stack runs as ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import aiohttp
import asyncpg

from probed.demo import servers
from probed.demo.binaries import choose_account, find_binaries, find_haproxy, try_out
from probed.demo.blueprint import FOLDERS, HOST, REPLICATION_USER, SUPERUSER, Settings, draw
from probed.demo.ending import WARDEN, end_lab
from probed.demo.errors import LabError
from probed.demo.launching import environment, launch, module_command
from probed.demo.ledger import LabState, Ledger
from probed.demo.processes import (
    ProcessId,
    boot_id,
    identify,
    is_alive,
    reap,
    send_all,
    session_members,
    stop_tree,
    wait_gone,
)
from probed.demo.waiting import Progress, silent, until
from probed.demo.warden import SOCKET, ask

__all__ = ["APP_PASSWORD", "APP_USER", "REPLICATION_USER", "Lab", "LabError", "LabNode", "find_haproxy"]

START_SECONDS = 90.0
HEALTHY_SECONDS = 90.0
WARDEN_SECONDS = 10.0
ETCD_SECONDS = 20.0
SWITCHOVER_SECONDS = 60.0
ANSWER_SECONDS = 2.0
APP_USER = "lab_app"
"""An ordinary LOGIN role: what a lab's applications connect as."""
APP_PASSWORD = "lab_app"


@dataclass(frozen=True, slots=True)
class LabNode:
    """One node: a PostgreSQL on ``host:postgres_port`` and its Patroni at ``patroni_url`` (no trailing slash)."""

    name: str
    host: str
    postgres_port: int
    patroni_url: str
    data_dir: Path


class Lab:
    """A running stack, made by :meth:`start` or :meth:`attach`; each method may be called from any attached process."""

    monitor_user = "probed"
    """A LOGIN role with pg_monitor, and pg_use_reserved_connections where PostgreSQL has it (16 and later)."""
    monitor_password = "probed"

    def __init__(self, ledger: Ledger, state: LabState, progress: Progress) -> None:
        self._ledger = ledger
        self.directory = ledger.directory
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
        self.haproxy_stats_url: str | None = None
        self.haproxy_write_address: str | None = None
        self.haproxy_read_address: str | None = None
        if state.haproxy is not None:
            self.haproxy_stats_url = f"http://{HOST}:{state.haproxy.stats_port}/;csv"
            self.haproxy_write_address = f"{HOST}:{state.haproxy.write_port}"
            self.haproxy_read_address = f"{HOST}:{state.haproxy.read_port}"

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    async def start(
        cls,
        directory: Path,
        *,
        nodes: int = 2,
        etcd_members: int = 1,
        haproxy: bool = False,
        postgres_bin: Path | None = None,
        patroni_python: str | None = None,
        failsafe: bool = False,
        ttl: int = 20,
        loop_wait: int = 2,
        retry_timeout: int = 3,
        max_connections: int = 40,
        progress: Progress = silent,
    ) -> Self:
        """Start a stack in ``directory`` (made if absent); returns when it is healthy, after 6 s or so.

        ``postgres_bin`` is the directory of PostgreSQL's programs, ``patroni_python`` an interpreter that can import
        Patroni; both are found by themselves. ``ttl``, ``loop_wait``, ``retry_timeout``: Patroni's, in seconds.
        Remains of an earlier lab in ``directory`` are removed, but never one that still has a living process.

        LabError when it cannot be done, or is not done within 90 s; nothing is left running then.
        """
        settings = Settings(nodes, etcd_members, haproxy, failsafe, ttl, loop_wait, retry_timeout, max_connections)
        settings.check()
        began = time.monotonic()
        directory = directory.absolute()
        ledger = Ledger(directory)
        state = await asyncio.to_thread(_prepare, ledger, settings, postgres_bin, patroni_python)
        try:
            ledger.write_new(state)
            lab = cls(ledger, state, progress)
            progress(f"PostgreSQL {state.postgres_major}, Patroni {state.patroni_version}, as {state.account.name}")
            await lab._bring_up(state)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(end_lab, directory))
            raise
        progress(f"healthy after {time.monotonic() - began:.1f} s")
        return lab

    @classmethod
    def attach(cls, directory: Path, *, progress: Progress = silent) -> Self:
        """Take part in the lab that another process started in ``directory``. LabError when there is none."""
        ledger = Ledger(directory.absolute())
        return cls(ledger, ledger.read(), progress)

    async def stop(self) -> None:
        """End every process of the lab, whatever state it is in; about 1 s, 15 s at most. Data and logs stay.

        Stopping a stopped lab does nothing. LabError when a process outlives SIGKILL.
        """
        await asyncio.to_thread(end_lab, self.directory)

    async def _bring_up(self, state: LabState) -> None:
        await self._start_warden()
        members = [name for name in state.commands if name.startswith("etcd")]
        for name in members:
            self._launch(name)
        await self._until_up(self._etcd_missing, members, what="etcd", seconds=ETCD_SECONDS)
        # The first node gets a head start, so that it and no other becomes the first leader.
        first, *others = self.nodes
        self._launch(first)
        await self._until_up(
            lambda: self._bootstrap_missing(first), [first], what=f"Patroni of {first}", seconds=START_SECONDS
        )
        for name in others:
            self._launch(name)
        if state.haproxy is not None:
            self._launch("haproxy")
        everything = list(state.commands)
        await self._until_up(lambda: self._roles_missing(first), everything, what="the leader", seconds=START_SECONDS)
        await self._until_up(self._health_missing, everything, what="a healthy cluster", seconds=START_SECONDS)

    async def _start_warden(self) -> None:
        log = self.directory / "log" / "warden.log"
        argv, extra = module_command("probed.demo.warden", str(self.directory))
        launch(self._ledger, WARDEN, argv, log=log, identity="-", extra=extra, bound=False)

        async def missing() -> str:
            if not self.companion_runs(WARDEN):
                raise LabError("the lab's warden ended at once", log=log)
            return "" if (self.directory / SOCKET).exists() else "its socket"

        await until(missing, what="the lab's warden", seconds=WARDEN_SECONDS, log=log)

    async def _until_up(
        self, missing: Callable[[], Awaitable[str]], names: Sequence[str], *, what: str, seconds: float
    ) -> None:
        """Wait, but give up at once when one of the named processes has ended."""
        log = Path(self._ledger.read().commands[names[-1]].log)

        async def missing_or_dead() -> str:
            reap()
            state = self._ledger.read()
            for name in names:
                if name in state.processes and not is_alive(state.processes[name]):
                    raise LabError(f"{name} ended while the lab was starting", log=Path(state.commands[name].log))
            return await missing()

        await until(missing_or_dead, what=what, seconds=seconds, progress=self.progress, log=log)

    # -- what it looks like from outside ------------------------------------------------------------------------

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
        return await self._health_missing()

    async def wait_healthy(self, *, seconds: float = HEALTHY_SECONDS) -> None:
        """Wait until a leader runs, every replica streams and everything else answers. LabError after ``seconds``."""
        await until(self._health_missing, what="a healthy cluster", seconds=seconds, progress=self.progress)

    async def connect(
        self, node: str, *, user: str = SUPERUSER, database: str = "postgres", timeout: float = 5.0
    ) -> asyncpg.Connection:
        """A connection straight to a node's PostgreSQL, within ``timeout`` seconds. asyncpg's and OS errors pass."""
        target = self._node(node)
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
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise LabError(f"PostgreSQL of {node}: {_reason(error)}") from error

    async def patroni(self, node: str, path: str = "/patroni") -> dict[str, Any]:
        """What a node's Patroni answers to ``GET path``, whatever the status. LabError when it does not within 2 s."""
        return await self._get_json(self._node(node).patroni_url + path, f"Patroni of {node}")

    async def _get_json(self, url: str, whose: str) -> dict[str, Any]:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as http,
                http.get(url) as response,
            ):
                answer = await response.json(content_type=None)
        except (OSError, aiohttp.ClientError, ValueError) as error:
            raise LabError(f"{whose}: {_reason(error)}") from error
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

    async def _etcd_missing(self) -> str:
        for url in self.etcd_urls:
            try:
                answer = await self._get_json(f"{url}/health", f"etcd at {url}")
            except LabError as error:
                return error.what
            if answer.get("health") != "true":
                return f"etcd at {url} says {answer}"
        return ""

    async def _bootstrap_missing(self, name: str) -> str:
        """The node is past the race for the right to make the cluster: it runs initdb, or more."""
        try:
            state = (await self.patroni(name)).get("state")
        except LabError as error:
            return error.what
        return "" if state in ("initializing new cluster", "starting", "running") else f"{name} is {state}"

    async def _roles_missing(self, name: str) -> str:
        """Create the lab's login roles on the first leader, as soon as it takes writes."""
        try:
            # Patroni creates its replication role last of all it does to a new server.
            async with self.session(name) as connection:
                if await connection.fetchval("SELECT pg_is_in_recovery()"):
                    return f"{name} does not take writes yet"
                if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", REPLICATION_USER):
                    return f"{name} is being set up by Patroni"
                await connection.execute(_role_statements(self))
        except LabError as error:
            return error.what
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

    async def _health_missing(self) -> str:
        """Everything that makes the lab fit for the next fault; cheap questions first."""
        if missing := await self._etcd_missing():
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
        return await self._streaming_missing(leader) or await self._haproxy_missing(leader)

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
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return f"HAProxy's write port: {_reason(error)}"
        return "" if reached == self.nodes[leader].postgres_port else f"HAProxy does not lead to {leader} yet"

    # -- process control ------------------------------------------------------------------------------------------
    # Killing what is dead and starting what runs does nothing.

    async def kill_node(self, name: str) -> None:
        """A machine that died: SIGKILL Patroni and every PostgreSQL process of the node, at one stroke."""
        data_dir = str(self._node(name).data_dir)

        def kill() -> None:
            patroni = self._stopped_members(name)  # first, or it would see its server die
            servers.kill(data_dir)
            send_all(patroni, signal.SIGKILL)
            wait_gone(patroni, 5.0)

        await asyncio.to_thread(kill)

    async def start_node(self, name: str) -> None:
        """Switch a dead node on again: start its Patroni, which starts PostgreSQL. Returns at once."""
        self._node(name)
        self._launch(name)

    async def kill_postgres(self, name: str) -> None:
        """SIGKILL the postmaster and all its children; Patroni sees it and acts."""
        await asyncio.to_thread(servers.kill, str(self._node(name).data_dir))

    async def freeze_postgres(self, name: str) -> None:
        """SIGSTOP the postmaster and all its children. LabError when no server runs there."""
        if not await asyncio.to_thread(servers.freeze, str(self._node(name).data_dir)):
            raise LabError(f"no PostgreSQL runs on {name}: nothing to freeze")

    async def thaw_postgres(self, name: str) -> None:
        """SIGCONT them. Does nothing when no server runs there."""
        await asyncio.to_thread(servers.thaw, str(self._node(name).data_dir))

    async def freeze_patroni(self, name: str) -> None:
        """SIGSTOP a node's Patroni; its database goes on. LabError when it does not run."""
        self._node(name)
        members = self._members(name)
        if not members:
            raise LabError(f"Patroni of {name} does not run: nothing to freeze")
        send_all(members, signal.SIGSTOP)

    async def thaw_patroni(self, name: str) -> None:
        """SIGCONT it."""
        self._node(name)
        send_all(self._members(name), signal.SIGCONT)

    async def kill_patroni(self, name: str) -> None:
        """SIGKILL a node's Patroni; its database goes on, as a leader until somebody else is promoted too."""
        self._node(name)
        await asyncio.to_thread(self._kill_recorded, name)

    async def start_patroni(self, name: str) -> None:
        """Start it again; it takes over the PostgreSQL that runs. Returns at once."""
        await self.start_node(name)

    async def kill_etcd(self, index: int) -> None:
        """SIGKILL the etcd member behind ``etcd_urls[index]``."""
        await asyncio.to_thread(self._kill_recorded, self._etcd_name(index))

    async def start_etcd(self, index: int) -> None:
        """Start it again, with its data. Returns at once."""
        self._launch(self._etcd_name(index))

    async def kill_haproxy(self) -> None:
        """SIGKILL HAProxy. LabError when the lab has none."""
        await asyncio.to_thread(self._kill_recorded, self._haproxy_name())

    async def start_haproxy(self) -> None:
        """Start it again. Returns at once. LabError when the lab has none."""
        self._launch(self._haproxy_name())

    async def switchover(self, to: str | None = None) -> None:
        """A planned switchover by Patroni's REST API, to ``to`` or a replica of Patroni's choice.

        Returns when the new leader runs and every replica streams from it, after 4 s or so. LabError when Patroni
        refuses, in its words, or it takes more than 60 s.
        """
        old = await self.leader()
        if old is None:
            raise LabError("no leader: nothing to switch over from")
        order = {"leader": old}
        if to is not None:
            self._node(to)
            if to == old:
                raise LabError(f"{to} is the leader already")
            order["candidate"] = to
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SWITCHOVER_SECONDS)) as http,
                http.post(f"{self.nodes[old].patroni_url}/switchover", json=order) as response,
            ):
                status, text = response.status, await response.text()
        except (OSError, aiohttp.ClientError) as error:
            raise LabError(f"Patroni of {old} does not take a switchover: {_reason(error)}") from error
        # "Switchover status unknown": Patroni took it and got tired of waiting; as for a ttl after failsafe mode.
        if status != 200 and "unknown" not in text:
            raise LabError(f"Patroni of {old} refuses a switchover: {text.strip()} (HTTP {status})")

        async def missing() -> str:
            now = await self.leader()
            if now is None or now == old or (to is not None and now != to):
                return f"{to or 'another node'} to lead"
            return await self._health_missing()

        await until(missing, what="the switchover", seconds=SWITCHOVER_SECONDS, progress=self.progress)

    # -- companions: processes of ours beside the stack, such as a load ---------------------------------------------

    def start_companion(self, name: str, module: str, *arguments: str) -> None:
        """Run ``python -m module DIRECTORY arguments...`` detached, until it ends, is killed or the lab ends."""
        argv, extra = module_command(module, str(self.directory), *arguments)
        ask(self.directory, name, argv, log=self.companion_log(name), identity="-", extra=extra)

    async def kill_companion(self, name: str) -> None:
        """SIGKILL it; nothing when it is gone."""
        await asyncio.to_thread(self._kill_recorded, name)

    def companion_runs(self, name: str) -> bool:
        reap()
        process = self._ledger.read().processes.get(name)
        return process is not None and is_alive(process)

    def companion_log(self, name: str) -> Path:
        return self.directory / "log" / f"{name}.log"

    # -- underneath -------------------------------------------------------------------------------------------------

    def _launch(self, name: str) -> None:
        reap()
        state = self._ledger.read()
        known = state.processes.get(name)
        if known is not None and is_alive(known):
            return
        command = state.commands[name]
        ask(
            self.directory,
            name,
            command.argv,
            log=Path(command.log),
            identity=state.account.launcher_identity,
            extra={},
        )

    def _members(self, name: str) -> list[ProcessId]:
        process = self._ledger.read().processes.get(name)
        return [] if process is None else session_members(process, str(self.directory))

    def _stopped_members(self, name: str) -> list[ProcessId]:
        found: dict[ProcessId, None] = {}
        for member in self._members(name):
            found.update(dict.fromkeys(stop_tree(member)))
        return list(found)

    def _kill_recorded(self, name: str) -> None:
        members = self._members(name)
        send_all(members, signal.SIGKILL)
        wait_gone(members, 5.0)

    def _node(self, name: str) -> LabNode:
        try:
            return self.nodes[name]
        except KeyError:
            raise LabError(f"no node {name!r} in this lab; there are {', '.join(self.nodes)}") from None

    def _etcd_name(self, index: int) -> str:
        if not 0 <= index < len(self.etcd_urls):
            raise LabError(f"no etcd member {index} in this lab; it has {len(self.etcd_urls)}, counted from 0")
        return f"etcd{index + 1}"

    def _haproxy_name(self) -> str:
        if self.haproxy_write_address is None:
            raise LabError("this lab was started without HAProxy")
        return "haproxy"


def _prepare(ledger: Ledger, settings: Settings, postgres_bin: Path | None, patroni_python: str | None) -> LabState:
    """Everything before the first process: find the programs, clear the directory, try, write the files."""
    directory = ledger.directory
    binaries = find_binaries(postgres_bin=postgres_bin, patroni_python=patroni_python, haproxy=settings.haproxy)
    account = choose_account()
    directory.mkdir(parents=True, exist_ok=True)
    _remove_remains(ledger)
    directory.chmod(0o700)
    if account.switch:
        os.chown(directory, account.uid, account.gid)
    account, versions = try_out(binaries, account, directory, environment(directory))
    owner = identify(os.getpid())
    assert owner is not None
    return draw(directory, settings, binaries, account, versions, owner)


def _remove_remains(ledger: Ledger) -> None:
    """Clear away an earlier lab that is dead; LabError when it lives."""
    if ledger.exists():
        state = ledger.read()
        living = state.boot_id == boot_id() and [name for name, process in state.processes.items() if is_alive(process)]
        if living:
            raise LabError(f"a lab already runs in {ledger.directory} ({', '.join(living)}): stop it first")
        end_lab(ledger.directory)
    for folder in FOLDERS:
        shutil.rmtree(ledger.directory / folder, ignore_errors=True)


def _reason(error: Exception) -> str:
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


def _role_statements(lab: Lab) -> str:
    statements = [
        f"CREATE ROLE {lab.monitor_user} LOGIN PASSWORD '{lab.monitor_password}'",
        f"GRANT pg_monitor TO {lab.monitor_user}",
        f"CREATE ROLE {APP_USER} LOGIN PASSWORD '{APP_PASSWORD}'",
    ]
    if lab.postgres_major >= 16:
        statements.append(f"GRANT pg_use_reserved_connections TO {lab.monitor_user}")
    return "BEGIN; " + "; ".join(statements) + "; COMMIT"
