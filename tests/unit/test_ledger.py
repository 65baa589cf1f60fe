"""The ledger: pages of a long list, numbers that outlive what they count, transitions in order, and what goes when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sqlite3
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from probed.incidents import new_id
from probed.model import Event, EventState, Evidence, Moment, Severity, Side
from probed.shadows import ShadowChanges, ShadowEvent
from probed.silences import Scope, Silence
from probed.store import (
    AuditQuery,
    AuditRecord,
    Change,
    Commit,
    DailyCount,
    EventQuery,
    GapRecord,
    LeadershipRecord,
    Numbering,
    counting,
    listing,
    tending,
)
from probed.store import sqlite as engine
from probed.store.ageing import Life
from probed.store.applying import SHELVE, apply
from probed.store.migrating import SCHEMA
from probed.store.notices import Fate, GivenUp
from probed.store.purging import DAY, Limits, Purge, pages_of, size
from probed.store.rows import EVENT_COLUMNS, event_row
from probed.store.sqlite import SqliteStore
from probed.testing import FakeClock, make_sample
from tests.unit.test_store import NOON, TARGET, an_event, opened, resolved

HOUR = 3600.0
FOR_GOOD = Limits(age=10_000 * DAY, size=1 << 40)


@contextlib.asynccontextmanager
async def opening(directory: Path, clock: FakeClock, limits: Limits = FOR_GOOD) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(directory, clock=clock, limits=limits)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteStore]:
    async with opening(tmp_path, clock) as made:
        yield made


def rows(directory: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(directory / "probed.db")) as connection:
        return connection.execute(sql).fetchall()


def motley(chance: random.Random, number: int, began: float = NOON) -> list[Event]:
    """Events of every make, several in the same millisecond."""
    events = []
    for _ in range(number):
        at = began + chance.randrange(40) + chance.choice((0.0, 0.0004, 0.0009, 0.25))
        name = chance.choice(("no_leader", "ha_switchover", "deadlocks_frequent"))
        state = (
            EventState.OCCURRED if name == "ha_switchover" else chance.choice((EventState.OPEN, EventState.RESOLVED))
        )
        events.append(
            an_event(
                at,
                event=name,
                state=state,
                severity=chance.choice(list(Severity)),
                suppressed=chance.random() < 0.3,
                silenced=(covered := chance.random() < 0.2),
                silenced_by=chance.choice(("tuesday", "sunday")) if covered or chance.random() < 0.1 else None,
                target=replace(TARGET, instance=chance.choice(("orders", "billing")), node=f"node-{chance.random()}"),
            )
        )
    return events


def fits(event: Event, query: EventQuery) -> bool:
    return (
        query.instance in (None, event.target.instance)
        and query.event in (None, event.event)
        and query.severity in (None, event.severity)
        and query.state in (None, event.state)
        and query.suppressed in (None, event.suppressed)
        and query.silenced in (None, event.silenced)
        and query.silenced_by in (None, event.silenced_by)
        and (query.since is None or event.opened_at >= query.since)
        and (query.until is None or event.opened_at < query.until)
        and (query.active_since is None or lasted_into(event, query.active_since))
    )


def lasted_into(event: Event, at: float) -> bool:
    return event.opened_at >= at or event.state is EventState.OPEN or (event.resolved_at or 0.0) >= at


class TestList:
    async def test_every_combination_of_filters_finds_what_fits_and_nothing_else(self, store: SqliteStore) -> None:
        chance = random.Random(7)
        events = motley(chance, 120)
        await store.append(Commit(changes=tuple(Change(event, "opened", event.opened_at) for event in events)))
        by_id = sorted(events, key=lambda event: event.id, reverse=True)
        combinations = itertools.product(
            (None, "orders", "nobody"), (None, "no_leader", "ha_switchover"), (None, Severity.FATAL),
            (None, *EventState), (None, True, False), (None, NOON + 10.0005), (None, NOON + 20.25),
            (None, True, False), (None, "sunday"),
        )  # fmt: skip
        for instance, event, severity, state, suppressed, since, until, silenced, silence in combinations:
            query = EventQuery(
                instance, event, severity, state, suppressed, silenced, silence, since=since, until=until, limit=1000
            )
            assert await store.events(query) == [item for item in by_id if fits(item, query)], query

    @pytest.mark.parametrize("seed", range(4))
    async def test_the_pages_together_are_the_whole_list_while_events_arrive(
        self, store: SqliteStore, seed: int
    ) -> None:
        chance = random.Random(seed)
        there = motley(chance, 80)
        await store.append(Commit(changes=tuple(Change(event, "opened", event.opened_at) for event in there)))
        filters: list[dict[str, Any]] = [
            {}, {"instance": "orders"}, {"suppressed": False}, {"severity": Severity.FATAL, "instance": "billing"},
            {"event": "no_leader", "since": NOON + 5}, {"state": EventState.OCCURRED, "until": NOON + 30},
        ]  # fmt: skip
        later = itertools.count(NOON + 60, 60)
        for wanted in filters:
            query, seen = EventQuery(**wanted, limit=chance.randrange(1, 9)), list[str]()
            expected = [event.id for event in await store.events(replace(query, limit=10_000))]
            while page := await store.events(query):
                assert len(page) <= query.limit
                seen += [event.id for event in page]
                query = replace(query, before_id=page[-1].id)
                late = motley(chance, 3, began=next(later))
                await store.append(Commit(changes=tuple(Change(event, "opened", event.opened_at) for event in late)))
            assert seen == expected

    @pytest.mark.parametrize("limit", [1000, 40])
    async def test_what_was_open_at_a_time_is_found_however_long_before_it_began(
        self, store: SqliteStore, limit: int
    ) -> None:
        chance = random.Random(11)
        events = [
            replace(
                event,
                resolved_at=event.opened_at + chance.choice((5.0, HOUR, DAY - 1, DAY, 9 * DAY, 60 * DAY)),
            )
            if event.state is EventState.RESOLVED
            else event
            for days in (0, 0.5, 1, 3, 8, 30, 90)
            for event in motley(chance, 30, began=NOON - days * DAY)
        ]
        await store.append(Commit(changes=tuple(Change(event, "opened", event.opened_at) for event in events)))
        by_id = sorted(events, key=lambda event: event.id, reverse=True)
        combinations = itertools.product(
            (NOON - 2 * DAY, NOON - 40 * DAY, NOON - 8 * DAY - 0.5, NOON + DAY), (None, "orders"),
            (None, EventState.OPEN, EventState.RESOLVED), (None, NOON - 5 * DAY), (None, NOON), (None, True),
        )  # fmt: skip
        for active, instance, state, since, until, silenced in combinations:
            query = EventQuery(
                instance, state=state, silenced=silenced, since=since, until=until, active_since=active, limit=limit
            )
            expected, found = [item for item in by_id if fits(item, query)], list[Event]()
            while page := await store.events(query):
                found += page
                query = replace(query, before_id=page[-1].id)
            assert found == expected, query

    async def test_an_event_moves_with_its_state_and_is_never_listed_twice(self, store: SqliteStore) -> None:
        event = an_event(suppressed=True)
        await store.append(opened(event))
        event = replace(event, suppressed=False)
        await store.append(Commit(changes=(Change(event, "lifted", NOON + 5),)))
        await store.append(resolved(event, NOON + 9))
        assert [found.state for found in await store.events(EventQuery())] == [EventState.RESOLVED]
        assert await store.events(EventQuery(state=EventState.OPEN)) == []
        assert await store.events(EventQuery(suppressed=True)) == []
        assert len(await store.events(EventQuery(suppressed=False, state=EventState.RESOLVED))) == 1

    @pytest.mark.parametrize("at", [NOON, NOON + 0.0005, NOON + 0.9995, 1.8e9 + 0.123456, 4e9 + 1e-6])
    def test_an_event_id_lies_within_the_span_of_its_time(self, at: float) -> None:
        low, high = listing.ids(at, at + 1e-6)
        assert low <= new_id(at) < high
        low, high = listing.ids(at + 1.001, at + 2)
        assert new_id(at) < low
        assert new_id(at + 2.001) >= high

    def test_ids_lie_in_the_order_of_their_moments_within_a_millisecond_too(self) -> None:
        moments = [NOON + 1e-6 * number for number in range(0, 2000, 3)]
        made = [new_id(at) for at in moments]
        assert made == sorted(made) and len(set(made)) == len(made)
        assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in made} == {(7, uuid.RFC_4122)}

    async def test_no_page_reads_the_table_from_end_to_end(self, store: SqliteStore, tmp_path: Path) -> None:
        """Whatever the statement planner may come to think of them: every statement of a page seeks."""
        await store.append(opened(an_event()))
        with contextlib.closing(sqlite3.connect(tmp_path / "probed.db")) as connection:
            connection.row_factory = sqlite3.Row
            asked: list[str] = []
            connection.set_trace_callback(asked.append)
            listing.page(connection, EventQuery(instance="orders", state=EventState.OPEN, since=1.0))
            listing.page(connection, EventQuery())
            listing.page(connection, EventQuery(active_since=NOON))
            listing.transitions(connection, 0, 10)
            connection.set_trace_callback(None)
            plans = [row["detail"] for sql in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
        assert len(asked) >= 6
        assert [plan for plan in plans if plan.startswith("SCAN") and plan.split()[1] in ("event", "placed")] == []
        assert any("event_lasting" in plan for plan in plans)


class TestCounts:
    async def test_an_event_that_is_announced_late_counts_once_and_on_the_day_it_began(
        self, store: SqliteStore
    ) -> None:
        event = an_event(suppressed=True)
        await store.append(opened(event))
        assert await store.counts() == {}
        lifted = replace(event, suppressed=False)
        await store.append(Commit(changes=(Change(lifted, "lifted", NOON + DAY),)))
        await store.append(Commit(changes=(Change(lifted, "linked", NOON + DAY),)))
        await store.append(resolved(lifted, NOON + 2 * DAY))
        assert await store.counts() == {("database_unavailable", "fatal", "orders"): 1}
        assert await store.daily(0, NOON + 9 * DAY, "UTC") == [
            DailyCount("2026-11-18", "database_unavailable", "orders", Severity.FATAL, 1)
        ]

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"])
    async def test_days_are_counted_as_if_every_event_was_looked_at(self, store: SqliteStore, zone: str) -> None:
        chance = random.Random(zone)
        began = 1_792_800_000.0  # a week around the end of DST in Europe, and in the Americas
        events = [an_event(began + chance.random() * 20 * DAY) for _ in range(300)]
        await store.append(Commit(changes=tuple(Change(event, "opened", event.opened_at) for event in events)))
        for _ in range(20):
            since = began + chance.random() * 20 * DAY
            until = since + chance.choice((60.0, 1000.0, 3 * DAY, 30 * DAY)) * chance.random()
            counted = {day.date: day.count for day in await store.daily(since, until, zone)}
            looked = Counter(date_of(event.opened_at, zone) for event in events if since <= event.opened_at < until)
            assert counted == dict(looked)

    async def test_totals_and_days_outlive_the_events(self, tmp_path: Path, clock: FakeClock) -> None:
        async with opening(tmp_path, clock, Limits(age=DAY)) as store:
            for number in range(5):
                event = an_event(NOON + number)
                await store.append(opened(event))
                await store.append(resolved(event, NOON + number + 1))
            counts, days = await store.counts(), await store.daily(NOON - DAY, NOON + DAY, "UTC")
            await live(store, clock, hours=26)
            assert await store.events(EventQuery()) == []
            assert await store.counts() == counts == {("database_unavailable", "fatal", "orders"): 5}
            assert await store.daily(NOON - DAY, NOON + DAY, "UTC") == days
            assert (await store.status()).events == 0
        async with opening(tmp_path, clock) as store:
            assert await store.counts() == counts


def date_of(at: float, zone: str) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).date().isoformat()


class TestTransitions:
    async def test_they_come_in_order_from_any_number_on_with_who_made_them(self, store: SqliteStore) -> None:
        event, other = an_event(), an_event()
        await store.append(opened(event))
        await store.append(opened(other))
        acked = replace(event, acked_by="ann")
        await store.append(Commit(changes=(Change(acked, "acked", NOON + 1, who="ann", comment="mine"),)))
        first, second, third = await store.transitions(0, 10)
        assert [(item.seq, item.kind, item.event.id) for item in (first, second)] == [
            (1, "opened", event.id), (2, "opened", other.id)
        ]  # fmt: skip
        assert (third.seq, third.kind, third.at, third.who, third.comment) == (3, "acked", NOON + 1, "ann", "mine")
        assert third.event == acked
        assert await store.transitions(1, 1) == [second]
        assert await store.transitions(3, 10) == []
        assert await store.numbering() == Numbering(0, 3)

    async def test_an_event_tells_its_own_history(self, store: SqliteStore) -> None:
        event = an_event()
        await store.append(opened(event))
        await store.append(opened(an_event()))
        await store.append(resolved(event, NOON + 60))
        found = await store.event(event.id)
        assert found is not None
        assert [(item.seq, item.kind, item.at) for item in found.history] == [
            (1, "opened", NOON),
            (3, "resolved", NOON + 60),
        ]


async def live(store: SqliteStore, clock: FakeClock, hours: int) -> None:
    """Time in which the daemon lives, with a sign of life every hour; then until nothing is left to purge."""
    for _ in range(hours):
        clock.step(HOUR)
        await store.append(Commit())
    await purged(store)


async def purged(store: SqliteStore) -> None:
    """Until the purge that is due has come to its end: the writer does a slice after each group of commits."""
    before = -1
    for _ in range(200):
        await store.append(Commit())
        if not store._purge.busy and store._purge.purged == before:
            return
        before = store._purge.purged
    raise AssertionError("a purge that never ends")


def told(at: float) -> Commit:
    """Something of everything that ages besides events."""
    return Commit(
        gaps=(GapRecord(at - 60, at, "eye", "stopped"),),
        leadership=(LeadershipRecord("orders", at, {"class": "failover", "old_leader": "a", "new_leader": "b"}),),
        audit=(AuditRecord(at, "ann", "socket", "", "event.ack", "x"),),
        silences=(Silence("s", Scope(nodes=("node-a",)), "disk swap", "ann", at - 60, at - 60, at),),
        shadows=ShadowChanges(
            events=(
                ShadowEvent("no_leader", "orders", at - 60, resolved_at=at),
                ShadowEvent("ha_switchover", "orders", at, occurred=True),
                ShadowEvent("no_leader", "billing", at),
            )
        ),
    )


class TestAge:
    async def test_an_event_goes_with_all_that_was_kept_of_it_once_it_is_old_enough(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        event = an_event()
        async with opening(tmp_path, clock, Limits(age=DAY)) as store:
            await store.append(
                Commit(changes=(Change(event, "opened", NOON, before=(make_sample(),)),),
                       evidence={event.id: [Evidence("pressure", "", NOON, Side.AFTER, Moment.TRIGGER, "{}")]})
            )  # fmt: skip
            await store.append(resolved(event, NOON + 60))
            await store.append(told(NOON))
            await live(store, clock, hours=23)
            assert await store.event(event.id) is not None
            await live(store, clock, hours=3)
            assert await store.event(event.id) is None
            assert await store.numbering() == Numbering(2, 2)
            assert await store.gaps(0, NOON * 2) == []
            assert await store.leadership(None, 0, NOON * 2) == []
            assert len(await store.audit(AuditQuery(limit=10))) == 1, "who changed what is kept longer"
        assert rows(tmp_path, "SELECT target FROM shadow_event") == [("billing",)], "it is open yet"
        for table in ("event", "transition", "filed", "evidence", "placed", "shelf", "silence"):
            assert rows(tmp_path, f"SELECT count(*) FROM {table}") == [(0,)], table

    async def test_what_somebody_is_owed_news_of_stays_until_that_is_settled(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        event = an_event()
        async with opening(tmp_path, clock, Limits(age=DAY)) as store:
            await store.append(Commit(changes=(Change(event, "opened", NOON, owed=("hooks",)),)))
            await store.append(resolved(event, NOON + 60))
            await live(store, clock, hours=30)
            assert await store.event(event.id) is not None
            await store.append(Commit(given_up=(GivenUp("hooks", NOON + 30 * 3600, Fate.EXPIRED, ""),)))
            await live(store, clock, hours=2)
            assert await store.event(event.id) is None
        for table in ("delivery", "notice", "transition"):
            assert rows(tmp_path, f"SELECT count(*) FROM {table}") == [(0,)], table

    async def test_what_is_open_stays_and_so_does_its_cause_until_its_consequence_goes(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        cause, alone = an_event(), an_event()
        consequence = an_event(caused_by=cause.id, suppressed=True)
        async with opening(tmp_path, clock, Limits(age=DAY)) as store:
            for event in (cause, alone, consequence):
                await store.append(opened(event))
            await store.append(resolved(cause, NOON + 60))
            await store.append(resolved(alone, NOON + 60))
            await live(store, clock, hours=48)
            assert {event.id for event in await store.events(EventQuery())} == {cause.id, consequence.id}
            await store.append(resolved(consequence, clock.wall()))
            await live(store, clock, hours=23)
            assert len(await store.events(EventQuery())) == 2, "it is as old as its last transition"
            await live(store, clock, hours=3)
            assert await store.events(EventQuery()) == []

    async def test_transitions_of_what_stays_keep_their_numbers_and_new_ones_go_on(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        stays, goes = an_event(), an_event()
        async with opening(tmp_path, clock, Limits(age=DAY)) as store:
            await store.append(opened(stays))
            await store.append(opened(goes))
            await store.append(resolved(goes, NOON + 60))
            await live(store, clock, hours=26)
            await store.append(opened(an_event()))
            assert [item.seq for item in await store.transitions(0, 10)] == [1, 4]
            assert await store.numbering() == Numbering(3, 4)

    @pytest.mark.parametrize("step", [DAY, 366 * DAY, 20_000 * DAY, -DAY, -20_000 * DAY])
    async def test_a_step_of_the_date_purges_nothing(self, tmp_path: Path, clock: FakeClock, step: float) -> None:
        event = an_event()
        async with opening(tmp_path, clock, Limits(age=2 * DAY)) as store:
            await store.append(opened(event))
            await store.append(resolved(event, NOON + 60))
            await store.append(told(NOON))
            await live(store, clock, hours=3)
            clock.step_wall(step)
            await live(store, clock, hours=3)
            clock.step_wall(-step)  # somebody puts it right
            await live(store, clock, hours=3)
            assert len(await store.events(EventQuery())) == 1
            assert len(await store.gaps(0, 1e12)) == len(await store.leadership(None, 0, 1e12)) == 1
            await live(store, clock, hours=45)
            assert await store.events(EventQuery()) == [], "its time comes all the same"

    async def test_a_date_that_is_wrong_after_a_reboot_purges_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        event = an_event()
        async with opening(tmp_path, FakeClock(NOON), Limits(age=DAY)) as store:
            await store.append(opened(event))
            await store.append(resolved(event, NOON + 60))
        monkeypatch.setattr(engine, "boot_id", lambda: "another boot")
        clock = FakeClock(NOON + 366 * DAY, now_mono=5.0)
        async with opening(tmp_path, clock, Limits(age=DAY)) as store:
            await live(store, clock, hours=20)
            assert len(await store.events(EventQuery())) == 1
            await live(store, clock, hours=6)
            assert await store.events(EventQuery()) == []

    async def test_time_within_one_boot_counts_also_while_no_daemon_ran(self, tmp_path: Path, clock: FakeClock) -> None:
        event = an_event()
        async with opening(tmp_path, clock, Limits(age=DAY)) as store:
            await store.append(opened(event))
            await store.append(resolved(event, NOON + 60))
        clock.step(DAY + HOUR)
        async with opening(tmp_path, clock, Limits(age=DAY)) as store:
            await live(store, clock, hours=1)
            assert await store.events(EventQuery()) == []

    async def test_a_shorter_age_takes_effect_at_a_reload(self, tmp_path: Path, clock: FakeClock) -> None:
        event = an_event()
        async with opening(tmp_path, clock, Limits(age=90 * DAY)) as store:
            await store.append(opened(event))
            await store.append(resolved(event, NOON + 60))
            await live(store, clock, hours=26)
            assert len(await store.events(EventQuery())) == 1
            store.keep(Limits(age=DAY))
            await live(store, clock, hours=1)
            assert await store.events(EventQuery()) == []


def a_store_in_memory() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.row_factory = sqlite3.Row
    made.execute("PRAGMA auto_vacuum = INCREMENTAL")
    for file in SCHEMA:
        made.executescript(file.read_text(encoding="utf-8"))
    return made


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A store of 60 resolved events of some 30 KiB each, in memory."""
    made = a_store_in_memory()
    Life().beat(made, NOON, 0.0, "boot")
    for number in range(60):
        event = an_event(NOON + number, message="x" * 30_000)
        apply(made, opened(event))
        apply(made, resolved(event, NOON + number))
    with contextlib.closing(made):
        yield made


