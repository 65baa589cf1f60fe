"""The evaluators once more, written from the contract alone: over whole histories, with lists instead of counters.

Slow and short. ``probed.evaluators`` folds one sample at a time and keeps a few numbers; what it says must be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Verdict = Literal["meets", "between", "clears", "blind", "absent"]
"""What a sample says; ``between`` neither meets nor clears (``resolve_when``), ``absent`` is not applicable."""


@dataclass(frozen=True)
class Seen:
    at: float
    verdict: Verdict
    away: float = 0.0
    """Seconds for which the daemon was stopped just before this sample."""


def episodes(history: Sequence[Seen], *, count: int, resolve: int, max_gap: int, interval: float) -> str:
    """One character per sample: ``.`` nothing, ``O`` opened, ``R`` resolved."""
    told, is_open = "", False
    streak: list[Verdict] = []  # conclusive verdicts in a row over which the episode may still be decided
    silent: list[Verdict] = []  # inconclusive ones since the last of them
    last = None
    for seen in history:
        if seen.away > max(2 * interval, 60):
            streak = []
        if last is not None and not seen.away and seen.at - last > max_gap * interval:
            streak = []
        last = seen.at
        if seen.verdict in ("blind", "absent"):
            silent.append(seen.verdict)
            if not is_open and len(silent) > max_gap:
                streak = []
            if is_open and silent[-resolve:] == ["absent"] * resolve:
                told, is_open, streak = told + "R", False, []
            else:
                told += "."
            continue
        silent = []
        streak.append(seen.verdict)
        if not is_open and streak[-count:] == ["meets"] * count:
            told, is_open, streak = told + "O", True, []
        elif is_open and streak[-resolve:] == ["clears"] * resolve:
            told, is_open, streak = told + "R", False, []
        else:
            told += "."
    return told


@dataclass(frozen=True)
class Counted:
    at: float
    value: float | None
    series: str


def risen(history: Sequence[Counted], *, window: float, at_least: float) -> list[Verdict]:
    """What each sample of a counter says: its rise over the window that ends with it."""
    verdicts: list[Verdict] = []
    for index, newest in enumerate(history):
        if newest.value is None:
            verdicts.append("blind")
            continue
        observed = [item for item in history[: index + 1] if item.value is not None]
        total = 0.0
        for before, after in pairwise(observed):
            assert before.value is not None
            assert after.value is not None
            if before.series == after.series and newest.at - window < after.at:
                total += max(0.0, after.value - before.value)
        verdicts.append("meets" if total >= at_least else "clears")
    return verdicts


def changed(history: Sequence[str]) -> str:
    """One character per sample of an identity (empty: unknown): ``X`` where it is another than the last known."""
    told = ""
    for index, identity in enumerate(history):
        known = [item for item in history[:index] if item]
        told += "X" if identity and known and identity != known[-1] else "."
    return told
