"""What people hear while the disk takes nothing, and that they hear it once: real store, real couriers, a real limit."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from msgspec.structs import replace

from probed import cadence
from probed.board import Board
from probed.couriers import Appointment, Couriers
from probed.errors import Undelivered
from probed.model import OBSERVER, Event, Outcome, Sample
from probed.pipeline import Pipeline
from probed.probes import Context, Probe, catalogue
from probed.receivers import Receiver
from probed.sampling import take_sample
from probed.store import AuditRecord, Change, EventQuery, sqlite
from probed.store.notices import DeliveryQuery, Notice, Told
from probed.store.sqlite import SqliteStore
from probed.testing import FakeClock, settle
from probed.unwritten import PATIENCE, Unwritten
from probed.vitals import BEAT, Refusal, Vitals
from tests.unit.bench import ONESELF, SHIPPED
from tests.unit.refusing import no_file_may_grow
from tests.unit.test_couriers import NOON, Far, an_event, over


@dataclass
class House:
    """A store, the pipeline before it, and the couriers behind it."""

    store: SqliteStore
    clock: FakeClock
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    announced: list[str] = field(default_factory=list)
    """``opened <event id>``, in order."""
    ended: bool = False

    def __post_init__(self) -> None:
        self.pipeline = Pipeline(self.store, Board(), self.clock, observer="o", switchover_grace=60)
        self.unwritten = Unwritten(self.store, self.clock, self.pipeline.tell_unwritten)
        self.couriers = Couriers(self.unwritten, self.clock, own=self._own)
        self.pipeline.owe = self.couriers.owed
        self.pipeline.on_announce(lambda change: self.announced.append(f"{change.kind} {change.event.id}"))
        self.pipeline.on_announce(self.couriers.announced)
        self.pipeline.ahead, self.pipeline.written = self.unwritten.take, self._written
        _ = self._own(self._looks, "unwritten")

    async def _looks(self) -> None:
        async for _ in cadence.every(BEAT, 0.0, self.clock):
            self.unwritten.look()

    def _written(self, change: Change) -> None:
        self.unwritten.written(change)
        self.couriers.announced(change)

    def _own(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work())
        self.tasks.append(task)
        return task

    async def appoint(self, **outlets: Far) -> None:
        await self.couriers.appoint(
            [Appointment(Receiver(name), partial(_itself, far), far.kind) for name, far in outlets.items()]
        )
        await self.quiet()

    def change(self, event: Event, kind: str) -> asyncio.Future[None]:
        audit = AuditRecord(self.clock.wall(), "o", "socket", "", "event.x", event.id)
        return self.pipeline.amend(Change(event, kind, self.clock.wall()), audit)

    def open(self) -> Event:
        event = an_event(self.clock.wall())
        _ = self.change(event, "opened")
        return event

    def resolve(self, event: Event) -> None:
        _ = self.change(over(event, self.clock.wall()), "resolved")

    async def quiet(self) -> None:
        for _ in range(6):
            await self.store.backlog()
            await asyncio.sleep(0.002)
            await settle()

    async def pass_(self, seconds: float, by: float = 1.0) -> None:
        end = self.clock.mono() + seconds
        while self.clock.mono() < end:
            self.clock.step(min(by, end - self.clock.mono()))
            await self.quiet()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(4000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"never: {what}")

    async def refuses(self) -> None:
        await self.until(lambda: bool(self.store.degraded), "a disk that refuses")

    async def takes(self) -> None:
        await self.until(lambda: self.store.refused_since is None, "a disk that takes everything")
        await self.quiet()


def _itself(far: Far) -> Far:
    return far


def heard(far: Far) -> list[tuple[str, str]]:
    return [(notice.told.value, notice.event.id) for notice in far.got]


@pytest_asyncio.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(sqlite, "RETRY_SECONDS", 0.01)
    clock = FakeClock(NOON, 5000.0)
    store = SqliteStore(tmp_path, clock=clock)
    await store.open()
    made = House(store, clock)
    with structlog.testing.capture_logs():  # into memory: the file that pytest keeps output in must not grow either
        yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    if not made.ended:
        await store.close()


async def test_what_the_disk_does_not_take_is_told_after_three_seconds_and_never_twice(house: House) -> None:
    far, other = Far(), Far(batch=100)
    await house.appoint(r=far, other=other)
    with no_file_may_grow():
        event = house.open()
        await house.refuses()
        await house.pass_(PATIENCE - 0.1)
        assert (far.got, house.announced) == ([], []), "a disk that is only slow is waited for"
        await house.pass_(0.1 + BEAT)
        await house.until(lambda: len(far.got) == len(other.got) == 1, "the alarm, though the disk takes nothing")
        house.resolve(event)
        await house.pass_(4)
        await house.until(lambda: len(far.got) == len(other.got) == 2, "the end of it")
        assert await house.store.events(EventQuery()) == []
    await house.takes()
    await house.pass_(600, by=100)
    expected = [("opened", event.id), ("resolved", event.id)]
    assert heard(far) == heard(other) == expected
    assert house.announced == [f"{kind} {event_id}" for kind, event_id in expected], "counted and logged once"
    noted = await house.store.deliveries(DeliveryQuery(receiver="r"))
    assert [(one.transition, one.fate.value, one.answer) for one in reversed(noted)] == [
        (notice.transition, "delivered", "HTTP 200") for notice in far.got
    ], "the history has them by the ids under which they were sent"
    assert [record.kind for record in await house.store.transitions(0, 10)] == ["opened", "resolved"]


async def test_what_a_receiver_did_not_take_meanwhile_it_gets_from_the_store(house: House) -> None:
    far = Far(otherwise=Undelivered("HTTP 503"))
    await house.appoint(r=far)
    with no_file_may_grow():
        event = house.open()
        await house.refuses()
        await house.pass_(5)
        await house.until(lambda: far.tried > 0, "an attempt")
    await house.takes()
    far.otherwise = None
    await house.pass_(330, by=30)
    assert heard(far) == [("opened", event.id)]
    (delivery,) = await house.store.deliveries(DeliveryQuery())
    assert delivery.fate.value == "delivered"


async def test_what_was_owed_before_is_brought_while_the_disk_takes_nothing_and_not_again_after(house: House) -> None:
    """Also when the courier was waiting for the disk to take note of a delivery as it began to refuse."""
    far = Far(otherwise=Undelivered("HTTP 503"))
    await house.appoint(r=far)
    events = [house.open() for _ in range(3)]
    await house.until(lambda: far.tried > 0, "the first attempt")
    await house.quiet()
    with no_file_may_grow():
        far.otherwise = None
        await house.pass_(20)
        late = house.open()
        await house.pass_(20)
        await house.until(lambda: len(far.got) == 4, "all, with none of it written")
        house.resolve(events[0])
        await house.pass_(5)
        await house.until(lambda: len(far.got) == 5, "the end of what was told before")
    await house.takes()
    await house.pass_(600, by=100)
    assert sorted(heard(far)) == sorted([*(("opened", e.id) for e in [*events, late]), ("resolved", events[0].id)])
    assert {one.fate.value for one in await house.store.deliveries(DeliveryQuery())} == {"delivered"}


async def test_of_an_end_only_who_was_owed_the_beginning_hears_also_without_the_disk(house: House) -> None:
    old, new = Far(), Far()
    await house.appoint(old=old)
    event = house.open()
    await house.until(lambda: len(old.got) == 1, "the beginning")
    await house.appoint(old=old, new=new)
    with no_file_may_grow():
        house.resolve(event)
        await house.refuses()
        await house.pass_(5)
        await house.until(lambda: len(old.got) == 2, "the end")
        await house.pass_(5)
    await house.takes()
    assert new.got == []


async def test_what_is_posted_again_and_again_is_what_is_open_by_now(house: House) -> None:
    far = Far(batch=100, refresh_seconds=60.0)
    await house.appoint(am=far)
    before = house.open()
    await house.until(lambda: len(far.got) == 1, "the alarm")
    with no_file_may_grow():
        house.resolve(before)
        new = house.open()
        await house.refuses()
        await house.pass_(70, by=5)
        assert far.refreshed[-1] == [new.id]
    await house.takes()
    await house.pass_(70, by=5)
    assert far.refreshed[-1] == [new.id]


async def test_what_is_noted_while_the_store_is_read_is_not_told_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader saw it owed; before its answer comes it is noted as delivered, and forgotten here."""
    far, read, released = Far(), house.store.owed, asyncio.Event()
    await house.appoint(r=far)
    with no_file_may_grow():
        event = house.open()
        await house.refuses()
        await house.pass_(5)
        await house.until(lambda: bool(far.got), "the alarm")
        held: list[object] = []

        async def slow(receiver: str, limit: int, without: Collection[str] = ()) -> Sequence[Notice]:
            found = await read(receiver, limit, without)
            if found and not held:
                held.extend(found)
                await released.wait()
            return found

        monkeypatch.setattr(house.store, "owed", slow)
    await house.takes()
    asked = asyncio.create_task(house.unwritten.owed("r", 10))
    await house.until(lambda: bool(held), "a reader that found it owed")
    while not released.is_set():
        assert not await house.unwritten.owed("r", 10)
        if not await read("r", 10, ()):  # it is noted
            released.set()
    assert await asked == []
    await house.quiet()
    assert heard(far) == [("opened", event.id)]


