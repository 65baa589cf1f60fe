"""Arithmetic and process figures that several benchmarks need."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

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


def cpu_of_family(pid: int) -> float:
    """CPU seconds of a process and its children: of the living ones precisely, of those that ended to 10 ms."""
    spent = cpu(pid) + _reaped(pid)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            spent += cpu(int(child))
        except OSError:
            continue  # ended just now: counted as reaped the next time
    return spent


def _reaped(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS
