"""The canary: an event that takes the way of an alarm, over the real pipeline, store, courier and socket; time is fake."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from probed import cadence
from probed.api import shapes
from probed.board import Board
from probed.canary import AGAIN_SECONDS, Canary
from probed.config.settings import Defaults, Settings
from probed.daemon import Daemon
from probed.errors import ConfigError
from probed.metrics import Metrics
from probed.model import CANARY, OBSERVER, EventState
from probed.pipeline import Pipeline
from probed.post import Post
from probed.probes import Context, Probe, catalogue
from probed.sampling import take_sample
from probed.store import Change, EventQuery
from probed.store.notices import Fate
from probed.store.sqlite import SqliteStore
from probed.supervising import Supervisor
from probed.telling import Shapes
from probed.testing import FakeClock, settle
from probed.unwritten import Unwritten
from probed.vitals import BEAT, Vitals
from probed.watching import detection_seconds, own_plan
from tests.receiving import Sink
from tests.unit.bench import SHIPPED

NOON = 1_795_003_200.0
HOUR = 3600.0
INSTANCES = [{"name": "orders", "nodes": [{"name": "a", "postgres": {}}]}]
JUDGED = {name: SHIPPED[name] for name in (CANARY, "pipeline_broken")}
PROBE = catalogue()["observer_canary"]
PLAN = own_plan("watcher", JUDGED, catalogue(), Defaults())


@dataclass
class Way:
    """What of a daemon a canary passes, and one receiver that wants everything."""

    directory: Path
    sink: Sink
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOON, 5000.0))
    every: str = "1h"
    degraded: bool = False
    deaf: bool = False
    """The pipeline's news of what is durable reach nobody."""
    lost: bool = False
    """What is brought to the door is lost behind it."""
    changes: list[Change] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        told = {"webhooks": [{"url": self.sink.url, "name": "hook"}], "canary": self.every}
        return Settings.model_validate({"observer": "watcher", "instances": INSTANCES, "notifications": told})

    async def start(self) -> None:
        """As the daemon does."""
        self.store = SqliteStore(self.directory, clock=self.clock)
        recovered = await self.store.open()
        self.tasks = Supervisor(self.clock)
        self.vitals = Vitals(self.clock, _asleep=lambda: 0.0)
        self.canary = Canary(self.clock, stalled=self.vitals.stalled_since, excused=lambda: self.degraded)
        self.canary.detection = detection_seconds(PLAN)
        self.vitals.canary_due, self.vitals.trip = self.canary.due, self.canary.trip
        self.metrics = Metrics()
        self.pipeline = Pipeline(self.store, Board(), self.clock, observer="watcher", switchover_grace=60)
        self.post = Post(
            Unwritten(self.store, self.clock, self.pipeline.tell_unwritten), self.clock, self.tasks, lambda: Shapes(shapes.event, shapes.instant),
            canary=self.canary, unready=list, told=self.metrics.notified,
        )  # fmt: skip
        came = self.canary.came  # at the end of the way, which the test cuts here: replaced on purpose
        self.canary.came = lambda event_id: None if self.lost else came(event_id)  # type: ignore[method-assign]
        self.pipeline.recover(recovered)
        self.pipeline.owe = self.post.owed
        self.pipeline.on_announce(self.changes.append)
        self.pipeline.on_announce(self.metrics.announced)
        self.pipeline.on_announce(lambda change: None if self.deaf else self.post.announced(change))
        await self.post.appoint(self.settings)
        self.pipeline.bind(OBSERVER, {}, (), PLAN.watches, all_policies=JUDGED)
        _ = self.tasks.own(self._beats, "vitals")
        await settle()
        await self.quiet()

    async def _beats(self) -> None:
        async for slot in cadence.every(BEAT, 0.0, self.clock):
            self.vitals.beat(slot.due)

    async def stop(self) -> None:
        await self.post.couriers.close()
        await self.tasks.close()
        await self.post.close()
        await self.store.close()

    async def round(self) -> None:
        """5 s pass, and the observer looks at itself; then everybody does what is to be done."""
        await self.clock.move(5)
        await self.look()

    async def look(self) -> None:
        assert isinstance(PROBE, Probe)
        context = Context(PLAN.reaches[0].target, 2.0, _vitals=self.vitals)
        sample = await take_sample(PROBE, context, 2.0, self.clock, self.vitals.lag_since)
        self.pipeline.accept(OBSERVER, [sample])
        await self.quiet()

    async def quiet(self) -> None:
        for _ in range(12):
            await self.store.backlog()
            await asyncio.sleep(0.005)

    async def pass_(self, seconds: float) -> None:
        for _ in range(round(seconds / 5)):
            await self.clock.move(5)
            await self.look()

    async def back(self) -> None:
        """Until the canary that is under way is back."""
        await self.until(lambda: self.canary.trip().age_seconds == 0, "a canary that came back")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"never: {what}")

    @property
    def told(self) -> list[str]:
        """What the receiver was told, as ``opened pipeline_broken``."""
        return [f"{r.json['type'].rpartition('.')[2]} {r.json['data']['event']}" for r in self.sink.taken]

    async def open(self) -> list[str]:
        return [event.event for event in await self.store.events(EventQuery(state=EventState.OPEN))]


