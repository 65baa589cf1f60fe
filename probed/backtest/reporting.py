"""A backtest: the present and the changed policy over everything recorded of their targets, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct, field

from probed.backtest import proposing
from probed.backtest.comparing import Difference, Figures, Told, compare, events_of, figures
from probed.backtest.replaying import Grace, Recording, Replay, Switch
from probed.model import Policy, Transition
from probed.model import Reading as ReadingValue
from probed.recording.chunks import Digest
from probed.recording.reading import Place, Reading

SPREAD = 200
"""Chunks that are unpacked for the distribution of a reading: so many hours of it."""
LEADER = "leader"
"""The probe, and its reading, by which switchovers are known."""
Progress = Callable[[float], None]
"""Told how much is done, 0 to 1."""


def share(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one of several equal parts, told as progress of the whole."""
    return lambda done: progress((number + done) / count)


class Request(Struct, frozen=True):
    """What is to be replayed. Unix seconds."""

    present: Policy
    changed: Policy
    since: float
    until: float
    grace_seconds: float


class TargetReport(Struct, frozen=True):
    target: str
    samples: int
    first_at: float
    last_at: float
    present: Figures
    changed: Figures
    difference: Difference


class Report(Struct, frozen=True):
    policy: str
    since: float
    until: float
    samples: int
    present: Figures
    changed: Figures
    targets: Sequence[TargetReport] = ()
    notes: Sequence[str] = ()
    """What this backtest cannot tell, in words."""


class _Side(Struct):
    """One policy over one target."""

    told: list[Told] = field(default_factory=list)
    samples: int = 0
    first_at: float = 0.0
    last_at: float = 0.0


