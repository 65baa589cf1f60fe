"""What is owed, who brings it, in which order, how often: on the real store, with a fake clock and a scripted receiver."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from probed import courier
from probed.couriers import Appointment, Couriers
from probed.errors import Undelivered
from probed.incidents import new_id
from probed.model import Event, EventState, Severity, Target
from probed.receivers import Receiver, owed
from probed.store import Change, Commit
from probed.store.notices import DeliveryQuery, Fate, Notice, Resend, Told
from probed.store.sqlite import SqliteStore
from probed.testing import FakeClock, settle
from probed.vitals import Faring

NOON = 1_795_003_200.0
_serial = itertools.count()


def an_event(at: float = NOON, *, node: str = "", **values: object) -> Event:
    base = Event(
        id=new_id(at),
        event="database_unavailable",
        name="Database access unavailable",
        severity=Severity.FATAL,
        state=EventState.OPEN,
        target=Target("orders", node or f"node-{next(_serial)}", "postgres"),
        opened_at=at,
        message="x",
    )
    return replace(base, **values)  # each test names fields with values of their types


def _itself(far: Far) -> Far:
    """A maker of a door that is there already."""
    return far


def over(event: Event, at: float) -> Event:
    return replace(event, state=EventState.RESOLVED, resolved_at=at, resolve_reason="recovered")


@dataclass
class Far:
    """The far side: an outlet whose receiver takes or refuses as it is told."""

    kind: str = "webhook"
    batch: int = 1
    refresh_seconds: float | None = None
    script: list[Undelivered | None] = field(default_factory=list)
    """Answers in order; afterwards ``otherwise``."""
    otherwise: Undelivered | None = None
    refuses: Callable[[Notice], bool] = lambda _: False
    hangs: bool = False
    got: list[Notice] = field(default_factory=list)
    """Everything taken."""
    tried: int = 0
    refreshed: list[list[str]] = field(default_factory=list)

    async def send(self, notices: Sequence[Notice]) -> str:
        self.tried += 1
        if self.hangs:
            await asyncio.Event().wait()
        answer = self.script.pop(0) if self.script else self.otherwise
        if answer is not None:
            raise answer
        if any(self.refuses(notice) for notice in notices):
            raise Undelivered("HTTP 400", unwanted=True)
        self.got += notices
        return "HTTP 200"

    async def refresh(self, events: Sequence[Event]) -> str:
        self.refreshed.append([event.id for event in events])
        if self.otherwise is not None:
            raise self.otherwise
        return "HTTP 200"

    async def test(self) -> str:
        if self.otherwise is not None:
            raise self.otherwise
        return "HTTP 200"


@dataclass
class Office:
    """A store, the couriers of one daemon, and what the pipeline does for them."""

    store: SqliteStore
    clock: FakeClock
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.couriers = Couriers(self.store, self.clock, own=self._own, told=self._count)

    def _own(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work())
        self.tasks.append(task)
        return task

    def _count(self, receiver: str, outcome: str, notices: int) -> None:
        self.told[receiver, outcome] += notices

    async def appoint(self, **outlets: Far) -> None:
        wanted = [Appointment(Receiver(name), partial(_itself, far), far.kind) for name, far in outlets.items()]
        await self.couriers.appoint(wanted)

    async def commit(self, event: Event, kind: str, at: float | None = None) -> None:
        change = Change(event, kind, self.clock.wall() if at is None else at)
        change = replace(change, owed=self.couriers.owed(change))
        await self.store.append(Commit(changes=(change,)))
        self.couriers.announced(change)

    async def open(self, **values: object) -> Event:
        event = an_event(self.clock.wall(), **values)  # type: ignore[arg-type]  # as above
        await self.commit(event, "opened")
        return event

    async def resolve(self, event: Event) -> None:
        await self.commit(over(event, self.clock.wall()), "resolved")

    async def resend(self, receiver: str, event: Event) -> None:
        resend = Resend(event.id, receiver, self.clock.wall(), "olga", f"to {receiver}")
        await self.store.append(Commit(resends=(resend,)))
        self.couriers.wake(receiver)
        await self.quiet()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Real time only for the store's threads; the clock stands still."""
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"never: {what}")

    async def quiet(self) -> None:
        """Until every courier has come to its next wait; those whose outlet hangs are not waited for without end."""
        for number in range(20):
            await self.store.append(Commit())
            await self.store.backlog()
            await settle()
            if number >= 3 and self.clock.sleeping >= sum(not task.done() for task in self.tasks):
                break

    async def pass_(self, seconds: float, by: float = 10.0) -> None:
        """Time passes, in steps in which couriers do what is due."""
        end = self.clock.mono() + seconds
        while self.clock.mono() < end:
            self.clock.step(min(by, end - self.clock.mono()))
            await self.quiet()

    async def fates(self, receiver: str) -> list[tuple[str, str]]:
        """(told, fate) of everything, oldest first."""
        found = await self.store.deliveries(DeliveryQuery(receiver=receiver, limit=1000))
        return [(one.told.value, one.fate.value) for one in reversed(found)]


@pytest_asyncio.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    clock = FakeClock(NOON, 5000.0)
    store = SqliteStore(tmp_path, clock=clock)
    await store.open()
    made = Office(store, clock)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    await store.close()


# --- who is owed what


@pytest.mark.parametrize(
    "receiver, wanted",
    [
        (Receiver("r"), True),
        (Receiver("r", Severity.FATAL), False),
        (Receiver("r", Severity.CRITICAL), True),
        (Receiver("r", instances=frozenset({"orders"})), True),
        (Receiver("r", instances=frozenset({"billing"})), False),
        (Receiver("r", events=frozenset({"no_leader"})), False),
    ],
)
def test_a_receiver_is_owed_what_it_asked_for(receiver: Receiver, wanted: bool) -> None:
    event = an_event(severity=Severity.CRITICAL)
    assert owed([receiver], Change(event, "opened", NOON)) == (("r",) if wanted else ())


@pytest.mark.parametrize("values", [{"suppressed": True}, {"flapping": True, "details": {"quiet": True}}])
def test_what_is_not_announced_is_owed_to_nobody(values: dict[str, Any]) -> None:
    assert owed([Receiver("r")], Change(an_event(**values), "opened", NOON)) == ()


@pytest.mark.parametrize("kind", ["linked", "amended"])
def test_what_only_adds_to_an_event_is_owed_to_nobody(kind: str) -> None:
    assert owed([Receiver("r")], Change(an_event(), kind, NOON)) == ()


async def test_a_resolution_is_owed_to_those_alone_who_were_owed_the_opening(office: Office) -> None:
    fatal, everything = Far(), Far()
    wanted = [
        Appointment(Receiver("fatal", Severity.FATAL), lambda: fatal),
        Appointment(Receiver("all"), lambda: everything),
    ]
    await office.couriers.appoint(wanted)
    event = await office.open(severity=Severity.NORMAL)
    await office.resolve(event)
    await office.until(lambda: len(everything.got) == 2, "both for the one that was owed the opening")
    assert fatal.got == []
    assert await office.fates("fatal") == []


async def test_a_receiver_that_came_later_hears_of_no_end_whose_beginning_it_missed(office: Office) -> None:
    await office.appoint(old=Far())
    event = await office.open()
    new = Far()
    await office.appoint(old=Far(), new=new)
    await office.resolve(event)
    await office.quiet()
    assert new.got == []


async def test_what_outlived_its_cause_is_told_as_opened_and_then_as_resolved(office: Office) -> None:
    far = Far()
    await office.appoint(r=far)
    event = await office.open(suppressed=True)
    lifted = replace(event, suppressed=False)
    await office.commit(lifted, "lifted")
    await office.resolve(lifted)
    await office.until(lambda: len(far.got) == 2, "both")
    assert [notice.told for notice in far.got] == [Told.OPENED, Told.RESOLVED]


async def test_an_opening_is_owed_once_however_often_it_is_announced(office: Office) -> None:
    far = Far()
    await office.appoint(r=far)
    event = await office.open()
    await office.commit(event, "told")
    await office.quiet()
    assert await office.fates("r") == [("opened", "delivered")]


