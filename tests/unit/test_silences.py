"""What a silence covers and when it holds; what becomes of events under one, over every order of things."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from probed.model import OBSERVER, Event, EventState, Severity, Target
from probed.recurrence import parse
from probed.silences import DAY, MAX_SECONDS, MAX_SPAN, Scope, Silence, SilenceState, wrong_span
from probed.silencing import Silencing
from probed.store import Change, Commit
from tests.unit.bench import POLICIES, Bench, F, shown

A, Z = "node-a", "node-b"
NOON = 1_795_000_000.0
DB_Z = "database_unavailable node-b critical"
ORDERS, ON_Z = Scope(("orders",)), Scope((), (Z,))


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def an_event(
    instance: str = "orders",
    node: str = A,
    event: str = "database_unavailable",
    severity: Severity = Severity.FATAL,
) -> Event:
    return Event("e", event, "n", severity, EventState.OPEN, Target(instance, node, "postgres"), NOON, "m")


def a_silence(
    scope: Scope = ORDERS,
    *,
    begins: float = NOON,
    lasts: float | None = 3600.0,
    every: str = "",
    id_: str = "s1",
) -> Silence:
    ends_at = None if lasts is None else begins + lasts
    return Silence(id_, scope, "upgrade", "ann", NOON, begins, ends_at, parse(every) if every else None)


# --- what it covers


@pytest.mark.parametrize(
    "scope, covers",
    [
        (Scope(("orders",)), True),
        (Scope(("orders", "billing")), True),
        (Scope(("billing",)), False),
        (Scope(("order",)), False),
        (Scope((), (A,)), True),
        (Scope((), (Z,)), False),
        (Scope((), (), ("database_unavailable",)), True),
        (Scope((), (), ("no_leader",)), False),
        (Scope((), (), (), (Severity.FATAL, Severity.CRITICAL)), True),
        (Scope((), (), (), (Severity.NORMAL,)), False),
        (Scope(("orders",), (A,), ("database_unavailable",), (Severity.FATAL,)), True),
        (Scope(("orders",), (A,), ("database_unavailable",), (Severity.NORMAL,)), False),
    ],
)
def test_an_event_is_covered_when_all_that_is_named_fits(scope: Scope, covers: bool) -> None:
    assert scope.covers(an_event()) is covers


def test_a_node_does_not_cover_what_belongs_to_the_instance_as_a_whole() -> None:
    assert not Scope((), (A,)).covers(an_event(node="", event="no_leader"))


@pytest.mark.parametrize(
    "scope, covers",
    [
        (Scope((), ("bench",)), False),
        (Scope((), (), (), (Severity.NORMAL,)), False),
        (Scope((OBSERVER,)), True),
        (Scope((), (), ("monitoring_gap",)), True),
        (Scope(("orders",), (), ("monitoring_gap",)), False),
    ],
)
def test_that_the_observer_did_not_look_is_covered_only_when_that_is_named(scope: Scope, covers: bool) -> None:
    assert scope.covers(an_event(OBSERVER, "bench", "monitoring_gap", Severity.NORMAL)) is covers


def test_that_targets_cannot_be_seen_is_covered_only_when_that_is_named() -> None:
    blind = an_event("orders", "", "probe_blind", Severity.NORMAL)
    assert not Scope(("orders",)).covers(blind)
    assert Scope(("orders",), (), ("probe_blind",)).covers(blind)


def test_a_scope_says_in_words_what_it_covers() -> None:
    assert str(Scope(("orders", "billing"), (A,), (), (Severity.NORMAL,))) == (
        "instance orders or billing, node node-a, severity normal"
    )
    assert not Scope()


# --- when it holds


def test_it_holds_from_its_start_and_not_any_more_at_its_end() -> None:
    silence = a_silence(begins=NOON + 60)
    states = [silence.state_at(at) for at in (NOON, NOON + 60, NOON + 3659.9, NOON + 3660)]
    assert states == ["pending", "active", "active", "expired"]


def test_one_that_was_ended_is_over_from_then_on() -> None:
    silence = a_silence().end(NOON + 60, "bob")
    assert [silence.state_at(at) for at in (NOON + 59, NOON + 60)] == ["active", "expired"]
    assert silence.ended_by == "bob"


def test_one_that_was_ended_before_it_began_never_holds() -> None:
    silence = a_silence(begins=NOON + 600).end(NOON + 60, "bob")
    assert [silence.state_at(at) for at in (NOON + 59, NOON + 60, NOON + 601)] == ["pending", "expired", "expired"]


def test_one_with_windows_holds_in_them_and_between_its_two_ends() -> None:
    midnight = NOON - NOON % DAY
    daily = a_silence(begins=midnight + 2.5 * 3600, lasts=2 * DAY, every="daily 02:00-03:00 UTC")
    hours = (2.25, 2.5, 2.99, 3, 26, 26.5, 27, 50, 50.49, 50.5, 74.5)
    states = [daily.state_at(midnight + hour * 3600).value for hour in hours]
    assert states == [
        "pending", "active", "active", "pending", "active", "active", "pending", "active", "active", "expired",
        "expired",
    ]  # fmt: skip
    window = daily.window_at(midnight)
    assert window is not None
    assert (window.opens_at, window.closes_at) == (midnight + 2.5 * 3600, midnight + 3 * 3600)


def test_one_whose_last_window_has_closed_is_expired_before_its_end() -> None:
    midnight = NOON - NOON % DAY
    daily = a_silence(begins=midnight, lasts=DAY, every="daily 02:00-03:00 UTC")
    assert daily.state_at(midnight + 3 * 3600) is SilenceState.EXPIRED


def test_windows_of_a_file_may_come_back_for_good() -> None:
    forever = a_silence(lasts=None, every="daily 02:00-03:00 UTC")
    assert forever.over_at is None
    assert forever.state_at(NOON + 4000 * DAY) is not SilenceState.EXPIRED


# --- bounds


@pytest.mark.parametrize(
    "starts, ends, every, wrong",
    [
        (0, 3600, "", []),
        (0, MAX_SECONDS, "", []),
        (0, None, "", ["ends_at"]),
        (0, 0, "", ["ends_at"]),
        (-7200, -3600, "", ["ends_at"]),
        (0, MAX_SECONDS + 1, "", ["ends_at"]),
        (MAX_SPAN + 1, MAX_SPAN + 2, "", ["starts_at"]),
        (0, MAX_SPAN, "daily 02:00-03:00 UTC", []),
        (0, MAX_SPAN + 1, "daily 02:00-03:00 UTC", ["ends_at"]),
        (0, None, "daily 02:00-03:00 UTC", ["ends_at"]),
        (0, 60, "sun 1-7 02:00-03:00 UTC", ["every"]),
    ],
)
def test_a_silence_is_bounded(starts: float, ends: float | None, every: str, wrong: list[str]) -> None:
    recurrence = parse(every) if every else None
    found = wrong_span(NOON + starts, None if ends is None else NOON + ends, recurrence, NOON)
    assert [key for key, _ in found] == wrong


def test_what_a_file_declares_may_be_over_or_go_on_for_good() -> None:
    assert list(wrong_span(NOON - 7200, NOON - 3600, None, None)) == []
    assert list(wrong_span(0, None, parse("daily 02:00-03:00 UTC"), None)) == []
    assert list(wrong_span(0, 1000 * DAY, parse("daily 02:00-03:00 UTC"), None)) == []
    assert [key for key, _ in wrong_span(NOON, NOON + MAX_SECONDS + 1, None, None)] == ["ends_at"]


# --- the clock


def test_a_clock_that_is_set_back_makes_nobody_deaf_for_longer() -> None:
    silencing = Silencing()
    silencing.put(a_silence(lasts=3600))
    assert silencing.over(an_event(), NOON, 1000.0) is not None
    assert silencing.over(an_event(), NOON + 1799, 4599.0) is not None
    assert silencing.over(an_event(), NOON + 1800, 4600.0) is None


def test_a_clock_that_was_wrong_when_it_began_makes_nobody_deaf_for_longer_than_it_was_to_last() -> None:
    silencing = Silencing()
    silencing.put(a_silence(begins=NOON - 600, lasts=3600))
    assert silencing.over(an_event(), NOON - 600, 1000.0) is not None
    assert silencing.over(an_event(), NOON - 1200, 4600.0) is None


def test_a_clock_that_jumps_ahead_ends_it_and_back_again_resumes_it() -> None:
    silencing = Silencing()
    silencing.put(a_silence(lasts=3600))
    held = [silencing.over(an_event(), at, mono) is not None
            for at, mono in ((NOON, 0.0), (NOON + DAY, 60.0), (NOON + 120, 120.0), (NOON + 3600, 3600.0))]  # fmt: skip
    assert held == [True, False, True, False]


def test_of_several_the_one_that_holds_longest_is_named_and_stays_named_while_it_holds() -> None:
    silencing = Silencing()
    for name, lasts in (("short", 60.0), ("long", 600.0)):
        silencing.put(a_silence(lasts=lasts, id_=name))
    found = silencing.over(an_event(), NOON, 0.0)
    assert found is not None
    assert found.id == "long"
    found = silencing.over(replace(an_event(), silenced_by="short"), NOON + 1, 1.0)
    assert found is not None
    assert found.id == "short"


def test_what_a_new_configuration_does_not_declare_any_more_is_gone_and_what_was_added_by_hand_stays() -> None:
    silencing = Silencing()
    silencing.put(a_silence(id_="by-hand"))
    silencing.declare([a_silence(id_="file:nightly"), a_silence(id_="file:weekly")])
    silencing.declare([a_silence(id_="file:weekly")])
    assert sorted(silence.id for silence in silencing.all()) == ["by-hand", "file:weekly"]


def test_those_that_are_long_over_are_let_go() -> None:
    silencing = Silencing()
    silencing.put(a_silence(id_="old", lasts=60))
    silencing.put(a_silence(id_="new", lasts=2 * DAY))
    silencing.forget_expired(NOON + 60)
    assert [silence.id for silence in silencing.all()] == ["new"]


@settings(deadline=None)
@given(st.lists(st.integers(-40, 400), min_size=1, max_size=30))
def test_windows_are_asked_at_any_times_in_any_order(hours: list[int]) -> None:
    silencing = Silencing()
    made = a_silence(lasts=10 * DAY, every="mon-fri 22:00 for 30h Europe/Berlin")
    silencing.put(made)
    for hour in hours:
        at = NOON + hour * 3600.0
        assert silencing.state(made, at, 0.0) is made.state_at(at)


# --- events


def silence(bench: Bench, seconds: float, scope: Scope = ON_Z, *, id_: str = "s1") -> Silence:
    """Somebody adds a silence that holds from now on."""
    now = bench.clock.wall()
    made = Silence(id_, scope, "reboot", "ann", now, now, now + seconds)
    _ = bench.ledger.append(Commit(silences=(made,)))
    bench.pipeline.silencing.put(made)
    return made


def expire(bench: Bench, made: Silence) -> None:
    bench.pipeline.silencing.put(made.end(bench.clock.wall(), "bob"))


def told(bench: Bench) -> list[str]:
    """What people were told."""
    return [shown(change) for change in bench.announced if change.announced]


def down(bench: Bench, rounds: int) -> list[list[str]]:
    return [bench.round(db={Z: F}) for _ in range(rounds)]


def bench_with(policy: str = "database_unavailable") -> Bench:
    return Bench(policies={policy: POLICIES[policy]})


async def test_under_a_silence_an_event_is_recorded_and_names_it_and_nobody_is_told() -> None:
    bench = bench_with()
    silence(bench, 3600)
    assert down(bench, 3) == [[], [], [f"opened {DB_Z}"]]
    await asyncio.sleep(0)
    event = bench.event("database_unavailable", Z)
    assert (event.silenced, event.silenced_by, event.muted) == (True, "s1", True)
    note = event.details["silence"]
    assert isinstance(note, dict)
    assert (note["comment"], note["author"]) == ("reboot", "ann")
    assert told(bench) == []


async def test_what_came_and_went_under_a_silence_is_never_told() -> None:
    bench = bench_with()
    silence(bench, 3600)
    down(bench, 3)
    for _ in range(2):
        bench.round()
    await asyncio.sleep(0)
    assert told(bench) == []
    assert bench.event("database_unavailable", Z).state is EventState.RESOLVED


async def test_what_outlives_its_silence_is_told_once_and_so_is_its_end() -> None:
    bench = bench_with()
    silence(bench, 30)
    changes = [change for round_ in down(bench, 12) for change in round_]
    for _ in range(2):
        bench.round()
    await asyncio.sleep(0)
    assert changes == [f"opened {DB_Z}", f"unsilenced {DB_Z}"]
    assert told(bench) == [f"unsilenced {DB_Z}", f"resolved {DB_Z}: recovered"]
    event = bench.event("database_unavailable", Z)
    assert (event.silenced, event.silenced_by, event.muted) == (False, "s1", False)


async def test_what_recovers_with_the_very_sample_at_which_the_silence_is_over_is_not_told() -> None:
    bench = bench_with()
    silence(bench, 25)
    down(bench, 3)
    bench.round()
    assert bench.round() == [f"resolved {DB_Z}: recovered"]
    await asyncio.sleep(0)
    assert told(bench) == []


async def test_a_silence_over_what_was_told_lets_its_end_be_told() -> None:
    bench = bench_with()
    down(bench, 3)
    silence(bench, 3600)
    assert down(bench, 2) == [[f"silenced {DB_Z}"], []]
    event = bench.event("database_unavailable", Z)
    assert (event.silenced, event.muted) == (False, True)
    for _ in range(2):
        bench.round()
    await asyncio.sleep(0)
    assert told(bench) == [f"opened {DB_Z}", f"resolved {DB_Z}: recovered"]


async def test_what_was_told_and_outlives_a_silence_is_told_once_more() -> None:
    bench = bench_with()
    down(bench, 3)
    silence(bench, 10)
    down(bench, 4)
    await asyncio.sleep(0)
    assert told(bench) == [f"opened {DB_Z}", f"unsilenced {DB_Z}"]


async def test_a_silence_that_somebody_ends_lets_go_of_its_events_with_the_next_sample() -> None:
    bench = bench_with()
    made = silence(bench, 3600)
    down(bench, 3)
    expire(bench, made)
    assert down(bench, 2) == [[f"unsilenced {DB_Z}"], []]


async def test_a_silence_that_follows_another_takes_its_events_over() -> None:
    bench = bench_with()
    silence(bench, 16)
    down(bench, 3)
    silence(bench, 3600, id_="s2")
    assert down(bench, 3) == [[f"silenced {DB_Z}"], [], []]
    event = bench.event("database_unavailable", Z)
    assert (event.silenced, event.silenced_by) == (True, "s2")
    await asyncio.sleep(0)
    assert told(bench) == []


async def test_an_occurrence_under_a_silence_is_recorded_and_never_told() -> None:
    bench = bench_with("ha_switchover")
    bench.round()
    silence(bench, 10, Scope(("orders",)))
    bench.round(leader=Z)
    for _ in range(10):
        bench.round()
    await asyncio.sleep(0)
    event = bench.event("ha_switchover")
    assert (event.state, event.silenced_by) == (EventState.OCCURRED, "s1")
    assert told(bench) == []


async def test_a_silenced_cause_still_holds_back_its_consequences() -> None:
    bench = Bench(frontend=True)
    bench.round()
    silence(bench, 3600, Scope((), (), ("database_unavailable",)))
    for _ in range(6):
        bench.round(db={A: F, Z: F}, haproxy=F, receiver={Z: 0.0})
    await asyncio.sleep(0)
    assert [change for change in told(bench) if "receiver" in change or "replication" in change] == []
    assert bench.event("wal_receiver_interrupted", Z).suppressed


async def test_a_consequence_that_outlives_its_cause_under_a_silence_is_told_when_that_is_over() -> None:
    bench = Bench()
    bench.round()
    for _ in range(3):
        bench.round(db={A: F})
    silence(bench, 60, Scope((), (), ("wal_receiver_interrupted",)))
    down_ = [bench.round(db={A: F}, receiver={Z: 0.0}) for _ in range(3)]
    assert "opened wal_receiver_interrupted node-b critical (suppressed)" in down_[1]
    after = [change for _ in range(14) for change in bench.round(receiver={Z: 0.0})]
    receiver = [change for change in after if "receiver" in change]
    assert receiver == [
        "lifted wal_receiver_interrupted node-b critical",
        "unsilenced wal_receiver_interrupted node-b critical",
    ]
    await asyncio.sleep(0)
    assert [change for change in told(bench) if "receiver" in change] == receiver[1:]


async def test_after_a_restart_a_silence_holds_on_and_ends_in_time() -> None:
    bench = bench_with()
    silence(bench, 60)
    down(bench, 3)
    bench.restart(10)
    assert down(bench, 2) == [[], []]
    changes = [change for round_ in down(bench, 8) for change in round_]
    assert changes == [f"unsilenced {DB_Z}"]


async def test_what_outlived_its_silence_while_nobody_looked_is_told_at_the_next_sample() -> None:
    bench = bench_with()
    silence(bench, 60)
    down(bench, 3)
    bench.restart(100)
    assert down(bench, 1) == [[f"unsilenced {DB_Z}"]]
    await asyncio.sleep(0)
    assert told(bench) == [f"unsilenced {DB_Z}"]


async def test_what_is_not_watched_any_more_ends_in_silence() -> None:
    bench = bench_with()
    silence(bench, 3600)
    down(bench, 3)
    bench.change_policy("database_unavailable", enabled=False)
    await asyncio.sleep(0)
    assert bench.event("database_unavailable", Z).state is EventState.RESOLVED
    assert told(bench) == []


# --- every order of things

STEPS = st.lists(
    st.sampled_from(["fail", "fail", "fail", "well", "well", "silence 12", "silence 40", "end", "restart"]), max_size=60
)


@settings(deadline=None, max_examples=200)
@given(STEPS)
async def test_over_every_history_people_hear_of_each_end_whose_beginning_they_heard_and_of_no_other(
    steps: list[str],
) -> None:
    bench = bench_with()
    made: list[Silence] = []
    for number, step in enumerate(steps):
        match step.split():
            case ["fail"]:
                bench.round(db={Z: F})
            case ["well"]:
                bench.round()
            case ["silence", seconds]:
                made.append(silence(bench, float(seconds), id_=f"s{number}"))
            case ["end"] if made:
                expire(bench, made.pop())
            case ["restart"]:
                bench.restart(3)
        await asyncio.sleep(0)
        check(bench.announced, bench)
    # The silences run out: whatever is open still is told of now.
    for _ in range(12):
        bench.round(db={Z: F})
    await asyncio.sleep(0)
    check(bench.announced, bench)
    for event in bench.ledger.open_events:
        heard = [change for change in bench.announced if change.announced and change.event.id == event.id]
        assert heard or event.quiet
        assert not event.silenced


def check(changes: list[Change], bench: Bench) -> None:
    ledger = {event.id: event for event in bench.ledger.events.values()}
    for event_id, event in ledger.items():
        heard = [change.kind for change in changes if change.event.id == event_id and change.announced]
        if event.state is EventState.RESOLVED and heard:
            assert heard[0] != "resolved", "an end without a beginning"
            assert heard[-1] == "resolved", "an alarm whose end is never told"
        assert heard.count("opened") + heard.count("resolved") <= 2
        assert not any(change.announced and change.kind == "silenced" for change in changes)
        assert not (event.silenced and heard), "people were told, and it says that they were not"
        if event.silenced:
            assert event.silenced_by is not None
