"""Processes seen through /proc: who they are, whether they live, and signals that never reach a stranger.

A pid alone names nothing: the kernel hands numbers out again. A process is named here by its pid *and* the
moment it started, and every signal is sent through a pidfd that was opened before that moment was compared.

Standard library only, and synchronous: the warden uses it in a process of its own.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")
POLL_SECONDS = 0.02


class ProcessId(Struct, frozen=True):
    """One process, for ever: ``started`` is field 22 of /proc/<pid>/stat, in clock ticks since boot."""

    pid: int
    started: int


class Stat(Struct, frozen=True):
    """The fields of /proc/<pid>/stat that the lab reads; ``state`` is the kernel's letter (``Z`` is dead)."""

    pid: int
    state: str
    parent: int
    session: int
    threads: int
    started: int

    @property
    def id(self) -> ProcessId:
        return ProcessId(self.pid, self.started)

    @property
    def dead(self) -> bool:
        # A zombie holds no memory, port or lock, and where pid 1 reaps nobody it stays for ever. But the first thread
        # of a process may be a zombie while others still end, and as long as they do the ports are open.
        return self.state in "ZXx" and self.threads <= 1


def boot_id() -> str:
    """Identity of this boot of the kernel: after a reboot no recorded process can be alive."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def read_stat(pid: int) -> Stat | None:
    """What /proc says of a pid; None when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses: the last one ends it.
    fields = text.rpartition(")")[2].split()
    return Stat(
        pid,
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        threads=int(fields[17]),
        started=int(fields[19]),
    )


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now; None when it is dead or absent."""
    stat = read_stat(pid)
    return None if stat is None or stat.dead else stat.id


def is_alive(process: ProcessId) -> bool:
    """Whether this very process runs (or is stopped); a zombie is dead."""
    return identify(process.pid) == process


def all_processes() -> list[Stat]:
    """Every living process that /proc shows, in no particular order."""
    found = []
    for entry in os.listdir(PROC):
        if entry.isdigit():
            stat = read_stat(int(entry))
            if stat is not None and not stat.dead:
                found.append(stat)
    return found


def command_line(pid: int) -> list[str]:
    """The arguments of a process (PostgreSQL's children write their title there); empty when unreadable."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0") if part]


def descendants(root: ProcessId, processes: Sequence[Stat] | None = None) -> list[ProcessId]:
    """Children, grandchildren and so on of a living process; not the process itself."""
    if not is_alive(root):
        return []
    children: dict[int, list[Stat]] = {}
    for stat in all_processes() if processes is None else processes:
        children.setdefault(stat.parent, []).append(stat)
    found: list[ProcessId] = []
    queue = [root.pid]
    while queue:
        for stat in children.get(queue.pop(), []):
            found.append(stat.id)
            queue.append(stat.pid)
    return found


def session_members(leader: ProcessId, mark: str) -> list[ProcessId]:
    """Processes in the session that ``leader`` opened, itself included when it lives.

    Once the leader is gone its number may have passed through other hands, so a member is then believed only
    when ``mark`` (the lab's directory) stands in its command line.
    """
    now = read_stat(leader.pid)
    if now is not None and now.started != leader.started:
        return []  # the number belongs to a stranger, and with it the session
    leader_alive = now is not None and not now.dead
    return [
        stat.id
        for stat in all_processes()
        if stat.session == leader.pid
        and stat.started >= leader.started
        and (leader_alive or any(mark in argument for argument in command_line(stat.pid)))
    ]


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signal this very process; False when it is gone. Raises PermissionError when it is not ours to signal."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:  # a kernel before 5.3, or a sandbox without pidfd: a window of microseconds remains
        descriptor = -1
    try:
        if not is_alive(process):
            return False
        if descriptor < 0:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def send_all(processes: Iterable[ProcessId], number: signal.Signals) -> None:
    """Signal each process that is still there."""
    for process in processes:
        send(process, number)


def stop_tree(root: ProcessId) -> list[ProcessId]:
    """SIGSTOP a process and all its descendants, parents first, until none is new; returns them, root first.

    A stopped parent cannot fork, so when a round finds nobody new the list is complete.
    """
    stopped = [root]
    if not send(root, signal.SIGSTOP):
        return []
    while True:
        # A signal is only pending until the kernel delivers it: wait, or a fork may slip through.
        wait_until(lambda: all(_is_stopped(process) for process in stopped), 1.0)
        new = [process for process in descendants(root) if process not in stopped]
        if not new:
            return stopped
        send_all(new, signal.SIGSTOP)
        stopped.extend(new)


def _is_stopped(process: ProcessId) -> bool:
    stat = read_stat(process.pid)
    return stat is None or stat.started != process.started or stat.dead or stat.state in "Tt"


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition; whether it came true within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def wait_gone(processes: Iterable[ProcessId], seconds: float) -> list[ProcessId]:
    """Wait until all are dead; returns those that still live after ``seconds``."""
    left = list(processes)

    def none_left() -> bool:
        reap()
        left[:] = [process for process in left if is_alive(process)]
        return not left

    wait_until(none_left, seconds)
    return left


_spawned: set[int] = set()


def adopt(pid: int) -> None:
    """Remember a child of this process, to be reaped when it ends."""
    _spawned.add(pid)


def reap() -> None:
    """Collect the children of ours that have ended, so that they do not stay zombies."""
    for pid in tuple(_spawned):
        try:
            done, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # not ours (a fork of the starter runs this), or collected already
            done = pid
        if done:
            _spawned.discard(pid)