async def test_after_a_silence_people_are_told_once_more_and_of_the_end_in_any_case(office: Office) -> None:
    far = Far(batch=100, refresh_seconds=60.0)
    await office.appoint(r=far)
    event = await office.open()
    silenced = replace(event, silenced_by="s")
    await office.commit(silenced, "silenced")
    await office.pass_(70)
    assert far.refreshed[-1] == [event.id], "who heard of it is not to think that it is over"
    await office.commit(event, "unsilenced")
    await office.commit(silenced, "silenced")
    await office.resolve(silenced)
    await office.until(lambda: len(far.got) == 3, "all three")
    assert [notice.told for notice in far.got] == [Told.OPENED, Told.OPENED, Told.RESOLVED]


async def test_a_notice_says_what_was_so_at_its_transition(office: Office) -> None:
    """Also when it is delivered after the event has gone on."""
    far = Far(script=[Undelivered("HTTP 500")])
    await office.appoint(r=far)
    event = await office.open()
    await office.resolve(event)
    await office.pass_(20)
    await office.until(lambda: len(far.got) == 2, "both")
    assert [notice.event.state.value for notice in far.got] == ["open", "resolved"]
    assert far.got[0].event == event


async def test_whom_nothing_reaches_is_not_told_of_that_and_the_others_are(office: Office) -> None:
    target = Target("observer", "watcher", "receiver", member="dead")
    dead, well = Far(otherwise=Undelivered("HTTP 503")), Far(batch=100, refresh_seconds=60.0)
    alertmanager = Far(batch=100, refresh_seconds=60.0)
    await office.appoint(dead=dead, well=well, am=alertmanager)
    event = an_event(event="notification_failed", target=target)
    await office.commit(event, "opened")
    await office.commit(over(event, office.clock.wall()), "resolved")
    await office.until(lambda: len(well.got) == len(alertmanager.got) == 2, "beginning and end, for both others")
    assert await office.fates("dead") == []
    about_am = an_event(event="notification_failed", target=replace(target, member="am"))
    await office.commit(about_am, "opened")
    await office.pass_(130)
    assert well.refreshed[-1] == [about_am.id]
    assert alertmanager.refreshed[-1] == [], "neither is it reminded of itself by what is posted again and again"


# --- order, retries, and the dead


async def test_every_transition_has_an_id_of_its_own_that_all_receivers_see(office: Office) -> None:
    one, two = Far(), Far()
    await office.appoint(one=one, two=two)
    event = await office.open()
    await office.resolve(event)
    await office.until(lambda: len(one.got) == len(two.got) == 2, "all four")
    ids = [notice.transition for notice in one.got]
    assert ids == [notice.transition for notice in two.got]
    assert len(set(ids)) == 2
    assert all(identity.startswith(event.id) for identity in ids)


async def test_what_was_not_taken_is_tried_again_later_and_later_and_marked_when_it_arrives(office: Office) -> None:
    far = Far(script=[Undelivered("HTTP 500")] * 4)
    await office.appoint(r=far)
    await office.open()
    await office.until(lambda: office.told["r", "failed"] == 1, "the first attempt")
    times = []
    while far.tried < 5:
        before = far.tried
        await office.pass_(0.5)
        if far.tried > before:
            times.append(office.clock.mono() - 5000)
    gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *times])]
    assert gaps == sorted(gaps), f"each pause at least as long as the one before: {gaps}"
    await office.quiet()
    (delivery,) = await office.store.deliveries(DeliveryQuery())
    assert (delivery.fate, delivery.attempts, delivery.answer) == (Fate.DELIVERED, 5, "HTTP 200")
    assert office.told == {("r", "failed"): 4, ("r", "delivered"): 1}


@pytest.mark.parametrize("failures", [1, 2, 5, 9, 40, 10_000])
def test_pauses_are_between_1_s_and_5_min_with_jitter(failures: int) -> None:
    chance = random.Random(failures)
    pauses = [courier.pause(failures, chance) for _ in range(500)]
    longest = min(300.0, 2.0 ** min(failures, 20))
    assert all(max(1.0, longest / 2) <= seconds <= longest for seconds in pauses)
    assert len(set(pauses)) > 250


