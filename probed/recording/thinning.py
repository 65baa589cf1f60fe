"""A long span of samples for a chart of few points: real ones, so chosen that no peak and no outage is lost. Pure."""

from __future__ import annotations

from msgspec import Struct, field

from probed.model import Outcome, Sample
from probed.recording.chunks import OUTCOMES, Columns


class _Part(Struct):
    """What is shown of one part of the span: by outcome the first, by reading the least and the greatest."""

    first: dict[Outcome, Sample] = field(default_factory=dict)
    least: dict[str, tuple[float, Sample]] = field(default_factory=dict)
    greatest: dict[str, tuple[float, Sample]] = field(default_factory=dict)


class Thinning:
    """Takes columns in, oldest first; gives the samples to show, at least the first of each part that has any."""

    def __init__(self, since: float, until: float, points: int) -> None:
        self._since, self._until, self._points = since, until, points
        self._seconds = 0.0
        self._parts: dict[int, _Part] = {}

    def take(self, columns: Columns) -> None:
        if not self._seconds:
            # Each part shows up to two samples per reading.
            parts = max(1, self._points // max(1, 2 * len(columns.readings)))
            self._seconds = max(self._until - self._since, 0.001) / parts
        start = 0
        while start < len(columns):
            number = int((columns.ats[start] - self._since) // self._seconds)
            end = start + 1
            while end < len(columns) and int((columns.ats[end] - self._since) // self._seconds) == number:
                end += 1
            if self._since <= columns.ats[start] < self._until:
                self._fill(self._parts.setdefault(number, _Part()), columns, start, end)
            start = end

    def _fill(self, part: _Part, columns: Columns, start: int, end: int) -> None:
        for code in sorted(set(columns.outcomes[start:end])):
            outcome = OUTCOMES[code]
            if outcome not in part.first:
                part.first[outcome] = columns.sample(columns.outcomes.index(code, start, end))
        for name, cells in columns.readings.items():
            numbers = [
                (cell, index)
                for index, cell in enumerate(cells[start:end], start)
                if cell is not None and not isinstance(cell, str)
            ]
            if not numbers:
                continue
            (low, at_low), (high, at_high) = min(numbers), max(numbers)
            if name not in part.least or low < part.least[name][0]:
                part.least[name] = low, columns.sample(at_low)
            if name not in part.greatest or high > part.greatest[name][0]:
                part.greatest[name] = high, columns.sample(at_high)

    def samples(self) -> list[Sample]:
        """Oldest first, none twice."""
        shown: dict[float, Sample] = {}
        for part in self._parts.values():
            chosen: list[Sample] = list(part.first.values()) if self._tells(part) else []
            chosen += [sample for extremes in (part.least, part.greatest) for _, sample in extremes.values()]
            for sample in chosen or part.first.values():
                shown[sample.at] = sample
        return [shown[at] for at in sorted(shown)]

    @staticmethod
    def _tells(part: _Part) -> bool:
        return part.first.keys() != {Outcome.OBSERVED} or not part.least
