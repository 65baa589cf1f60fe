"""The metrics in Prometheus' text formats, written from the board and the watches as they stand (docs/adr/0018).

A fleet's scrape is 100,000 lines and more. It is written in the event loop, a piece at a time, with the loop's turn
between two pieces: no probe waits longer than for one of them, and nothing is copied for a thread, which would
hold the interpreter all the same. What never changes of a line, its labels, is kept from scrape to scrape.

Lines that share their labels are folded into one, and labels name the instance: so an instance is written at a time,
and what has been written of it is small and soon forgotten. Only the bytes of each metric wait for the end.
"""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct, field

from probed.board import Board, Entry
from probed.metrics import CATALOGUE, PLACE, PROBE, STALE_INTERVALS, Observed, Series, Values
from probed.model import CANARY, Outcome, Sample, Target
from probed.watches import Instance, Watch

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

PIECE_SECONDS = 0.0005
"""For which a scrape works before the others have their turn; counted in lines, a busy machine would make it ten times
as long. Who wakes up from a sleep waits for three pieces: the loop's turns of the timer, of its future, of the task."""
SMALL = 64 * 1024
"""Bytes that are compressed faster than handed to a thread; at least as many go into a piece of the body."""

_OF_PROBE: dict[str, list[Series]] = {}
for _series in CATALOGUE:
    if _series.reading is not None:
        _OF_PROBE.setdefault(_series.reading[0], []).append(_series)
_BY_NAME = {series.name: series for series in CATALOGUE}
_RUNS, _LAST_RUN, _SUCCESS, _DURATION, _ACTIVE = (
    _BY_NAME[name]
    for name in (
        "probed_probe_runs_total",
        "probed_probe_last_run_timestamp_seconds",
        "probed_probe_success",
        "probed_probe_duration_seconds",
        "probed_event_active",
    )
)

Lines = dict[str, dict[str, float]]
"""Metric -> labels as they are written, braces included -> value."""
Written = dict[str, list[bytes]]
"""Metric -> its lines, in pieces."""


class Exposition(Struct, frozen=True):
    """What a scrape is answered with."""

    pieces: list[bytes]
    """Of a size that others may wait for; tens of MiB together, which are better neither copied nor freed at once."""
    content_type: str
    zipped: bool

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class _EntryLabels(Struct, frozen=True):
    of: Entry
    place: str
    probe: str
    runs: Mapping[Outcome, str]


class _WatchLabels(Struct, frozen=True):
    of: Watch
    severity: str
    labels: str


_Labels = TypeVar("_Labels", _EntryLabels, _WatchLabels)