async def test_a_resolution_never_overtakes_its_opening(office: Office) -> None:
    """Whatever fails, at random: 40 events over each other, each attempt fails with a chance of a third."""
    chance = random.Random(20261125)
    far = Far()
    await office.appoint(r=far)
    flaky = far.send

    async def send(notices: Sequence[Notice]) -> str:
        if chance.random() < 1 / 3:
            far.tried += 1
            raise Undelivered("HTTP 500", unwanted=chance.random() < 0.5)
        return await flaky(notices)

    far.send = send  # type: ignore[method-assign]  # only this one of them answers otherwise
    count = 40
    for _ in range(count):
        event = await office.open()
        await office.resolve(event)
    for _ in range(3000):
        if len(far.got) == 2 * count:
            break
        office.clock.step(1)
        await office.quiet()
    assert len(far.got) == 2 * count
    seen: dict[str, list[Told]] = {}
    for notice in far.got:
        seen.setdefault(notice.event.id, []).append(notice.told)
    assert set(map(tuple, seen.values())) == {(Told.OPENED, Told.RESOLVED)}
    assert max(Counter(notice.transition for notice in far.got).values()) == 1


async def test_a_dead_receiver_delays_nobody_else(office: Office) -> None:
    dead, hung, well = Far(otherwise=Undelivered("refused")), Far(hangs=True), Far()
    await office.appoint(dead=dead, hung=hung, well=well)
    for _ in range(20):
        await office.open()
    await office.until(lambda: len(well.got) == 20, "everything, though no time has passed")
    assert (dead.got, hung.got) == ([], [])


async def test_a_notice_that_is_not_wanted_holds_up_its_own_event_and_no_other(office: Office) -> None:
    far = Far()
    await office.appoint(r=far)
    bad = an_event(node="bad")
    far.refuses = lambda notice: notice.event.target.node == "bad"
    await office.commit(bad, "opened")
    await office.commit(over(bad, NOON), "resolved")
    others = [await office.open() for _ in range(3)]
    await office.pass_(30)
    assert [notice.event for notice in far.got] == others
    assert [fate for _, fate in await office.fates("r")] == ["owed", "owed", "delivered", "delivered", "delivered"]


async def test_what_is_new_is_tried_within_15_s_though_the_receiver_failed_for_long(office: Office) -> None:
    far = Far(otherwise=Undelivered("HTTP 500"))
    await office.appoint(r=far)
    await office.open()
    await office.pass_(3000, by=300)
    far.otherwise = None
    event = await office.open()
    await office.pass_(courier.FRESH_PAUSE + 1)
    assert event in [notice.event for notice in far.got]


async def test_for_how_long_a_receiver_has_failed_is_known_once_it_was_sent_something(office: Office) -> None:
    await office.appoint(r=Far(otherwise=Undelivered("HTTP 503")))
    await office.quiet()
    assert office.couriers.faring("r") == Faring(None)
    await office.open()
    await office.until(lambda: office.told["r", "failed"] == 1, "the first attempt")
    await office.pass_(1000, by=100)
    assert office.couriers.faring("r") == Faring(1000.0, "HTTP 503")
    assert office.couriers.faring("nobody") is None


async def test_a_receiver_that_asks_for_a_pause_gets_it(office: Office) -> None:
    far = Far(script=[Undelivered("HTTP 429", retry_after=600)])
    await office.appoint(r=far)
    await office.open()
    await office.until(lambda: office.told["r", "failed"] == 1, "the first attempt")
    await office.open()
    await office.pass_(590)
    assert far.tried == 1
    await office.pass_(20)
    assert len(far.got) == 2


async def test_what_a_receiver_will_never_take_is_a_dead_letter_at_once(office: Office) -> None:
    far = Far(script=[Undelivered("HTTP 410", final=True)])
    await office.appoint(r=far)
    await office.open()
    await office.quiet()
    assert office.couriers.faring("r") == Faring(courier.PATIENCE, "HTTP 410", given_up=1), "it counts as a day in vain"
    await office.open()
    await office.until(lambda: len(far.got) == 1, "the second one")
    await office.quiet()
    assert [fate for _, fate in await office.fates("r")] == ["refused", "delivered"]
    assert office.couriers.faring("r") == Faring(0.0, "HTTP 410")