@pytest_asyncio.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    async with Sink().listen() as sink:
        made = Way(tmp_path, sink)
        await made.start()
        yield made
        await made.stop()


async def test_a_canary_comes_back_soon_after_the_start_and_then_each_hour(way: Way) -> None:
    assert way.canary.trip().overdue_seconds is None, "before the first nothing is known"
    await way.round()
    await way.back()
    trip = way.canary.trip()
    assert (trip.overdue_seconds, trip.round_trip_seconds) == (0.0, 0.0)
    sent = [change.event.id for change in way.changes]
    assert len(sent) == 1
    way.clock.step(HOUR - 10)
    await settle()
    await way.look()
    assert len(way.changes) == 1
    await way.round()
    await way.round()
    await way.until(lambda: len(way.changes) == 2, "the next one")
    await way.back()
    assert way.told == []


async def test_nobody_is_told_of_a_canary_nothing_counts_it_and_the_store_forgets_it(way: Way) -> None:
    await way.round()
    await way.back()
    (change,) = way.changes
    assert (change.event.event, change.event.suppressed, change.owed) == (CANARY, True, (CANARY,))
    await way.until(lambda: not way.post.couriers._couriers[CANARY]._held, "the courier is done")
    for _ in range(200):
        if await way.store.event(change.event.id) is None:
            break
        await asyncio.sleep(0.005)
    assert await way.store.event(change.event.id) is None
    assert await way.store.transitions(0, 10) == []
    assert (await way.store.numbering()).newest == 0
    assert await way.store.counts() == {}
    assert await way.store.daily(0, NOON + HOUR, "UTC") == []
    assert way.metrics._events == {}
    assert {name for name, _ in way.metrics._notifications} <= {"hook"}
    assert [state.name for state in way.post.couriers.states] == ["hook"]
    assert way.post.couriers.names == ["hook"]
    assert way.sink.seen == []


async def test_one_that_is_under_way_is_in_no_list_but_for_who_asks_for_it(way: Way) -> None:
    way.deaf = True
    await way.round()
    assert await way.store.events(EventQuery()) == []
    assert await way.store.events(EventQuery(instance=OBSERVER)) == []
    (event,) = await way.store.events(EventQuery(event=CANARY))
    detail = await way.store.event(event.id)
    assert detail is not None
    assert [(one.receiver, one.fate) for one in detail.deliveries] == [(CANARY, Fate.OWED)]


async def test_one_that_does_not_come_back_is_an_event_that_says_how_far_it_got(way: Way) -> None:
    way.deaf = True
    await way.pass_(15)
    assert await way.open() == []
    assert way.canary.trip().overdue_seconds is None
    await way.pass_(5)
    assert await way.open() == ["pipeline_broken"]
    (opened,) = [change.event for change in way.changes if change.event.event == "pipeline_broken"]
    assert opened.message == "1 sample: a canary did not come back in time; it is judged, and not durable"
    assert way.canary.trip().overdue_seconds == pytest.approx(2.5, abs=0.1)
    way.deaf = False
    await way.pass_(AGAIN_SECONDS + 20)
    await way.until(lambda: "resolved pipeline_broken" in way.told, "the end, with the next that comes back")
    assert await way.open() == []
    assert way.canary.trip().overdue_seconds == 0.0
    assert set(way.told) == {"opened pipeline_broken", "resolved pipeline_broken"}


async def test_a_pipeline_that_judges_nothing_any_more_is_told_by_who_asks_whether_the_daemon_is_ready(
    way: Way,
) -> None:
    await way.clock.move(5)
    assert way.canary.due()
    await way.clock.move(12)
    assert way.canary.trip().overdue_seconds is None
    await way.clock.move(1)
    trip = way.canary.trip()
    assert trip.overdue_seconds and trip.where.startswith("not judged")


async def test_one_that_is_brought_late_is_the_end_too(way: Way) -> None:
    way.deaf = True
    await way.pass_(25)
    assert await way.open() == ["pipeline_broken"]
    way.deaf = False
    way.post.couriers._couriers[CANARY].wake()
    await way.back()
    await way.round()
    assert await way.open() == []


async def test_a_sample_that_was_spoilt_by_our_own_lag_costs_a_round_and_no_canary(way: Way) -> None:
    await way.clock.move(5)
    assert way.canary.due(), "asked, and its sample was never judged"
    await way.round()
    await way.back()
    assert len(way.changes) == 1