class Writer(Struct):
    """Writes expositions of one daemon, any number at a time."""

    piece_seconds: float = PIECE_SECONDS
    _entries: dict[str, dict[int, _EntryLabels]] = field(default_factory=dict)
    """By instance and the entry's id: of the entries of the last scrape."""
    _watches: dict[str, dict[int, _WatchLabels]] = field(default_factory=dict)

    async def write(self, observed: Observed, accept: str = "", accept_encoding: str = "") -> Exposition:
        """As a request's headers ask for; whatever they ask for, something that can be read."""
        openmetrics = wants_openmetrics(accept)
        pieces = list[bytes]()
        for piece in self.pieces(observed, openmetrics=openmetrics):
            if piece:
                pieces.append(piece)
            await asyncio.sleep(0)
        zipped = _mentioned("gzip", accept_encoding)
        if zipped and sum(map(len, pieces)) <= SMALL:
            pieces = [_zipped(pieces)]
        elif zipped:
            pieces = [await asyncio.to_thread(_zipped, pieces)]  # which lets go of the interpreter
        return Exposition(pieces, OPENMETRICS if openmetrics else PLAIN, zipped)

    def pieces(self, observed: Observed, *, openmetrics: bool) -> Iterator[bytes]:
        """The body; an empty piece only lets others have a turn."""
        written: Written = {series.name: [] for series in CATALOGUE}
        for name, values in observed.metrics.own(observed).items():
            if values:
                written[name].append(_rows(name, _own(_BY_NAME[name], values)))
        histograms = observed.metrics.histograms()
        yield from self._board(written, observed.pipeline.board, observed.clock.mono())
        yield from self._active(written[_ACTIVE.name], observed.pipeline.instances)
        for series in CATALOGUE:
            if series.type == "histogram":
                yield _histogram(series, *histograms[series.name]).encode()
            elif texts := written.pop(series.name):
                yield _head(series, openmetrics=openmetrics).encode()
                yield from _gathered(texts)
        if openmetrics:
            yield b"# EOF\n"

    def _board(self, written: Written, board: Board, now: float) -> Iterator[bytes]:
        """Everything about each probe on each target."""
        blind, names = 0, board.instances
        turn = _Turn(self.piece_seconds)
        for name in names:
            known = self._entries.setdefault(name, {})
            lines: Lines = {}
            entries = list(board.entries(name))
            for entry in entries:
                labels = known.get(id(entry))
                if labels is None or labels.of is not entry:
                    labels = known[id(entry)] = _entry_labels(entry)
                blind += _entry(lines, entry, labels, now)
                if turn.over():
                    yield b""
                    turn.begin()
            _forget(known, entries)
            for metric, some in lines.items():
                written[metric].append(_rows(metric, some))
        for name in self._entries.keys() - set(names):
            del self._entries[name]
        written["probed_blind_targets"].append(_rows("probed_blind_targets", {"": blind}))

    def _active(self, written: list[bytes], instances: Mapping[str, Instance]) -> Iterator[bytes]:
        turn = _Turn(self.piece_seconds)
        names = list(instances)
        for name in names:
            known = self._watches.setdefault(name, {})
            lines: Lines = {}
            watches = [one for one in instances[name].watches if one.policy.id != CANARY] if name in instances else []
            for watch in watches:
                labels, severity = known.get(id(watch)), watch.severity.value
                if labels is None or labels.of is not watch or labels.severity != severity:
                    values = (watch.policy.id, severity, *_place(watch.target))
                    labels = known[id(watch)] = _WatchLabels(watch, severity, _labels(_ACTIVE.labels, values))
                _fold(lines, _ACTIVE, labels.labels, float(watch.event is not None and not watch.event.suppressed))
            _forget(known, watches)
            written += [_rows(metric, some) for metric, some in lines.items()]
            if turn.over():
                yield b""
                turn.begin()
        for name in self._watches.keys() - set(names):
            del self._watches[name]


def _forget(known: dict[int, _Labels], these: Sequence[object]) -> None:
    """What is known of others than these. A new dictionary each time would be work for the collector."""
    if len(known) > len(these):
        for gone in known.keys() - set(map(id, these)):
            del known[gone]