async def test_an_attempt_that_hangs_ends_after_10_s(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "SEND_SECONDS", 0.05)
    far = Far(hangs=True)
    await office.appoint(r=far)
    await office.open()
    await office.until(lambda: office.told["r", "failed"] == 1, "the end of the attempt")
    far.hangs = False
    await office.pass_(30)
    await office.until(lambda: len(far.got) == 1, "the second attempt")


async def test_after_a_day_in_vain_a_notice_is_a_dead_letter_and_not_before(office: Office) -> None:
    far = Far(otherwise=Undelivered("refused"))
    await office.appoint(r=far)
    event = await office.open()
    await office.pass_(86000, by=2000)
    assert await office.fates("r") == [("opened", "owed")]
    await office.pass_(2000, by=500)
    assert await office.fates("r") == [("opened", "expired")]
    assert office.told["r", "expired"] == 1
    fares = office.couriers.faring("r")
    assert fares is not None and fares.given_up == 1
    assert fares.failing_seconds is not None and fares.failing_seconds >= courier.PATIENCE
    far.otherwise = None
    await office.resolve(event)
    await office.pass_(330)
    assert [notice.told for notice in far.got] == [Told.RESOLVED], (
        "the end is still owed: the beginning may have arrived"
    )


async def test_setting_the_clock_by_a_day_gives_up_nothing(office: Office) -> None:
    far = Far(otherwise=Undelivered("refused"))
    await office.appoint(r=far)
    await office.open()
    await office.pass_(900, by=100)
    for step in (86400.0, -2 * 86400.0):
        office.clock.step_wall(step)
        await office.open()
        await office.pass_(900, by=100)
    assert {fate for _, fate in await office.fates("r")} == {"owed"}


# --- restarts, reloads, receivers that go


async def test_what_is_owed_outlives_the_daemon_and_what_was_delivered_is_not_sent_again(
    office: Office, tmp_path: Path
) -> None:
    far = Far()
    await office.appoint(r=far)
    first = await office.open()
    await office.until(lambda: len(far.got) == 1, "the first")
    await office.quiet()
    far.otherwise = Undelivered("refused")
    second = await office.open()
    await office.until(lambda: office.told["r", "failed"] == 1, "the failure")
    await office.couriers.close()
    again = Office(office.store, office.clock)
    back = Far()
    await again.appoint(r=back)
    await again.until(lambda: len(back.got) == 1, "what is owed")
    await again.couriers.close()
    assert [notice.event for notice in back.got] == [second]
    assert first not in [notice.event for notice in back.got]


async def test_what_an_older_version_owed_is_delivered_though_it_knew_less_of_an_event(
    office: Office, tmp_path: Path
) -> None:
    far = Far(otherwise=Undelivered("refused"))
    await office.appoint(r=far)
    event = await office.open()
    await office.until(lambda: office.told["r", "failed"] == 1, "the failure")
    with contextlib.closing(sqlite3.connect(tmp_path / "probed.db")) as connection, connection:
        connection.execute("UPDATE notice SET event = json_remove(event, '$.flapping', '$.silenced_by', '$.details')")
    far.otherwise = None
    await office.pass_(20)
    assert [notice.event for notice in far.got] == [event]


async def test_what_a_removed_receiver_is_owed_is_dropped_and_marked(office: Office) -> None:
    gone = Far(otherwise=Undelivered("refused"))
    await office.appoint(gone=gone, stays=Far())
    event = await office.open()
    await office.until(lambda: office.told["gone", "failed"] == 1, "an attempt")
    await office.appoint(stays=Far())
    assert await office.fates("gone") == [("opened", "dropped")]
    assert office.told["gone", "dropped"] == 1
    back = Far()
    await office.appoint(gone=back, stays=Far())
    await office.resolve(event)
    await office.quiet()
    assert back.got == [], "it was not owed the opening any more"


