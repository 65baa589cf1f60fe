"""The PostgreSQL servers of the lab as processes.

Patroni starts a postmaster through a helper that exits, in a session of its own, so it is nobody's child and in no
process group of ours; every backend opens yet another session. They are found by what they show of themselves: the
postmaster's command line names the data directory, and the title of every child names the cluster (Patroni sets
``cluster_name`` to its scope, which is unique to a lab).
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from probed.demo.processes import (
    PROC,
    ProcessId,
    all_processes,
    command_line,
    descendants,
    identify,
    send_all,
    stop_tree,
    wait_gone,
)


def postmasters(data_dir: str) -> list[ProcessId]:
    """The living postmasters on a data directory: the one in postmaster.pid, and any too young to have written it."""
    candidates = {stat.pid for stat in all_processes()}
    candidates.update(_pid_in_file(data_dir))
    found = []
    for pid in candidates:
        process = identify(pid)
        # The identity is taken first: what the command line then says, it says of this very process or a later
        # one, and a later one is refused when the signal is sent.
        if process is not None and _serves(command_line(pid), data_dir):
            found.append(process)
    return found


def _serves(arguments: Sequence[str], data_dir: str) -> bool:
    if not arguments or Path(arguments[0]).name not in ("postgres", "postmaster"):
        return False
    return ("-D", data_dir) in pairwise(arguments)


def _pid_in_file(data_dir: str) -> list[int]:
    with contextlib.suppress(OSError, ValueError):
        return [int((Path(data_dir) / "postmaster.pid").read_text().split("\n", 1)[0])]
    return []


def server_processes(data_dir: str) -> list[ProcessId]:
    """The postmaster and every child of it, postmaster first; empty when no server runs there."""
    # A backend forked a moment ago still shows the postmaster's command line: a parent among them leads.
    roots = postmasters(data_dir)
    found = list(roots)
    for root in roots:
        found.extend(child for child in descendants(root) if child not in found)
    return found


def orphans(scope: str) -> list[ProcessId]:
    """PostgreSQL processes of this lab, whatever became of their postmaster."""
    prefix = f"postgres: {scope}: "
    return [
        stat.id
        for stat in all_processes()
        if any(argument.startswith(prefix) for argument in command_line(stat.pid)[:1])
    ]


def freeze(data_dir: str) -> bool:
    """SIGSTOP the postmaster and all its children; whether there was a server."""
    roots = postmasters(data_dir)
    for root in roots:
        stop_tree(root)
    return bool(roots)


def thaw(data_dir: str) -> bool:
    """SIGCONT them, children first, so that the postmaster finds them answering; whether there was a server."""
    members = server_processes(data_dir)
    send_all(reversed(members), signal.SIGCONT)
    return bool(members)


def kill(data_dir: str) -> list[ProcessId]:
    """SIGKILL the postmaster and all its children at once; returns them. Waits up to 5 s until they are gone."""
    victims: list[ProcessId] = []
    for root in postmasters(data_dir):
        victims.extend(stop_tree(root))
    send_all(victims, signal.SIGKILL)
    wait_gone(victims, 5.0)
    return victims


def shared_memory(data_dir: str) -> list[int]:
    """Ids of the System V segments that a killed postmaster left on a data directory: none or one.

    A machine has room for a few thousand of them. Key and id stand in the seventh line of postmaster.pid, which a
    killed postmaster leaves too; one that ends by itself removes both. Never a segment that somebody has attached.
    """
    try:
        lines = (Path(data_dir) / "postmaster.pid").read_text().splitlines()
        key, segment = lines[6].split()
        table = (PROC / "sysvipc/shm").read_text().splitlines()
    except (OSError, ValueError, IndexError):
        return []
    # Columns of /proc/sysvipc/shm: key shmid perms size cpid lpid nattch ...
    rows = (row.split() for row in table[1:])
    return [int(segment) for row in rows if row[0] == key and row[1] == segment and row[6] == "0"]


REMOVE_SHARED_MEMORY = """\
import ctypes, sys
for segment in sys.argv[1:]:
    ctypes.CDLL(None).shmctl(int(segment), 0, None)  # 0 is IPC_RMID
"""
"""To be run as the segments' owner: root itself may lack the capability for those of others, as in a container."""
