"""The goals of a benchmark: a figure by round, what it must be, and how it is told.

One JSON line per goal: ``{id, what, value, must, aim, unit, rounds, spread, versions, missed}``; ``value`` is the
median over the rounds, ``spread`` the least and the greatest of them.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

TOLERANCE = 1.3
"""The worst round of a met goal may be this many times what it must be."""


@dataclass(frozen=True)
class Goal:
    """One goal of the table: ``values`` are what was measured, one a round; both bounds are inclusive."""

    id: str
    what: str
    values: Sequence[float]
    must: float | None = None
    aim: float | None = None
    unit: str = ""
    more: bool = False
    """Whether more is better."""
    skipped: str = ""
    """Why there is no figure."""
    digits: int = 3
    also: Mapping[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def missed(self) -> bool:
        """The median, or the worst round by far."""
        if self.must is None or not self.values:
            return False
        if self.more:
            return self.value < self.must or min(self.values) * TOLERANCE < self.must
        return self.value > self.must or max(self.values) > self.must * TOLERANCE

    def row(self, versions: Mapping[str, str]) -> dict[str, Any]:
        """As a JSON line."""
        if not self.values:
            return {"id": self.id, "what": self.what, "skipped": self.skipped}
        value = round(self.value, self.digits)
        spread = [round(min(self.values), self.digits), round(max(self.values), self.digits)]
        told: dict[str, Any] = {"id": self.id, "what": self.what, "value": value, "unit": self.unit}
        told |= {"must": self.must, "aim": self.aim, "rounds": len(self.values), "spread": spread}
        return told | dict(self.also) | {"missed": self.missed, "versions": dict(versions)}


def tell(goals: Iterable[Goal], versions: Mapping[str, str], *, markdown: bool = False) -> list[dict[str, Any]]:
    """One JSON line each on stdout (a table of Markdown instead), the table on stderr; the rows."""
    goals = list(goals)
    rows = [goal.row(versions) for goal in goals]
    if markdown:
        print(_markdown(goals))
    else:
        for row in rows:
            print(json.dumps(row), flush=True)
        print(_table(goals), file=sys.stderr)
    return rows


def versions(**more: str) -> dict[str, str]:
    """What was measured with what."""
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for package in ("aiohttp", "asyncpg", "uvloop", "prometheus-client"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found | more


def _cells(goal: Goal) -> tuple[str, ...]:
    if not goal.values:
        return (goal.id, goal.what, "-", "-", "-", "-", f"skipped: {goal.skipped}")
    low, high = min(goal.values), max(goal.values)
    spread = f"{low:.{goal.digits}g}..{high:.{goal.digits}g}" if len(goal.values) > 1 else ""
    sign = ">=" if goal.more else "<="
    bounds = [f"{sign} {bound:g}" if bound is not None else "" for bound in (goal.must, goal.aim)]
    reached = goal.aim is not None and (goal.value >= goal.aim if goal.more else goal.value <= goal.aim)
    verdict = "MISSED" if goal.missed else "aim" if reached else "ok" if goal.must is not None else ""
    value = f"{goal.value:.{goal.digits}g} {goal.unit}".strip()
    return (goal.id, goal.what, value, spread, *bounds, verdict)


_TITLES = ("id", "goal", "value", "spread", "must", "aim", "verdict")


def _table(goals: Sequence[Goal]) -> str:
    rows = [_TITLES, *map(_cells, goals)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _markdown(goals: Sequence[Goal]) -> str:
    rows = [_TITLES, tuple("---" for _ in _TITLES), *map(_cells, goals)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
