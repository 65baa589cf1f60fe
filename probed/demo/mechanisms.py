"""How the lab's faults are caused and undone; what each does, and what Patroni then does, is told by its docstring.

Three kinds of function: those that only look, and decide on whom (``on_...``), those that break, and those that mend,
which may be repeated. They share a plan, which lives in a JSON file in between.

Patroni was watched in versions 4.1.5 and 3.3.11, at the lab's ttl 20, loop_wait 2 and retry_timeout 3 seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from probed.demo.lab import REPLICATION_USER, Lab, LabError
from probed.demo.waiting import until

Plan: TypeAlias = dict[str, Any]
"""What a fault remembers between its breaking and its healing, as JSON has it."""

EFFECT_SECONDS = 30.0
LOAD = "probed.demo.load"
FILL_PERCENT = 94
"""Of the slots that ordinary roles can use; what is left lets a monitor without reserved slots in, just."""
DEADLOCK_PAIRS = 10
DEADLOCKS_WANTED = 8


# -- on whom -------------------------------------------------------------------------------------------------------


async def _leader(lab: Lab) -> str:
    leader = await lab.leader()
    if leader is None:
        raise LabError("the lab has no leader now: heal it first")
    return leader


async def on_leader(lab: Lab) -> Plan:
    return {"node": await _leader(lab)}


async def on_replica(lab: Lab) -> Plan:
    leader = await _leader(lab)
    for name in lab.nodes:
        if name != leader:
            return {"node": name, "leader": leader}
    raise LabError("this lab has one node only: there is no replica")


# -- primary-kill, replica-kill ------------------------------------------------------------------------------------


async def kill_node(lab: Lab, plan: Plan) -> None:
    """The node's Patroni and PostgreSQL get SIGKILL together, as when a machine loses power.

    Leader killed: for ttl (20 s) /cluster of the survivor goes on to name the dead node as a running leader. Then the
    replica is promoted (timeline + 1) within 2 s, and the dead member is gone from the list. Replica killed: the member
    stays ``streaming`` in /cluster for ttl, then vanishes. Started again, either is a streaming replica after 2 to 4 s;
    an old leader that had written more than the new one knows is rewound first, by pg_rewind.
    """
    await lab.kill_node(plan["node"])


async def start_node(lab: Lab, plan: Plan) -> None:
    await lab.start_node(plan["node"])


# -- primary-freeze ------------------------------------------------------------------------------------------------


async def freeze_postgres(lab: Lab, plan: Plan) -> None:
    """The leader's postmaster and all its children are stopped (SIGSTOP); its Patroni lives.

    The port still accepts, nothing answers. Patroni's main loop waits on its own session for ever, so it does not
    renew the lock and **the leader does move**: after ttl (20 s) the replica is promoted, at 23 s it serves. The
    frozen node's REST answers at first (/liveness, /cluster), but each request that needs SQL keeps one of its five
    threads: after some five of them it is silent altogether, while its TCP port accepts. Thawed, the old server
    still believes to be primary for up to half a second (two primaries!), then its Patroni stops it, rewinds it if
    need be and has it stream again, 3 s after the thaw.
    """
    await lab.freeze_postgres(plan["node"])


async def thaw_postgres(lab: Lab, plan: Plan) -> None:
    await lab.thaw_postgres(plan["node"])


# -- switchover ----------------------------------------------------------------------------------------------------


async def switch_over(lab: Lab, plan: Plan) -> None:
    """Planned, by Patroni's REST. About 4 s: the old leader is ``stopping`` for 1 s, there is no writable server for
    1 to 2 s, /cluster names the new leader then, and the old one streams from it 2 s later."""
    await lab.switchover()


# -- no-leader -----------------------------------------------------------------------------------------------------


async def strand_standby(lab: Lab, plan: Plan) -> None:
    """Somebody pauses Patroni for maintenance, and restarts the leader's server as a standby: two standbys, no leader.

    The restart takes 1 s. In the next loop Patroni gives the lock back ("removed leader lock because postgres is not
    running as primary"), and while the cluster is paused no replica runs for leader, so it stays like this. Both
    servers answer, the other standby streams on from this one; nobody takes writes, and HAProxy's write port is dead.

    Healed, the server is restarted as the primary that it was, on the same timeline; Patroni takes the lock for it
    2 s later and is resumed. Resumed first, it would have promoted either of the two.
    """
    await lab.pause(True)
    await lab.restart_postgres(plan["node"], standby=True)

    async def missing() -> str:
        leader = await lab.leader()
        return f"{leader} to lose the lock" if leader else ""

    await in_force(lab, missing, "no-leader")


async def reinstate_leader(lab: Lab, plan: Plan) -> None:
    node = plan["node"]
    try:
        async with lab.session(node) as connection:
            standing_by = await connection.fetchval("SELECT pg_is_in_recovery()")
    except LabError:
        standing_by = True
    # Never where another node leads: there would be two primaries.
    if standing_by and await lab.leader() in (None, node):
        await lab.restart_postgres(node, standby=False)

        async def missing() -> str:
            return "" if await lab.leader() == node else f"{node} to lead"

        await until(missing, what="the leader", seconds=EFFECT_SECONDS, progress=lab.progress)
    await lab.pause(False)


# -- replication-lag -----------------------------------------------------------------------------------------------


async def hold_replay(lab: Lab, plan: Plan) -> None:
    """A transaction left open on the replica holds replay back, while the primary keeps writing.

    A child process reads a table on the replica, leaves that transaction open, and truncates the table on the primary:
    replay waits for the reader, for ever with max_standby_streaming_delay -1, while the WAL receiver streams on.

    Why not pg_wal_replay_pause(): Patroni resumes a paused replay by itself in its next loop (on PostgreSQL 14 and
    later; seen after 1.5 s). Why not recovery_min_apply_delay: that is an intended delay, no fault. Patroni sees no
    harm in a held replay: the member stays ``streaming``, ``lag`` in /cluster grows.
    """
    replica, leader = plan["node"], plan["leader"]
    async with lab.session(leader) as connection:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS lab_report AS SELECT 1 AS n;"
            "CREATE TABLE IF NOT EXISTS lab_trickle (at timestamptz NOT NULL DEFAULT now(), filler text)"
        )
    async with lab.session(replica) as connection:
        await connection.execute("ALTER SYSTEM SET max_standby_streaming_delay = -1")
        await connection.execute("SELECT pg_reload_conf()")
    lab.start_companion("load-replication-lag", LOAD, "replication-lag", replica)

    async def missing() -> str:
        demand_companion(lab, "load-replication-lag")
        try:
            async with lab.session(replica) as connection:
                held = await connection.fetchval(
                    "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM"
                    " pg_stat_activity WHERE backend_type = 'startup' AND wait_event_type = 'Lock')"
                )
        except LabError as error:
            return error.what
        return "" if held else f"replay on {replica} to stall"

    await in_force(lab, missing, "replication-lag", log=lab.companion_log("load-replication-lag"))


async def release_replay(lab: Lab, plan: Plan) -> None:
    await lab.kill_companion("load-replication-lag")
    for name in lab.nodes:
        try:
            async with lab.session(name) as connection:
                await connection.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
                await connection.execute("SELECT pg_reload_conf()")
        except LabError as error:
            lab.progress(f"left as it is: {error.what}")
    async with lab.session(await _leader(lab)) as connection:
        await connection.execute("DROP TABLE IF EXISTS lab_report, lab_trickle")
        target = await connection.fetchval("SELECT pg_current_wal_lsn()::text")

    async def missing() -> str:
        try:
            async with lab.session(plan["node"]) as connection:
                if not await connection.fetchval("SELECT pg_is_in_recovery()"):
                    return ""
                behind = await connection.fetchval(
                    "SELECT pg_wal_lsn_diff($1::text::pg_lsn, pg_last_wal_replay_lsn())::bigint", target
                )
        except LabError as error:
            return error.what
        return f"{plan['node']} to replay {behind} bytes" if behind > 0 else ""

    await until(missing, what="the replica to catch up", seconds=EFFECT_SECONDS, progress=lab.progress)


# -- wal-receiver --------------------------------------------------------------------------------------------------


async def cut_receivers(lab: Lab, plan: Plan) -> None:
    """The replication role may no longer log in, and the running senders are ended: as after a botched pg_hba.conf.

    The receivers try again every second (wal_retrieve_retry_interval) and fail, so pg_stat_wal_receiver stays empty.
    Nothing moves: the leader keeps its lock, Patroni's own sessions use another role. /patroni of the replica loses
    ``replication_state``, and in /cluster its state falls from ``streaming`` to ``running`` within one loop.
    """
    async with lab.session(plan["leader"]) as connection:
        await connection.execute(f"ALTER ROLE {REPLICATION_USER} NOLOGIN")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")

    async def missing() -> str:
        try:
            async with lab.session(plan["leader"]) as connection:
                left = await connection.fetchval("SELECT count(*) FROM pg_stat_replication")
            async with lab.session(plan["node"]) as connection:
                receiving = await connection.fetchval("SELECT count(*) FROM pg_stat_wal_receiver")
        except LabError as error:
            return error.what
        return f"{left} senders and {receiving} receivers to end" if left or receiving else ""

    await in_force(lab, missing, "wal-receiver")


async def join_receivers(lab: Lab, plan: Plan) -> None:
    async with lab.session(await _leader(lab)) as connection:
        await connection.execute(f"ALTER ROLE {REPLICATION_USER} LOGIN")


# -- connections ---------------------------------------------------------------------------------------------------


async def fill_connections(lab: Lab, plan: Plan) -> None:
    """An application that leaks sessions: a child process holds idle ones of an ordinary role on the leader, until
    94 % of the slots for ordinary roles are taken, and keeps them filled.

    Patroni is not shut out: it is a superuser, and those have three slots of their own.
    """
    lab.start_companion("load-connections", LOAD, "connections", plan["node"], str(FILL_PERCENT))

    async def missing() -> str:
        demand_companion(lab, "load-connections")
        try:
            async with lab.session(plan["node"]) as connection:
                used, usable = await slots(connection)
        except LabError as error:
            return error.what
        return "" if used >= 0.9 * usable else f"{used} of {usable} slots taken"

    await in_force(lab, missing, "connections", log=lab.companion_log("load-connections"))


async def free_connections(lab: Lab, plan: Plan) -> None:
    await lab.kill_companion("load-connections")


async def slots(connection: asyncpg.Connection) -> tuple[int, int]:
    """Client backends now, ours included, and how many ordinary roles could have."""
    row = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,"
        " current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        " - coalesce(current_setting('reserved_connections', true)::int, 0) AS usable"
    )
    assert row is not None
    return row["used"], row["usable"]


# -- deadlocks -----------------------------------------------------------------------------------------------------


async def deadlock(lab: Lab, plan: Plan) -> None:
    """Ten pairs of sessions lock each other out at the same time, so all ten are resolved after one deadlock_timeout
    (1 s); the table is dropped again. Over within 3 s; a counter that rose is all that stays."""
    node = plan["node"]
    async with lab.session(node) as connection:
        before = await connection.fetchval(DEADLOCKS)
        await connection.execute("DROP TABLE IF EXISTS lab_deadlock")
        await connection.execute(
            "CREATE TABLE lab_deadlock AS SELECT n, 0 AS hits FROM generate_series(1, $1::int) n", 2 * DEADLOCK_PAIRS
        )
    try:
        async with asyncio.timeout(EFFECT_SECONDS):
            victims = sum(
                await asyncio.gather(*(_one_deadlock(lab, node, 2 * pair + 1) for pair in range(DEADLOCK_PAIRS)))
            )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise LabError(f"PostgreSQL of {node}, while sessions were to block each other: {error}") from error
    finally:
        async with lab.session(node) as connection:
            await connection.execute("DROP TABLE IF EXISTS lab_deadlock")
    if victims < DEADLOCKS_WANTED:
        raise LabError(f"only {victims} deadlocks came about, {DEADLOCKS_WANTED} were wanted")

    async def missing() -> str:
        async with lab.session(node) as connection:
            counted = await connection.fetchval(DEADLOCKS) - before
        return "" if counted >= DEADLOCKS_WANTED else f"{counted} deadlocks counted"

    await in_force(lab, missing, "deadlocks")


DEADLOCKS = "SELECT sum(deadlocks)::bigint FROM pg_stat_database"


async def _one_deadlock(lab: Lab, node: str, row: int) -> int:
    """Two sessions, each holding one row and wanting the other's; how many were chosen as victims (1)."""
    both = await asyncio.gather(lab.connect(node), lab.connect(node))
    try:
        for connection, own in zip(both, (row, row + 1), strict=True):
            await connection.execute("BEGIN")
            await connection.execute(UPDATE, own)
        results = await asyncio.gather(
            both[0].execute(UPDATE, row + 1), both[1].execute(UPDATE, row), return_exceptions=True
        )
    finally:
        # In order, not terminate(): a session reports its deadlock to the counters when it ends.
        await asyncio.gather(*(connection.close(timeout=5) for connection in both), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncpg.DeadlockDetectedError):
            raise result
    return sum(isinstance(result, asyncpg.DeadlockDetectedError) for result in results)


UPDATE = "UPDATE lab_deadlock SET hits = hits + 1 WHERE n = $1"


# -- patroni-freeze ------------------------------------------------------------------------------------------------


async def freeze_patroni(lab: Lab, plan: Plan) -> None:
    """Patroni of a replica is stopped (SIGSTOP); its database streams on.

    A replica, because a leader whose Patroni is silent loses the lock: after ttl (20 s) the other node would be
    promoted while the old one goes on taking writes. The REST port accepts and never answers; the member stays
    ``streaming`` in /cluster for ttl, then vanishes. Thawed, it is back within half a second (/liveness 503 until its
    first loop).
    """
    await lab.freeze_patroni(plan["node"])


async def thaw_patroni(lab: Lab, plan: Plan) -> None:
    await lab.thaw_patroni(plan["node"])


# -- etcd-kill -----------------------------------------------------------------------------------------------------


async def on_etcd_majority(lab: Lab) -> Plan:
    members = len(lab.etcd_urls)
    return {"members": list(range(members))[-(members // 2 + 1) :]}


async def kill_etcd(lab: Lab, plan: Plan) -> None:
    """So many members get SIGKILL that the rest has no quorum: all of one, two of three.

    /cluster no longer answers (Patroni drops the connection after retry_timeout, 3 s; a survivor of three lets it
    answer from stale reads); /patroni does, with ``cluster_unlocked`` and a ``dcs_last_seen`` that stands still.
    Without failsafe mode the leader demotes itself after 5 s: its server restarts read-only by 7 s, the replica
    streams on from it, and nobody takes writes. Healed, the old leader is promoted in place (timeline + 1) 3 to 6 s
    after etcd is back.

    With failsafe mode everything goes on, ``failsafe_mode_is_active``. But the replicas then stand by the old leader
    for another ttl (20 s) after etcd is back: a switchover in that time is taken, and happens only at its end.
    """
    await asyncio.gather(*(lab.kill_etcd(index) for index in plan["members"]))


async def start_etcd(lab: Lab, plan: Plan) -> None:
    for index in plan["members"]:
        await lab.start_etcd(index)


# -- haproxy-kill --------------------------------------------------------------------------------------------------


async def on_haproxy(lab: Lab) -> Plan:
    if lab.haproxy_write_address is None:
        raise LabError("this lab was started without HAProxy")
    return {}


async def kill_haproxy(lab: Lab, plan: Plan) -> None:
    """HAProxy is gone, and with it the only address applications know; the nodes behind it are well."""
    await lab.kill_haproxy()


async def start_haproxy(lab: Lab, plan: Plan) -> None:
    await lab.start_haproxy()


# -- shared --------------------------------------------------------------------------------------------------------


async def in_force(lab: Lab, missing: Callable[[], Awaitable[str]], name: str, *, log: Path | None = None) -> None:
    """Wait until a fault does what it says. LabError after 30 s, or when ``missing`` raises it."""

    await until(missing, what=f"{name} to be in force", seconds=EFFECT_SECONDS, progress=lab.progress, log=log)


def demand_companion(lab: Lab, name: str) -> None:
    """LabError when the child process has ended."""
    if not lab.companion_runs(name):
        raise LabError(f"the child process {name} has ended", log=lab.companion_log(name))
