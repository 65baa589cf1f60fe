"""One cycle: a deadline around the probe, an outcome in every case. Never raises for a target's sake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog
from msgspec.structs import replace

from probed.clock import Clock
from probed.deadlines import Deadline
from probed.errors import Blind, NotApplicable, ProbeError, TargetFailed
from probed.model import NO_FACTS, NOTHING, Outcome, Reading, Sample, Target
from probed.probes import AnyProbe, Combined, Context, Measured, Probe, View
from probed.redaction import redact
from probed.steps import kept

_log = structlog.get_logger(__name__)

LAG_SHARE = 0.5
"""A cycle that overran its deadline, or stood still in it, for more than this share of it was starved by us: blind."""

ACCEPT_SHARE = 0.25
"""A connection that was begun with less of the deadline left proves nothing: the machine had no time to accept it."""

MAX_REASON = 500

_OBSERVED = Outcome.OBSERVED  # Python 3.11 is slow to find a member of an enum


async def take_sample(
    probe: Probe, context: Context, timeout: float, clock: Clock, stalled: Callable[[float], float] = lambda _: 0.0
) -> Sample:
    """Run ``probe`` once under one deadline of ``timeout`` seconds. Only cancellation passes through.

    ``stalled`` tells the longest stall of the event loop since a monotonic time: it is not the target's fault.
    """
    if probe.tell is not None:
        return told(probe, context, clock)
    began = clock.mono()
    # Whole milliseconds, because that is what is recorded: a replay sees the very times that were judged.
    at, mono = round(clock.wall(), 3), round(began, 3)
    measured: Measured | Mapping[str, Reading] = NOTHING
    error: ProbeError | None = None
    with kept() as taken:
        try:
            with Deadline(timeout):
                measured = await probe.run(context)
        except ProbeError as raised:
            # Without its traceback, which holds this frame as the frame holds the error: work for the collector.
            error = raised.with_traceback(None)
        except TimeoutError:
            elapsed = clock.mono() - began
            starved = max(elapsed - timeout, stalled(began))
            if starved > timeout * LAG_SHARE:
                error = Blind("lag", f"this daemon stood still for {starved:.1f} s during the cycle")
            elif taken.unaccepted() >= timeout * ACCEPT_SHARE:
                error = TargetFailed("no_answer", f"no connection within {timeout:g} s: nobody accepts or refuses one")
            else:
                error = TargetFailed("timeout", f"no answer within {timeout:g} s")
        except Exception as raised:  # noqa: BLE001 - whatever it is: a bug in a probe must not end the daemon nor blame the target
            error = _bug(probe.name, context.target, raised)
    duration = clock.mono() - began
    return _sample(probe, context.target, at, mono, duration, measured, error)


def told(probe: Probe, context: Context, clock: Clock) -> Sample:
    """One cycle of a probe that waits for nothing: the same outcomes, no deadline."""
    assert probe.tell is not None
    measured: Measured | Mapping[str, Reading] = NOTHING
    error: ProbeError | None = None
    try:
        measured = probe.tell(context)
    except ProbeError as raised:
        error = raised.with_traceback(None)  # as above
    except Exception as raised:  # noqa: BLE001 - as above
        error = _bug(probe.name, context.target, raised)
    at, mono = round(clock.wall(), 3), round(clock.mono(), 3)
    return _sample(probe, context.target, at, mono, 0.0, measured, error)


def combine(probe: Combined, view: View) -> Sample:
    """The sample of a combined probe; the same outcomes, no I/O and no deadline."""
    measured: Measured | Mapping[str, Reading] = NOTHING
    error: ProbeError | None = None
    try:
        measured = probe.combine(view)
    except ProbeError as raised:
        error = raised.with_traceback(None)  # as above
    except Exception as raised:  # noqa: BLE001 - as above: what a server sent must never end the daemon
        error = _bug(probe.name, view.target, raised)
    sample = _sample(probe, view.target, view.at, view.mono, 0.0, measured, error)
    if error is None or isinstance(error, NotApplicable):
        return sample
    # A cycle in which the inputs said nothing must not cost a combined probe its memory.
    remembered = error.facts if error.facts is not None else view.before.facts if view.before else NO_FACTS
    return replace(sample, facts=remembered)


def _bug(probe: str, target: Target, raised: Exception) -> Blind:
    _log.exception("probe.bug", probe=probe, target=target.key)
    return Blind("bug", f"the probe itself failed: {type(raised).__name__}: {raised}")


def _sample(
    probe: AnyProbe,
    target: Target,
    at: float,
    mono: float,
    duration: float,
    measured: Measured | Mapping[str, Reading],
    error: ProbeError | None,
) -> Sample:
    if error is not None:
        return Sample(target, probe.name, _outcome(error), at, mono, duration, NOTHING, _line(str(error)), error.kind)
    if isinstance(measured, Measured):
        return Sample(
            target, probe.name, _OBSERVED, at, mono, duration, _told(measured.readings, probe.timed),
            _line(measured.reason) if measured.reason else "", "", measured.series, measured.facts, measured.keep,
        )  # fmt: skip
    return Sample(target, probe.name, _OBSERVED, at, mono, duration, _told(measured, probe.timed), "", "", "", NO_FACTS)


def _told(readings: Mapping[str, Reading], timed: Sequence[str]) -> Mapping[str, Reading]:
    """Seconds to the microsecond: the rest is the clock's noise, and every bit of it would be kept for weeks."""
    rounded: dict[str, Reading] = {}
    for name in timed:
        reading = readings.get(name)
        if isinstance(reading, float):
            rounded[name] = round(reading, 6)
    return {**readings, **rounded} if rounded else readings


def _outcome(error: ProbeError) -> Outcome:
    if isinstance(error, Blind):
        return Outcome.BLIND
    if isinstance(error, NotApplicable):
        return Outcome.NOT_APPLICABLE
    return Outcome.FAILED


def _line(text: str) -> str:
    """One bounded line without secrets, control or direction-changing characters: a hostile peer may have said it."""
    text = redact(text[: MAX_REASON * 2])
    clean = text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)
    return " ".join(clean.split())[:MAX_REASON]