async def test_a_process_that_was_stopped_with_a_canary_under_way_raises_no_alarm(way: Way) -> None:
    way.deaf = True
    await way.round()
    way.clock.step(600.0)
    assert way.canary.trip().overdue_seconds is None, "also before the stall was noted"
    await settle()
    await way.look()
    assert await way.open() == []
    way.deaf = False
    way.post.couriers._couriers[CANARY].wake()
    await way.back()
    await way.pass_(10)
    assert await way.open() == []


async def test_while_the_disk_takes_nothing_none_is_sent_and_none_is_missing(way: Way) -> None:
    way.deaf = True
    await way.round()
    way.degraded = True
    await way.pass_(60)
    assert (way.canary.due(), way.canary.trip().overdue_seconds) == (False, None)
    way.degraded = False
    await way.pass_(10)
    assert await way.open() == []
    await way.pass_(10)
    assert await way.open() == ["pipeline_broken"], "from then on it has as long as any"


async def test_after_a_restart_what_was_broken_is_so_until_a_canary_has_come_back(way: Way) -> None:
    way.lost = True
    await way.pass_(25)
    assert await way.open() == ["pipeline_broken"]
    await way.stop()
    await way.start()
    await way.pass_(10)
    assert await way.open() == ["pipeline_broken"]
    way.lost = False
    await way.stop()
    await way.start()
    await way.round()
    await way.back()
    await way.round()
    assert await way.open() == []
    assert [change.event.event for change in way.changes if change.kind == "opened"] == ["pipeline_broken"]


async def test_a_canary_that_a_daemon_left_under_way_is_taken_and_taken_for_nothing(way: Way) -> None:
    way.deaf = True
    await way.round()
    await way.stop()
    way.deaf = False
    way.changes.clear()
    await way.start()
    await way.until(lambda: not way.post.couriers._couriers[CANARY]._held, "the courier is there")
    await way.quiet()
    assert way.canary.trip().age_seconds is None
    await way.round()
    await way.back()
    assert len(await way.store.events(EventQuery(event=CANARY))) == 0


async def test_where_it_is_off_or_nobody_is_told_none_is_sent(way: Way) -> None:
    way.every = "off"
    await way.post.appoint(way.settings)
    await way.pass_(30)
    assert way.changes == []
    assert not way.canary.trip().sent
    nobody = Settings.model_validate({"observer": "w", "instances": INSTANCES, "notifications": {}})
    await way.post.appoint(nobody)
    assert not way.canary.trip().sent


async def test_the_door_takes_nothing_but_what_knows_its_path(way: Way) -> None:
    assert way.post._loopback is not None
    url = way.post._loopback.url
    base = url.rpartition("/")[0]

    def ask(address: str, body: bytes | None) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, body), timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    asked: Sequence[tuple[str, bytes | None]] = (
        (f"{base}/", b"{}"), (f"{base}/x", b'{"data": {"id": "x"}}'), (url, None), (url, b"no json"), (url, b"[]"),
        (url, b'{"data": {"id": "x"}}'),
    )  # fmt: skip
    assert [await asyncio.to_thread(ask, *one) for one in asked] == [404, 404, 404, 400, 400, 204]


async def test_a_daemon_that_misses_a_canary_is_not_ready_and_is_not_started_anew_for_it(tmp_path: Path) -> None:
    clock = FakeClock(NOON, 5000.0)
    told = {"observer": "w", "instances": INSTANCES, "storage": {"path": str(tmp_path)}}
    daemon = Daemon(Settings.model_validate(told), clock=clock)
    daemon.canary.every = HOUR
    before = daemon.unready()
    assert daemon.canary.due()
    clock.step(daemon.canary.patience + 1)
    daemon.vitals.note(clock.mono(), 0.0)
    (reason,) = [reason for reason in daemon.unready() if reason not in before]
    assert reason.startswith("alarms may not arrive, a canary of our own did not: it is not judged")
    assert reason not in daemon.readiness.stuck()


def test_the_setting_is_a_duration_or_off_and_the_name_is_taken() -> None:
    def read(**told: object) -> Settings:
        return Settings.model_validate({"observer": "w", "instances": INSTANCES, "notifications": told})

    assert [one.notifications.canary for one in (read(), read(canary="90m"), read(canary="off")) if one.notifications] == [
        3600.0, 5400.0, None,
    ]  # fmt: skip
    with pytest.raises((ValueError, ConfigError), match="such as 500ms, 10s or 5m"):
        read(canary=0)
    with pytest.raises((ValueError, ConfigError), match="a receiver of its own"):
        read(webhooks=[{"url": "http://hook", "name": "canary"}])
