"""Evidence of events: what is frozen, what is taken, what is told of what could not be had. Real sockets, a fake clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from probed import evidence, gathering, snapshots
from probed.board import Board
from probed.evidence import Collector, Data, Recall
from probed.evidence._taking import MAX_BYTES
from probed.gathering import Gatherer
from probed.incidents import new_id
from probed.model import Event, EventState, Evidence, Moment, Outcome, Policy, Sample, Severity, Side, Target
from probed.probes import Context
from probed.probes._http import HttpClient
from probed.reaching import Reach
from probed.snapshots import Doors
from probed.store import Change, Commit, Owed
from probed.testing import FakeClock, blackhole, make_policy
from tests.hostile import Behaviour, accept_and_hang, flooding, listening
from tests.hostile import json as saying_json

NODE = Target("orders", "node-a", "patroni", "http://10.0.0.1:8008", kind="patroni")
CLUSTER = Target("orders", "", "patroni", "http://10.0.0.1:8008", kind="patroni_cluster")
DATABASE = Target("orders", "node-a", "postgres", "10.0.0.1:5432", kind="postgres")
SECRET = "Zq7hunter2x"


class Bench:
    """A gatherer with everything that it had recorded."""

    def __init__(self) -> None:
        self.clock, self.board, self.http = FakeClock(), Board(), HttpClient()
        self.commits: list[Commit] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.gatherer = Gatherer(
            self.board,
            self.clock,
            Doors(self.http, lambda key: None),
            record=self.commits.append,
            start=self.start,
        )

    def start(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        async def run() -> None:
            await work()

        self.tasks.add(asyncio.create_task(run(), name=name))

    def watch(self, *reaches: Reach, names: tuple[str, ...] = ("patroni_node",), event: str = "broken") -> Policy:
        policy = replace(make_policy(id=event), evidence=names)
        watched = [(policy, reach.target) for reach in reaches]
        self.gatherer.set_scene("orders", reaches, watched, {event: policy})
        return policy

    def event(self, target: Target = NODE, **values: Any) -> Event:
        return replace(
            Event(
                id=new_id(self.clock.wall()),
                event="broken",
                name="Broken",
                severity=Severity.CRITICAL,
                state=EventState.OPEN,
                target=target,
                opened_at=self.clock.wall(),
                message="broken",
            ),
            **values,
        )

    async def opens(self, event: Event) -> list[Evidence]:
        """Everything kept of an event that opens now."""
        self.gatherer.announced(Change(event, "opened", event.opened_at))
        return await self.kept(event)

    async def kept(self, event: Event) -> list[Evidence]:
        if self.tasks:
            await asyncio.wait(self.tasks)
        return [item for commit in self.commits for item in commit.evidence.get(event.id, ())]

    @property
    def settled(self) -> list[tuple[str, Moment]]:
        return [settled for commit in self.commits for settled in commit.settled]

    def put(self, probe: str, target: Target, facts: Mapping[str, object], outcome: Outcome = Outcome.OBSERVED) -> None:
        self.board.expect(probe, target, 5.0)
        self.board.put(Sample(target, probe, outcome, self.clock.wall(), self.clock.mono(), facts=facts))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    await made.http.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines short enough for a test; what is promised is their ratio to what peers do."""
    monkeypatch.setattr(snapshots, "DEADLINE", 0.5)


def declared(
    monkeypatch: pytest.MonkeyPatch, name: str, take: Callable[[Context], Awaitable[Data]], **more: Any
) -> None:
    """A collector for this test alone."""
    made = Collector(name, take, ("patroni",), "node", "for a test", **more)
    monkeypatch.setitem(evidence._declared, name, made)


def body(state: str, **more: object) -> dict[str, Any]:
    return {"body": {"state": state, "role": "replica", "timeline": 1, **more}}


async def at(behaviour: Behaviour) -> AsyncIterator[Reach]:
    async with listening(behaviour) as peer:
        yield Reach(replace(NODE, address=peer.url), urls=(peer.url,))


# --- before -----------------------------------------------------------------------------------------------------


