"""The observer on itself: stalls, gaps, descriptors, names, isolation, blindness, and who accepted a connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

import pytest

from probed import cadence, steps
from probed.clock import SystemClock
from probed.model import Outcome, Sample, Target
from probed.probes import Combined, Context, Probe, Readings, View, catalogue
from probed.probes._http import HttpClient
from probed.probes._sql import Login, Session
from probed.reachability import Sight
from probed.sampling import combine, take_sample
from probed.testing import FakeClock, blackhole, settle
from probed.vitals import BEAT, Faring, Gap, Vitals, descriptors_used

OK, F, B = Outcome.OBSERVED, Outcome.FAILED, Outcome.BLIND
ONESELF = Target("observer", "watcher", "probed", kind="observer")


def vitals(clock: FakeClock, gaps: list[Gap] | None = None, asleep: list[float] | None = None) -> Vitals:
    return Vitals(
        clock,
        longest_pause=10.0,
        on_gap=(gaps if gaps is not None else []).append,
        _asleep=lambda: (asleep or [0.0])[0],
    )


async def beats(seen: Vitals, clock: FakeClock) -> None:
    async for slot in cadence.every(BEAT, 0.0, clock):
        seen.beat(slot.due)


async def ask(name: str, seen: Vitals, memory: dict[str, object] | None = None) -> Sample:
    one = catalogue()[name]
    assert isinstance(one, Probe)
    context = Context(ONESELF, 2.0, memory=memory if memory is not None else {}, _vitals=seen)
    return await take_sample(one, context, 2.0, seen.clock)


# --- stalls and gaps


async def test_a_loop_that_is_on_time_has_no_lag_and_no_gap() -> None:
    clock, gaps = FakeClock(), list[Gap]()
    seen = vitals(clock, gaps)
    beat = asyncio.create_task(beats(seen, clock))
    await clock.move(60)
    assert seen.lag_since(0.0) == 0.0
    assert gaps == []
    beat.cancel()


async def test_a_stall_is_known_by_its_length_and_forgotten_by_who_asks_for_later_times() -> None:
    clock = FakeClock()
    seen = vitals(clock)
    beat = asyncio.create_task(beats(seen, clock))
    await clock.move(1)
    clock.step(3.0)
    await settle()
    assert seen.lag_since(clock.mono() - 5) == pytest.approx(3.0, abs=BEAT)
    await clock.move(1)
    assert seen.lag_since(clock.mono() - 0.5) == 0.0
    beat.cancel()


async def test_a_process_that_was_stopped_for_twenty_seconds_has_one_gap_with_both_ends() -> None:
    clock, gaps = FakeClock(), list[Gap]()
    seen = vitals(clock, gaps)
    beat = asyncio.create_task(beats(seen, clock))
    await clock.move(1)
    began = clock.wall()
    clock.step(20.0)
    await settle()
    [gap] = gaps
    assert gap.reason == "stalled"
    assert gap.began_at == pytest.approx(began, abs=BEAT)
    assert gap.ended_at == clock.wall()
    taken = await ask("observer_gap", seen)
    assert taken.readings == {"gaps": 1.0}
    assert taken.reason.startswith("nothing was sampled for 20 s, from ")
    assert (await ask("observer_gap", seen)).readings == {"gaps": 0.0}, "told once"
    beat.cancel()


async def test_a_machine_that_was_suspended_has_a_gap_although_its_monotonic_clock_stood_still() -> None:
    clock, gaps, asleep = FakeClock(), list[Gap](), [0.0]
    seen = vitals(clock, gaps, asleep)
    beat = asyncio.create_task(beats(seen, clock))
    await clock.move(1)
    asleep[0] = 300.0
    clock.step_wall(300.0)
    await clock.move(1)
    assert [round(gap.seconds) for gap in gaps] == [300]
    beat.cancel()


async def test_the_lag_of_a_cycle_is_the_longest_stall_since_the_last_one() -> None:
    clock, memory = FakeClock(), dict[str, object]()
    seen = vitals(clock)
    assert (await ask("observer_loop", seen, memory)).readings == {"loop_lag_seconds": 0.0}
    clock.step(5)
    seen.note(clock.mono(), 1.5)
    taken = await ask("observer_loop", seen, memory)
    assert taken.readings == {"loop_lag_seconds": 1.5}
    assert taken.reason == "the event loop stood still for 1.5 s"
    clock.step(5)
    assert (await ask("observer_loop", seen, memory)).readings == {"loop_lag_seconds": 0.0}


async def test_a_cycle_that_timed_out_while_the_loop_stood_still_blames_nobody() -> None:
    async with blackhole() as (host, port):
        target = Target("orders", "a", "postgres", f"{host}:{port}", kind="postgres")
        session = Session(Login(host, port), 0.3)
        liveness = catalogue()["postgres_liveness"]
        assert isinstance(liveness, Probe)
        context = Context(target, 0.3, _sql=session)
        starved = await take_sample(liveness, context, 0.3, SystemClock(), lambda _: 0.2)
        assert (starved.outcome, starved.kind) == (B, "lag")
        fed = await take_sample(liveness, context, 0.3, SystemClock(), lambda _: 0.1)
        assert (fed.outcome, fed.kind) == (F, "timeout")
        session.drop()


# --- descriptors


async def test_open_descriptors_are_counted_against_the_limit() -> None:
    used, limit = descriptors_used()
    handles = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    try:
        assert descriptors_used() == (used + 20, limit)
        taken = await ask("observer_descriptors", vitals(FakeClock()))
        assert taken.readings["descriptors_used_pct"] == pytest.approx(100 * (used + 20) / limit, rel=0.2)
        assert f"of {limit} file descriptors are open" in taken.reason
    finally:
        for handle in handles:
            os.close(handle)


# --- what it can see


def having_seen(sight: Sight) -> Vitals:
    seen = vitals(FakeClock())
    seen.reachability._of["orders"] = sight
    return seen


async def test_isolation_names_the_machines_from_which_nothing_comes_back() -> None:
    hosts = frozenset(f"10.0.0.{number}" for number in range(1, 8))
    taken = await ask("observer_sight", having_seen(Sight(frozenset({"10.0.0.9"}), hosts)))
    assert taken.readings == {"silent_hosts_pct": 87.5, "silent_hosts": 7.0, "heard_hosts": 1.0}
    assert taken.reason == "nothing comes back from 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5 and 2 more"
    assert (await ask("observer_sight", having_seen(Sight()))).reason == ""


async def test_names_that_do_not_resolve_are_counted_and_named() -> None:
    taken = await ask("observer_dns", having_seen(Sight(unresolved=frozenset({"b.example", "a.example"}))))
    assert taken.readings == {"unresolved_hosts": 2.0}
    assert taken.reason == "cannot resolve a.example, b.example"


# --- who does not take what it is told


async def fares(faring: Faring | None) -> Sample:
    one = catalogue()["observer_receiver"]
    assert isinstance(one, Probe)
    seen = vitals(FakeClock())
    seen.faring = {"tickets": faring}.get
    target = Target("observer", "watcher", "receiver", kind="receiver", member="tickets")
    return await take_sample(one, Context(target, 2.0, _vitals=seen), 2.0, seen.clock)


async def test_a_receiver_that_takes_nothing_is_named_with_its_answer() -> None:
    taken = await fares(Faring(950.0, "HTTP 503"))
    assert (taken.readings, taken.reason) == ({"failing_seconds": 950.0}, "tickets: HTTP 503")
    lost = await fares(Faring(86400.0, "HTTP 410", given_up=3))
    assert lost.reason == "tickets: HTTP 410; 3 notices were given up"


async def test_of_a_receiver_that_was_sent_nothing_yet_nothing_is_said() -> None:
    """So an event of before a restart stays open, until the receiver has taken something."""
    taken = await fares(Faring(None))
    assert (taken.outcome, taken.readings) == (OK, {})
    assert (await fares(Faring(0.0, "HTTP 503"))).reason == ""
    assert (await fares(None)).outcome is Outcome.NOT_APPLICABLE


# --- who accepted a connection


async def outcome(reach_out: Callable[[], Awaitable[None]], timeout: float = 0.2) -> Sample:
    """The sample of a probe that does just this."""

    async def run(context: Context) -> Readings:
        await reach_out()
        return {}

    reaching = Probe("reaching", run, ("nothing",), {}, "For this test.")
    return await take_sample(reaching, Context(Target("orders", "", "x"), timeout), timeout, SystemClock())


async def test_a_cycle_in_which_nobody_accepted_is_told_from_one_in_which_somebody_was_mute() -> None:
    async def never_connects() -> None:
        with steps.step(steps.CONNECT):
            await asyncio.sleep(5)

    async def connects_and_waits() -> None:
        with steps.step(steps.CONNECT):
            pass
        await asyncio.sleep(5)

    async def waits_on_an_open_connection() -> None:
        await asyncio.sleep(5)

    kinds = [(await outcome(run)).kind for run in (never_connects, connects_and_waits, waits_on_an_open_connection)]
    assert kinds == ["no_answer", "timeout", "timeout"]


async def test_a_connection_that_was_begun_at_the_last_moment_proves_nothing() -> None:
    async def waits_its_turn_and_connects() -> None:
        await asyncio.sleep(0.9)
        with steps.step(steps.CONNECT):
            await asyncio.sleep(5)

    assert (await outcome(waits_its_turn_and_connects, timeout=1.0)).kind == "timeout"


async def test_what_one_cycle_noted_is_not_anothers() -> None:
    async def never_connects() -> None:
        with steps.step(steps.CONNECT):
            await asyncio.sleep(5)

    async def waits() -> None:
        await asyncio.sleep(5)

    both = await asyncio.gather(outcome(never_connects), outcome(waits))
    assert [sample.kind for sample in both] == ["no_answer", "timeout"]


@pytest.mark.parametrize("name", ["patroni_rest", "postgres_liveness", "haproxy_stats"])
async def test_a_peer_that_accepts_and_is_mute_has_been_heard(name: str) -> None:
    async with blackhole() as (host, port):
        http, session = HttpClient(), Session(Login(host, port), 0.3)
        target = Target("orders", "a", "x", f"{host}:{port}")
        context = Context(target, 0.3, (f"http://{host}:{port}",), _http=http, _sql=session)
        one = catalogue()[name]
        assert isinstance(one, Probe)
        taken = await take_sample(one, context, 0.3, SystemClock())
        assert (taken.outcome, taken.kind) == (F, "timeout")
        session.drop()
        await http.close()


# --- long blindness


def blind_view(mono: float, before: Sample | None, samples: Mapping[tuple[str, str], Sample]) -> Sample:
    one = catalogue()["blindness"]
    assert isinstance(one, Combined)
    return combine(one, View(Target("orders", "", "observer"), ("a", "b"), samples, mono, mono, before))


def seen_as(outcome: Outcome, mono: float, kind: str = "auth", node: str = "a") -> Sample:
    target = Target("orders", node, "postgres", f"{node}:5432")
    return Sample(target, "postgres_liveness", outcome, mono, mono, reason="wrong password", kind=kind)


def test_blindness_is_measured_from_its_first_sample_and_names_the_remedy() -> None:
    before: Sample | None = None
    for mono in (0.0, 5.0, 10.0):
        before = blind_view(mono, before, {("postgres_liveness", "a"): seen_as(B, mono)})
    assert before is not None
    assert before.readings == {"blind_seconds": 10.0, "blind_targets": 1.0}
    assert before.reason == "orders/a/postgres: wrong password"


def test_blindness_to_another_target_does_not_make_the_first_one_younger_and_sight_ends_it() -> None:
    first = blind_view(0.0, None, {("p", "a"): seen_as(B, 0.0)})
    both = {("p", "a"): seen_as(B, 5.0), ("p", "b"): seen_as(B, 5.0, node="b")}
    second = blind_view(5.0, first, both)
    assert second.readings == {"blind_seconds": 5.0, "blind_targets": 2.0}
    third = blind_view(9.0, second, {("p", "a"): seen_as(OK, 9.0), ("p", "b"): seen_as(B, 9.0, node="b")})
    assert third.readings == {"blind_seconds": 4.0, "blind_targets": 1.0}


def test_a_failed_target_and_the_want_of_anothers_sample_are_no_blindness() -> None:
    samples = {("p", "a"): seen_as(F, 0.0), ("q", "a"): seen_as(B, 0.0, kind="no_input")}
    assert blind_view(0.0, None, samples).readings == {"blind_seconds": 0.0, "blind_targets": 0.0}
