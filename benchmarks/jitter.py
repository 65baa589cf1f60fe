"""How late the cycles of 20 honest targets start while 180 others hang, in each way of hanging in turn.

Each way gets a daemon of its own in a process of its own (``benchmarks.crowd``), so that memory is its own, too. Beside
it a process that only sleeps shows what the machine itself does; on a busy machine compare ``worked``, the longest that
the event loop had to work at a stretch (CPU time), with ``blocked``, which counts waiting for a core, too. A way during
which the sleeping process itself was late is measured again, twice at most; the quietest time counts. One JSON line per
way, then a table on stderr.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import punctual
from tests.ways import DNS, WAYS

SECONDS = 15.0
LATE_P99_MS, LATE_MAX_MS = 50.0, 250.0
RESIDENT_MIB = 150.0
QUIET_P99_MS, TRIES = 5.0, 3
"""How late a process that only sleeps may be, for what is measured beside it to say something of the daemon."""


async def run(
    seconds: float | None = None, *, alone: bool = False, targets: int | None = None, interval: float | None = None,
    scrape: float | None = None, markdown: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """A thousand healthy targets (``benchmarks.punctual``), then the hung ones; the healthy alone with ``targets``."""
    rows = await punctual.run(seconds, targets=targets, interval=interval, scrape=scrape, markdown=markdown)
    return rows if targets else rows + await hung(seconds, alone=alone)


async def hung(seconds: float | None = None, *, alone: bool = False) -> list[dict[str, Any]]:
    """Each way of hanging in turn."""
    rows: list[dict[str, Any]] = []
    for name in ("honest", *WAYS, DNS.name, "all"):
        row = await _quietest(name, seconds or SECONDS, alone=alone)
        if "skipped" not in row:
            row["grew_mib"] = round(row["rss_mib"] - (rows[0] if rows else row)["rss_mib"], 1)
            row["missed"] = _missed(row)
        print(json.dumps(row), flush=True)
        rows.append(row)
    print(_table(rows), file=sys.stderr)
    return rows


async def _quietest(name: str, seconds: float, *, alone: bool) -> dict[str, Any]:
    tried: list[dict[str, Any]] = []
    while len(tried) < TRIES:
        row = await _one(name, seconds, alone=alone)
        tried.append(row)
        if "skipped" in row or row["idle_p99_ms"] <= QUIET_P99_MS:
            return row
    return min(tried, key=lambda row: float(row["idle_p99_ms"]))


async def _one(name: str, seconds: float, *, alone: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.crowd", name, str(seconds), *(["alone"] if alone else [])]
    if name == DNS.name:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *user, "--mount", "--net", *command]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if not output and name == DNS.name:
        return {"way": name, "skipped": "needs namespaces of its own: run as root, or allow unprivileged ones"}
    row: dict[str, Any] = json.loads(output)
    return row


def _missed(row: dict[str, Any]) -> list[str]:
    """The promises that this way broke."""
    bounds = {"late_p99_ms": LATE_P99_MS, "late_max_ms": LATE_MAX_MS, "rss_mib": RESIDENT_MIB, "honest_not_observed": 0}
    missed = [f"{name} {row[name]} > {bound:g}" for name, bound in bounds.items() if row[name] > bound]
    # One slot of each target may fall on either side of the end.
    lost = row["honest_slots"] - row["honest_samples"]
    return missed + ([f"{lost} slots lost"] if lost > row["honest_targets"] else [])


_COLUMNS = (
    ("way", "way", 30), ("p99 ms", "late_p99_ms", 7), ("max ms", "late_max_ms", 7), ("blocked", "blocked_max_ms", 8),
    ("worked", "worked_max_ms", 8),
    ("idle p99", "idle_p99_ms", 9), ("idle max", "idle_max_ms", 9), ("rss MiB", "rss_mib", 8), ("grew", "grew_mib", 6),
    ("cores", "cores", 6),
)  # fmt: skip


def _table(rows: Sequence[dict[str, Any]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return "".join(
            str(cell).ljust(width) if index == 0 else str(cell).rjust(width)
            for index, (cell, (*_, width)) in enumerate(zip(cells, _COLUMNS, strict=True))
        )

    told = [line([title for title, *_ in _COLUMNS])]
    for row in rows:
        if "skipped" in row:
            told.append(f"{row['way']:30}skipped: {row['skipped']}")
            continue
        told.append(line([row[key] for _, key, _ in _COLUMNS]) + "".join(f"  {word}" for word in row["missed"]))
    return "\n".join(told)