def number_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM event").fetchone()[0])


class TestSize:
    def test_the_oldest_go_until_it_fits_and_the_file_gives_their_space_back(
        self, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("probed.store.purging.SPARE_PAGES", 8)
        before, limit = pages_of(connection)[0], size(connection) // 2
        purge = Purge(Limits(size=limit))
        purge.slice(connection, 0.0)
        while purge.busy:
            purge.slice(connection, 0.0)
        left = [row["id"] for row in connection.execute("SELECT id, opened_at FROM event ORDER BY id")]
        assert 20 <= len(left) <= 30
        assert connection.execute("SELECT min(opened_at) FROM event").fetchone()[0] == NOON + 60 - len(left)
        assert size(connection) <= limit
        assert pages_of(connection)[0] < 0.7 * before

    def test_a_store_within_its_limits_loses_nothing(self, connection: sqlite3.Connection) -> None:
        purge = Purge(Limits(size=size(connection)))
        for minute in range(5):
            purge.slice(connection, minute * 61.0)
        assert number_of(connection) == 60

    def test_what_is_open_stays_whatever_the_size(self, connection: sqlite3.Connection) -> None:
        apply(connection, opened(an_event(message="x" * 500_000)))
        purge = Purge(Limits(size=1))
        purge.slice(connection, 0.0)
        while purge.busy:
            purge.slice(connection, 0.0)
        assert number_of(connection) == 1

    def test_a_slice_ends_when_its_time_is_up_and_the_next_goes_on(self, connection: sqlite3.Connection) -> None:
        ticks = itertools.count()
        purge = Purge(Limits(size=1), timer=lambda: next(ticks) * 0.001)  # each look at the timer takes 1 ms
        left = [60]
        while not left[1:] or purge.busy:
            purge.slice(connection, 0.0)
            assert not connection.in_transaction
            left.append(number_of(connection))
        steps = [before - after for before, after in itertools.pairwise(left)]
        assert sum(steps) == 60
        assert max(steps) <= 10

    async def test_commits_go_on_while_a_purge_is_busy(self, tmp_path: Path, clock: FakeClock) -> None:
        async with opening(tmp_path, clock) as store:
            for number in range(100):
                event = an_event(NOON + number, message="x" * 3_000)
                after = resolved(event, NOON + number).changes
                await store.append(Commit(changes=(*opened(event).changes, *after)))
            store.keep(Limits(size=200_000))
            clock.step(61)
            lasting = an_event(NOON + 1000)
            await asyncio.wait_for(store.append(opened(lasting)), 10)
            await purged(store)
            assert (await store.status()).events < 70
            assert await store.event(lasting.id) is not None


async def test_an_older_store_is_counted_and_shelved_when_it_is_migrated(tmp_path: Path, clock: FakeClock) -> None:
    events = [replace(event, silenced=False, silenced_by=None) for event in motley(random.Random(3), 100)]
    path = tmp_path / "probed.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number, file in enumerate(SCHEMA[:5], start=1):
            connection.executescript(file.read_text(encoding="utf-8") + f"\nPRAGMA user_version = {number};")
        connection.execute("INSERT INTO heartbeat (one, at, mono, boot) VALUES (1, ?, 1, 'b')", (NOON,))
        known = [row[1] for row in connection.execute("PRAGMA table_info (event)")]
        columns = [name for name in EVENT_COLUMNS if name in known]  # others came later
        insert = f"INSERT INTO event ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        for event in events:
            row = dict(zip(EVENT_COLUMNS, event_row(event), strict=True))
            connection.execute(insert, [row[name] for name in columns])
            transition = (event.id, event.opened_at)
            connection.execute("INSERT INTO transition (event_id, kind, at) VALUES (?, 'opened', ?)", transition)
    async with opening(tmp_path / "fresh", clock) as fresh:
        await fresh.append(Commit(changes=tuple(Change(event, "opened", event.opened_at) for event in events)))
        async with opening(tmp_path, clock) as migrated:
            query = EventQuery(suppressed=False, instance="orders")
            assert await migrated.events(query) == await fresh.events(query) != []
            assert await migrated.events(EventQuery(limit=1000)) == await fresh.events(EventQuery(limit=1000))
            assert await migrated.counts() == await fresh.counts() != {}
            assert await migrated.daily(0, NOON * 2, "UTC") == await fresh.daily(0, NOON * 2, "UTC") != []
            assert (await migrated.status()).events == 100


async def test_what_an_older_store_owes_and_knows_of_an_event_is_still_known_when_it_is_migrated(
    tmp_path: Path, clock: FakeClock
) -> None:
    occurred, over, settled = an_event(state=EventState.OCCURRED), an_event(), an_event()
    with contextlib.closing(sqlite3.connect(tmp_path / "probed.db", isolation_level=None)) as connection:
        for number, file in enumerate(SCHEMA[:14], start=1):
            connection.executescript(file.read_text(encoding="utf-8") + f"\nPRAGMA user_version = {number};")
        columns = f"INSERT INTO event ({', '.join(EVENT_COLUMNS)}) VALUES ({', '.join('?' * len(EVENT_COLUMNS))})"
        connection.executemany(columns, [event_row(event) for event in (occurred, over, settled)])
        turns = [(settled, "opened", 0), (over, "opened", 1), (occurred, "occurred", 2), (over, "resolved", 3)]
        insert = "INSERT INTO transition (event_id, kind, at) VALUES (?, ?, ?)"
        connection.executemany(insert, [(event.id, kind, NOON + second) for event, kind, second in turns])
        owing = [(over, "trigger", 1), (occurred, "trigger", 2), (occurred, "recovery", 2), (over, "recovery", 3)]
        insert = "INSERT INTO evidence_owed (event_id, moment, at) VALUES (?, ?, ?)"
        connection.executemany(insert, [(event.id, moment, NOON + second) for event, moment, second in owing])
    store = SqliteStore(tmp_path, clock=clock)
    recovered = await store.open()
    try:
        owed = {(owed.event.id, owed.moment.value, owed.at - NOON) for owed in recovered.owed}
        assert owed == {(event.id, moment, second) for event, moment, second in owing}
        detail = await store.event(over.id)
        assert detail is not None and [turn.kind for turn in detail.history] == ["opened", "resolved"]
    finally:
        await store.close()


QUERIES = [
    EventQuery(instance, event, severity, state, suppressed, silenced, active_since=active, limit=limit)
    for instance, event, severity, state, suppressed, silenced, active, limit in itertools.product(
        (None, "orders"), (None, "no_leader"), (None, Severity.FATAL), (None, *EventState), (None, True, False),
        (None, False), (None, NOON + 10.0005), (2, 1000),
    )
]  # fmt: skip


def all_that_is_told(connection: sqlite3.Connection, queries: list[EventQuery]) -> list[Any]:
    """Pages, days, totals and whose transitions are whose: what depends on shelves, counts and what is filed."""
    spans = ((0.0, 2 * NOON), (NOON + 5.5, NOON + 35.5), (NOON - 900, NOON + DAY))
    return [
        [listing.page(connection, query) for query in queries],
        [counting.daily(connection, since, until, ZoneInfo("Asia/Kathmandu")) for since, until in spans],
        dict(counting.totals(connection)),
        sorted(tuple(row) for row in connection.execute("SELECT seq, event_id FROM turn")),
    ]


class TestShelving:
    @pytest.mark.parametrize("seed", range(3))
    def test_what_is_not_shelved_yet_is_listed_and_counted_as_if_it_was(self, seed: int) -> None:
        """Two stores with one history: in one every event is shelved at once, in the other when it happens to be."""
        chance = random.Random(seed)
        at_once, later = a_store_in_memory(), a_store_in_memory()
        there: list[Event] = []
        for step in range(60):
            there += motley(chance, 1, began=NOON + step)
            changes = [Change(there[-1], "opened", there[-1].opened_at)]
            if chance.random() < 0.7:
                place = chance.randrange(len(there))
                turned = replace(
                    there[place],
                    suppressed=chance.random() < 0.4,
                    severity=chance.choice(list(Severity)),
                    state=chance.choice((there[place].state, EventState.RESOLVED)),
                )
                there[place] = turned
                changes.append(Change(turned, "amended", NOON))
            gone = there.pop(chance.randrange(len(there))).id if chance.random() < 0.15 else ""
            for connection in (at_once, later):
                apply(connection, Commit(changes=tuple(changes)))
                if connection is at_once or chance.random() < 0.1:
                    connection.execute(SHELVE)
                connection.execute(
                    "DELETE FROM transition WHERE seq IN (SELECT seq FROM turn WHERE event_id = ?)", (gone,)
                )
                connection.execute("DELETE FROM event WHERE id = ?", (gone,))
            if step % 10 == 9:
                queries = chance.sample(QUERIES, 60)
                assert all_that_is_told(later, queries) == all_that_is_told(at_once, queries)
        later.execute(SHELVE)
        assert (
            later.execute("SELECT count(*) FROM transition WHERE seq NOT IN (SELECT seq FROM filed)").fetchone()[0] == 0
        )
        kept = (
            "SELECT event_id, seq FROM filed ORDER BY 1, 2",
            "SELECT event, instance, severity, total FROM series WHERE total ORDER BY 1, 2, 3",
            "SELECT quarter, event, instance, severity, number FROM tally JOIN series ON id = series ORDER BY 1, 2, 3, 4",
            "SELECT day, event, instance, severity, number FROM tally_day JOIN series ON id = series ORDER BY 1, 2, 3, 4",
            "SELECT event, instance, severity, state, suppressed, number FROM labelled WHERE number ORDER BY 1, 2, 3, 4, 5",
            "SELECT event_id, event, instance, severity, state, suppressed FROM placed JOIN labelled USING (shelf) ORDER BY 1",
        )
        for sql in kept:
            assert [tuple(row) for row in later.execute(sql)] == [tuple(row) for row in at_once.execute(sql)]

    async def test_a_hundred_changes_are_shelved_together_and_the_rest_when_there_is_nothing_else_to_do(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        shelved = "SELECT count(*) FROM placed"
        async with opening(tmp_path, clock) as store:
            for number in range(engine.SHELVED_TOGETHER - 1):
                await store.append(opened(an_event(NOON + number)))
            assert rows(tmp_path, shelved) == [(0,)]
            assert (await store.status()).events == engine.SHELVED_TOGETHER - 1
            await store.append(opened(an_event(NOON + 200)))
            assert rows(tmp_path, shelved) == [(engine.SHELVED_TOGETHER,)]
            await store.append(opened(an_event(NOON + 201)))
            assert tending.state_of(tmp_path).events == engine.SHELVED_TOGETHER + 1
            assert tending.state_of(tmp_path).open_events == engine.SHELVED_TOGETHER + 1
        with contextlib.closing(sqlite3.connect(tmp_path / "probed.db", isolation_level=None)) as connection:
            assert connection.execute(shelved).fetchall() == [(engine.SHELVED_TOGETHER + 1,)], "nothing else to do"
            apply(connection, opened(an_event(NOON + 300)))  # as a daemon that is killed leaves it
            assert connection.execute(shelved).fetchall() == [(engine.SHELVED_TOGETHER + 1,)]
        async with opening(tmp_path, clock):
            assert rows(tmp_path, shelved) == [(engine.SHELVED_TOGETHER + 2,)]


async def test_a_sign_of_life_is_written_once_a_second_however_many_commits_there_are(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with opening(tmp_path, clock) as store:
        beats = []
        for _ in range(5):
            await store.append(opened(an_event()))
            beats += rows(tmp_path, "SELECT mono FROM heartbeat")
            clock.step(0.5)
    began = beats[0][0]
    assert [mono - began for (mono,) in beats] == [0.0, 0.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize("purged", [False, True])
async def test_transitions_of_an_older_store_keep_their_numbers_and_the_next_goes_on_from_them(
    tmp_path: Path, clock: FakeClock, *, purged: bool
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "probed.db", isolation_level=None)) as connection:
        for number, file in enumerate(SCHEMA[:13], start=1):
            connection.executescript(file.read_text(encoding="utf-8") + f"\nPRAGMA user_version = {number};")
        event = an_event()
        columns = f"INSERT INTO event ({', '.join(EVENT_COLUMNS)}) VALUES ({', '.join('?' * len(EVENT_COLUMNS))})"
        connection.execute(columns, event_row(event))
        insert = "INSERT INTO transition (seq, event_id, kind, at, who, comment) VALUES (?, ?, ?, ?, ?, ?)"
        connection.execute(insert, (7, event.id, "opened", NOON, "", ""))
        connection.execute(insert, (8, event.id, "acked", NOON + 1, "ann", "mine"))
        if purged:
            connection.execute("DELETE FROM transition")
            connection.execute("UPDATE purged SET seq = 8")
    async with opening(tmp_path, clock) as store:
        kept = [] if purged else [(7, "opened", "", ""), (8, "acked", "ann", "mine")]
        told = [(item.seq, item.kind, item.who, item.comment) for item in await store.transitions(0, 9)]
        assert told == kept
        await store.append(resolved(event, NOON + 60))
        assert [item.seq for item in await store.transitions(8, 9)] == [9]
        assert (await store.events(EventQuery(state=EventState.RESOLVED, instance="orders")))[0].id == event.id
        assert await store.counts() == {("database_unavailable", "fatal", "orders"): 1}
