"""Which policies tell too much or never anything, and which value the recorded samples speak for. Pure, deterministic.

First a survey is taken of what a policy tells of the recording, and of how the deciding reading is distributed; from
it alone a change is proposed, in words; then that change is replayed like any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from msgspec import Struct

from probed.backtest.comparing import SHORT, Figures, Told
from probed.model import Comparison, Increase, Policy, Threshold
from probed.recording.chunks import Digest

FEW_EVENTS = 4
"""Fewer tell nothing about a policy's habits."""
PER_DAY = 2.0
"""Events per target and day from which on a policy is noisy."""
SHORT_SHARE = 0.5
"""So many of the episodes are over within a minute, and waiting a little longer would spare most of them."""
MOST_SAMPLES = 20
"""A count is not proposed beyond this: it would be waiting, not judging."""
SILENT_DAYS = 7.0
"""A policy that told nothing over at least so much recording is silent."""
WELL_BELOW = 0.8
"""A silent policy's limit is only worth moving if it comes this much nearer."""
HEADROOM = 1.5
"""A proposed limit is so many times as far from the median as the farthest sample was."""
OFTEN, SELDOM = 0.999, 0.001
DAY = 86_400.0
Kind = Literal["noisy", "silent"]


class Survey(Struct, frozen=True):
    """What the present policy told of the recording. Seconds."""

    policy: str
    targets: int
    samples: int
    days: float
    """From the first recorded sample to the last."""
    figures: Figures
    lengths: Sequence[int] = ()
    """Of each episode: how many samples in a row met the condition, about."""
    lowest: float | None = None
    highest: float | None = None
    """Of the deciding reading, over all samples."""
    quantiles: Mapping[str, float] | None = None
    """Of the same, from chunks spread evenly over the recording: ``0.001``, ``0.5`` and ``0.999``."""


class Proposal(Struct, frozen=True):
    policy: str
    kind: Kind
    says: str
    """Why, in words, with the figures that it follows from."""
    patch: Mapping[str, Any] | None
    """A merge patch; ``None`` when only a person can tell what is right."""


def deciding(policy: Policy) -> Comparison | None:
    """The comparison whose limit is a parameter that may be moved."""
    rule = policy.detect
    if not isinstance(rule, Threshold):
        return None
    movable = [item for item in rule.when.comparisons if item.parameter and item.op not in ("==", "!=")]
    return movable[0] if movable else None


def lengths(policy: Policy, told: Iterable[Told]) -> list[int]:
    """How many samples long each episode was, without those by which it resolved."""
    rule = policy.detect
    clearing = rule.resolve_count if isinstance(rule, Threshold | Increase) else 1
    found = []
    for one in told:
        if one.resolved_at is not None and one.first_failed_at is not None:
            samples = round((one.resolved_at - one.first_failed_at) / policy.interval)
            found.append(max(1, samples - clearing + 1))
    return sorted(found)


def bounds(digests: Iterable[Digest], reading: str) -> tuple[float | None, float | None]:
    """(lowest, highest) of a reading over whole chunks, as far as they are known."""
    extents = [digest.extents[reading] for digest in digests if reading in digest.extents]
    low = min((extent.lowest for extent in extents if math.isfinite(extent.lowest)), default=None)
    high = max((extent.highest for extent in extents if math.isfinite(extent.highest)), default=None)
    return low, high


def quantiles(parts: Iterable[Iterable[object]]) -> Mapping[str, float] | None:
    """Of all numbers in the parts; ``None`` when there are none."""
    numbers = sorted(float(cell) for cell in chain.from_iterable(parts) if isinstance(cell, int | float))
    if not numbers:
        return None
    last = len(numbers) - 1
    return {str(rank): numbers[round(rank * last)] for rank in (SELDOM, 0.5, OFTEN)}


def propose(survey: Survey, policy: Policy, count_key: Sequence[str]) -> Proposal | None:
    """What to change, if anything. ``count_key`` is where the policy's file says how many samples it takes."""
    if policy.fixed or not survey.samples:
        return None
    if _noisy(survey):
        return _calmer(survey, policy, count_key)
    if survey.figures.events == 0 and survey.days >= SILENT_DAYS:
        return _keener(survey, policy)
    return None


