"""The time before an event: what samples show of it, and the standing snapshots taken while all was well."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from probed.board import Board
from probed.evidence import Collector, Data, Recall
from probed.evidence._taking import Taken, encoded, recalled
from probed.model import Outcome, Sample, Target

KEPT = 3
"""Snapshots of the time before that an event gets of a collector and target; standing ones kept per target."""
MAX_SESSIONS = 500
"""A server with more is not asked for standing snapshots: they cost what they count."""
QUICK_SECONDS = 0.25
"""What the cycle's statement may take on a server that is well enough to be asked one more."""

OWN_ROUND = 1.0
"""Seconds: samples that are not older than this than the moment belong to its own round, and do not come before it."""

Key = tuple[str, str]
"""(collector, target key)"""


class Memory:
    def __init__(self, board: Board) -> None:
        self._board = board
        self._standing: dict[Key, deque[Taken]] = {}

    def keep(self, collector: str, target: Target, taken: Taken) -> None:
        """A standing snapshot; one that failed says nothing about the time before."""
        if taken.data:
            self._standing.setdefault((collector, target.key), deque(maxlen=KEPT)).append(taken)

    def keep_only(self, keys: Iterable[Key]) -> None:
        """Forget the snapshots of what is no longer looked at."""
        for key in self._standing.keys() - set(keys):
            del self._standing[key]

    def before(self, collector: Collector, target: Target, began: float, until: float) -> Sequence[Taken]:
        """Snapshots from before a moment, oldest first.

        ``began`` is when things went wrong, ``until`` when that was judged (wall time): what is remembered of between
        the two shows how it went, and belongs to it.
        """
        found = [taken for taken in self._standing.get((collector.name, target.key), ()) if taken.at < began]
        if collector.recall is not None:
            samples = self._board.ring(collector.recall.probe, target)
            found += _recalled(collector.recall, samples, began, until)
        return sorted(found, key=lambda taken: taken.at)[-KEPT:]

    def well(self, target: Target) -> bool:
        """Whether a PostgreSQL server is so well that one more statement goes unnoticed."""
        alive, stats = (self._board.newest(probe, target) for probe in ("postgres_liveness", "postgres_stats"))
        if alive is None or stats is None:
            return False
        observed = alive.outcome is Outcome.OBSERVED and stats.outcome is Outcome.OBSERVED
        sessions = stats.readings.get("backends", 0.0)
        return observed and stats.duration < QUICK_SECONDS and isinstance(sessions, float) and sessions <= MAX_SESSIONS


def _recalled(recall: Recall, samples: Sequence[Sample], began: float, until: float) -> list[Taken]:
    """The newest from before ``began``, and of what was different since then the newest up to ``until``."""
    limit = (until if recall.essence is not None else began) - OWN_ROUND
    different: list[tuple[float, Data]] = []
    last: object = None
    for sample in reversed(samples):
        if sample.outcome is not Outcome.OBSERVED or sample.at >= limit:
            continue
        data, essence = recalled(recall, sample)
        if data is not None and (not different or (recall.essence is not None and essence != last)):
            different.append((sample.at, data))
            last = essence
    well = next((one for one in different if one[0] < began - OWN_ROUND), None)
    kept = different[: KEPT - 1] if well is not None and well not in different[:KEPT] else different[:KEPT]
    return [encoded(data, at) for at, data in (kept if well is None or well in kept else [*kept, well])]