async def test_a_receiver_that_a_reload_leaves_as_it_is_keeps_its_courier(office: Office) -> None:
    far = Far(script=[Undelivered("HTTP 429", retry_after=600)])
    await office.appoint(r=far)
    await office.open()
    await office.until(lambda: office.told["r", "failed"] == 1, "the first attempt")
    await office.appoint(r=Far(), other=Far(kind="x"))
    await office.pass_(30)
    assert far.tried == 1, "the pause that it asked for goes on"


async def test_a_changed_receiver_is_served_anew_after_what_was_under_way(office: Office) -> None:
    before, after = Far(), Far(kind="changed")
    await office.appoint(r=before)
    await office.appoint(r=after)
    await office.open()
    await office.until(lambda: len(after.got) == 1, "the notice on the new way")
    assert before.got == []


# --- batches and refreshes


async def test_a_storm_is_one_batch_for_who_takes_batches(office: Office) -> None:
    far = Far(batch=100, script=[Undelivered("HTTP 500")])
    await office.appoint(r=far)
    for _ in range(50):
        await office.open()
    await office.pass_(20)
    assert len(far.got) == 50
    assert far.tried < 10


async def test_one_bad_notice_in_a_batch_is_found_and_the_others_arrive(office: Office) -> None:
    far = Far(batch=100, script=[Undelivered("HTTP 500")])
    far.refuses = lambda notice: notice.event.target.node == "bad"
    await office.appoint(r=far)
    for node in ("", "", "bad", "", ""):
        await office.open(node=node)
    await office.pass_(300)
    assert [notice.event.target.node == "bad" for notice in far.got] == [False] * 4
    assert Counter(fate for _, fate in await office.fates("r")) == {"delivered": 4, "owed": 1}


async def test_what_is_told_of_one_event_stays_together_when_a_batch_is_taken_apart(office: Office) -> None:
    """Alertmanager takes the good alerts of a batch and objects to it all the same: it knows of the end already."""
    sent: list[list[Told]] = []
    far = Far(batch=100)
    far.refuses = lambda notice: notice.event.target.node == "bad"
    flaky = far.send

    async def send(notices: Sequence[Notice]) -> str:
        sent.append([notice.told for notice in notices if notice.event.target.node == "good"])
        return await flaky(notices)

    far.send = send  # type: ignore[method-assign]  # only notes what it is given
    good = an_event(node="good")
    for event, kind in ((an_event(node="bad"), "opened"), (good, "opened"), (over(good, NOON), "resolved")):
        await office.store.append(Commit(changes=(Change(event, kind, NOON, owed=("r",)),)))
    await office.appoint(r=far)  # what an earlier daemon owed is one batch
    await office.pass_(30)
    assert [told for told in sent if told] == [[Told.OPENED, Told.RESOLVED]] * 2
    assert Counter(fate for _, fate in await office.fates("r")) == {"delivered": 2, "owed": 1}


async def test_what_is_open_is_told_again_every_minute_and_nothing_else_is(office: Office) -> None:
    far = Far(batch=100, refresh_seconds=60.0)
    await office.appoint(r=far)
    await office.quiet()  # the first is of nothing
    event = await office.open()
    await office.open(suppressed=True)
    await office.open(flapping=True, details={"quiet": True})
    await office.open(silenced=True, silenced_by="s1", details={"silence": {}})
    await office.pass_(185)
    await office.resolve(event)
    await office.pass_(60)
    assert far.refreshed[0] == []
    assert far.refreshed[1:-1] == [[event.id]] * 3
    assert far.refreshed[-1] == []


async def test_what_was_told_before_a_silence_is_told_again_under_it_lest_it_seem_over(office: Office) -> None:
    far = Far(batch=100, refresh_seconds=60.0)
    await office.appoint(r=far)
    await office.quiet()  # the first is of nothing
    event = await office.open()
    muted = replace(event, silenced_by="s1", details={"silence": {}})
    assert muted.muted
    await office.store.append(Commit(changes=(Change(muted, "silenced", office.clock.wall()),)))
    await office.pass_(125)
    assert far.refreshed[1:] == [[event.id]] * 2