async def test_what_was_seen_before_is_frozen_from_the_samples_when_the_event_opens(bench: Bench) -> None:
    bench.watch(Reach(NODE, urls=("http://127.0.0.1:1",)))
    bench.put("patroni_rest", NODE, body("running"))
    for _ in range(3):
        bench.clock.step(5)
        bench.put("patroni_rest", NODE, {}, Outcome.FAILED)
    began = bench.clock.wall() - 10
    kept = await bench.opens(bench.event(first_failed_at=began))
    [before, after] = kept
    assert (before.side, before.target, before.moment) == (Side.BEFORE, "orders/node-a/patroni", Moment.TRIGGER)
    assert json.loads(before.data)["state"] == "running"
    assert before.taken_at == began - 5
    assert after.side is Side.AFTER
    assert "refused" in after.error


async def test_each_different_picture_up_to_the_trigger_is_kept_once(bench: Bench) -> None:
    bench.watch(Reach(NODE, urls=("http://127.0.0.1:1",)))
    for state in ("running", "running", "stopping", "stopping", "stopped", "stopped"):
        bench.put("patroni_rest", NODE, body(state))
        bench.clock.step(5)
    kept = await bench.opens(bench.event())
    states = [json.loads(item.data)["state"] for item in kept if item.side is Side.BEFORE]
    assert states == ["running", "stopping", "stopped"]


async def test_the_last_picture_of_health_is_kept_however_much_changed_since(bench: Bench) -> None:
    bench.watch(Reach(NODE, urls=("http://127.0.0.1:1",)))
    bench.put("patroni_rest", NODE, body("running"))
    bench.clock.step(5)
    began = bench.clock.wall()
    for number in range(6):
        bench.put("patroni_rest", NODE, body(f"state {number}"))
        bench.clock.step(5)
    kept = await bench.opens(bench.event(first_failed_at=began))
    states = [json.loads(item.data)["state"] for item in kept if item.side is Side.BEFORE]
    assert states == ["running", "state 4", "state 5"]


async def test_the_triggers_own_round_does_not_count_as_before(bench: Bench) -> None:
    bench.watch(Reach(NODE, urls=("http://127.0.0.1:1",)))
    bench.put("patroni_rest", NODE, body("running"))
    bench.clock.step(5)
    bench.put("patroni_rest", NODE, body("stopped"))
    bench.clock.step(0.2)
    kept = await bench.opens(bench.event())
    assert [json.loads(item.data)["state"] for item in kept if item.data] == ["running"]


async def test_facts_that_no_collector_can_read_cost_an_event_their_snapshot_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(sample: Sample) -> Data:
        raise KeyError("members")

    async def fine(context: Context) -> Data:
        return {"fine": True}

    declared(monkeypatch, "fragile", fine, recall=Recall("patroni_rest", broken))
    bench.watch(Reach(NODE), names=("fragile",))
    bench.put("patroni_rest", NODE, body("running"))
    bench.clock.step(5)
    kept = await bench.opens(bench.event())
    assert [(item.side, item.data) for item in kept] == [(Side.AFTER, '{"fine":true}')]


async def test_a_server_is_asked_for_standing_snapshots_only_while_it_is_quick_and_small(bench: Bench) -> None:
    def stats(duration: float, sessions: float, outcome: Outcome = Outcome.OBSERVED) -> None:
        for probe, readings in (("postgres_liveness", {}), ("postgres_stats", {"backends": sessions})):
            bench.board.expect(probe, DATABASE, 5.0)
            now = (bench.clock.wall(), bench.clock.mono())
            bench.board.put(Sample(DATABASE, probe, outcome, *now, duration, readings))
        bench.gatherer.round_judged("orders")

    bench.watch(Reach(DATABASE), names=("postgres_activity",))
    stats(0.9, 10.0)
    stats(0.01, 900.0)
    stats(0.01, 10.0, Outcome.FAILED)
    assert not bench.tasks
    stats(0.01, 10.0)
    assert len(bench.tasks) == 1
    bench.clock.step(60)
    stats(0.01, 10.0)
    assert len(bench.tasks) == 1
    bench.clock.step(31)
    stats(0.01, 10.0)
    assert len(bench.tasks) == 2


async def test_a_standing_snapshot_that_found_the_connection_busy_is_tried_again_after_the_next_round(
    bench: Bench,
) -> None:
    for probe in ("postgres_liveness", "postgres_stats"):
        bench.put(probe, DATABASE, {})
    bench.watch(Reach(DATABASE), names=("postgres_activity",))
    for tries in (1, 2):
        bench.gatherer.round_judged("orders")
        assert len(bench.tasks) == tries
        await asyncio.wait(bench.tasks)
        bench.clock.step(5)