def _noisy(survey: Survey) -> bool:
    found = survey.figures
    if found.events < FEW_EVENTS:
        return False
    often = found.events / max(1, survey.targets) / max(1.0, survey.days) >= PER_DAY
    return bool(found.flaps) or often or found.short >= SHORT_SHARE * found.events


def _calmer(survey: Survey, policy: Policy, count_key: Sequence[str]) -> Proposal:
    found = survey.figures
    targets = "1 target" if survey.targets == 1 else f"{survey.targets} targets"
    said = f"told {found.events} events on {targets} in {survey.days:.1f} days"
    said += f", {found.flaps} of them flapping" if found.flaps else ""
    said += f", {found.short} over within {SHORT:g} s" if found.short else ""
    item = deciding(policy)
    limit = _farther(survey, item) if item is not None else None
    count = _longer(survey, policy)
    if count is not None and (limit is None or found.short >= SHORT_SHARE * found.events):
        length = survey.lengths[_rank(survey.lengths)]
        met = f"nine in ten of its episodes met the condition in at most {length} samples in a row"
        return Proposal(policy.id, "noisy", f"{said}; {met}: wait for {count}", _patch(count_key, count))
    if limit is not None and item is not None and survey.quantiles is not None:
        edge = survey.quantiles[str(OFTEN if item.op in (">=", ">") else SELDOM)]
        kept = f"99.9 % of the samples have {item.reading} {_side(item)} {edge:.4g}"
        words = f"{said}; {kept}: move {item.parameter} to {limit:g}"
        return Proposal(policy.id, "noisy", words, {"params": {item.parameter: limit}})
    return Proposal(policy.id, "noisy", f"{said}; no value speaks for itself: look at what it tells of", None)


def _longer(survey: Survey, policy: Policy) -> int | None:
    """One sample more than nine in ten of the episodes lasted."""
    if not isinstance(policy.detect, Threshold) or not survey.lengths:
        return None
    count = survey.lengths[_rank(survey.lengths)] + 1
    return count if policy.detect.count < count <= MOST_SAMPLES else None


def _rank(lengths: Sequence[int]) -> int:
    return math.ceil(0.9 * len(lengths)) - 1


def _farther(survey: Survey, item: Comparison) -> float | None:
    """A limit that all but one in a thousand of the samples keep."""
    if survey.quantiles is None:
        return None
    if item.op in (">=", ">"):
        limit = _rounded(survey.quantiles[str(OFTEN)], up=True)
        return limit if limit > item.value else None
    limit = _rounded(survey.quantiles[str(SELDOM)], up=False)
    return limit if limit < item.value else None


def _keener(survey: Survey, policy: Policy) -> Proposal | None:
    """A limit nearer to what was seen, and still out of its reach."""
    item = deciding(policy)
    if item is None or survey.quantiles is None or survey.lowest is None or survey.highest is None:
        return None
    middle = survey.quantiles["0.5"]
    upper = item.op in (">=", ">")
    edge = survey.highest if upper else survey.lowest
    if edge == middle:  # it never moves: nothing can be said of where it would be too much
        return None
    limit = _rounded(middle + HEADROOM * (edge - middle), up=upper)
    if abs(limit - middle) > WELL_BELOW * abs(item.value - middle):
        return None
    words = (
        f"told nothing in {survey.days:.1f} days: of {survey.samples} samples {item.reading} was never "
        f"{'above' if upper else 'below'} {edge:.4g}, its limit is {item.value:g}; "
        f"{item.parameter} {limit:g} would still have told nothing"
    )
    return Proposal(policy.id, "silent", words, {"params": {item.parameter: limit}})


def _side(item: Comparison) -> str:
    return "at most" if item.op in (">=", ">") else "at least"


def _patch(key: Sequence[str], value: object) -> Mapping[str, Any]:
    patch: Any = value
    for part in reversed(key):
        patch = {part: patch}
    found: Mapping[str, Any] = patch
    return found


def _rounded(value: float, *, up: bool) -> float:
    """To two digits, away from what was seen."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    steps = math.ceil(round(value / unit, 6)) if up else math.floor(round(value / unit, 6))
    return float(f"{steps * unit:.6g}")