async def test_people_are_reminded_of_what_stays_open_until_somebody_acknowledges_it(office: Office) -> None:
    far, other = Far(), Far()
    hours = 3600.0
    wanted = [
        Appointment(Receiver("r", reminders=4 * hours), lambda: far),
        Appointment(Receiver("other"), lambda: other),
    ]
    await office.couriers.appoint(wanted)
    event = await office.open()
    acked = await office.open()
    await office.commit(replace(acked, acked_by="ann"), "acked")
    muted = await office.open()
    note = {"silence": {"id": "s"}}
    await office.commit(replace(muted, silenced_by="s", details=note), "silenced")
    await office.pass_(3.9 * hours, by=600)
    assert len(far.got) == 3
    await office.pass_(4.5 * hours, by=600)
    again = [notice for notice in far.got if notice.told is Told.REMINDED]
    assert [notice.event.id for notice in again] == [event.id] * 2
    assert len({notice.transition for notice in far.got}) == 5, "each reminder is a transition of its own"
    office.clock.step_wall(86400)
    await office.pass_(600, by=100)
    assert len(far.got) == 5, "a step of the date reminds nobody"
    await office.resolve(event)
    await office.pass_(9 * hours, by=600)
    assert len(far.got) == 6
    assert not [notice for notice in other.got if notice.told is Told.REMINDED]


# --- what operators see


async def test_the_age_of_the_oldest_notice_is_that_of_what_is_still_owed(office: Office) -> None:
    far = Far(otherwise=Undelivered("refused"))
    await office.appoint(r=far, well=Far())
    assert office.couriers.oldest_age() == 0
    await office.open()
    await office.until(lambda: office.told["r", "failed"] == 1, "the first attempt")
    await office.pass_(120)
    assert office.couriers.oldest_age() == pytest.approx(120)
    (state,) = [state for state in office.couriers.states if state.name == "r"]
    assert (state.answer, state.failing_since) == ("refused", NOON)
    far.otherwise = None
    await office.pass_(300)
    assert office.couriers.oldest_age() == 0
    assert [state.failing_since for state in office.couriers.states] == [None, None]


async def test_a_test_message_goes_past_the_queue_and_says_what_came_of_it(office: Office) -> None:
    await office.appoint(well=Far(), dead=Far(otherwise=Undelivered("refused")))
    well, dead = await office.couriers.test("well"), await office.couriers.test("dead")
    assert (well.delivered, well.answer) == (True, "HTTP 200")
    assert (dead.delivered, dead.answer) == (False, "refused")
    with pytest.raises(KeyError):
        await office.couriers.test("nobody")


# --- dead letters sent again

GONE = Undelivered("HTTP 410", final=True)


async def test_a_dead_letter_is_sent_again_once_under_a_new_id_and_the_old_one_stays_in_the_history(
    office: Office,
) -> None:
    far, other = Far(otherwise=GONE), Far()
    await office.appoint(r=far, other=other)
    event = await office.open()
    await office.quiet()
    assert await office.store.dead_letters() == {"r": 1}
    office.clock.step(3600)
    far.otherwise = None
    await office.resend("r", event)
    assert [(notice.told, notice.event.state) for notice in far.got] == [(Told.OPENED, EventState.OPEN)]
    assert far.got[0].transition != other.got[0].transition and far.got[0].attempts == 0
    assert await office.fates("r") == [("opened", "refused"), ("opened", "delivered")]
    assert await office.store.dead_letters() == {}
    await office.resend("r", event)
    await office.resend("other", event)
    assert (len(far.got), len(other.got)) == (1, 1), "nothing is dead any more, and nobody else was concerned"
    detail = await office.store.event(event.id)
    assert detail is not None
    assert [(one.kind, one.who, one.comment) for one in detail.history][1:] == [("resent", "olga", "to r")]


async def test_an_event_that_has_ended_is_told_as_it_is_now_and_once(office: Office) -> None:
    far = Far(otherwise=GONE)
    await office.appoint(r=far)
    event = await office.open()
    await office.quiet()
    office.clock.step(60)
    await office.resolve(event)
    await office.quiet()
    assert await office.fates("r") == [("opened", "refused"), ("resolved", "refused")]
    assert await office.store.dead_letters() == {"r": 1}, "the newest says all"
    far.otherwise = None
    await office.resend("r", event)
    assert [(notice.told, notice.event.state) for notice in far.got] == [(Told.RESOLVED, EventState.RESOLVED)]
    assert await office.store.dead_letters() == {}