# --- after ------------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_taken_redacted_and_settles_the_debt(bench: Bench) -> None:
    answer = {"state": "running", "dsn": SECRET, "tags": {"note": f"password={SECRET} \x1b[31m"}}
    async for reach in at(saying_json(json.dumps(answer).encode())):
        bench.watch(reach)
        event = bench.event()
        [item] = await bench.opens(event)
        assert json.loads(item.data)["state"] == "running"
        assert SECRET not in item.data and "\x1b" not in item.data
        assert bench.settled == [(event.id, Moment.TRIGGER)]


@pytest.mark.parametrize("behaviour", [accept_and_hang, flooding(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536)])
async def test_a_peer_that_hangs_or_floods_never_exceeds_the_deadline_nor_the_cap(
    bench: Bench, behaviour: Behaviour
) -> None:
    async for reach in at(behaviour):
        bench.watch(reach)
        started = asyncio.get_running_loop().time()
        [item] = await bench.opens(bench.event())
        assert asyncio.get_running_loop().time() - started < 0.5 + 1.0
        assert item.error and not item.data
        assert len(item.error) <= 500


async def test_a_hung_target_costs_the_others_of_the_same_event_nothing(bench: Bench) -> None:
    async with blackhole() as (host, port):
        async for reach in at(saying_json(b'{"state": "running"}')):
            mute = Reach(CLUSTER, urls=(f"http://{host}:{port}",))
            bench.watch(reach, mute, names=("patroni_cluster", "patroni_node", "patroni_history"))
            kept = {item.collector: item for item in await bench.opens(bench.event())}
            assert kept["patroni_node"].data
            assert "no answer within 0.5 s" in kept["patroni_cluster"].error
            assert "no answer within 0.5 s" in kept["patroni_history"].error


async def test_a_bug_in_a_collector_costs_its_snapshot_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(context: Context) -> Data:
        raise RuntimeError("oh")

    declared(monkeypatch, "broken_collector", broken)
    async for reach in at(saying_json(b'{"state": "running"}')):
        bench.watch(reach, names=("broken_collector", "patroni_node"))
        kept = await bench.opens(bench.event())
        assert [bool(item.data) for item in kept] == [False, True]
        assert "RuntimeError: oh" in kept[0].error


async def test_a_large_snapshot_is_cut_to_fit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def chatty(context: Context) -> Data:
        return {"rows": [{f"column {i}": "x" * 5000 for i in range(40)} for _ in range(1000)]}

    declared(monkeypatch, "chatty", chatty)
    bench.watch(Reach(NODE), names=("chatty",))
    [item] = await bench.opens(bench.event())
    assert item.data and len(item.data) <= MAX_BYTES