class _Turn:
    """For how long a piece has been worked on."""

    __slots__ = ("_ends", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.begin()

    def begin(self) -> None:
        self._ends = time.monotonic() + self._seconds

    def over(self) -> bool:
        return time.monotonic() >= self._ends


# --- values -------------------------------------------------------------------------------------------------


def _entry(lines: Lines, entry: Entry, labels: _EntryLabels, now: float) -> bool:
    """All lines of one probe on one target; whether it is blind."""
    for outcome, number in entry.runs.items():
        _fold(lines, _RUNS, labels.runs[outcome], number)
    newest = entry.newest
    if newest is None:
        return False
    _fold(lines, _LAST_RUN, labels.probe, newest.at)
    if now - newest.mono > STALE_INTERVALS * entry.interval:
        return True
    if newest.outcome is Outcome.OBSERVED or newest.outcome is Outcome.FAILED:
        _fold(lines, _SUCCESS, labels.probe, float(newest.outcome is Outcome.OBSERVED))
    if not entry.computed:
        _fold(lines, _DURATION, labels.probe, newest.duration)
    if newest.outcome is Outcome.OBSERVED:
        for series in _OF_PROBE.get(entry.probe, ()):
            value = _value(entry, newest, series, now)
            if value is not None:
                _fold(lines, series, labels.place, value / series.divisor)
    # A combined probe without its input is the consequence of another line of the same list.
    return newest.outcome is Outcome.BLIND and newest.kind != "no_input"


def _value(entry: Entry, newest: Sample, series: Series, now: float) -> float | None:
    assert series.reading is not None
    value = newest.readings.get(series.reading[1])
    if isinstance(value, float | int) and math.isfinite(value):
        return float(value)
    for sample in reversed(entry.ring) if series.lasting else ():
        value = sample.readings.get(series.reading[1])
        if isinstance(value, float | int) and math.isfinite(value):
            return float(value)
        if now - sample.mono >= series.lasting:
            return None
    return None


def _fold(lines: Lines, series: Series, labels: str, value: float) -> None:
    some = lines.get(series.name)
    if some is None:
        lines[series.name] = {labels: value}
        return
    known = some.get(labels)
    some[labels] = value if known is None else series.fold(known, value)


# --- labels -------------------------------------------------------------------------------------------------


def _entry_labels(entry: Entry) -> _EntryLabels:
    place = _place(entry.target)
    values = (*place, entry.probe)
    runs = {outcome: _labels(_RUNS.labels, (*values, outcome.value)) for outcome in Outcome}
    return _EntryLabels(entry, _labels(PLACE, place), _labels(PROBE, values), runs)


def _own(series: Series, values: Values) -> dict[str, float]:
    return {_labels(series.labels, labels): value for labels, value in values.items()}


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _place(target: Target) -> tuple[str, str, str]:
    return _text(target.instance), _text(target.node), _text(target.component)


def _text(value: str) -> str:
    # A member's name comes from Patroni, and JSON can carry half a surrogate pair, which is no UTF-8.
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


# --- formats ------------------------------------------------------------------------------------------------


def _rows(name: str, lines: Mapping[str, float]) -> bytes:
    return "".join([f"{name}{labels} {value!r}\n" for labels, value in lines.items()]).encode()


def _gathered(texts: list[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of some size; ``texts`` is empty then."""
    some, size = list[bytes](), 0
    for text in one_by_one(texts):
        some.append(text)
        size += len(text)
        if size >= SMALL:
            yield b"".join(some)
            some, size = [], 0
    if some:
        yield b"".join(some)


def _head(series: Series, *, openmetrics: bool) -> str:
    name, kind = series.name, series.type
    if openmetrics:  # there, a family's name is without the suffix of its lines
        name = name.removesuffix("_info" if kind == "info" else "_total")
    elif kind == "info":
        kind = "gauge"
    help_ = _escaped(series.help) if openmetrics else series.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {help_}\n# TYPE {name} {kind}\n"


def _histogram(series: Series, buckets: Sequence[tuple[str, float]], total: float) -> str:
    name = series.name
    lines = "".join(f'{name}_bucket{{le="{bound}"}} {count!r}\n' for bound, count in buckets)
    return f"{_head(series, openmetrics=False)}{lines}{name}_count {buckets[-1][1]!r}\n{name}_sum {total!r}\n"


def _zipped(pieces: list[bytes]) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return b"".join([*(packer.compress(piece) for piece in one_by_one(pieces)), packer.flush()])


def one_by_one(pieces: list[bytes]) -> Iterator[bytes]:
    """In their order; nothing is left of them behind it. To free tens of MiB at once would take milliseconds."""
    pieces.reverse()
    while pieces:
        yield pieces.pop()


# --- what is asked for --------------------------------------------------------------------------------------


def wants_openmetrics(accept: str) -> bool:
    """Whether an ``Accept`` header prefers OpenMetrics 1.0 to the text format, which everybody reads."""
    best, openmetrics = 0.0, False
    for offer in accept.split(","):
        media, *parameters = (part.strip().lower() for part in offer.split(";"))
        said = dict(part.partition("=")[::2] for part in parameters)
        weight = _weight(said.get("q", "1"))
        is_openmetrics = media == "application/openmetrics-text" and said.get("version", "1.0.0") == "1.0.0"
        if weight > best and (is_openmetrics or media in ("text/plain", "text/*", "*/*")):
            best, openmetrics = weight, is_openmetrics
    return openmetrics


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0


def _mentioned(coding: str, accept_encoding: str) -> bool:
    for offer in accept_encoding.split(","):
        name, *parameters = (part.strip().lower() for part in offer.split(";"))
        if name == coding:
            return not any(part.startswith("q=") and _weight(part[2:]) == 0 for part in parameters)
    return False
