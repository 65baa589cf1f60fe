"""The event store: one contract for every engine, and what the embedded one promises beyond it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from probed.clock import Clock
from probed.errors import StoreError
from probed.incidents import new_id
from probed.model import Event, EventState, Evidence, Moment, Phase, Severity, Side, Streak, Target
from probed.revisions import Difference, Mark, Patch, Revision, RevisionKind, Touched
from probed.store import Change, Commit, DailyCount, EventQuery, Member, Owed, Recovered, Store, migrating, sqlite
from probed.store.migrating import migrate
from probed.store.rows import EVENT_COLUMNS, event_row
from probed.store.sqlite import SqliteStore
from probed.testing import FakeClock, make_sample
from tests.unit.refusing import no_file_may_grow

NOON = 1_795_003_200.0
"""2026-11-18T12:00:00Z"""
TARGET = Target("orders", "node-a", "postgres", "10.0.0.1:5432")

Make = Callable[[Path, Clock], Store]
ENGINES: dict[str, Make] = {"sqlite": lambda directory, clock: SqliteStore(directory, clock=clock)}

_serial = itertools.count()


def an_event(at: float = NOON, **values: Any) -> Event:
    base = Event(
        id=new_id(at),
        event="database_unavailable",
        name="Database access unavailable",
        severity=Severity.FATAL,
        state=EventState.OPEN,
        target=replace(TARGET, node=f"node-{next(_serial)}"),
        opened_at=at,
        message="3 of 3 samples in a row failed: connection refused",
    )
    return replace(base, **values)


def opened(event: Event) -> Commit:
    return Commit(changes=(Change(event, "opened", event.opened_at),))


def resolved(event: Event, at: float) -> Commit:
    after = replace(event, state=EventState.RESOLVED, resolved_at=at, resolve_reason="recovered")
    return Commit(changes=(Change(after, "resolved", at),))


@contextlib.asynccontextmanager
async def opening(make: Make, directory: Path, clock: Clock | None = None) -> AsyncIterator[tuple[Store, Recovered]]:
    store = make(directory, clock or FakeClock(NOON))
    try:
        yield store, await store.open()
    finally:
        await store.close()


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Make:
    return ENGINES[request.param]


@pytest.fixture
async def store(make: Make, tmp_path: Path) -> AsyncIterator[Store]:
    async with opening(make, tmp_path / "store") as (opened_store, _):
        yield opened_store


def _note(done: list[int], number: int, _: asyncio.Future[None]) -> None:
    done.append(number)


class TestContract:
    """What every engine promises. A new engine joins by one line in ``ENGINES``."""

    async def test_the_first_start_finds_nothing(self, make: Make, tmp_path: Path) -> None:
        async with opening(make, tmp_path / "a" / "b") as (_, recovered):
            assert recovered == Recovered((), {}, (), {}, None, 0.0)

    async def test_what_probes_keep_comes_back_until_it_is_deleted(self, make: Make, tmp_path: Path) -> None:
        state = {"boot": "b", "total": 2, "cgroups": {"/pg ü": [1, 2, 0, False]}, "kmsg": None}
        async with opening(make, tmp_path) as (store, _):
            await store.append(Commit(kept={("oom", "orders/a/host"): {"total": 1}, ("oom", "orders/b/host"): state}))
            await store.append(Commit(kept={("oom", "orders/a/host"): state}))
        async with opening(make, tmp_path) as (store, recovered):
            assert recovered.kept == {("oom", "orders/a/host"): state, ("oom", "orders/b/host"): state}
            await store.append(Commit(kept={("oom", "orders/a/host"): None}))
        async with opening(make, tmp_path) as (_, recovered):
            assert recovered.kept == {("oom", "orders/b/host"): state}

    async def test_an_event_comes_back_as_it_was(self, store: Store) -> None:
        event = an_event(
            severity=Severity.CRITICAL,
            target=Target("orders", "node-ü", "haproxy", "10.0.0.1:5000", member="10.0.0.1:5000"),
            first_failed_at=NOON - 10.5,
            count=3,
            value=31.25,
            threshold=30.0,
            suggestion="look",
            policy_version=4,
            observer="eye",
            caused_by="0",
            suppressed=True,
            acked_by="ann",
            labels={"env": "prod", "näme": "wért"},
        )
        await store.append(opened(event))
        assert await store.events(EventQuery()) == [event]
        detail = await store.event(event.id)
        assert detail is not None
        assert detail.event == event

    @pytest.mark.parametrize("value", [None, 0.0, 1.5, "node-b", "", "1.5"])
    async def test_a_value_keeps_its_type(self, store: Store, value: float | str | None) -> None:
        event = an_event(value=value)
        await store.append(opened(event))
        (back,) = await store.events(EventQuery())
        assert back.value == value
        assert type(back.value) is type(value)

    async def test_the_samples_around_an_event_are_kept_with_it(self, store: Store) -> None:
        event = an_event()
        before = (
            make_sample(readings={"lag_seconds": 1.5, "word": "x"}, at=NOON - 5),
            make_sample(at=NOON, reason="no"),
        )
        await store.append(Commit(changes=(Change(event, "opened", NOON, before=before),)))
        done = replace(event, state=EventState.RESOLVED, resolved_at=NOON + 60, resolve_reason="recovered")
        await store.append(Commit(changes=(Change(done, "resolved", NOON + 60, after=(make_sample(at=NOON + 60),)),)))
        detail = await store.event(event.id)
        assert detail is not None
        assert [sample["at"] for sample in detail.before] == [NOON - 5, NOON]
        assert detail.before[0] == {
            "at": NOON - 5, "outcome": "observed", "readings": {"lag_seconds": 1.5, "word": "x"}, "reason": "",
            "duration_ms": 10.0,
        }  # fmt: skip
        assert detail.before[1]["reason"] == "no"
        assert [sample["at"] for sample in detail.after] == [NOON + 60]
        assert detail.event.state is EventState.RESOLVED

    async def test_an_event_that_is_not_there_is_none(self, store: Store) -> None:
        assert await store.event("nothing") is None
        assert await store.event("' OR 1=1 --") is None

    async def test_the_consequences_of_an_event_are_found(self, store: Store) -> None:
        root = an_event()
        others = [an_event(NOON + n, caused_by=root.id, suppressed=True) for n in (1, 2)]
        for event in (root, *others, an_event()):
            await store.append(opened(event))
        detail = await store.event(root.id)
        assert detail is not None
        assert detail.consequences == [event.id for event in others]

    async def test_a_second_open_event_of_one_fingerprint_is_refused_and_its_neighbours_are_not(
        self, store: Store
    ) -> None:
        first, other = an_event(), an_event()
        twin = an_event(target=first.target)
        futures = [store.append(opened(event)) for event in (first, twin, other)]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert outcomes[0] is None
        assert isinstance(outcomes[1], StoreError)
        assert outcomes[2] is None
        assert {event.id for event in await store.events(EventQuery())} == {first.id, other.id}

    async def test_a_resolved_event_makes_room_for_the_next_of_its_fingerprint(self, store: Store) -> None:
        first = an_event()
        again = an_event(NOON + 60, target=first.target)
        await store.append(opened(first))
        await store.append(resolved(first, NOON + 30))
        await store.append(opened(again))
        assert [event.state for event in await store.events(EventQuery())] == [EventState.OPEN, EventState.RESOLVED]

    async def test_occurrences_of_one_fingerprint_are_many(self, store: Store) -> None:
        event = an_event(event="ha_switchover", state=EventState.OCCURRED)
        for number in range(3):
            await store.append(opened(replace(event, id=new_id(NOON + number))))
        assert len(await store.events(EventQuery())) == 3

    @pytest.mark.parametrize(
        "poison",
        [
            Commit(members=(Member("orders", "half a pair \ud800", "h", 5432, "http://h"),)),
            Commit(members=(Member("orders", "n", "h", 10**30, "http://h"),)),
            Commit(changes=(Change(an_event(message="\udcff"), "opened", NOON),)),
            Commit(changes=(Change(an_event(labels={"x": object()}), "opened", NOON),)),
            Commit(changes=(Change(an_event(threshold=object()), "opened", NOON),)),
        ],
        ids=["surrogate", "endless number", "surrogate in a message", "no JSON", "no column type"],
    )
    async def test_a_commit_that_cannot_be_written_is_refused_alone_and_ends_nothing(
        self, store: Store, poison: Commit
    ) -> None:
        before, after = an_event(), an_event()
        futures = [store.append(commit) for commit in (opened(before), poison, opened(after))]
        outcomes = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 10)
        assert [type(outcome) for outcome in outcomes] == [type(None), StoreError, type(None)]
        assert len(await store.events(EventQuery())) == 2

    async def test_what_is_committed_together_is_refused_together(self, store: Store) -> None:
        first = an_event()
        await store.append(opened(first))
        both = Commit(
            changes=(Change(an_event(), "opened", NOON), Change(an_event(target=first.target), "opened", NOON)),
            streaks={"w": Streak(Phase.OPEN)},
        )
        with pytest.raises(StoreError):
            await store.append(both)
        assert [event.id for event in await store.events(EventQuery())] == [first.id]

    async def test_commits_become_durable_in_the_order_in_which_they_were_made(self, store: Store) -> None:
        events = [an_event(NOON + n) for n in range(1_200)]
        done: list[int] = []
        futures = [store.append(opened(event)) for event in events]
        for number, future in enumerate(futures):
            future.add_done_callback(functools.partial(_note, done, number))
        await asyncio.gather(*futures)
        assert done == list(range(1_200))
        assert (await store.status()).events == 1_200

    # --- the list

    async def test_the_newest_comes_first_and_pages_join_without_gap_or_overlap(self, store: Store) -> None:
        events = [an_event(NOON + n // 3) for n in range(25)]
        for event in events:
            await store.append(opened(event))
        seen: list[str] = []
        query = EventQuery(limit=7)
        while page := await store.events(query):
            seen += [event.id for event in page]
            query = replace(query, before_id=page[-1].id)
            await store.append(opened(an_event(NOON + 1000)))  # what comes meanwhile shifts nothing
        assert seen == sorted((event.id for event in events), reverse=True)

    async def test_filters_are_joined_by_and(self, store: Store) -> None:
        a = an_event(NOON, target=replace(TARGET, node="a"))
        b = an_event(NOON + 10, event="replication_lag_high", severity=Severity.CRITICAL, suppressed=True)
        c = an_event(NOON + 20, target=replace(TARGET, instance="billing"), state=EventState.OCCURRED)
        for event in (a, b, c):
            await store.append(opened(event))

        async def found(**filters: Any) -> list[str]:
            return [event.id for event in await store.events(EventQuery(**filters))]

        assert await found() == [c.id, b.id, a.id]
        assert await found(instance="orders") == [b.id, a.id]
        assert await found(event="replication_lag_high") == [b.id]
        assert await found(severity=Severity.FATAL) == [c.id, a.id]
        assert await found(state=EventState.OPEN) == [b.id, a.id]
        assert await found(suppressed=True) == [b.id]
        assert await found(suppressed=False) == [c.id, a.id]
        assert await found(since=NOON + 10) == [c.id, b.id]
        assert await found(until=NOON + 10) == [a.id]
        assert await found(instance="orders", severity=Severity.FATAL, since=NOON, until=NOON + 1) == [a.id]
        assert await found(instance="orders' OR '1'='1") == []

    # --- triggers per day

    async def test_triggers_are_counted_by_the_day_of_the_zone_across_both_changes_of_the_clock(
        self, store: Store
    ) -> None:
        berlin = ZoneInfo("Europe/Berlin")
        moments = [
            datetime(2026, 3, 28, 23, 59, tzinfo=berlin),
            datetime(2026, 3, 29, 0, 0, tzinfo=berlin),  # a day of 23 hours
            datetime(2026, 3, 29, 3, 0, tzinfo=berlin),
            datetime(2026, 3, 29, 23, 59, tzinfo=berlin),
            datetime(2026, 3, 30, 0, 0, tzinfo=berlin),
            datetime(2026, 10, 25, 0, 0, tzinfo=berlin),  # a day of 25 hours
            datetime(2026, 10, 25, 2, 30, tzinfo=berlin),
            datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=1),
            datetime(2026, 10, 25, 23, 59, tzinfo=berlin),
            datetime(2026, 10, 26, 0, 0, tzinfo=berlin),
        ]
        for moment in moments:
            await store.append(opened(an_event(moment.timestamp())))
        first, last = moments[0].timestamp(), moments[-1].timestamp() + 1
        assert [(day.date, day.count) for day in await store.daily(first, last, "Europe/Berlin")] == [
            ("2026-10-26", 1), ("2026-10-25", 4), ("2026-03-30", 1), ("2026-03-29", 3), ("2026-03-28", 1)
        ]  # fmt: skip
        in_utc = {day.date: day.count for day in await store.daily(first, last, "UTC")}
        assert in_utc == {"2026-03-28": 2, "2026-03-29": 3, "2026-10-24": 1, "2026-10-25": 4}

    @pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"])
    async def test_zones_off_the_hour_are_counted_by_their_own_midnight(self, store: Store, zone: str) -> None:
        midnight = datetime(2026, 11, 18, tzinfo=ZoneInfo(zone)).timestamp()
        for at in (midnight - 1, midnight, midnight + 1):
            await store.append(opened(an_event(at)))
        counts = {day.date: day.count for day in await store.daily(midnight - 9, midnight + 9, zone)}
        assert counts == {"2026-11-17": 1, "2026-11-18": 2}

    async def test_triggers_are_counted_by_event_instance_and_severity_and_without_the_suppressed(
        self, store: Store
    ) -> None:
        one = an_event(NOON)
        for event in (
            one,
            an_event(NOON),
            an_event(NOON, suppressed=True),
            an_event(NOON, severity=Severity.CRITICAL),
            an_event(NOON, target=replace(TARGET, instance="billing")),
        ):
            await store.append(opened(event))
        await store.append(resolved(one, NOON + 5))  # a resolution is no trigger
        expected = {
            DailyCount("2026-11-18", "database_unavailable", "orders", Severity.FATAL, 2),
            DailyCount("2026-11-18", "database_unavailable", "orders", Severity.CRITICAL, 1),
            DailyCount("2026-11-18", "database_unavailable", "billing", Severity.FATAL, 1),
        }
        assert set(await store.daily(NOON, NOON + 1, "UTC")) == expected
        assert await store.daily(NOON + 1, NOON + 2, "UTC") == []
        assert await store.daily(NOON - 5, NOON, "UTC") == []
        assert await store.counts() == {
            ("database_unavailable", "fatal", "orders"): 2,
            ("database_unavailable", "critical", "orders"): 1,
            ("database_unavailable", "fatal", "billing"): 1,
        }

    # --- what a start finds

    async def test_a_start_finds_what_the_last_daemon_left(self, make: Make, tmp_path: Path) -> None:
        left, over = an_event(), an_event()
        streak = Streak(
            Phase.OPEN, 3, 1, since_at=NOON, last_mono=5.0, baseline=7.0, increments=((1.0, 2.0),), series="s"
        )
        switchovers = [an_event(at, event="ha_switchover", state=EventState.OCCURRED) for at in (NOON + 9, NOON + 3)]
        async with opening(make, tmp_path) as (store, _):
            for event in (left, over, *switchovers):
                await store.append(opened(event))
            await store.append(resolved(over, NOON + 1))
            await store.append(Commit(streaks={"p|orders/a/postgres": streak}))
        async with opening(make, tmp_path, FakeClock(NOON + 70, now_mono=1_070.0)) as (_, recovered):
            assert recovered.open_events == (left,)
            assert recovered.streaks == {"p|orders/a/postgres": streak}
            assert recovered.last_switchover == {"orders": NOON + 9}
            assert recovered.absence == 70.0
            assert recovered.mono_shift == 0.0

    async def test_a_streak_that_says_nothing_leaves_no_row_behind(self, make: Make, tmp_path: Path) -> None:
        async with opening(make, tmp_path) as (store, _):
            await store.append(
                Commit(streaks={"a": Streak(Phase.PENDING, 1), "b": Streak(identity="x"), "c": Streak()})
            )
            await store.append(Commit(streaks={"a": Streak(last_mono=5.0, inconclusive=3)}))
        async with opening(make, tmp_path) as (store, recovered):
            assert recovered.streaks == {"b": Streak(identity="x")}
            await store.append(Commit(forgotten=("b", "never there")))
        async with opening(make, tmp_path) as (_, recovered):
            assert recovered.streaks == {}

    async def test_evidence_comes_back_with_its_event_oldest_first(self, store: Store) -> None:
        event, other = an_event(), an_event()
        before = Evidence("patroni_cluster", "orders/patroni", NOON - 5, Side.BEFORE, Moment.TRIGGER, '{"a": "ü"}')
        after = Evidence("pressure", "", NOON + 1, Side.AFTER, Moment.TRIGGER, error="not local")
        await store.append(opened(event))
        await store.append(Commit(evidence={event.id: [after, before]}))
        await store.append(opened(other))
        found, foreign = await store.event(event.id), await store.event(other.id)
        assert found is not None and foreign is not None
        assert found.evidence == [before, after]
        assert foreign.evidence == []

    async def test_the_same_evidence_again_replaces_what_was_there(self, store: Store) -> None:
        event = an_event()
        first = Evidence("pressure", "orders/node-a/host", NOON, Side.AFTER, Moment.TRIGGER, "{}")
        await store.append(opened(event))
        await store.append(Commit(evidence={event.id: [first]}))
        await store.append(Commit(evidence={event.id: [replace(first, data="[1]")]}))
        found = await store.event(event.id)
        assert found is not None and found.evidence == [replace(first, data="[1]")]

    async def test_evidence_is_owed_until_it_is_settled(self, make: Make, tmp_path: Path) -> None:
        event, done = an_event(), an_event()
        async with opening(make, tmp_path) as (store, _):
            await store.append(opened(event))
            await store.append(opened(done))
            await store.append(Commit(settled=((done.id, Moment.TRIGGER),)))
            await store.append(resolved(event, NOON + 60))
        async with opening(make, tmp_path) as (_, recovered):
            assert [(owed.event.id, owed.moment, owed.at) for owed in recovered.owed] == [
                (event.id, Moment.TRIGGER, NOON),
                (event.id, Moment.RECOVERY, NOON + 60),
            ]
            assert isinstance(recovered.owed[0], Owed)
            assert recovered.owed[0].event.state is EventState.RESOLVED

    async def test_what_is_owed_is_known_however_much_came_since(self, make: Make, tmp_path: Path) -> None:
        first, *others = [an_event() for _ in range(250)]
        async with opening(make, tmp_path) as (store, _):
            for event in (first, *others):
                await store.append(opened(event))
                if event is not first:
                    await store.append(Commit(settled=((event.id, Moment.TRIGGER),)))
        async with opening(make, tmp_path) as (store, recovered):
            assert [owed.event.id for owed in recovered.owed] == [first.id]
            await store.append(Commit(settled=((first.id, Moment.TRIGGER),)))
            await store.append(resolved(others[0], NOON + 60))
        async with opening(make, tmp_path) as (_, recovered):
            assert [(owed.event.id, owed.moment) for owed in recovered.owed] == [(others[0].id, Moment.RECOVERY)]

    async def test_an_occurrence_owes_the_evidence_of_its_aftermath_too(self, make: Make, tmp_path: Path) -> None:
        event = an_event(state=EventState.OCCURRED)
        async with opening(make, tmp_path) as (store, _):
            await store.append(Commit(changes=(Change(event, "occurred", NOON),)))
        async with opening(make, tmp_path) as (_, recovered):
            assert {owed.moment for owed in recovered.owed} == {Moment.TRIGGER, Moment.RECOVERY}

    async def test_members_are_remembered_moved_and_forgotten(self, make: Make, tmp_path: Path) -> None:
        a, b = (Member("orders", name, f"10.0.0.{n}", 5432, f"http://10.0.0.{n}:8008") for n, name in enumerate("ab"))
        async with opening(make, tmp_path) as (store, _):
            await store.append(Commit(members=(b, a, Member("billing", "a", "h", 1, "http://h"))))
            await store.append(Commit(members=(replace(a, host="10.9.9.9"),), forgotten_members=(("orders", "b"),)))
        async with opening(make, tmp_path) as (_, recovered):
            assert recovered.members == (Member("billing", "a", "h", 1, "http://h"), replace(a, host="10.9.9.9"))

    async def test_after_a_reboot_the_absence_is_told_by_the_date_and_monotonic_times_are_shifted(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opening(make, tmp_path, FakeClock(NOON, now_mono=90_000.0)) as (store, _):
            await store.append(opened(an_event()))
        monkeypatch.setattr(sqlite, "boot_id", lambda: "another boot")
        async with opening(make, tmp_path, FakeClock(NOON + 300, now_mono=40.0)) as (_, recovered):
            assert recovered.absence == 300.0
            # 300 s before now, on today's clock: 40 - 300 = -260.
            assert 90_000.0 + recovered.mono_shift == -260.0

    async def test_a_date_set_back_is_no_negative_absence(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opening(make, tmp_path, FakeClock(NOON, now_mono=1_000.0)) as (store, _):
            await store.append(opened(an_event()))
        async with opening(make, tmp_path, FakeClock(NOON - 86_400, now_mono=1_010.0)) as (_, recovered):
            assert recovered.absence == 10.0
        monkeypatch.setattr(sqlite, "boot_id", lambda: "another boot")
        async with opening(make, tmp_path, FakeClock(NOON - 2 * 86_400, now_mono=5.0)) as (_, recovered):
            assert recovered.absence == 0.0

    async def test_the_status_tells_schema_size_and_number(self, store: Store) -> None:
        await store.append(opened(an_event()))
        status = await store.status()
        assert (status.schema, status.events) == (len(migrating.SCHEMA), 1)
        assert status.bytes > 0
        assert status.engine

    async def test_closing_writes_what_is_queued(self, make: Make, tmp_path: Path) -> None:
        async with opening(make, tmp_path) as (store, _):
            futures = [store.append(opened(an_event())) for _ in range(700)]
        await asyncio.gather(*futures)
        async with opening(make, tmp_path) as (store, recovered):
            assert len(recovered.open_events) == 700


# --- the embedded engine


def rows(directory: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(directory / "probed.db")) as connection:
        return connection.execute(sql).fetchall()


async def cannot_open(directory: Path) -> str:
    store = SqliteStore(directory, clock=FakeClock())
    try:
        with pytest.raises(StoreError) as caught:
            await asyncio.wait_for(store.open(), 10)
        return str(caught.value)
    finally:
        await store.close()


async def test_transitions_are_numbered_without_gaps_also_past_a_refused_commit(tmp_path: Path) -> None:
    async with opening(ENGINES["sqlite"], tmp_path) as (store, _):
        event = an_event()
        futures = [
            store.append(c) for c in (opened(event), opened(an_event(target=event.target)), resolved(event, NOON))
        ]
        await asyncio.gather(*futures, return_exceptions=True)
        await store.append(opened(an_event()))
    assert rows(tmp_path, "SELECT seq, event_id, kind FROM transition ORDER BY seq")[:2] == [
        (1, event.id, "opened"),
        (2, event.id, "resolved"),
    ]
    assert [row[0] for row in rows(tmp_path, "SELECT seq FROM transition ORDER BY seq")] == [1, 2, 3]


async def test_what_queued_up_is_one_transaction(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, clock=FakeClock())
    transactions: list[float] = []
    store.write_seconds = transactions.append
    await store.open()
    await asyncio.gather(*(store.append(opened(an_event())) for _ in range(500)))
    await store.close()
    assert 1 <= len(transactions) <= 25


async def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    async with opening(ENGINES["sqlite"], tmp_path / "store") as (store, _):
        await store.append(opened(an_event()))
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "store").iterdir()}
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}


async def test_commits_survive_power_loss_by_wal_and_full_synchronisation(tmp_path: Path) -> None:
    async with opening(ENGINES["sqlite"], tmp_path) as (store, _):
        await store.append(opened(an_event()))
        assert rows(tmp_path, "PRAGMA journal_mode") == [("wal",)]
        assert (tmp_path / "probed.db-wal").stat().st_size > 0
    assert not (tmp_path / "probed.db-wal").exists()


async def test_a_second_daemon_on_one_directory_is_refused_at_once(tmp_path: Path) -> None:
    async with opening(ENGINES["sqlite"], tmp_path):
        assert "is in use by another probed; stop it" in await cannot_open(tmp_path)
    async with opening(ENGINES["sqlite"], tmp_path):
        pass


async def test_a_schema_of_a_newer_probed_is_refused(tmp_path: Path) -> None:
    async with opening(ENGINES["sqlite"], tmp_path):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "probed.db")) as connection:
        connection.execute(f"PRAGMA user_version = {len(migrating.SCHEMA) + 1}")
    message = await cannot_open(tmp_path)
    assert "was made by a newer probed" in message
    assert "upgrade probed" in message


@pytest.mark.parametrize(
    "content", [b"this is not a database, however long it may be " * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
async def test_a_file_that_is_no_database_is_told_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "probed.db").write_bytes(content)
    message = await cannot_open(tmp_path)
    assert str(tmp_path / "probed.db") in message
    assert "--storage.path" in message


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE event SET severity = 'grave'",
        "UPDATE event SET value = '{'",
        "UPDATE event SET labels = '{'",
        "UPDATE streak SET state = 'no json'",
        'UPDATE streak SET state = \'{"phase": "half"}\'',
        "UPDATE streak SET state = '[1, 2]'",
        "UPDATE streak SET state = '{\"increments\": [1]}'",
        "UPDATE heartbeat SET boot = '', at = 'noon'",
        "DROP TABLE streak",
    ],
)
async def test_rows_that_cannot_be_understood_are_told_and_never_waited_for(tmp_path: Path, damage: str) -> None:
    async with opening(ENGINES["sqlite"], tmp_path) as (store, _):
        await store.append(replace(opened(an_event(value=1.0)), streaks={"w": Streak(Phase.OPEN)}))
    with contextlib.closing(sqlite3.connect(tmp_path / "probed.db")) as connection, connection:
        connection.execute(damage)
    message = await cannot_open(tmp_path)
    assert str(tmp_path / "probed.db") in message


async def test_damaged_pages_are_told_or_survived_and_never_waited_for(tmp_path: Path) -> None:
    async with opening(ENGINES["sqlite"], tmp_path) as (store, _):
        await asyncio.gather(*(store.append(opened(an_event())) for _ in range(300)))
    whole = (tmp_path / "probed.db").read_bytes()
    told = 0
    for place in range(100, len(whole), len(whole) // 40):
        directory = tmp_path / str(place)
        directory.mkdir()
        (directory / "probed.db").write_bytes(whole[:place] + b"\xff" * 64 + whole[place + 64 :])
        store = SqliteStore(directory, clock=FakeClock())
        try:
            await asyncio.wait_for(store.open(), 10)
        except StoreError:
            told += 1
        finally:
            await store.close()
    assert told


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--storage.path" in await cannot_open(tmp_path / "file" / "store")


# --- a disk that refuses


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "RETRY_SECONDS", 0.01)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the store's own thread
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("impatient")
async def test_while_the_disk_refuses_commits_are_kept_and_written_in_order_when_it_takes_them_again(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    store = SqliteStore(tmp_path, clock=clock)
    await store.open()
    with no_file_may_grow():
        events = [an_event(NOON + n) for n in range(50)]
        futures = [store.append(opened(event)) for event in events]
        await until(lambda: bool(store.degraded))
        clock.step(7)
        found = store.refusal()
        assert (found.seconds, found.waiting, found.lost) == (7.0, 50, 0)
        assert found.error == store.degraded
        assert not any(future.done() for future in futures)
        assert await store.events(EventQuery()) == []  # reading goes on
    await asyncio.wait_for(asyncio.gather(*futures), 10)
    assert (store.degraded, store.refused_since) == ("", None)
    await store.close()
    assert [row[0] for row in rows(tmp_path, "SELECT event_id FROM transition ORDER BY seq")] == [e.id for e in events]
    assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.usefixtures("impatient")
async def test_what_no_longer_fits_into_memory_is_refused_loudly_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MAX_QUEUED", 5)
    store = SqliteStore(tmp_path, clock=FakeClock())
    await store.open()
    with no_file_may_grow():
        futures = [store.append(opened(an_event())) for _ in range(7)]
        assert store.refusal().lost == store.lost == 2
        for late in futures[5:]:
            with pytest.raises(StoreError, match="5 commits are waiting for the disk; this one is lost"):
                await late
    await asyncio.wait_for(asyncio.gather(*futures[:5]), 10)
    assert (await store.status()).events == 5
    await store.close()


@pytest.mark.usefixtures("impatient")
async def test_closing_while_the_disk_refuses_ends_soon_and_says_what_is_lost(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, clock=FakeClock())
    await store.open()
    with no_file_may_grow():
        future = store.append(opened(an_event()))
        await until(lambda: bool(store.degraded))
        await asyncio.wait_for(store.close(), 5)
        with pytest.raises(StoreError, match=r"--storage\.path"):
            await future


@pytest.mark.usefixtures("impatient")
async def test_a_full_file_system_loses_nothing(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no small file system can be mounted here: a full disk was only simulated by a limit")
    try:
        store = SqliteStore(tmp_path / "store", clock=FakeClock())
        await store.open()
        ballast = tmp_path / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        events = [an_event(NOON + n, message="x" * 2_000) for n in range(60)]
        futures = [store.append(opened(event)) for event in events]
        await until(lambda: bool(store.degraded))
        ballast.unlink()
        await asyncio.wait_for(asyncio.gather(*futures), 10)
        await store.close()
        assert len(rows(tmp_path / "store", "SELECT id FROM event")) == 60
        assert rows(tmp_path / "store", "PRAGMA integrity_check") == [("ok",)]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_another_program_locks_waits_without_blocking_the_loop(tmp_path: Path) -> None:
    async with opening(ENGINES["sqlite"], tmp_path) as (store, _):
        with contextlib.closing(sqlite3.connect(tmp_path / "probed.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            future = store.append(opened(an_event()))
            await asyncio.sleep(0.05)
            assert not future.done()
            other.execute("ROLLBACK")
        await asyncio.wait_for(future, 10)


async def test_the_writer_shows_signs_of_life(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opening(ENGINES["sqlite"], tmp_path, clock) as (store, _):
        assert isinstance(store, SqliteStore)
        clock.step(500.0)
        await store.append(Commit())
        assert store.progress_at == clock.mono()


def a_revision(version: int, kind: RevisionKind = RevisionKind.EDIT, **after: dict[str, Any]) -> Revision:
    """By policy id, what lies over its files then."""
    touched = tuple(
        Touched(name, {}, patch, (Difference("name", None, "x"),), {"name": Mark(version, "anne")})
        for name, patch in after.items()
    )
    return Revision(version, 1000.0 + version, "anne", "socket", kind, f"reason {version}", touched)


async def test_revisions_of_policies_come_back_as_they_were_in_pages_and_by_policy(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    recovered = await store.open()
    assert (recovered.patches, recovered.policies_version) == ({}, 1)
    made = [
        a_revision(2, a={"name": "x"}),
        a_revision(3, b={"name": "y"}),
        a_revision(4, RevisionKind.ROLLBACK, a={}, b={}),
    ]
    for revision in made:
        await store.append(Commit(revisions=(revision,)))
    assert await store.revisions(None, None, 10) == made[::-1]
    assert await store.revisions(None, 4, 1) == [made[1]]
    assert await store.revisions("a", None, 10) == [made[2], made[0]]
    assert await store.revisions("c", None, 10) == []
    assert {name: patch.values for name, patch in (await store.patches_at(3)).items()} == {
        "a": {"name": "x"},
        "b": {"name": "y"},
    }
    assert await store.patches_at(1) == {}
    await store.close()
    again = SqliteStore(tmp_path)
    recovered = await again.open()
    await again.close()
    assert recovered.policies_version == 4
    assert recovered.patches == {name: Patch(4, "anne", {}, {"name": Mark(4, "anne")}) for name in ("a", "b")}


async def test_the_history_of_policies_is_only_added_to(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    await store.append(Commit(revisions=(a_revision(2, a={"name": "x"}),)))
    with pytest.raises(StoreError, match="UNIQUE"):
        await store.append(Commit(revisions=(a_revision(2, a={"name": "y"}),)))
    assert (await store.patches_at(2))["a"].values == {"name": "x"}
    await store.close()
    with sqlite3.connect(tmp_path / "probed.db") as connection, pytest.raises(sqlite3.IntegrityError, match="never"):
        connection.execute("UPDATE policy_patch SET after = '{}'")
    connection.close()


def test_the_schema_refuses_states_that_are_none() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for file in migrating.SCHEMA:
            connection.executescript(file.read_text())
        columns = ", ".join(EVENT_COLUMNS)
        values = [json.dumps(None) if name == "value" else 0 for name in EVENT_COLUMNS]
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            connection.execute(f"INSERT INTO event ({columns}) VALUES ({', '.join('?' * len(values))})", values)


async def test_a_store_from_before_there_was_evidence_is_taken_over_with_its_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = an_event()
    with monkeypatch.context() as patch:
        patch.setattr(migrating, "SCHEMA", migrating.SCHEMA[:3])
        connection = sqlite3.connect(tmp_path / "probed.db", isolation_level=None)
        migrate(connection, "here")
        old = dict(zip(EVENT_COLUMNS, event_row(event), strict=True))
        del old["silenced"], old["silenced_by"]
        connection.execute(
            f"INSERT INTO event ({', '.join(old)}) VALUES ({', '.join('?' * len(old))})", (*old.values(),)
        )
        connection.close()
    async with opening(lambda directory, clock: SqliteStore(directory, clock=clock), tmp_path) as (store, recovered):
        assert recovered.open_events == (event,)
        assert recovered.owed == ()
        found = await store.event(event.id)
        assert found is not None and found.evidence == []
        assert (await store.status()).schema == len(migrating.SCHEMA)
