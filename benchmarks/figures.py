"""Arithmetic and process figures that several benchmarks need."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

_AUXILIARY = tuple(
    f"postgres: {name}"
    for name in (
        "archiver", "autovacuum", "background", "checkpointer", "io worker", "logger", "logical replication", "startup",
        "walreceiver", "walsender", "walwriter",
    )
)  # fmt: skip
"""PostgreSQL's processes that work whether or not somebody is connected, as they name themselves."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PROCESS_CLOCK = 2
"""CPUCLOCK_SCHED of the kernel's posix-timers: the precise CPU time of a process, all of its threads together."""


def percentile(values: Sequence[float], rank: int) -> float:
    """The ``rank``-th of 100; the largest of fewer than two values, 0 of none."""
    if len(values) < 2:
        return max(values, default=0.0)
    return statistics.quantiles(values, n=100, method="inclusive")[rank - 1]


def resident(pid: int | str = "self") -> float:
    """Resident memory of a process, MiB."""
    return _memory(Path(f"/proc/{pid}/status"), "VmRSS:")


def proportional(pid: int) -> float:
    """Memory of a process, MiB, its share of what it has in common with others (PSS)."""
    return _memory(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _memory(file: Path, row: str) -> float:
    for line in file.read_text().splitlines():
        if line.startswith(row):
            return round(int(line.split()[1]) / 1024, 1)
    raise ValueError(f"no {row} in {file}")


def cpu(pid: int) -> float:
    """User and system CPU seconds of a living process so far, to the nanosecond. OSError when it is gone."""
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


def cpu_of_sessions(postmaster: int) -> float:
    """CPU seconds of a PostgreSQL server for its clients: of its own processes the postmaster alone, and backends.

    Of the living ones precisely, of backends that have ended to 10 ms.
    """
    spent = cpu(postmaster) + _reaped(postmaster)
    for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
        try:
            if not Path(f"/proc/{child}/cmdline").read_text().startswith(_AUXILIARY):
                spent += cpu(int(child))
        except OSError:
            continue  # ended just now: counted as reaped the next time
    return spent


def _reaped(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS
