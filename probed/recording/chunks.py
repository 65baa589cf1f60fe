"""Samples of one probe and target as columns: filled one by one, packed to a chunk, unpacked to be judged again.

Kept is what evaluators and charts need: times in whole milliseconds, outcome, kind, reason, series, and readings,
exactly. Durations, facts and what probes keep are not. A chunk's ``Digest`` says, without unpacking it, what its
samples cannot be.
"""

from __future__ import annotations

import json
import math
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from msgspec import Struct, field

from probed.model import NOTHING, Outcome, Reading, Sample, Target
from probed.recording.packing import EXACT, Reader, Writer

OUTCOMES = tuple(Outcome)
CODES: Mapping[Outcome, int] = {outcome: code for code, outcome in enumerate(OUTCOMES)}
MAX_REASONS = 64
"""Different reasons told in one chunk; a peer that says something else each time is not quoted for ever."""
MAX_SAMPLES = 100_000
"""More than a chunk ever has: a damaged number must not ask for all of memory."""
FORMAT = 1
_NONE, _FLOAT, _INT, _WORD = range(4)

Run = tuple[int, Outcome, str, str, str]
"""(index of the first, outcome, kind, reason, series): what stays the same over many samples."""


class _Column(Struct):
    """The cells of one reading. What a cell is (nothing, a number, a word) is kept where it changes."""

    kinds: list[tuple[int, int]] = field(default_factory=list)
    """(index of the first, kind)"""
    cells: array[float] = field(default_factory=lambda: array("d"))
    """Numbers, and places of words, of the cells that hold something."""
    words: dict[str, int] = field(default_factory=dict)
    last: int = -1
    """Kind of the newest cell."""

    def fill(self, start: int, readings: Sequence[Reading | None]) -> None:
        """Take the next cells in; ``start`` is the index of the first."""
        first, types = readings[0], set(map(type, readings))
        if types == {float}:  # as nearly all are
            if self.last != _FLOAT:
                self._turn(start, _FLOAT)
            self.cells.extend(readings)  # type: ignore[arg-type]  # floats
            return
        if first is not None and len(types) == 1 and readings.count(first) == len(readings):
            self.put(start, first)
            self.cells.extend(self.cells[-1:] * (len(readings) - 1))
            return
        for index, reading in enumerate(readings, start):
            if reading is None:
                self.skip(index)
            else:
                self.put(index, reading)

    def put(self, index: int, reading: Reading) -> None:
        kind, cell = _FLOAT, reading
        if isinstance(reading, str):
            kind, cell = _WORD, self.words.setdefault(reading, len(self.words))
        elif isinstance(reading, int) and -EXACT <= reading <= EXACT:
            kind = _INT
        if self.last != kind:
            self._turn(index, kind)
        self.cells.append(cell)  # type: ignore[arg-type]  # words have their number by now

    def skip(self, index: int) -> None:
        if self.last != _NONE:
            self._turn(index, _NONE)

    def _turn(self, index: int, kind: int) -> None:
        self.kinds.append((index, kind))
        self.last = kind


class Extent(Struct, frozen=True):
    """Within which bounds the numbers of one reading are."""

    complete: bool
    """Whether every sample of the chunk has a number here."""
    lowest: float
    highest: float
    word: str | None = None
    """The one word that all cells with anything in them hold; ``None`` when they do not."""

    def never(self, op: str, limit: float) -> bool:
        """Whether no number within the bounds can be ``op limit``."""
        return {
            ">=": self.highest < limit, ">": self.highest <= limit,
            "<=": self.lowest > limit, "<": self.lowest >= limit,
            "==": not self.lowest <= limit <= self.highest, "!=": self.lowest == limit == self.highest,
        }[op]  # fmt: skip

    def always(self, op: str, limit: float) -> bool:
        return self.complete and {
            ">=": self.lowest >= limit, ">": self.lowest > limit,
            "<=": self.highest <= limit, "<": self.highest < limit,
            "==": self.lowest == limit == self.highest, "!=": not self.lowest <= limit <= self.highest,
        }[op]  # fmt: skip


class Digest(Struct, frozen=True):
    """What is known of a chunk without unpacking it. Times are seconds, exactly those of the samples."""

    count: int
    first_at: float
    last_at: float
    first_mono: float
    last_mono: float
    outcomes: frozenset[Outcome]
    series: str | None
    """Of all of its observed samples; ``None`` when it changed."""
    extents: Mapping[str, Extent]

    def dump(self) -> str:
        times = [round(time * 1000) for time in (self.first_at, self.last_at, self.first_mono, self.last_mono)]
        extents = {
            name: [int(extent.complete), _finite(extent.lowest), _finite(extent.highest), extent.word]
            for name, extent in self.extents.items()
        }
        outcomes = sum(1 << CODES[outcome] for outcome in self.outcomes)
        return json.dumps([self.count, *times, outcomes, self.series, extents], separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> Digest:
        """ValueError, TypeError or IndexError when it is not what ``dump`` wrote."""
        count, *times, outcomes, series, extents = json.loads(text)
        first_at, last_at, first_mono, last_mono = (time / 1000 for time in times)
        return cls(
            count, first_at, last_at, first_mono, last_mono,
            _OUTCOME_SETS[outcomes], series,
            {
                name: Extent(
                    bool(complete), -math.inf if low is None else low, math.inf if high is None else high, word
                )
                for name, (complete, low, high, word) in extents.items()
            },
        )  # fmt: skip


_OUTCOME_SETS = tuple(
    frozenset(outcome for outcome, code in CODES.items() if bits >> code & 1) for bits in range(1 << len(OUTCOMES))
)


class Columns(Struct, frozen=True):
    """The samples of a chunk again, side by side: every list has one cell per sample."""

    target: Target
    probe: str
    ats: list[float]
    monos: list[float]
    outcomes: bytes
    """``CODES``"""
    runs: list[Run]
    readings: Mapping[str, list[Reading | None]]

    def __len__(self) -> int:
        return len(self.ats)

    def series(self) -> list[str]:
        cells: list[str] = []
        for index, (_, _, _, _, series) in enumerate(self.runs):
            end = self.runs[index + 1][0] if index + 1 < len(self.runs) else len(self)
            cells += [series] * (end - len(cells))
        return cells

    def sample(self, index: int) -> Sample:
        """As it was judged, but for its duration, facts and ``keep``."""
        _, outcome, kind, reason, series = next(run for run in reversed(self.runs) if run[0] <= index)
        found = {name: cells[index] for name, cells in self.readings.items()}
        readings = {name: cell for name, cell in found.items() if cell is not None}
        return Sample(
            self.target, self.probe, outcome, self.ats[index], self.monos[index],
            readings=readings or NOTHING, reason=reason, kind=kind, series=series,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(index) for index in range(len(self)))


WAITING = 15
"""So many samples are put into columns at once: fewer than the board holds of each target, so they cost no memory."""


class Buffer:
    """Samples that came in, in order, until they are packed. A few bytes each."""

    __slots__ = ("_ats", "_columns", "_monos", "_reasons", "_runs", "_waiting", "probe", "target")

    def __init__(self, probe: str, target: Target) -> None:
        self.probe, self.target = probe, target
        self._ats, self._monos = array("q"), array("q")
        self._runs: list[Run] = []
        self._columns: dict[str, _Column] = {}
        self._reasons: set[str] = set()
        self._waiting: list[Sample] = []
        """The newest, not in the columns yet."""

    def __len__(self) -> int:
        return len(self._ats) + len(self._waiting)

    @property
    def first_at(self) -> float:
        """Unix seconds of the oldest one."""
        self._settle()
        return self._ats[0] / 1000

    def put(self, sample: Sample) -> int:
        """Take one more in; how many there are."""
        self._waiting.append(sample)
        waiting = len(self._waiting)
        if waiting >= WAITING:
            self._settle()
            return len(self._ats)
        return len(self._ats) + waiting

    def _settle(self) -> None:
        """Put what is waiting into the columns."""
        waiting, columns = self._waiting, self._columns
        if not waiting:
            return
        self._waiting = []
        start = len(self._ats)
        self._ats.extend([round(sample.at * 1000) for sample in waiting])
        self._monos.extend([round(sample.mono * 1000) for sample in waiting])
        last = self._runs[-1][1:] if self._runs else None
        for index, sample in enumerate(waiting, start):
            reason = self._quoted(sample.reason) if sample.reason else ""
            said = (sample.outcome, sample.kind, reason, sample.series)
            if said != last:
                self._runs.append((index, *said))
                last = said
        rows = [sample.readings for sample in waiting]
        for name in dict.fromkeys(chain.from_iterable(rows)):
            if name not in columns:
                column = columns[name] = _Column()
                if start:
                    column.skip(0)
        for name, column in columns.items():
            column.fill(start, [row.get(name) for row in rows])

    def _quoted(self, reason: str) -> str:
        if reason in self._reasons:
            return reason
        if len(self._reasons) >= MAX_REASONS:
            return ""
        self._reasons.add(reason)
        return reason

    def columns(self) -> Columns:
        """What is buffered, to be read beside what is packed."""
        self._settle()
        count = len(self)
        return Columns(
            self.target, self.probe,
            [at / 1000 for at in self._ats], [mono / 1000 for mono in self._monos],
            _outcome_cells(self._runs, count), list(self._runs),
            {
                name: _cells(column.kinds, column.cells.tolist(), list(column.words), count)
                for name, column in self._columns.items()
            },
        )  # fmt: skip

    def digest(self) -> Digest:
        """What is known of the samples in short. There must be one at least."""
        self._settle()
        observed = {run[4] for run in self._runs if run[1] is Outcome.OBSERVED}
        return Digest(
            len(self), self._ats[0] / 1000, self._ats[-1] / 1000, self._monos[0] / 1000, self._monos[-1] / 1000,
            frozenset(run[1] for run in self._runs), observed.pop() if len(observed) == 1 else None,
            {name: _extent(column) for name, column in self._columns.items()},
        )  # fmt: skip

    def pack(self) -> bytes:
        self._settle()
        out = Writer()
        out.uint(FORMAT)
        out.uint(len(self))
        out.ints(self._monos)
        out.ints([at - mono for at, mono in zip(self._ats, self._monos, strict=True)])
        texts = dict.fromkeys(text for run in self._runs for text in run[2:])
        out.uint(len(texts))
        for text in texts:
            out.text(text)
        places = {text: index for index, text in enumerate(texts)}
        out.uint(len(self._runs))
        for start, outcome, *said in self._runs:
            out.uint(start)
            out.uint(CODES[outcome])
            for text in said:
                out.uint(places[text])
        out.uint(len(self._columns))
        for name, column in self._columns.items():
            _pack_column(out, name, column)
        return _deflated(bytes(out.data))


def unpack(data: bytes, probe: str, target: Target) -> Columns:
    """A chunk's samples. ValueError when it is none, or damaged."""
    try:
        return _unpack(Reader(zlib.decompress(data, wbits=-15)), probe, target)
    except (zlib.error, ValueError, IndexError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"not a chunk of samples: {error}") from None


def _unpack(source: Reader, probe: str, target: Target) -> Columns:
    version = source.uint()
    if version != FORMAT:
        raise ValueError(f"chunk of format {version}, known here {FORMAT}")
    count = source.uint()
    if count > MAX_SAMPLES:
        raise ValueError(f"a chunk of {count} samples")
    monos = source.ints(count)
    ats = [mono + offset for mono, offset in zip(monos, source.ints(count), strict=True)]
    texts = [source.text() for _ in range(source.uint())]
    runs: list[Run] = []
    for _ in range(source.uint()):
        start, outcome = source.uint(), OUTCOMES[source.uint()]
        runs.append((start, outcome, texts[source.uint()], texts[source.uint()], texts[source.uint()]))
    readings: dict[str, list[Reading | None]] = {}
    for _ in range(source.uint()):
        name = source.text()
        kinds = [(source.uint(), source.uint()) for _ in range(source.uint())]
        words = [source.text() for _ in range(source.uint())]
        readings[name] = _cells(kinds, source.numbers(source.uint()), words, count)
    return Columns(
        target, probe, [at / 1000 for at in ats], [mono / 1000 for mono in monos],
        _outcome_cells(runs, count), runs, readings,
    )  # fmt: skip


def _pack_column(out: Writer, name: str, column: _Column) -> None:
    out.text(name)
    out.uint(len(column.kinds))
    for start, kind in column.kinds:
        out.uint(start)
        out.uint(kind)
    out.uint(len(column.words))
    for word in column.words:
        out.text(word)
    out.uint(len(column.cells))
    out.numbers(column.cells)


def _deflated(data: bytes) -> bytes:
    # A chunk is 0.1 to 4 KiB: a larger window and table save no byte, and take 256 KiB each time instead of 32.
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits=-12, memLevel=5)
    return packer.compress(data) + packer.flush()


