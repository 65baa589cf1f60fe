"""A real PostgreSQL HA stack on loopback: etcd, Patroni nodes that stream, HAProxy and Supabase's components if wanted.

    lab = await Lab.start(Path("/tmp/lab"))
    await lab.switchover()
    await lab.stop()

Everything lives in one directory: ``lab.json`` (what runs), ``conf``, ``data``, ``log``, ``faults``. Another process
takes part with ``Lab.attach(directory)``. The lab ends with the process that started it, however that process ends.

Linux only (/proc). Works as an ordinary user; as root the stack runs as ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import aiohttp

from probed.demo import components as parts
from probed.demo import servers
from probed.demo.binaries import choose_account, find_binaries, find_haproxy, find_postgres_meta, run_as, try_out
from probed.demo.blueprint import FOLDERS, META, REPLICATION_USER, Settings, draw
from probed.demo.ending import WARDEN, end_lab
from probed.demo.errors import LabError
from probed.demo.launching import environment, launch, module_command
from probed.demo.ledger import ComponentEntry, LabState, Ledger
from probed.demo.processes import (
    ProcessId,
    boot_id,
    identify,
    is_alive,
    reap,
    send,
    send_all,
    session_members,
    stop_tree,
    wait_gone,
)
from probed.demo.recordings import HEALTHY, read
from probed.demo.view import APP_PASSWORD, APP_USER, LabNode, LabView, reason
from probed.demo.waiting import Progress, silent, until
from probed.demo.warden import SOCKET, ask

__all__ = ["APP_PASSWORD", "APP_USER", "REPLICATION_USER", "Lab", "LabError", "LabNode", "find_haproxy"]

START_SECONDS = 90.0
WARDEN_SECONDS = 10.0
ETCD_SECONDS = 20.0
SWITCHOVER_SECONDS = 60.0
RESTART_SECONDS = 30.0
STAND_INS = "stand-ins"


class Lab(LabView):
    """A running stack, made by :meth:`start` or :meth:`attach`; each method may be called from any attached process."""

    def __init__(self, ledger: Ledger, state: LabState, progress: Progress) -> None:
        super().__init__(state, progress)
        self._ledger = ledger
        self.directory = ledger.directory

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    async def start(
        cls,
        directory: Path,
        *,
        nodes: int = 2,
        etcd_members: int = 1,
        haproxy: bool = False,
        components: bool = False,
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

        ``components``: postgres-meta for real where it is installed, the others as stand-ins (:mod:`.standin`).
        ``postgres_bin`` is the directory of PostgreSQL's programs, ``patroni_python`` an interpreter that can import
        Patroni; both are found by themselves. ``ttl``, ``loop_wait``, ``retry_timeout``: Patroni's, in seconds.
        Remains of an earlier lab in ``directory`` are removed, but never one that still has a living process.

        LabError when it cannot be done, or is not done within 90 s; nothing is left running then.
        """
        settings = Settings(
            nodes, etcd_members, haproxy, components, failsafe, ttl, loop_wait, retry_timeout, max_connections
        )
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
        if self.stand_ins:
            self.start_companion(STAND_INS, "probed.demo.standin")
        if META in state.commands:
            self._launch(META)
        members = [name for name in state.commands if name.startswith("etcd")]
        for name in members:
            self._launch(name)
        await self._until_up(self.etcd_missing, members, what="etcd", seconds=ETCD_SECONDS)
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
        await self._until_up(self.health_missing, everything, what="a healthy cluster", seconds=START_SECONDS)

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

    # -- process control ------------------------------------------------------------------------------------------
    # Killing what is dead and starting what runs does nothing.

    async def kill_node(self, name: str) -> None:
        """A machine that died: SIGKILL Patroni and every PostgreSQL process of the node, at one stroke."""
        data_dir = str(self.node(name).data_dir)

        def kill() -> None:
            patroni = self._stopped_members(name)  # first, or it would see its server die
            servers.kill(data_dir)
            send_all(patroni, signal.SIGKILL)
            wait_gone(patroni, 5.0)

        await asyncio.to_thread(kill)

    async def start_node(self, name: str) -> None:
        """Switch a dead node on again: start its Patroni, which starts PostgreSQL. Returns at once."""
        self.node(name)
        self._launch(name)

    async def kill_postgres(self, name: str) -> None:
        """SIGKILL the postmaster and all its children; Patroni sees it and acts."""
        await asyncio.to_thread(servers.kill, str(self.node(name).data_dir))

    async def freeze_postgres(self, name: str) -> None:
        """SIGSTOP the postmaster and all its children. LabError when no server runs there."""
        if not await asyncio.to_thread(servers.freeze, str(self.node(name).data_dir)):
            raise LabError(f"no PostgreSQL runs on {name}: nothing to freeze")

    async def thaw_postgres(self, name: str) -> None:
        """SIGCONT them. Does nothing when no server runs there."""
        await asyncio.to_thread(servers.thaw, str(self.node(name).data_dir))

    async def freeze_patroni(self, name: str) -> None:
        """SIGSTOP a node's Patroni; its database goes on. LabError when it does not run."""
        self.node(name)
        members = self._members(name)
        if not members:
            raise LabError(f"Patroni of {name} does not run: nothing to freeze")
        send_all(members, signal.SIGSTOP)

    async def thaw_patroni(self, name: str) -> None:
        """SIGCONT it."""
        self.node(name)
        send_all(self._members(name), signal.SIGCONT)

    async def kill_patroni(self, name: str) -> None:
        """SIGKILL a node's Patroni; its database goes on, as a leader until somebody else is promoted too."""
        self.node(name)
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

    async def kill_meta(self) -> None:
        """SIGKILL postgres-meta; its stand-in only stops listening."""
        if META in self.stand_ins:
            await self.switch(META, "starting")
        else:
            await asyncio.to_thread(self._kill_recorded, META)

    async def start_meta(self) -> None:
        """Start it again. Returns at once."""
        if META in self.stand_ins:
            await self.switch(META)
        else:
            self._launch(META)

    async def switch(self, name: str, state: str = HEALTHY) -> None:
        """Have a stand-in be in another of its recorded states; returns once it answers so.

        LabError when there is no such stand-in or state, with the known names.
        """
        if name not in self.stand_ins:
            raise LabError(f"no stand-in {name!r} in this lab; there are {', '.join(self.stand_ins) or 'none'}")
        states = read(name).states
        if state not in states:
            raise LabError(f"{name} was not recorded in a state {state!r}, but in {', '.join(states)}")
        with self._ledger.change() as ledger:
            port = ledger.components[name].port
            ledger.components[name] = ComponentEntry(port, state)
            process = ledger.processes.get(STAND_INS)
        if process is None or not send(process, signal.SIGHUP):
            raise LabError("the lab's stand-ins have ended", log=self.companion_log(STAND_INS))

        async def missing() -> str:
            return "" if await parts.is_in(port, states[state]) else f"{name} to be {state}"

        await until(missing, what=f"the stand-in of {name}", seconds=parts.SWITCH_SECONDS)

    async def restart_postgres(self, name: str, *, standby: bool) -> None:
        """Restart a node's PostgreSQL past its Patroni, as a standby or not; about 1 s. LabError when it fails.

        Patroni lets it be only while the cluster is paused (:meth:`pause`).
        """
        node, state = self.node(name), self._ledger.read()
        mark = node.data_dir / "standby.signal"
        if standby:
            mark.touch()
            if state.account.switch:
                os.chown(mark, state.account.uid, state.account.gid)
        else:
            mark.unlink(missing_ok=True)
        # By the warden: a postmaster is its starter's orphan, and somebody must reap it.
        argv = [f"{state.postgres_bin}/pg_ctl", "restart", "--wait", "--mode=fast", f"--pgdata={node.data_dir}"]
        task, log = f"restart-{name}", self.companion_log(f"restart-{name}")
        argv.append(f"--log={log}.postgres")
        ask(self.directory, task, argv, log=log, identity=state.account.launcher_identity, extra={})

        async def missing() -> str:
            if self.companion_runs(task):
                return "pg_ctl to end"
            async with self.session(name) as connection:
                recovering = await connection.fetchval("SELECT pg_is_in_recovery()")
            return "" if recovering == standby else f"{name} to {'be' if standby else 'leave'} recovery"

        await until(missing, what=f"the restart of {name}", seconds=RESTART_SECONDS, log=log)

    async def pause(self, paused: bool) -> None:
        """Patroni's maintenance mode on or off, for the cluster. LabError when no Patroni takes it."""
        complaint = ""
        for node in self.nodes.values():
            try:
                async with (
                    aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SWITCHOVER_SECONDS)) as http,
                    http.patch(f"{node.patroni_url}/config", json={"pause": True if paused else None}) as response,
                ):
                    if response.status == 200:
                        return
                    complaint = f"Patroni of {node.name} answers HTTP {response.status}"
            except (OSError, aiohttp.ClientError) as error:
                complaint = f"Patroni of {node.name}: {reason(error)}"
        raise LabError(f"the cluster cannot be {'paused' if paused else 'resumed'}: {complaint}")

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
            self.node(to)
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
            raise LabError(f"Patroni of {old} does not take a switchover: {reason(error)}") from error
        # "Switchover status unknown": Patroni took it and got tired of waiting; as for a ttl after failsafe mode.
        if status != 200 and "unknown" not in text:
            raise LabError(f"Patroni of {old} refuses a switchover: {text.strip()} (HTTP {status})")

        async def missing() -> str:
            now = await self.leader()
            if now is None or now == old or (to is not None and now != to):
                return f"{to or 'another node'} to lead"
            return await self.health_missing()

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

    def oom_directory(self, name: str) -> Path:
        """Where the memory.events lies that stands for that of a node's cgroup."""
        return self.directory / "cgroup" / self.node(name).name

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
            extra=command.variables,
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
    if settings.components:
        binaries = replace(binaries, postgres_meta=find_postgres_meta())
    account = choose_account()
    directory.mkdir(parents=True, exist_ok=True)
    _remove_remains(ledger)
    directory.chmod(0o700)
    if account.switch:
        os.chown(directory, account.uid, account.gid)
    account, versions = try_out(binaries, account, directory, environment(directory))
    if binaries.postgres_meta is not None:
        node, program = map(str, binaries.postgres_meta)
        status, _ = run_as(
            [node, "--check", program], account=account, directory=directory, environment=environment(directory)
        )
        binaries = binaries if status == 0 else replace(binaries, postgres_meta=None)
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


def _role_statements(lab: Lab) -> str:
    statements = [
        f"CREATE ROLE {lab.monitor_user} LOGIN PASSWORD '{lab.monitor_password}'",
        f"GRANT pg_monitor TO {lab.monitor_user}",
        f"CREATE ROLE {APP_USER} LOGIN PASSWORD '{APP_PASSWORD}'",
    ]
    if lab.postgres_major >= 16:
        statements.append(f"GRANT pg_use_reserved_connections TO {lab.monitor_user}")
    return "BEGIN; " + "; ".join(statements) + "; COMMIT"
