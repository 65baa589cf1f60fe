"""End a lab: every process that it started, whatever state they are in, and nothing else.

Synchronous and standard library only; the warden runs it alone when the starter has died.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from probed.demo import servers
from probed.demo.binaries import run_as
from probed.demo.errors import LabError
from probed.demo.launching import environment
from probed.demo.ledger import LabState, Ledger
from probed.demo.processes import ProcessId, boot_id, reap, send_all, session_members, stop_tree, wait_gone

WARDEN = "warden"
ROUNDS = 3
ROUND_SECONDS = 4.0


def end_lab(directory: Path) -> None:
    """End everything, remove lab.json. Takes a moment as a rule, 15 s at most; does nothing when there is no lab.

    Everything gets SIGKILL, which ends a stopped process too; a lab's data need no clean shutdown. Data and logs stay.
    LabError when a process outlives that; lab.json stays then, so that it can be tried again.
    """
    ledger = Ledger(directory)
    if not ledger.exists():
        return
    with ledger.change() as state:
        state.ending = True
    if state.boot_id == boot_id():
        _end_processes(state, directory)
        _remove_shared_memory(state, directory)
    ledger.remove()


def _end_processes(state: LabState, directory: Path) -> None:
    stack = [process for name, process in state.processes.items() if name != WARDEN]
    left: list[ProcessId] = []
    # A second round finds nobody, or what one of the victims started at the last moment.
    for _ in range(ROUNDS):
        victims = _stopped(stack, directory)  # Patroni first: it would start its PostgreSQL again
        for node in state.nodes:
            victims.extend(servers.kill(node.data_dir))
        victims.extend(servers.orphans(state.scope))
        if not victims:
            break
        send_all(victims, signal.SIGKILL)
        left = wait_gone(victims, ROUND_SECONDS)
    if left:
        raise LabError(f"processes of the lab in {directory} outlive SIGKILL: {[process.pid for process in left]}")
    # Last, because it reaps the others; and never when it is us.
    warden = state.processes.get(WARDEN)
    if warden is not None and warden.pid != os.getpid():
        send_all([warden], signal.SIGKILL)
        wait_gone([warden], ROUND_SECONDS)
    (directory / "warden.socket").unlink(missing_ok=True)
    reap()


def _remove_shared_memory(state: LabState, directory: Path) -> None:
    segments = [str(segment) for node in state.nodes for segment in servers.shared_memory(node.data_dir)]
    if segments:
        run_as(
            [sys.executable, "-I", "-S", "-c", servers.REMOVE_SHARED_MEMORY, *segments],
            account=state.account,
            directory=directory,
            environment=environment(directory),
        )


def _stopped(processes: list[ProcessId], directory: Path) -> list[ProcessId]:
    """These that live and what they started, each stopped so that none can fork."""
    found: dict[ProcessId, None] = {}
    for process in processes:
        for member in session_members(process, str(directory)):
            found.update(dict.fromkeys(stop_tree(member)))
    return list(found)
