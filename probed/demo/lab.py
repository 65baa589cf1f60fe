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
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from probed.demo.binaries import choose_account, find_binaries, find_haproxy, find_postgres_meta, run_as, try_out
from probed.demo.blueprint import FOLDERS, META, REPLICATION_USER, Settings, draw
from probed.demo.control import STAND_INS, LabControl
from probed.demo.ending import WARDEN, end_lab
from probed.demo.errors import LabError
from probed.demo.launching import environment, launch, module_command
from probed.demo.ledger import LabState, Ledger
from probed.demo.processes import (
    boot_id,
    identify,
    is_alive,
    reap,
)
from probed.demo.view import APP_PASSWORD, APP_USER, LabNode
from probed.demo.waiting import Progress, silent, until
from probed.demo.warden import SOCKET

__all__ = ["APP_PASSWORD", "APP_USER", "REPLICATION_USER", "Lab", "LabError", "LabNode", "find_haproxy"]

START_SECONDS = 90.0
WARDEN_SECONDS = 10.0
ETCD_SECONDS = 20.0


class Lab(LabControl):
    """A running stack, made by :meth:`start` or :meth:`attach`; each method may be called from any attached process."""

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
