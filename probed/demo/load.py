"""Background work of some faults, in a process of its own that outlives ``probed demo break``.

Run as ``python -m probed.demo.load DIRECTORY KIND ARGUMENT...`` by the lab's warden. ``heal`` and the lab's end kill
it; left alone it dies after 15 minutes, by a timer of the kernel that no hanging await can hold up.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from probed.demo.lab import APP_USER, Lab, LabError
from probed.demo.mechanisms import slots
from probed.demo.processes import PROC, ProcessId, identify, is_alive, send

LIFE_SECONDS = 15 * 60
TRICKLE_SECONDS = 0.2
ADJUST_SECONDS = 0.5
RETRY_SECONDS = 1.0
READ_EVERY_SECONDS = 1.0
GLANCE_SECONDS = 0.02
LATE_SECONDS = 0.75
AWAKE_SECONDS = 1.0


async def hold_replay(lab: Lab, replica: str) -> None:
    """Keep a transaction open that has read ``lab_report`` on the replica; truncate it on the leader, and write on.

    The transaction is idle, not in a long statement: so its server process sees at once when we are killed.
    """
    leader = await lab.leader()
    if leader is None:
        raise LabError("no leader to write to")
    async with contextlib.AsyncExitStack() as stack:
        reader = await lab.connect(replica)
        stack.callback(reader.terminate)
        writer = await lab.connect(leader)
        stack.callback(writer.terminate)
        # Read first: replay of the truncation must meet the reader's lock.
        await reader.execute("BEGIN; SELECT count(*) FROM lab_report")
        await writer.execute("TRUNCATE lab_report")
        while not reader.is_closed():
            await writer.execute("INSERT INTO lab_trickle (filler) SELECT repeat('x', 1000) FROM generate_series(1, 5)")
            await asyncio.sleep(TRICKLE_SECONDS)


async def fill_connections(lab: Lab, node: str, percent: str) -> None:
    """Hold idle sessions of an ordinary role so that ``percent`` of the node's usable slots are taken."""
    watcher = await lab.connect(node)
    held: list[asyncpg.Connection] = []
    try:
        while True:
            held = [connection for connection in held if not connection.is_closed()]
            used, usable = await slots(watcher)
            wanted = min(math.ceil(usable * int(percent) / 100), usable - 1) - used
            if wanted > 0:
                opened = await asyncio.gather(
                    *(lab.connect(node, user=APP_USER) for _ in range(wanted)), return_exceptions=True
                )
                held.extend(item for item in opened if not isinstance(item, BaseException))
            elif wanted < 0 and held:
                await held.pop().close(timeout=5)
            await asyncio.sleep(ADJUST_SECONDS)
    finally:
        for connection in (watcher, *held):
            connection.terminate()


async def read_cold(lab: Lab, node: str) -> None:
    """Read a table that does not fit into shared_buffers, once a second."""
    connection = await lab.connect(node)
    try:
        await connection.execute("SET max_parallel_workers_per_gather = 0")
        while True:
            await connection.execute("SELECT count(*) FROM lab_cold")
            await asyncio.sleep(READ_EVERY_SECONDS)
    finally:
        connection.terminate()


async def slow_answers(lab: Lab, node: str) -> None:
    """Let the monitor's sessions on a node sleep, and wake each only 0.75 s after a statement has come in."""
    port = lab.nodes[node].postgres_port
    held: dict[ProcessId, asyncio.Task[None]] = {}
    watcher = await lab.connect(node)
    try:
        while True:
            # Only the old ones: a session that lives for one statement is a login, which no ping is.
            rows = await watcher.fetch(
                "SELECT pid, client_port FROM pg_stat_activity WHERE usename = $1 AND state = 'idle'"
                " AND backend_start < now() - interval '2 s'",
                lab.monitor_user,
            )
            for row in rows:
                process = identify(row["pid"])
                if process is not None and process not in held:
                    print(f"holding the session of process {process.pid}", flush=True)
                    held[process] = asyncio.create_task(_hold(process, port, row["client_port"]))
            held = {process: task for process, task in held.items() if not task.done()}
            await asyncio.sleep(ADJUST_SECONDS)
    finally:
        for process, task in held.items():
            task.cancel()
            send(process, signal.SIGCONT)
        watcher.terminate()


async def _hold(process: ProcessId, server_port: int, client_port: int) -> None:
    """Until the session ends."""
    while send(process, signal.SIGSTOP):
        while not _is_waiting(server_port, client_port):
            if not is_alive(process):
                return
            await asyncio.sleep(GLANCE_SECONDS)
        await asyncio.sleep(LATE_SECONDS)
        send(process, signal.SIGCONT)
        # Long enough for everything that the monitor asks in one cycle, of which the ping is the first.
        await asyncio.sleep(AWAKE_SECONDS)


def _is_waiting(server_port: int, client_port: int) -> bool:
    """Whether bytes from the client wait to be read by the server."""
    ends = (f":{server_port:04X}", f":{client_port:04X}")
    for line in (PROC / "net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()  # two addresses, a state, tx_queue:rx_queue, all in hex
        if local.endswith(ends[0]) and remote.endswith(ends[1]):
            return int(queues.partition(":")[2], 16) > 0
    return False


KINDS: dict[str, Callable[..., Awaitable[None]]] = {
    "replication-lag": hold_replay,
    "connections": fill_connections,
    "cache-misses": read_cold,
    "slow-answers": slow_answers,
}


async def work(directory: Path, kind: str, arguments: list[str]) -> None:
    """Do one kind of work until killed; begin anew when a server went away beneath it."""
    lab = Lab.attach(directory)
    while True:
        try:
            await KINDS[kind](lab, *arguments)
        except (LabError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            print(f"{kind}: {error or type(error).__name__}: once more", flush=True)
        await asyncio.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    signal.setitimer(signal.ITIMER_REAL, LIFE_SECONDS)
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
