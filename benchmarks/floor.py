"""The bare floor: one instance cycle's work (R22) in a loop, and nothing else. FROZEN: every ratio is told against it.

``python -m benchmarks.floor FILE [asyncio|uvloop]``; FILE is JSON: ``{"nodes": [dsn, dsn], "urls": [[method, url, is
it JSON], 12 times], "disk": path, "interval": seconds}``. It runs until it is ended.

R22: two nodes x (``SELECT 1`` timed and one combined query, on one warm connection), twelve HTTP requests kept alive
of which three are parsed as JSON, ``oom_kill`` of /proc/vmstat, statvfs, 22 policies judged, 36 metrics set. No
schedule but a sleep, no event, store, recording or error handling. Do not make it faster or slower: change the daemon.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from prometheus_client import CollectorRegistry, Gauge

STATS = """
WITH totals AS MATERIALIZED (
    SELECT coalesce(sum(numbackends), 0)::int AS backends, sum(deadlocks)::float8 AS deadlocks,
           sum(blks_hit)::float8 AS blocks_hit, sum(blks_read)::float8 AS blocks_read, max(stats_reset) AS stats_reset
    FROM pg_catalog.pg_stat_database
), limits AS MATERIALIZED (
    SELECT current_setting('max_connections')::int
           - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true), '0')::int AS usable,
           pg_has_role('pg_read_all_stats', 'usage') AS may_read
)
SELECT pg_is_in_recovery() AS in_recovery, totals.*, limits.*, pg_postmaster_start_time() AS started_at,
    CASE WHEN limits.may_read AND totals.backends >= 0.78 * limits.usable
         THEN (SELECT count(*)::int FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')
    END AS client_backends,
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn() - '0/0'::pg_lsn END::float8 AS current_lsn,
    CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline,
    CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::float8 END AS replay_lsn,
    CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::float8 END AS receive_lsn,
    CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END AS replay_paused,
    extract(epoch FROM current_setting('recovery_min_apply_delay')::interval)::float8 AS apply_delay,
    receiver.pid AS receiver_pid, receiver.status AS receiver_status, receiver.received_tli,
    (receiver.latest_end_lsn - '0/0'::pg_lsn)::float8 AS latest_end_lsn
FROM totals CROSS JOIN limits LEFT JOIN pg_catalog.pg_stat_wal_receiver receiver ON true
"""
POLICIES, METRICS = 22, 36
TIMEOUT = 0.5


class Policy:
    """Count in a row, open, resolve: as little as a policy can be."""

    __slots__ = ("count", "limit", "open", "seen")

    def __init__(self, limit: float, count: int) -> None:
        self.limit, self.count, self.seen, self.open = limit, count, 0, False

    def judge(self, value: float) -> bool:
        if value < self.limit:
            self.seen = 0
            self.open = False
            return False
        self.seen += 1
        self.open = self.seen >= self.count
        return self.open


async def _node(connection: asyncpg.Connection[asyncpg.Record], readings: list[float]) -> None:
    async with asyncio.timeout(TIMEOUT):
        started = time.perf_counter()
        await connection.fetchval("SELECT 1")
        readings.append(time.perf_counter() - started)
        row = await connection.fetchrow(STATS)
        assert row is not None
        readings.append(float(row["backends"]))


async def _component(session: aiohttp.ClientSession, method: str, url: str, body: bool, readings: list[float]) -> None:
    async with asyncio.timeout(TIMEOUT), session.request(method, url, allow_redirects=False) as response:
        text = await response.read()
        if body:
            json.loads(text)
        readings.append(float(response.status))


def _oom_kills() -> float:
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("oom_kill "):
            return float(line.split()[1])
    return 0.0


async def main(nodes: Sequence[str], urls: Sequence[tuple[str, str, bool]], disk: str, interval: float) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("reading", "a reading", ["n"], registry=registry)
    children = [gauge.labels(str(number)) for number in range(METRICS)]
    policies = [Policy(1e18, 3) for _ in range(POLICIES)]
    connections = [await asyncpg.connect(dsn) for dsn in nodes]
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=75)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        while True:
            now = time.monotonic()
            await asyncio.sleep(math.ceil(now / interval) * interval - now)
            readings: list[float] = []
            await asyncio.gather(
                *(_node(connection, readings) for connection in connections),
                *(_component(session, method, url, body, readings) for method, url, body in urls),
            )
            space = os.statvfs(disk)
            readings += [_oom_kills(), float(space.f_blocks - space.f_bfree)]
            for number, policy in enumerate(policies):
                policy.judge(readings[number % len(readings)])
            for number, child in enumerate(children):
                child.set(readings[number % len(readings)])


def start(settings: dict[str, Any], loop: str) -> None:
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(**settings))


if __name__ == "__main__":
    start(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2] if len(sys.argv) > 2 else "asyncio")
