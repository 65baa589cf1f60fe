"""sd_notify: readiness, reloads, status and a watchdog that is fed by progress, never by a bare timer."""

from __future__ import annotations

import os
import socket
import time


def notify(*fields: str) -> None:
    """Send state to the service manager (``READY=1``); silently nothing when there is none (NOTIFY_SOCKET)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        door.setblocking(False)
        try:
            door.sendto("\n".join(fields).encode(), address)
        except OSError:
            # A manager that is gone or busy must never hurt the daemon; the watchdog will tell it soon enough.
            return


def reloading() -> None:
    """RELOADING=1 needs the monotonic time with it from systemd 253 on; older versions ignore it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_seconds() -> float | None:
    """How often the manager wants a sign of life; ``None`` when it wants none of this process."""
    pid = os.environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    try:
        return int(os.environ.get("WATCHDOG_USEC", "")) / 1e6 or None
    except ValueError:
        return None
