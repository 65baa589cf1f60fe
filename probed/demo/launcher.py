"""The short program that becomes each process of the stack: wait to be recorded, drop privileges, exec.

Run as ``python -I -S launcher.py GATE LEASH IDENTITY DIRECTORY PROGRAM ARGUMENT...``

``GATE``
    a file descriptor. One byte must arrive before the program is started: the starter writes it after the pid
    stands in lab.json. When the starter dies between fork and record, the pipe closes and nothing is started,
    so there is never a process of the lab that nobody knows.
``LEASH``
    ``bound``: the program gets SIGKILL when its parent dies; one more net under a stack that must not live for ever.
    Only for a parent without threads, because the kernel watches the one thread that forked. Else ``free``.
``IDENTITY``
    ``-`` or ``uid:gid:capability`` (a number, or empty): who to become, because PostgreSQL refuses root. The
    capability stays across the change of user and every exec after it (an *ambient* capability, Linux 4.3): it
    is the only way for another user to run a Python that lives under /root, mode 0700.

Why not ``subprocess`` with ``preexec_fn``: that runs Python between fork and exec of a process that has threads,
where it may deadlock. Standard library only; the exit status is 127 when the program cannot be started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522


def become(uid: int, gid: int, capability: int | None) -> None:
    """Become another user for good, keeping at most one capability. OSError tells which step was refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    if capability is not None and libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_KEEPCAPS) refused")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if capability is None:
        return
    # Two words of 32 capabilities each: effective, permitted, inheritable. Ambient demands the last two.
    low, high = (1 << capability) & 0xFFFFFFFF, (1 << capability) >> 32
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    if libc.capset(header, struct.pack("=6I", low, low, low, high, high, high)):
        raise OSError(ctypes.get_errno(), f"capset({capability}) refused")
    if libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl(PR_CAP_AMBIENT_RAISE, {capability}) refused")


def main(arguments: list[str]) -> int:
    """See the module's docstring; returns only when the program was not started."""
    gate, leash, identity, directory, *program = arguments
    parent = os.getppid()
    os.setsid()
    recorded = os.read(int(gate), 1)
    os.close(int(gate))
    if not recorded:
        return 0
    try:
        os.chdir(directory)
        if identity != "-":
            uid, gid, capability = identity.split(":")
            become(int(uid), int(gid), int(capability) if capability else None)
        if leash == "bound":
            # After the change of user, which clears it.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                return 0
        # Python ignores these two, and what is ignored stays so across exec.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execv(program[0], program)
    except OSError as error:
        print(f"cannot start {program[0]}: {error}", file=sys.stderr, flush=True)
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