async def test_who_wants_no_resolutions_is_told_that_what_it_never_heard_of_is_over(office: Office) -> None:
    far = Far(otherwise=GONE)
    await office.couriers.appoint([Appointment(Receiver("r", resolved=False), partial(_itself, far))])
    event = await office.open()
    await office.quiet()
    await office.resolve(event)
    await office.quiet()
    far.otherwise = None
    await office.resend("r", event)
    assert [(notice.told, notice.event.state) for notice in far.got] == [(Told.RESOLVED, EventState.RESOLVED)]


async def test_what_a_receiver_was_told_of_later_is_no_dead_letter(office: Office) -> None:
    far = Far(script=[GONE])
    await office.appoint(r=far)
    event = await office.open()
    await office.quiet()
    await office.resolve(event)
    await office.quiet()
    assert await office.fates("r") == [("opened", "refused"), ("resolved", "delivered")]
    assert await office.store.dead_letters() == {}
    await office.resend("r", event)
    assert [notice.told for notice in far.got] == [Told.RESOLVED], "an alarm after its end would never end"


async def test_what_is_owed_of_an_event_is_not_owed_twice(office: Office) -> None:
    far = Far(script=[GONE], otherwise=Undelivered("HTTP 503"))
    await office.appoint(r=far)
    event = await office.open()
    await office.quiet()
    await office.resolve(event)
    await office.quiet()
    await office.resend("r", event)
    assert await office.fates("r") == [("opened", "refused"), ("resolved", "owed")]


async def test_an_occurrence_is_sent_again_as_one(office: Office) -> None:
    far = Far(script=[GONE])
    await office.appoint(r=far)
    event = an_event(office.clock.wall(), state=EventState.OCCURRED)
    await office.commit(event, "occurred")
    await office.quiet()
    await office.resend("r", event)
    assert [notice.told for notice in far.got] == [Told.OCCURRED]


async def test_a_reminder_that_was_given_up_is_no_dead_letter_while_the_opening_arrived(office: Office) -> None:
    far = Far(script=[None, GONE])
    await office.couriers.appoint([Appointment(Receiver("r", reminders=3600.0), partial(_itself, far))])
    await office.open()
    await office.quiet()
    await office.pass_(3700, by=60)
    assert await office.fates("r") == [("opened", "delivered"), ("reminded", "refused")]
    assert await office.store.dead_letters() == {}, "the next reminder follows by itself"


async def test_what_was_dropped_with_its_receiver_is_no_dead_letter(office: Office) -> None:
    await office.appoint(r=Far(otherwise=Undelivered("refused")))
    event = await office.open()
    await office.until(lambda: office.told["r", "failed"] == 1, "an attempt")
    await office.appoint()
    far = Far()
    await office.appoint(r=far)
    assert await office.store.dead_letters() == {}
    await office.resend("r", event)
    assert far.got == []


async def test_what_is_sent_again_is_tried_for_a_day_again_however_old_the_event_is(office: Office) -> None:
    far = Far(otherwise=Undelivered("HTTP 401"))
    await office.appoint(r=far)
    event = await office.open()
    await office.pass_(88_000, by=2000)
    assert await office.fates("r") == [("opened", "expired")]
    await office.resend("r", event)
    await office.pass_(43_200, by=2000)
    assert await office.fates("r") == [("opened", "expired"), ("opened", "owed")]
    far.otherwise = None
    await office.pass_(330)
    assert await office.fates("r") == [("opened", "expired"), ("opened", "delivered")]
    fares = office.couriers.faring("r")
    assert fares is not None and (fares.failing_seconds, fares.given_up) == (0.0, 0)


async def test_a_dead_letter_that_dies_again_can_be_sent_again(office: Office) -> None:
    far = Far(script=[GONE, GONE])
    await office.appoint(r=far)
    event = await office.open()
    await office.quiet()
    for left in (1, 0):
        await office.resend("r", event)
        assert sum((await office.store.dead_letters()).values()) == left
    assert await office.fates("r") == [("opened", "refused"), ("opened", "refused"), ("opened", "delivered")]
