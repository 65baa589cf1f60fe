"""A made-up fortnight: what the probes of an instance say, with jitter, noise, trends and an incident now and then.

For figures about recorded samples, which need more of them than can be waited for. Everything follows from one seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from probed.model import Outcome, Reading, Sample, Target

START = 1_790_000_000.0
INSTANCE = "bench"
Says = Callable[[random.Random, int], tuple[Outcome, Mapping[str, Reading], str]]
"""(outcome, readings, reason) of the so-manieth cycle."""

OBSERVED, FAILED, NA = Outcome.OBSERVED, Outcome.FAILED, Outcome.NOT_APPLICABLE
A_DAY = 17_280


def _liveness(chance: random.Random, number: int) -> tuple[Outcome, Mapping[str, Reading], str]:
    if number % (3 * A_DAY) in range(9_000, 9_006):
        return FAILED, {}, "127.0.0.1:5432: connection refused"
    slow = 0.150 if number % A_DAY in range(4_000, 4_003) else 0.0
    ping = round(0.0007 * math.exp(chance.gauss(0, 0.35)) + slow, 6)
    if number % 6:
        return OBSERVED, {"ping_seconds": ping}, ""
    return OBSERVED, {"ping_seconds": ping, "login_seconds": round(0.008 * math.exp(chance.gauss(0, 0.3)), 6)}, ""


def _stats() -> Says:
    hit, read, deadlocks = 1_200_000_000.0, 31_000_000.0, 12.0

    def says(chance: random.Random, number: int) -> tuple[Outcome, Mapping[str, Reading], str]:
        nonlocal hit, read, deadlocks
        hit += chance.randrange(2_000, 60_000)
        read += chance.randrange(0, 700)
        deadlocks += 6 if number % (2 * A_DAY) == 12_000 else number % 4_001 == 0
        return OBSERVED, {
            "in_recovery": 0.0, "deadlocks": deadlocks, "blocks_hit": hit, "blocks_read": read,
            "backends": float(_around(chance, number, 38, 6)),
        }, ""  # fmt: skip

    return says


def _connections(chance: random.Random, number: int) -> tuple[Outcome, Mapping[str, Reading], str]:
    used = float(_around(chance, number, 34, 8) + (50 if number % A_DAY in range(7_000, 7_040) else 0))
    return OBSERVED, {"connections_used": used, "connections_usable": 97.0, "connections_used_pct": 100 * used / 97}, ""


def _hit_ratio(chance: random.Random, number: int) -> tuple[Outcome, Mapping[str, Reading], str]:
    blocks = chance.randrange(20_000, 700_000)
    return OBSERVED, {
        "hit_ratio": 100 - 100 * chance.randrange(0, 9_000) / blocks, "blocks": float(blocks),
        "up_seconds": 60.0 * number,
    }, ""  # fmt: skip


def _lag(chance: random.Random, number: int) -> tuple[Outcome, Mapping[str, Reading], str]:
    late = number % A_DAY in range(15_000, 15_030)
    idle = chance.random() < 0.7
    seconds = 40.0 + number % 7 if late else 0.0 if idle else round(chance.random() / 50, 6)
    return OBSERVED, {"lag_seconds": seconds, "lag_bytes": 0.0 if idle else float(chance.randrange(60_000))}, ""


def _always(**readings: Reading) -> Says:
    return lambda _, __: (OBSERVED, readings, "")


def _now_and_then(every: int, reason: str, **readings: Reading) -> Says:
    """Well, but for four cycles of ``every``."""
    return lambda _, number: (FAILED, {}, reason) if number % every in range(900, 904) else (OBSERVED, readings, "")


def _leader(_: random.Random, number: int) -> tuple[Outcome, Mapping[str, Reading], str]:
    term = number // (4 * A_DAY)
    return OBSERVED, {
        "has_leader": 0.0 if number % (4 * A_DAY) in range(1, 4) else 1.0, "leader": f"node{1 + term % 2}",
        "timeline": 1.0 + term, "writable_nodes": 1.0, "rival_primaries": 1.0,
    }, ""  # fmt: skip


def _disk(chance: random.Random, number: int) -> tuple[Outcome, Mapping[str, Reading], str]:
    used = 7_400_000_000 + 4096 * (number * 40 + chance.randrange(200))
    size = 64_000_000_000
    return OBSERVED, {
        "used_bytes": float(used), "used_pct": 100 * used / size, "free_bytes": float(size - used),
        "inodes_used_pct": 3.2,
    }, ""  # fmt: skip


def _around(chance: random.Random, number: int, middle: int, spread: int) -> int:
    """By day more than by night."""
    return round(middle + spread * math.sin(2 * math.pi * number / A_DAY) + chance.gauss(0, spread / 4))


PROBES: Mapping[str, tuple[float, Callable[[], Says]]] = {
    "postgres_liveness": (5.0, lambda: _liveness),
    "postgres_stats": (60.0, _stats),
    "connections": (5.0, lambda: _connections),
    "cache_hit_ratio": (60.0, lambda: _hit_ratio),
    "replication_lag": (5.0, lambda: _lag),
    "wal_receiver": (5.0, lambda: _always(wal_receiver_streaming=1.0)),
    "patroni_member": (5.0, lambda: _always(healthy=1.0, state="streaming")),
    "leader": (5.0, lambda: _leader),
    "etcd_quorum": (5.0, lambda: _always(healthy_members=3.0, members=3.0, quorum=2.0)),
    "haproxy_stats": (5.0, lambda: _always(sessions=31.0, servers_up=4.0, write_servers_up=1.0)),
    "disk_usage": (60.0, lambda: _disk),
    "oom": (5.0, lambda: _always(oom_kills=0.0, oom_kills_total=2.0)),
    **{
        name: (5.0, lambda: _now_and_then(2 * A_DAY, "HTTP 503", http_status=200.0))
        for name in ("api_gateway", "auth", "rest", "realtime", "storage", "studio", "component")
    },
}
"""Probe -> (seconds between two cycles, what it says)."""


def samples(probe: str, target: Target, days: float, seed: int = 1) -> Iterator[Sample]:
    """As rounds would have taken them: each on its grid, a little late, now and then more so."""
    interval, make = PROBES[probe]
    says, chance = make(), random.Random(f"{probe} {target.key} {seed}")
    for number in count():
        if number * interval >= days * 86_400:
            return
        late = chance.expovariate(1 / 0.0008) + (chance.random() / 20 if chance.random() < 0.01 else 0.0)
        mono = round(5_000.0 + number * interval + late, 3)
        outcome, readings, reason = says(chance, number)
        yield Sample(
            target, probe, outcome, round(START + mono + chance.random() / 4_000, 3), mono,
            readings=readings, reason=reason, kind="refused" if outcome is FAILED else "",
            series="7405678/1" if probe in ("postgres_stats", "leader") else "",
        )  # fmt: skip
