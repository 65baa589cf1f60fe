"""Ports are drawn so that labs run beside each other, and so that what was killed finds its port free."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from probed.demo import ports

REPOSITORY = Path(__file__).parents[2]
DRAWER = """
from probed.demo.ports import free_ports
print(*free_ports(150), flush=True)
input()
"""


def start() -> subprocess.Popen[str]:
    """A process that draws, and keeps what it drew until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", DRAWER], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_processes_that_draw_at_the_same_time_get_different_ports_though_nobody_listens_on_them() -> None:
    drawers = [start() for _ in range(3)]
    drawn = ports.free_ports(150)
    for drawer in drawers:
        said, _ = drawer.communicate("\n", timeout=60)
        drawn += map(int, said.split())
    assert len(drawn) == len(set(drawn)) == 600


def test_a_block_is_free_again_when_its_process_is_killed() -> None:
    drawer = start()
    assert drawer.stdout is not None and drawer.stdin is not None
    first = int(drawer.stdout.readline().split()[0])
    block = next(start for start in ports._range()[:: ports.BLOCK] if start <= first < start + ports.BLOCK)
    assert not ports._claim(block)
    drawer.kill()
    drawer.communicate(timeout=60)
    assert ports._claim(block)


def test_a_port_on_which_somebody_listens_is_not_drawn() -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        assert not ports._listens_nobody(server.getsockname()[1])


def test_the_second_of_a_pair_is_not_drawn_again() -> None:
    first = ports.free_pair()
    assert not {first, first + 1} & set(ports.free_ports(50))


def test_what_is_drawn_is_below_the_near_ends_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports.free_ports(20)) < lowest or lowest - ports.LOWEST_PORT < ports.BLOCK
