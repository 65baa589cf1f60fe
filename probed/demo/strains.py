"""Faults of one machine: a cache that misses, answers that come late, a job that runs away, a kill by the kernel.

Like :mod:`probed.demo.mechanisms`: what each does is told by its docstring; those that mend may be repeated.
"""

from __future__ import annotations

from probed.demo.blueprint import OOM_EVENTS
from probed.demo.lab import Lab
from probed.demo.mechanisms import EFFECT_SECONDS, LOAD, Plan, demand_companion, in_force

COLD_MEGABYTES = 64
"""Of the table that does not fit into shared_buffers (16 MB)."""
COLD_BLOCKS = 20_000
GROWTH_MEGABYTES = 320
CAPACITY_BYTES = 256 * 2**20
"""The demo's capacity threshold; its databases have 25 MB to begin with."""


# -- cache-misses --------------------------------------------------------------------------------------------------


async def read_cold(lab: Lab, plan: Plan) -> None:
    """A report reads a table of 64 MB once a second, on a server with 16 MB of shared_buffers.

    PostgreSQL reads a table larger than a quarter of shared_buffers through a ring of 256 kB, so that nearly every
    block counts as read; the operating system has them all, so the disk is at rest. The table is unlogged: a replica
    never hears of it.
    """
    node = plan["node"]
    async with lab.session(node, seconds=30.0) as connection:
        await connection.execute("DROP TABLE IF EXISTS lab_cold")
        await connection.execute(
            "CREATE UNLOGGED TABLE lab_cold AS"
            " SELECT n, repeat('x', 1000) AS filler FROM generate_series(1, 1000 * $1::int) n",
            COLD_MEGABYTES,
        )
        before = await connection.fetchval(BLOCKS_READ)
    lab.start_companion("load-cache-misses", LOAD, "cache-misses", node)

    async def missing() -> str:
        demand_companion(lab, "load-cache-misses")
        async with lab.session(node) as connection:
            read = await connection.fetchval(BLOCKS_READ) - before
        return "" if read >= COLD_BLOCKS else f"{read} blocks read"

    await in_force(lab, missing, "cache-misses", log=lab.companion_log("load-cache-misses"))


BLOCKS_READ = "SELECT sum(blks_read)::bigint FROM pg_stat_database"


async def stop_reading(lab: Lab, plan: Plan) -> None:
    await lab.kill_companion("load-cache-misses")
    async with lab.session(plan["node"], seconds=10.0) as connection:
        if not await connection.fetchval("SELECT pg_is_in_recovery()"):
            await connection.execute("DROP TABLE IF EXISTS lab_cold")


# -- slow-answers --------------------------------------------------------------------------------------------------


async def slow_down(lab: Lab, plan: Plan) -> None:
    """The monitor's sessions on the leader sleep (SIGSTOP), and wake 0.75 s after a statement has come in.

    So a statement really waits on the path between the two, as it does on a saturated server or link; everybody else's
    sessions are served as ever. A child process sees the statement in the kernel's receive queue (/proc/net/tcp).
    """
    log = lab.companion_log("load-slow-answers")
    log.unlink(missing_ok=True)
    lab.start_companion("load-slow-answers", LOAD, "slow-answers", plan["node"])

    async def missing() -> str:
        demand_companion(lab, "load-slow-answers")
        return "" if log.exists() and "holding" in log.read_text() else "a session of the monitor to hold"

    await in_force(lab, missing, "slow-answers", log=log)


async def speed_up(lab: Lab, plan: Plan) -> None:
    await lab.kill_companion("load-slow-answers")
    await lab.thaw_postgres(plan["node"])


# -- runaway-job ---------------------------------------------------------------------------------------------------


async def grow(lab: Lab, plan: Plan) -> None:
    """A job writes some 350 MB into one table on the leader; unlogged, so that the replica stays as it is.

    Not a file that fills the disk: how full that is, other programs decide as well.
    """
    async with lab.session(plan["node"], seconds=EFFECT_SECONDS) as connection:
        await connection.execute("DROP TABLE IF EXISTS lab_growth")
        await connection.execute(
            "CREATE UNLOGGED TABLE lab_growth AS SELECT repeat('x', 1000) AS filler"
            " FROM generate_series(1, 1000 * $1::int)",
            GROWTH_MEGABYTES,
        )


async def shrink(lab: Lab, plan: Plan) -> None:
    async with lab.session(plan["node"], seconds=10.0) as connection:
        if not await connection.fetchval("SELECT pg_is_in_recovery()"):
            await connection.execute("DROP TABLE IF EXISTS lab_growth")


# -- oom-kill ------------------------------------------------------------------------------------------------------


async def count_a_kill(lab: Lab, plan: Plan) -> None:
    """The counter ``oom_kill`` in a node's memory.events goes up by one, as the kernel has it do after a kill.

    The file is the lab's own, and only written as the kernel would: a real kill needs a cgroup with a limit, which an
    ordinary user may not make.
    """
    path = lab.oom_directory(plan["node"]) / OOM_EVENTS
    lines = [line.split() for line in path.read_text().splitlines()]
    text = "".join(f"{key} {int(value) + (key in ('oom', 'oom_kill'))}\n" for key, value in lines)
    # In place and in one write: the kernel's file is never absent, and never half.
    with path.open("r+") as file:
        file.write(text)