async def test_whatever_the_disk_does_each_transition_is_told_once_and_in_order(house: House) -> None:
    """A disk that comes and goes at random under 60 transitions, and a receiver that takes two of three."""
    chance = random.Random(17)
    far = Far()
    far.refuses = lambda _: chance.random() < 1 / 3
    await house.appoint(r=far)
    expected = []
    for _ in range(10):
        with no_file_may_grow() if chance.random() < 0.6 else contextlib.nullcontext():
            for _ in range(3):
                event = house.open()
                await house.pass_(chance.choice([0.5, 2, 6]))
                house.resolve(event)
                expected += [("opened", event.id), ("resolved", event.id)]
            await house.pass_(chance.choice([0.5, 5]))
        if chance.random() < 0.5:
            await house.takes()
    await house.takes()
    for _ in range(60):
        await house.pass_(60, by=20)
        if len(far.got) >= len(expected):
            break
    assert sorted(heard(far)) == sorted(expected)
    for event_id in {event_id for _, event_id in expected}:
        assert [told for told, one in heard(far) if one == event_id] == ["opened", "resolved"]
    assert sorted(house.announced) == sorted(f"{kind} {event_id}" for kind, event_id in expected)
    assert [f"{r.kind} {r.event.id}" for r in await house.store.transitions(0, 100)] == [
        f"{kind} {event_id}" for kind, event_id in expected
    ], "written in the order in which it came about"
    await house.quiet()
    assert {one.fate.value for one in await house.store.deliveries(DeliveryQuery(limit=100))} == {"delivered"}


