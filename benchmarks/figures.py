"""Arithmetic and process figures that several benchmarks need."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path


def percentile(values: Sequence[float], rank: int) -> float:
    """The ``rank``-th of 100; the largest of fewer than two values, 0 of none."""
    if len(values) < 2:
        return max(values, default=0.0)
    return statistics.quantiles(values, n=100, method="inclusive")[rank - 1]


def resident(pid: int | str = "self") -> float:
    """Resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise ValueError("no VmRSS")
