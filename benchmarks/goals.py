"""The goals of a benchmark: a figure by round, what it must be, and how it is told.

One JSON line per goal: ``{id, what, value, must, aim, unit, rounds, spread, missed, versions}``; ``value`` is the
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
from pathlib import Path
from typing import Any

DIGITS = 3
"""Of a figure; what is beyond them is noise."""
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
        spread = [self._rounded(value) for value in (min(self.values), max(self.values))]
        told: dict[str, Any] = {"id": self.id, "what": self.what, "value": self._rounded(self.value), "unit": self.unit}
        told |= {"must": self.must, "aim": self.aim, "better": "more" if self.more else "less"}
        told |= {"rounds": len(self.values), "spread": spread, "missed": self.missed}
        return told | dict(self.also) | {"versions": dict(versions)}

    def _rounded(self, value: float) -> float:
        return float(f"{value:.{DIGITS}g}")


def tell(goals: Iterable[Goal], versions: Mapping[str, str], *, markdown: bool = False) -> list[dict[str, Any]]:
    """One JSON line each on stdout (a table of Markdown instead), the table on stderr; the rows."""
    rows = [goal.row(versions) for goal in goals]
    if markdown:
        print(as_markdown(rows))
    else:
        for row in rows:
            print(json.dumps(row), flush=True)
        print(_table(rows), file=sys.stderr)
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


_TITLES = ("id", "goal", "value", "spread", "must", "aim", "")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    if "skipped" in row:
        return (row["id"], row["what"], "", "", "", "", f"skipped: {row['skipped']}")
    value, must, aim, more = row["value"], row["must"], row["aim"], row["better"] == "more"
    spread = " .. ".join(f"{one:g}" for one in row["spread"]) if row["rounds"] > 1 else ""
    bounds = [f"{'>=' if more else '<='} {bound:.{DIGITS}g}" if bound is not None else "" for bound in (must, aim)]
    reached = aim is not None and (value >= aim if more else value <= aim)
    verdict = "MISSED" if row["missed"] else "aim" if reached else "ok" if must is not None else ""
    return (row["id"], row["what"], f"{value:g} {row['unit']}".strip(), spread, *bounds, verdict)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [_TITLES, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same as a table of Markdown, and what it was measured with."""
    lines = [_TITLES, tuple("---" for _ in _TITLES), *map(_cells, rows)]
    used: dict[str, str] = next((row["versions"] for row in rows if "versions" in row), {})
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nMeasured with " + ", ".join(f"{name} {number}" for name, number in used.items()) + "."


def into(file: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put the table between the comments ``<!-- NAME -->`` and ``<!-- /NAME -->`` of a page, else ValueError."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = file.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{file}: expected {begin} and {end}, between which the table is to stand")
    file.write_text(f"{before}{begin}\n{as_markdown(rows)}\n{end}{after}", encoding="utf-8")
