"""One cycle: a deadline around the probe and an outcome in every case."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.clock import SystemClock
from probed.errors import KINDS, Blind, NotApplicable, ProbeError, TargetFailed
from probed.model import Outcome, Sample, Target
from probed.probes import Combined, Context, Measured, Probe, Readings, Run, View
from probed.probes._sql import TooManyConnections
from probed.sampling import MAX_REASON, combine, take_sample
from probed.testing import FakeClock, blackhole, make_sample, settle
from tests.leaks import unstarved

TARGET = Target("orders", "node-a", "postgres", "10.0.0.1:5432", kind="postgres")


def a_probe(run: Run) -> Probe:
    return Probe("a_probe", run, ("postgres",), {"x": "a number"}, "For tests.")


def raising(error: BaseException) -> Probe:
    async def run(_: Context) -> Readings:
        raise error

    return a_probe(run)


async def taken(probe: Probe, timeout: float = 1.0) -> Sample:
    return await take_sample(probe, Context(TARGET, timeout), timeout, SystemClock())


async def test_plain_readings_are_observed() -> None:
    async def run(context: Context) -> Readings:
        assert context.target is TARGET
        return {"x": 1.5}

    clock = FakeClock()
    sample = await take_sample(a_probe(run), Context(TARGET, 1.0), 1.0, clock)
    assert sample == Sample(TARGET, "a_probe", Outcome.OBSERVED, clock.wall(), clock.mono(), 0.0, {"x": 1.5})


async def test_what_a_probe_says_beyond_numbers_travels_with_the_sample() -> None:
    async def run(_: Context) -> Measured:
        return Measured({"x": 1.0}, "a word\nof explanation", "series", {"fact": 1})

    sample = await taken(a_probe(run))
    assert (sample.reason, sample.series, sample.facts) == ("a word of explanation", "series", {"fact": 1})


async def test_what_a_probe_wants_kept_travels_with_the_sample_and_its_context_is_left_to_the_caller() -> None:
    async def run(context: Context) -> Measured:
        return Measured({}, keep={"seen": dict(context.kept)})

    context = Context(TARGET, 1.0, kept={"n": 1})
    for _ in range(2):
        assert (await take_sample(a_probe(run), context, 1.0, FakeClock())).keep == {"seen": {"n": 1}}


async def test_the_time_of_a_sample_is_when_its_cycle_started() -> None:
    clock = FakeClock()

    async def run(_: Context) -> Readings:
        clock.step(0.75)
        return {}

    sample = await take_sample(a_probe(run), Context(TARGET, 1.0), 1.0, clock)
    assert (sample.mono, sample.duration) == (1_000.0, 0.75)


@pytest.mark.parametrize(
    "error, outcome",
    [
        (TargetFailed("refused", "connection refused"), Outcome.FAILED),
        (Blind("auth", "wrong password"), Outcome.BLIND),
        (NotApplicable("a primary has no receiver"), Outcome.NOT_APPLICABLE),
        (TooManyConnections("no slot is free"), Outcome.FAILED),
    ],
)
async def test_what_a_probe_raises_is_the_outcome_and_the_reason(error: ProbeError, outcome: Outcome) -> None:
    sample = await taken(raising(error))
    assert (sample.outcome, sample.reason, sample.kind) == (outcome, str(error), error.kind)
    assert sample.kind in KINDS
    assert sample.readings == {}


async def test_a_target_that_does_not_answer_in_time_has_failed() -> None:
    async with blackhole() as (host, port):

        async def run(_: Context) -> Readings:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello")
            try:
                await reader.read()
            finally:
                writer.close()
            return {}

        sample = await unstarved(lambda: taken(a_probe(run), timeout=0.2))
    assert (sample.outcome, sample.kind, sample.reason) == (Outcome.FAILED, "timeout", "no answer within 0.2 s")
    assert 0.2 <= sample.duration <= 0.3  # later, and it would have been our own starvation


async def test_a_cycle_that_this_daemon_starved_is_blind_and_not_the_targets_fault() -> None:
    async def run(_: Context) -> Readings:
        time.sleep(0.1)  # the event loop stands still: what the target answered meanwhile was not read
        await asyncio.sleep(1)
        return {}

    sample = await taken(a_probe(run), timeout=0.02)
    assert (sample.outcome, sample.kind) == (Outcome.BLIND, "lag")
    assert "this daemon stood still" in sample.reason


@pytest.mark.parametrize("error", [KeyError("x"), AssertionError(), RecursionError("deep"), UnicodeError("bad")])
async def test_a_bug_in_a_probe_is_blind_and_ends_nothing(error: Exception) -> None:
    sample = await taken(raising(error))
    assert (sample.outcome, sample.kind) == (Outcome.BLIND, "bug")
    assert type(error).__name__ in sample.reason


async def test_cancellation_passes_through() -> None:
    async def run(_: Context) -> Readings:
        await asyncio.Event().wait()
        return {}

    task = asyncio.create_task(taken(a_probe(run), timeout=60.0))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_program_passes_through(error: type[BaseException]) -> None:
    coroutine = taken(raising(error()))
    with pytest.raises(error):
        coroutine.send(None)
    coroutine.close()


@given(st.text(st.characters(), max_size=2_000))
def test_a_reason_is_one_bounded_line_whatever_the_peer_sent(text: str) -> None:
    sample = combine(combined_of(raise_=TargetFailed("protocol", text)), view())
    assert len(sample.reason) <= MAX_REASON
    assert all(char.isprintable() for char in sample.reason)
    assert sample.reason == sample.reason.strip()


# --- combined probes


def combined_of(raise_: Exception | None = None, measured: Measured | None = None) -> Combined:
    def run(_: View) -> Measured:
        if raise_ is not None:
            raise raise_
        return measured or Measured({"x": 1.0})

    return Combined("a_combined", run, "node", "postgres", ("postgres_stats",), {"x": "a number"}, "For tests.")


def view(before: Mapping[str, object] | None = None) -> View:
    sample = None if before is None else make_sample(probe="a_combined", facts=before)
    return View(TARGET, ("node-a",), {}, at=50.0, mono=7.0, before=sample)


def test_a_combination_has_the_time_of_its_inputs_and_no_duration() -> None:
    sample = combine(combined_of(), view())
    assert (sample.at, sample.mono, sample.duration, sample.outcome) == (50.0, 7.0, 0.0, Outcome.OBSERVED)


@pytest.mark.parametrize("error", [Blind("no_input", "nobody answered"), KeyError("hostile")])
def test_a_cycle_without_input_does_not_cost_a_combined_probe_its_memory(error: Exception) -> None:
    sample = combine(combined_of(error), view({"ring": (1, 2)}))
    assert sample.outcome is Outcome.BLIND
    assert sample.facts == {"ring": (1, 2)}


def test_what_is_not_applicable_any_more_is_forgotten() -> None:
    assert combine(combined_of(NotApplicable("now a primary")), view({"ring": (1, 2)})).facts == {}