class Backtester:
    """Replays over one file. What several replays need, such as the switchovers of an instance, is found once."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._switches: dict[tuple[str, float, float], list[Switch]] = {}

    def run(self, request: Request, progress: Progress = lambda _: None) -> Report:
        """ValueError when what is recorded is damaged."""
        present, changed = request.present, request.changed
        places = {policy.probe: self._places(policy.probe) for policy in (present, changed)}
        judged = [
            (side, policy, place)
            for side, policy in enumerate((present, changed))
            for place in places[policy.probe]
            if policy.judges(place.target)
        ]
        sides: dict[str, tuple[_Side, _Side]] = {}
        for number, (side, policy, place) in enumerate(judged):
            pair = sides.setdefault(place.target.key, (_Side(), _Side()))
            self._replay(policy, place, request, pair[side], share(progress, number, len(judged)))
        targets = [_target(key, pair, request.until) for key, pair in sorted(sides.items())]
        everything = [[one for pair in sides.values() for one in pair[side].told] for side in (0, 1)]
        progress(1.0)
        return Report(
            present.id, request.since, request.until, sum(target.samples for target in targets),
            figures(everything[0], request.until), figures(everything[1], request.until), targets,
            notes(request, targets),
        )  # fmt: skip

    def survey(self, request: Request, progress: Progress = lambda _: None) -> proposing.Survey:
        """What the present policy tells, and how its deciding reading is distributed. ValueError as above."""
        policy = request.present
        item = proposing.deciding(policy)
        digests: list[Digest] = []
        parts: list[list[ReadingValue | None]] = []
        side = _Side()
        places = [place for place in self._places(policy.probe) if policy.judges(place.target)]
        seen = 0
        for number, place in enumerate(places):
            one = _Side()
            self._replay(policy, place, request, one, share(progress, number, len(places)))
            if not one.samples:
                continue
            seen += 1
            side.told += one.told
            side.samples += one.samples
            side.first_at = min(side.first_at or one.first_at, one.first_at)
            side.last_at = max(side.last_at, one.last_at)
            chunks = list(self._reading.chunks(place, request.since, request.until)) if item is not None else []
            digests += [chunk.digest for chunk in chunks]
            step = max(1, len(chunks) * len(places) // SPREAD)
            parts += [chunk.load().readings.get(item.reading, []) for chunk in chunks[::step] if item is not None]
        lowest, highest = proposing.bounds(digests, item.reading) if item is not None else (None, None)
        return proposing.Survey(
            policy.id, seen, side.samples, (side.last_at - side.first_at) / proposing.DAY,
            figures(side.told, request.until), proposing.lengths(policy, side.told), lowest, highest,
            proposing.quantiles(parts),
        )  # fmt: skip

    def _places(self, probe: str) -> Sequence[Place]:
        return self._reading.places(probe)

    def _replay(self, policy: Policy, place: Place, request: Request, side: _Side, progress: Progress) -> None:
        chunks = list(self._reading.chunks(place, request.since, request.until))
        if not chunks:
            return
        side.first_at, side.last_at = chunks[0].digest.first_at, chunks[-1].digest.last_at
        side.samples = sum(chunk.digest.count for chunk in chunks)
        if not policy.enabled:
            return
        grace = self._grace(policy, place.target.instance, request)
        told = events_of(_transitions(policy, grace, chunks, progress))
        side.told = [one for one in told if one.resolved_at is None or one.resolved_at >= request.since]

    def _grace(self, policy: Policy, instance: str, request: Request) -> Grace:
        if not policy.switchover_grace:
            return Grace()
        key = (instance, request.since, request.until)
        if key not in self._switches:
            places = [place for place in self._places(LEADER) if place.target.instance == instance]
            self._switches[key] = [
                switch
                for place in places
                for switch in switches(
                    self._reading.chunks(place, request.since - request.grace_seconds, request.until)
                )
            ]
        return Grace(request.grace_seconds, self._switches[key])


def _transitions(policy: Policy, grace: Grace, chunks: Sequence[Recording], progress: Progress) -> Iterator[Transition]:
    replay = Replay(policy, grace)
    for number, chunk in enumerate(chunks, start=1):
        yield from replay.feed(chunk)
        progress(number / len(chunks))


def switches(chunks: Iterable[Recording]) -> Iterator[Switch]:
    """When another leader was seen, from the recorded samples of the ``leader`` probe."""
    leader = ""
    for chunk in chunks:
        extent = chunk.digest.extents.get(LEADER)
        if extent is None or (leader and extent.word == leader):
            continue
        columns = chunk.load()
        for index, name in enumerate(columns.readings[LEADER]):
            if isinstance(name, str) and name and name != leader:
                if leader:
                    yield Switch(chunk.run, columns.ats[index], columns.monos[index])
                leader = name


def _target(key: str, pair: tuple[_Side, _Side], until: float) -> TargetReport:
    seen = [side for side in pair if side.samples] or [_Side()]
    return TargetReport(
        key, max(side.samples for side in seen), min(side.first_at for side in seen),
        max(side.last_at for side in seen), figures(pair[0].told, until), figures(pair[1].told, until),
        compare(pair[0].told, pair[1].told, until),
    )  # fmt: skip


def notes(request: Request, targets: Sequence[TargetReport]) -> list[str]:
    """What the replay could not know of this very change."""
    present, changed = request.present, request.changed
    said: list[str] = []
    seen = [target for target in targets if target.samples]
    if not seen:
        probes = " and ".join(sorted({f'"{present.probe}"', f'"{changed.probe}"'}))
        said.append(f"no samples of the probe {probes} are recorded in this time: nothing was replayed")
    elif min(target.first_at for target in seen) > request.since + 2 * max(present.interval, 300.0):
        said.append("the recording does not reach back as far as asked: see first_at of each target")
    if not present.enabled:
        said.append("the policy is disabled at present: it would have told nothing")
    if not changed.enabled:
        said.append("the changed policy is disabled: it would tell nothing")
    if changed.interval != present.interval:
        said.append(
            f"samples were taken each {present.interval:g} s: a replay cannot sample each {changed.interval:g} s, "
            "it only judges gaps by it"
        )
    if changed.confirm_interval != present.confirm_interval:
        said.append("samples that confirm_interval would have added or left out are not known")
    if changed.question != present.question:
        said.append("what is asked was changed: recorded are the answers to the question as it was")
    if changed.timeout != present.timeout:
        said.append("outcomes are those under the timeout of the time")
    said.append("replayed without causes: what another event would have suppressed is counted on both sides")
    return said
