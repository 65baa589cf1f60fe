"""TCP ports of 127.0.0.1 for labs, and for whatever else must come back to its port after a while.

A port on which nobody listens need not be free: it may be that of a killed server which is to be started again. So a
process draws only from blocks of ports that it has claimed, and several labs run beside each other. A claim is a name
in the kernel's abstract namespace for sockets: a name has one owner, goes with its process however that ends, and needs
no right and no file. Like ports, names are apart for each network namespace.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from probed.demo.errors import LabError

HOST = "127.0.0.1"
LOWEST_PORT = 10_240
PORT_RANGE = 12_000
BLOCK = 100


def free_ports(count: int) -> list[int]:
    """So many ports, all different, on which nobody listens. No process is given the same until this one has ended.

    They lie below the range from which the kernel takes the near ends of outgoing connections: a node that is down
    for a while must find its port free when it comes back. LabError when there are not as many.
    """
    with _lock:
        return [_next() for _ in range(count)]


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]


def free_pair() -> int:
    """The first of two such ports in a row."""
    with _lock:
        first, second = _next(), _next()
        while second != first + 1:
            first, second = second, _next()
        return first


def _next() -> int:
    for port in _drawn:
        return port
    raise LabError(f"no free TCP ports are left on {HOST}")


def _draw() -> Iterator[int]:
    """Every port once, block by block."""
    ports = _range()
    blocks = [ports[start : start + BLOCK] for start in range(0, len(ports), BLOCK)]
    for block in random.sample(blocks, len(blocks)):
        if _claim(block.start):
            yield from filter(_listens_nobody, block)


def _range() -> range:
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first = max(LOWEST_PORT, lowest_ephemeral - PORT_RANGE)
    # A machine tuned to use nearly all ports for outgoing connections leaves us nothing better than those.
    return range(first, lowest_ephemeral) if lowest_ephemeral - first >= BLOCK else range(LOWEST_PORT, 60_000)


def _claim(first: int) -> bool:
    """Whether the block that begins with this port is ours from now on."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as claim:
        try:
            claim.bind(f"\0probed-ports-{first}")
        except OSError:
            return False
        claim.detach()  # the descriptor stays, until this process ends
        return True


def _listens_nobody(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
        return True


_lock = threading.Lock()
_drawn = _draw()
