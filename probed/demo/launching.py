"""Start a process of the lab so that it is in lab.json before it runs."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from probed.demo.binaries import LAUNCH
from probed.demo.errors import LabError
from probed.demo.ledger import Ledger
from probed.demo.processes import ProcessId, adopt, identify, is_alive

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
# Variables of these families would reconfigure the stack's programs behind their configuration files.
FOREIGN_PREFIXES = ("PATRONI_", "PG", "ETCD", "PYTHON", "NOTIFY_SOCKET")
GATE = 3


def environment(directory: Path) -> dict[str, str]:
    """Ours, less what would bend the stack's programs; HOME is the lab, where no .pgpass or .psqlrc waits."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIXES)}
    return kept | {"HOME": str(directory), "LC_ALL": "C", "TZ": "UTC", "PYTHONDONTWRITEBYTECODE": "1"}


def launch(
    ledger: Ledger,
    name: str,
    argv: Sequence[str],
    *,
    log: Path,
    identity: str,
    extra: Mapping[str, str],
    bound: bool,
) -> ProcessId:
    """Start ``argv`` in a session of its own, detached from our terminal, and record it as ``name``.

    ``identity`` is ``Account.launcher_identity`` or ``-`` (as whoever we are). ``extra`` are further variables.
    ``bound``: it dies with us, who must have no threads then. Output is appended to ``log``.
    LabError when a process of this name lives already, or the lab is being ended.
    """
    reader, writer = os.pipe()
    try:
        with ledger.change() as state:
            if state.ending:
                raise LabError(f"{name} cannot be started: the lab in {ledger.directory} is being ended")
            known = state.processes.get(name)
            if known is not None and is_alive(known):
                raise LabError(f"{name} runs already (pid {known.pid})")
            process = state.processes[name] = _spawn(
                [*LAUNCH, str(GATE), "bound" if bound else "free", identity, str(ledger.directory), *argv],
                environment(ledger.directory) | dict(extra),
                log,
                reader,
            )
        os.write(writer, b"1")  # only now, with the record on disk, may it run
    finally:
        os.close(writer)
        os.close(reader)
    return process


def module_command(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command line and variables that run a module of ours, from an installed package or a checkout alike."""
    path = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
    return [sys.executable, "-m", module, *arguments], {"PYTHONPATH": path}


def _spawn(argv: list[str], variables: Mapping[str, str], log: Path, gate: int) -> ProcessId:
    # Well above the child's descriptors 0 to 3: a dup2 onto itself would leave close-on-exec set on old C libraries.
    source = fcntl.fcntl(gate, fcntl.F_DUPFD_CLOEXEC, 10)
    try:
        pid = os.posix_spawn(
            argv[0],
            argv,
            variables,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, source, GATE),
            ],
            setsigmask=(),
        )
    finally:
        os.close(source)
    adopt(pid)
    process = identify(pid)
    if process is None:
        raise LabError(f"{argv[0]} ended at once", log=log)
    return process
