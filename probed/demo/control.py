"""What can be done to a running lab: kill, stop, start and switch its processes, each from any attached process."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp

from probed.demo import components as parts
from probed.demo import servers
from probed.demo.blueprint import META
from probed.demo.errors import LabError
from probed.demo.launching import module_command
from probed.demo.ledger import ComponentEntry, LabState, Ledger
from probed.demo.processes import (
    ProcessId,
    is_alive,
    reap,
    send,
    send_all,
    session_members,
    stop_tree,
    wait_gone,
)
from probed.demo.recordings import HEALTHY, read
from probed.demo.view import LabView, reason
from probed.demo.waiting import Progress, until
from probed.demo.warden import ask

SWITCHOVER_SECONDS = 60.0
RESTART_SECONDS = 30.0
STAND_INS = "stand-ins"


class LabControl(LabView):
    """Power over the processes of a lab; :class:`probed.demo.lab.Lab` adds its beginning and its end."""

    def __init__(self, ledger: Ledger, state: LabState, progress: Progress) -> None:
        super().__init__(state, progress)
        self._ledger = ledger
        self.directory = ledger.directory

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