async def test_all_evidence_of_an_event_has_one_cap(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def large(context: Context) -> Data:
        return {"rows": ["x" * 600] * 50}

    names = tuple(f"large_{number}" for number in range(10))
    for name in names:
        declared(monkeypatch, name, large)
    bench.watch(Reach(NODE), names=names)
    kept = await bench.opens(bench.event())
    assert sum(len(item.data) for item in kept) <= 192 * 1024
    assert [item.error for item in kept if not item.data] == [
        "left out: the event's evidence is larger than 192 KiB"
    ] * 4


async def test_one_snapshot_serves_every_event_of_the_same_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def counted(context: Context) -> Data:
        asked.append(context.target.key)
        return {"number": len(asked)}

    declared(monkeypatch, "counted", counted)
    bench.watch(Reach(NODE), names=("counted",))
    events = [bench.event() for _ in range(20)]
    for event in events:
        bench.gatherer.announced(Change(event, "opened", event.opened_at))
    for event in events:
        assert [item.data for item in await bench.kept(event)] == ['{"number":1}']
    bench.clock.step(30)
    [item] = await bench.opens(bench.event())
    assert item.data == '{"number":2}'


async def test_a_storm_keeps_a_bounded_queue_and_says_what_it_dropped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def slow(context: Context) -> Data:
        await gate.wait()
        return {}

    declared(monkeypatch, "slow", slow)
    monkeypatch.setattr(snapshots, "DEADLINE", 5.0)
    bench.watch(Reach(NODE), names=("slow",))
    events = [bench.event() for _ in range(200)]
    for event in events:
        bench.gatherer.announced(Change(event, "opened", event.opened_at))
    await asyncio.sleep(0)
    assert len(bench.tasks) <= gathering.AT_ONCE
    gate.set()
    kept = [(await bench.kept(event))[0] for event in events]
    dropped = [item for item in kept if "50 other events were waiting" in item.error]
    assert len(dropped) == 200 - gathering.WAITING
    assert sorted(event_id for event_id, _ in bench.settled) == sorted(event.id for event in events)


async def test_a_machine_that_is_not_ours_is_told_as_such_and_what_does_not_exist_is_not_told(bench: Bench) -> None:
    bench.watch(names=("pressure", "top_memory", "haproxy_rows", "patroni_history"))
    kept = await bench.opens(bench.event())
    assert [(item.collector, item.error) for item in kept] == [
        (name, "probed does not run on node-a (nodes[].local: true)") for name in ("pressure", "top_memory")
    ]


async def test_an_event_without_collectors_is_settled_at_once(bench: Bench) -> None:
    bench.watch(Reach(NODE), names=())
    event = bench.event()
    assert await bench.opens(event) == []
    assert bench.settled == [(event.id, Moment.TRIGGER)]


async def test_what_is_announced_while_the_daemon_stops_stays_owed(bench: Bench) -> None:
    bench.watch(Reach(NODE))
    bench.gatherer.close()
    assert await bench.opens(bench.event()) == []
    assert (bench.settled, bench.tasks) == ([], set())


# --- recovery ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason, asked", [("recovered", 1), ("disabled", 0), ("target_removed", 0)])
async def test_what_tells_of_the_recovery_is_looked_at_once_more_when_there_was_one(
    bench: Bench, reason: str, asked: int
) -> None:
    async for reach in at(saying_json(b'{"state": "running"}')):
        bench.watch(reach, names=("patroni_node", "patroni_config"))
        event = bench.event(state=EventState.RESOLVED, resolve_reason=reason)
        bench.gatherer.announced(Change(event, "resolved", bench.clock.wall()))
        kept = await bench.kept(event)
        assert [(item.collector, item.moment) for item in kept] == [("patroni_node", Moment.RECOVERY)] * asked
        assert bench.settled == [(event.id, Moment.RECOVERY)]


async def test_an_occurrence_is_looked_at_once_more_when_the_dust_has_settled(bench: Bench) -> None:
    async for reach in at(saying_json(b'{"state": "running"}')):
        bench.watch(reach, names=("patroni_node", "patroni_config"))
        event = bench.event(state=EventState.OCCURRED)
        bench.gatherer.announced(Change(event, "occurred", event.opened_at))
        await bench.clock.move(gathering.AFTERMATH_SECONDS)
        [first, second] = await bench.kept(event)
        assert (first.moment, second.moment) == (Moment.TRIGGER, Moment.RECOVERY)
        assert second.taken_at == event.opened_at + gathering.AFTERMATH_SECONDS


# --- after a crash ----------------------------------------------------------------------------------------------


async def test_evidence_that_a_crash_left_owed_is_taken_late_and_the_lost_past_is_told(bench: Bench) -> None:
    async for reach in at(saying_json(b'{"state": "running"}')):
        bench.watch(reach)
        event = bench.event()
        bench.clock.step(60)
        bench.gatherer.recover([Owed(event, Moment.TRIGGER, event.opened_at)])
        note, late = await bench.kept(event)
        assert (note.side, note.error) == (
            Side.BEFORE,
            "the daemon ended as the event opened: nothing is kept of the time before",
        )
        assert late.data and late.taken_at == event.opened_at + 60
        assert bench.settled == [(event.id, Moment.TRIGGER)]


async def test_what_was_frozen_before_a_crash_is_not_called_lost(bench: Bench) -> None:
    bench.watch(Reach(NODE, urls=("http://127.0.0.1:1",)))
    event = bench.event()
    bench.gatherer.recover([Owed(event, Moment.TRIGGER, event.opened_at, frozen=True)])
    assert [item.side for item in await bench.kept(event)] == [Side.AFTER]


async def test_evidence_whose_moment_is_long_past_is_told_as_never_taken(bench: Bench) -> None:
    bench.watch(Reach(NODE))
    event = bench.event()
    bench.clock.step(3600)
    bench.gatherer.recover([Owed(event, Moment.TRIGGER, event.opened_at, frozen=True)])
    [item] = await bench.kept(event)
    assert item.error == "not taken: the daemon ended before it could be, and was away 1 h"
    assert bench.settled == [(event.id, Moment.TRIGGER)]
