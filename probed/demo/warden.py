"""The lab's warden: parent of every process of the stack, and its end when the lab's owner is gone.

Run as ``python -m probed.demo.warden DIRECTORY`` by :meth:`Lab.start`. It has three duties:

- *Start.* Whoever wants a process started asks over a socket (:func:`ask`). So every process has one parent that
  outlives ``probed demo heal``, and one that has no threads: the kernel's parent-death signal, which ``launcher.py``
  sets, follows the thread that forked.
- *Reap.* It is a *subreaper*: a postmaster, which Patroni leaves to init on purpose, becomes its child. In a container
  pid 1 often reaps nobody, and Patroni waits for ever for a dead postmaster that stays a zombie.
- *End.* When the process that started the lab is gone, however it went, it ends the lab.

It lives in a session of its own, so neither Ctrl-C nor the end of the terminal reaches it. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from probed.demo.ending import end_lab
from probed.demo.errors import LabError
from probed.demo.launching import launch
from probed.demo.ledger import Ledger
from probed.demo.processes import is_alive

SOCKET = "warden.socket"
POLL_SECONDS = 0.5
ASK_SECONDS = 10.0
MESSAGE_BYTES = 64 * 1024
PR_SET_CHILD_SUBREAPER = 36


def ask(directory: Path, name: str, argv: Sequence[str], *, log: Path, identity: str, extra: Mapping[str, str]) -> None:
    """Have the warden start a process: the parameters of :func:`probed.demo.launching.launch`, and its errors.

    LabError also when no warden answers within 10 s.
    """
    message = {"name": name, "argv": list(argv), "log": str(log), "identity": identity, "extra": dict(extra)}
    try:
        with _address(directory) as address, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.settimeout(ASK_SECONDS)
            line.connect(address)
            line.send(json.dumps(message).encode())
            answer = line.recv(MESSAGE_BYTES)
    except OSError as error:
        raise LabError(
            f"the warden of the lab in {directory} does not answer ({error}):"
            f" {name} cannot be started, the lab only be stopped"
        ) from error
    if not answer:
        raise LabError(f"the warden of the lab in {directory} went away while it was to start {name}")
    if complaint := json.loads(answer)["complaint"]:
        raise LabError(complaint)


@contextlib.contextmanager
def _address(directory: Path) -> Iterator[str]:
    """The socket's path, short whatever the directory: a socket's path may have 107 bytes only."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


class Warden:
    """One lab's warden; :meth:`watch` is its life."""

    def __init__(self, directory: Path) -> None:
        self._ledger = Ledger(directory)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        (directory / SOCKET).unlink(missing_ok=True)
        with _address(directory) as address:
            self._listener.bind(address)
        self._listener.listen(16)
        # A child's end must wake the select below at once: Patroni waits for its postmaster to be reaped.
        self._wake, write_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def watch(self) -> int:
        """Serve until the lab has ended, or the owner is gone and the lab was ended here; the exit status."""
        while True:
            listener = self._listener.fileno()
            readable, _, _ = select.select([listener, self._wake], [], [], POLL_SECONDS)
            if self._wake in readable:
                os.read(self._wake, 4096)
            _reap_everyone()
            if listener in readable:
                self._serve()
            try:
                owner = self._ledger.read().owner
            except LabError:
                return 0  # ended by somebody else
            if not is_alive(owner):
                print("the lab's owner is gone: ending the lab", flush=True)
                end_lab(self._ledger.directory)
                return 0

    def _serve(self) -> None:
        try:
            line, _ = self._listener.accept()
        except BlockingIOError:  # the asker has gone already
            return
        with line:
            line.settimeout(ASK_SECONDS)
            complaint = ""
            try:
                message = json.loads(line.recv(MESSAGE_BYTES))
                launch(
                    self._ledger,
                    message["name"],
                    message["argv"],
                    log=Path(message["log"]),
                    identity=message["identity"],
                    extra=message["extra"],
                    bound=True,
                )
            except LabError as error:
                complaint = str(error)
            except (OSError, ValueError, KeyError) as error:
                complaint = f"the warden cannot start a process: {error!r}"
            with contextlib.suppress(OSError):
                line.send(json.dumps({"complaint": complaint}).encode())


def _reap_everyone() -> None:
    """Collect every child that has ended, ours by birth or adopted."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    sys.exit(Warden(Path(sys.argv[1])).watch())