async def test_an_acknowledgement_is_never_confirmed_before_it_is_durable(house: House) -> None:
    event = house.open()
    await house.quiet()
    with no_file_may_grow():
        confirmed = house.change(replace(event, acked_by="anne"), "acked")
        await house.refuses()
        await house.pass_(10)
        assert not confirmed.done()
        assert house.announced[-1] == f"acked {event.id}"
    await asyncio.wait_for(confirmed, 20)


async def test_what_was_told_without_the_disk_is_gone_with_the_daemon(house: House, tmp_path: Path) -> None:
    """The price: it is seen anew, as another event."""
    far = Far()
    await house.appoint(r=far)
    with no_file_may_grow():
        house.open()
        await house.refuses()
        await house.pass_(5)
        await house.until(lambda: len(far.got) == 1, "the alarm")
        await house.couriers.close()
        await house.store.close()
        house.ended = True
    again = SqliteStore(tmp_path, clock=house.clock)
    recovered = await again.open()
    assert recovered.open_events == ()
    await again.close()


# --- the event


async def looked(refusal: Refusal) -> Sample:
    one = catalogue()["observer_store"]
    assert isinstance(one, Probe)
    clock = FakeClock()
    vitals = Vitals(clock, refusal=lambda: refusal)
    return await take_sample(one, Context(ONESELF, 2.0, _vitals=vitals), 2.0, clock)


async def test_the_observer_says_since_when_the_disk_refuses_and_what_is_at_stake() -> None:
    taken = await looked(Refusal(12.0, "database or disk is full", 30, 2))
    assert taken.readings == {"refusing_seconds": 12.0, "lost_commits": 2.0}
    assert taken.reason == "database or disk is full; 30 commits wait in memory, 2 were lost"
    assert (await looked(Refusal(4.0, "", 1))).reason == "no answer; 1 commits wait in memory"
    assert (await looked(Refusal(0.004, "", 1))).reason == ""


async def test_people_hear_within_ten_seconds_that_the_store_cannot_write_and_that_it_can_again(house: House) -> None:
    policy = SHIPPED["store_degraded"]
    house.pipeline.bind(OBSERVER, {}, (), [(policy, ONESELF)], all_policies={policy.id: policy})
    far = Far()
    await house.appoint(r=far)
    probe = catalogue()["observer_store"]
    assert isinstance(probe, Probe)
    context = Context(ONESELF, 2.0, _vitals=Vitals(house.clock, refusal=house.store.refusal))

    async def look() -> None:
        sample = await take_sample(probe, context, 2.0, house.clock)
        assert sample.outcome is Outcome.OBSERVED
        house.pipeline.accept(OBSERVER, [sample])
        await house.quiet()

    with no_file_may_grow():
        await look()
        house.open()
        await house.refuses()
        began = house.clock.mono()
        while not any(notice.event.event == policy.id for notice in far.got):
            await house.pass_(2.9, by=BEAT)
            await look()  # the worst phase: the first look comes just before the limit, the next a whole interval later
            await house.pass_(policy.interval - 2.9, by=BEAT)
            await look()
            assert house.clock.mono() - began <= 10
    await house.takes()
    await look()
    await house.until(lambda: far.got[-1].told is Told.RESOLVED, "that it is over")
    assert [notice.told for notice in far.got if notice.event.event == policy.id] == [Told.OPENED, Told.RESOLVED]