def _cells(kinds: list[tuple[int, int]], cells: list[float], words: list[str], count: int) -> list[Reading | None]:
    """One cell per sample."""
    if len(kinds) == 1 and kinds[0][1] == _FLOAT:
        return list(cells)
    found: list[Reading | None] = []
    taken = 0
    ends = [start for start, _ in kinds[1:]] + [count]
    for (_, kind), end in zip(kinds, ends, strict=True):
        length = end - len(found)
        if kind == _NONE:
            found += [None] * length
            continue
        part = cells[taken : taken + length]
        taken += length
        found += _READ[kind](part, words)
    return found


_READ: Mapping[int, Callable[[list[float], list[str]], list[Reading]]] = {
    _FLOAT: lambda part, _: list(part),
    _INT: lambda part, _: [int(cell) for cell in part],
    _WORD: lambda part, words: [words[int(cell)] for cell in part],
}


def _outcome_cells(runs: list[Run], count: int) -> bytes:
    ends = [run[0] for run in runs[1:]] + [count]
    return b"".join(bytes((CODES[run[1]],)) * (end - run[0]) for run, end in zip(runs, ends, strict=True))


def _extent(column: _Column) -> Extent:
    kinds = {kind for _, kind in column.kinds}
    if _WORD in kinds:
        word = next(iter(column.words)) if len(column.words) == 1 and kinds <= {_NONE, _WORD} else None
        return Extent(False, -math.inf, math.inf, word)
    if not all(map(math.isfinite, column.cells)):
        return Extent(False, -math.inf, math.inf)
    return Extent(_NONE not in kinds, min(column.cells), max(column.cells))


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
