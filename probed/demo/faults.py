"""Faults that a newcomer causes on purpose, each with the events that must follow.

``break_`` and ``heal`` usually run in different processes, so what a fault must remember in between (who was the
leader) lies in the lab's directory, ``faults/<name>.json``: a fault is broken exactly while that file exists.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from probed.demo import mechanisms, strains
from probed.demo.lab import Lab, LabError
from probed.demo.mechanisms import Plan

HEAL_SECONDS = 90.0


class Fault(Struct, frozen=True):
    """One way to break the lab.

    ``says`` is one sentence for a newcomer. ``expects`` are the ids of events that must appear while it lasts.
    ``break_`` returns once the fault is in force; LabError when it cannot be caused, or is in force already.
    ``heal`` returns once the lab is healthy again, within 90 s, unless another fault is still broken; LabError when
    the fault is not broken. What is waited for goes to ``lab.progress``.
    """

    name: str
    says: str
    expects: tuple[str, ...]
    break_: Callable[[Lab], Awaitable[None]]
    heal: Callable[[Lab], Awaitable[None]]


def find_fault(name: str) -> Fault:
    """The fault of this name. LabError with the nearest name when there is none."""
    if name in FAULTS:
        return FAULTS[name]
    near = difflib.get_close_matches(name, FAULTS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FAULTS)}"
    raise LabError(f"no fault {name!r}: {hint}")


def broken_faults(lab: Lab) -> list[str]:
    """Names of the faults that are broken now, oldest first."""
    notes = sorted(_folder(lab).glob("*.json"), key=lambda path: path.stat().st_mtime)
    return [path.stem for path in notes if path.stem in FAULTS]


def _folder(lab: Lab) -> Path:
    return lab.directory / "faults"


def _fault(
    name: str,
    says: str,
    expects: tuple[str, ...],
    *,
    plan: Callable[[Lab], Awaitable[Plan]],
    act: Callable[[Lab, Plan], Awaitable[None]],
    mend: Callable[[Lab, Plan], Awaitable[None]] | None,
) -> Fault:
    """Put the remembering, the order of things and the waiting around a fault's three own steps.

    ``plan`` only looks, and decides on whom; ``act`` does it; ``mend`` undoes it and may be repeated. Without
    ``mend`` the fault is over by itself: it never stays broken, and healing it only waits for a healthy cluster.
    """

    async def break_(lab: Lab) -> None:
        note = _folder(lab) / f"{name}.json"
        if note.exists():
            raise LabError(f"{name} is broken already; heal it first: probed demo heal {name}")
        decided = await plan(lab)
        # Written before the deed: when that fails half-way, heal knows what to mend.
        try:
            with note.open("x") as file:
                json.dump(decided, file)
        except FileExistsError:
            raise LabError(f"{name} is being broken by somebody else at this moment") from None
        await act(lab, decided)
        if mend is None:
            note.unlink(missing_ok=True)

    async def heal(lab: Lab) -> None:
        note = _folder(lab) / f"{name}.json"
        if mend is not None:
            try:
                decided = json.loads(note.read_text())
            except FileNotFoundError:
                raise LabError(f"{name} is not broken: nothing to heal") from None
            await mend(lab, decided)
        others = [other for other in broken_faults(lab) if other != name]
        if others:
            lab.progress(f"not waiting for a healthy cluster: still broken: {', '.join(others)}")
        else:
            await lab.wait_healthy(seconds=HEAL_SECONDS)
        note.unlink(missing_ok=True)

    return Fault(name, says, expects, break_, heal)


async def _with_components(lab: Lab) -> Plan:
    if not lab.components:
        raise LabError("this lab was started without components")
    return {}


def _stand_in(component: str, state: str, name: str, says: str, event: str) -> Fault:
    """A component that cannot be run here is switched to another of its recorded states."""
    return _fault(
        name,
        says,
        (event,),
        plan=_with_components,
        act=lambda lab, plan: lab.switch(component, state),
        mend=lambda lab, plan: lab.switch(component),
    )


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        fault.name: fault
        for fault in (
            _fault(
                "primary-kill",
                "The leader's machine dies: Patroni and PostgreSQL get kill -9; the replica takes over after 20 s.",
                ("database_unavailable", "ha_switchover"),
                plan=mechanisms.on_leader,
                act=mechanisms.kill_node,
                mend=mechanisms.start_node,
            ),
            _fault(
                "primary-freeze",
                "The leader's PostgreSQL hangs: it accepts connections and never answers; the replica takes over.",
                ("database_unavailable", "ha_switchover"),
                plan=mechanisms.on_leader,
                act=mechanisms.freeze_postgres,
                mend=mechanisms.thaw_postgres,
            ),
            _fault(
                "switchover",
                "The leader role moves to a replica as planned, through Patroni.",
                ("ha_switchover",),
                plan=mechanisms.on_replica,
                act=mechanisms.switch_over,
                mend=None,
            ),
            _fault(
                "replication-lag",
                "A transaction left open on a replica holds replay back, while the primary keeps writing.",
                ("replication_lag_high",),
                plan=mechanisms.on_replica,
                act=mechanisms.hold_replay,
                mend=mechanisms.release_replay,
            ),
            _fault(
                "wal-receiver",
                "The replication role may no longer log in: every WAL receiver is cut, both servers live.",
                ("wal_receiver_interrupted",),
                plan=mechanisms.on_replica,
                act=mechanisms.cut_receivers,
                mend=mechanisms.join_receivers,
            ),
            _fault(
                "connections",
                "An application leaks sessions until nine tenths of the leader's slots are taken.",
                ("connections_high",),
                plan=mechanisms.on_leader,
                act=mechanisms.fill_connections,
                mend=mechanisms.free_connections,
            ),
            _fault(
                "deadlocks",
                "Ten pairs of sessions on the leader deadlock within two seconds.",
                ("deadlocks_frequent",),
                plan=mechanisms.on_leader,
                act=mechanisms.deadlock,
                mend=None,
            ),
            _fault(
                "replica-kill",
                "A replica's machine dies: Patroni and PostgreSQL get kill -9.",
                ("database_unavailable",),
                plan=mechanisms.on_replica,
                act=mechanisms.kill_node,
                mend=mechanisms.start_node,
            ),
            _fault(
                "patroni-freeze",
                "A replica's Patroni hangs while its database goes on.",
                ("patroni_node_abnormal",),
                plan=mechanisms.on_replica,
                act=mechanisms.freeze_patroni,
                mend=mechanisms.thaw_patroni,
            ),
            _fault(
                "etcd-kill",
                "etcd, Patroni's memory, loses its quorum; without failsafe mode the leader turns read-only.",
                ("etcd_unavailable",),
                plan=mechanisms.on_etcd_majority,
                act=mechanisms.kill_etcd,
                mend=mechanisms.start_etcd,
            ),
            _fault(
                "no-leader",
                "Patroni is paused for maintenance, and the leader restarted as a standby: two standbys, no leader.",
                ("no_leader",),
                plan=mechanisms.on_leader,
                act=mechanisms.strand_standby,
                mend=mechanisms.reinstate_leader,
            ),
            _fault(
                "haproxy-kill",
                "HAProxy dies, and with it the address that applications write to.",
                ("haproxy_unavailable",),
                plan=mechanisms.on_haproxy,
                act=mechanisms.kill_haproxy,
                mend=mechanisms.start_haproxy,
            ),
            _fault(
                "cache-misses",
                "A report on the leader reads a table four times as large as shared_buffers, once a second.",
                ("cache_hit_ratio_low",),
                plan=mechanisms.on_leader,
                act=strains.read_cold,
                mend=strains.stop_reading,
            ),
            _fault(
                "slow-answers",
                "The leader answers the monitor 0.75 s late: its sessions sleep while a statement waits.",
                ("ping_latency_high",),
                plan=mechanisms.on_leader,
                act=strains.slow_down,
                mend=strains.speed_up,
            ),
            _fault(
                "runaway-job",
                "A job writes 350 MB into the leader's database, which had 25 MB.",
                ("capacity_high",),
                plan=mechanisms.on_leader,
                act=strains.grow,
                mend=strains.shrink,
            ),
            _fault(
                "oom-kill",
                "The kernel's counter says that a process of the leader was killed for lack of memory (none was).",
                ("oom_killed",),
                plan=mechanisms.on_leader,
                act=strains.count_a_kill,
                mend=None,
            ),
            _stand_in(
                "kong",
                "config_lost",
                "gateway-amnesia",
                "Kong restarts without its declarative file: it answers, and knows no route.",
                "api_gateway_unavailable",
            ),
            _stand_in(
                "auth",
                "starting",
                "auth-exit",
                "GoTrue was started while the database was away: it migrates before it listens, and exits.",
                "auth_unavailable",
            ),
            _stand_in(
                "rest",
                "full",
                "rest-pool",
                "PostgREST finds no free connection in its pool: every request ends with 504 PGRST003.",
                "rest_unavailable",
            ),
            _stand_in(
                "realtime",
                "frozen",
                "realtime-freeze",
                "Realtime hangs: it accepts connections and never answers.",
                "realtime_unavailable",
            ),
            _stand_in(
                "storage",
                "starting",
                "storage-exit",
                'Storage was started while the database was away: "Server not started with error", and it exits.',
                "storage_unavailable",
            ),
            _stand_in(
                "studio",
                "broken",
                "studio-error",
                "Studio answers every page with HTTP 500.",
                "studio_unavailable",
            ),
            _fault(
                "meta-kill",
                "postgres-meta gets kill -9 (its stand-in, where npm is missing, stops listening).",
                ("component_abnormal",),
                plan=_with_components,
                act=lambda lab, plan: lab.kill_meta(),
                mend=lambda lab, plan: lab.start_meta(),
            ),
        )
    }
)
