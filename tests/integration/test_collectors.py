"""Collectors of evidence against real PostgreSQL servers, of every version that is here: what they see, and their bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from probed import evidence
from probed.clock import SystemClock
from probed.evidence import Collector
from probed.evidence._taking import Taken
from probed.model import Target
from probed.probes._http import HttpClient
from probed.probes._sql import Login, Session
from probed.probes.postgres_stats import STATS
from probed.reaching import Reach
from probed.snapshots import Doors, Snapshots
from tests.integration.postgres import NONE_FOUND, PASSWORD, ROLE, Pair, Server, binaries, major, running_pair, until

FOUND = binaries()
if not FOUND:
    pytest.skip(NONE_FOUND, allow_module_level=True)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SQL = tuple(name for name in sorted(evidence.names()) if name.startswith("postgres_"))
CANARY = "Zq7hunter2x"


@pytest.fixture(scope="module", params=FOUND, ids=major)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with running_pair(request.param) as pair:
        yield pair


class Looking:
    """Snapshots as the daemon takes them, and the warm sessions of its probes."""

    def __init__(self, place: Path) -> None:
        self.password = place / "password"
        self.password.write_text(PASSWORD)
        self.http, self.warm = HttpClient(), dict[str, Session]()
        self.snapshots = Snapshots(SystemClock(), Doors(self.http, self.warm.get))

    def reach(self, server: Server, node: str = "node-a", role: str = ROLE) -> Reach:
        login = Login("127.0.0.1", server.port, role, "postgres", self.password)
        return Reach(Target("orders", node, "postgres", login.address, kind="postgres"), login)

    async def take(self, reach: Reach, *names: str) -> dict[str, Taken]:
        wanted: list[tuple[Collector, Reach]] = [(evidence.find(name), reach) for name in names]
        taken = await self.snapshots.all(wanted, since=SystemClock().wall())
        return {name: taken[name, reach.target.key] for name in names}

    async def data(self, reach: Reach, name: str) -> Any:
        taken = (await self.take(reach, name))[name]
        assert not taken.error, taken.error
        return json.loads(taken.data)


@pytest_asyncio.fixture(loop_scope="module")
async def looking(tmp_path: Path) -> AsyncIterator[Looking]:
    made = Looking(tmp_path)
    yield made
    for session in made.warm.values():
        session.drop()
    await made.http.close()


async def client(server: Server, application: str = "app") -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(
        host="127.0.0.1", port=server.port, user="postgres", database="postgres", ssl=False,
        server_settings={"application_name": application},
    )  # fmt: skip


async def test_every_collector_has_something_to_say_of_a_primary_and_of_a_standby(pair: Pair, looking: Looking) -> None:
    for server in (pair.primary, pair.replica):
        taken = await looking.take(looking.reach(server), *SQL)
        assert {name: item.error for name, item in taken.items() if item.error} == {}
        for item in taken.values():
            json.loads(item.data)


async def test_the_snapshots_of_a_server_take_one_login_and_leave_nothing_behind(pair: Pair, looking: Looking) -> None:
    server = pair.primary
    await until(lambda: server.sessions() == 0)
    seen = len(server.log())
    await looking.take(looking.reach(server), *SQL)
    await until(lambda: server.sessions() == 0)
    lines = list(server.log())[seen:]
    assert len([line for line in lines if "connection authorized" in line and f"user={ROLE}" in line]) == 1
    assert [line for line in lines if "ERROR" in line or "WARNING" in line or "FATAL" in line] == []


async def test_both_ends_of_replication_are_told(pair: Pair, looking: Looking) -> None:
    primary = await looking.data(looking.reach(pair.primary), "postgres_replication")
    standby = await looking.data(looking.reach(pair.replica), "postgres_replication")
    assert (primary["in_recovery"], primary["timeline"]) == (False, 1)
    assert [(row["application_name"], row["state"]) for row in primary["senders"]] == [("walreceiver", "streaming")]
    assert (standby["in_recovery"], standby["receiver"], standby["timeline"]) == (True, "streaming", 1)
    receiver = await looking.data(looking.reach(pair.replica), "postgres_receiver")
    assert receiver["receiver"]["status"] == "streaming"
    assert receiver["primary_conninfo"]["port"].strip("'") == str(pair.primary.port)
    assert set(receiver["primary_conninfo"]) <= {"host", "hostaddr", "port", "user", "application_name", "sslmode"}


async def waiting_for_locks(server: Server, number: int) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    await until(lambda: int(server.sql(query)) == number)


async def test_waiting_sessions_hang_below_their_blocker_and_no_literal_is_seen(pair: Pair, looking: Looking) -> None:
    pair.primary.sql("CREATE TABLE IF NOT EXISTS accounts (id int, note text)", "INSERT INTO accounts VALUES (1, '')")
    holder, waiter, last = [await client(pair.primary, name) for name in ("holder", "waiter", "last")]
    update = f"UPDATE accounts SET note = '{CANARY}', id = 424242 WHERE note <> $tag$ {CANARY} $tag$"
    tasks = []
    try:
        await holder.execute("BEGIN")
        await holder.execute(update)
        for connection in (waiter, last):
            tasks.append(asyncio.create_task(connection.execute(update)))
            await waiting_for_locks(pair.primary, len(tasks))
        blocking = await looking.data(looking.reach(pair.primary), "postgres_blocking")
        activity = await looking.data(looking.reach(pair.primary), "postgres_activity")
    finally:
        await holder.execute("ROLLBACK")
        await asyncio.gather(*tasks)
        for connection in (holder, waiter, last):
            await connection.close()
    assert blocking["waiting"] == 2
    [root] = blocking["tree"]
    assert (root["application"], root["state"]) == ("holder", "idle in transaction")
    assert root["blocks"][0]["application"] == "waiter"
    assert root["query"] == "UPDATE accounts SET note = ?, id = ? WHERE note <> ?"
    assert activity["waiting_for_locks"] == 2 and activity["idle_in_transaction"] == 1
    assert {row["application"] for row in activity["oldest_transactions"]} >= {"holder", "waiter"}
    for shown in (json.dumps(blocking), json.dumps(activity)):
        assert CANARY not in shown and "424242" not in shown


async def test_slots_tell_what_they_hold_back(pair: Pair, looking: Looking) -> None:
    pair.primary.sql("SELECT pg_create_physical_replication_slot('left_behind', true)")
    try:
        slots = (await looking.data(looking.reach(pair.primary), "postgres_slots"))["slots"]
    finally:
        pair.primary.sql("SELECT pg_drop_replication_slot('left_behind')")
    [slot] = slots
    assert (slot["slot_name"], slot["active"]) == ("left_behind", False)
    assert slot["retained_bytes"] >= 0


async def test_a_role_that_may_not_look_is_told_the_grant(pair: Pair, looking: Looking) -> None:
    pair.primary.sql(f"CREATE ROLE poor LOGIN PASSWORD '{PASSWORD}'")
    try:
        taken = await looking.take(looking.reach(pair.primary, role="poor"), "postgres_activity", "postgres_wal")
    finally:
        pair.primary.sql("DROP ROLE poor")
    assert "GRANT pg_monitor TO" in json.loads(taken["postgres_activity"].data)["note"]
    assert "GRANT pg_monitor TO" in taken["postgres_wal"].error


async def test_a_dead_server_is_asked_once_and_every_snapshot_says_why_it_is_missing(
    pair: Pair, looking: Looking
) -> None:
    pair.replica.stop()
    try:
        taken = await looking.take(looking.reach(pair.replica), *SQL)
    finally:
        pair.replica.start()
    assert {item.error.partition(": ")[2] for item in taken.values()} == {"connection refused"}
    assert len({item.at for item in taken.values()}) == 1


async def test_a_frozen_server_costs_one_deadline_for_all_its_snapshots(
    pair: Pair, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probed.snapshots.DEADLINE", 1.0)
    pair.replica.freeze()
    try:
        started = asyncio.get_running_loop().time()
        taken = await looking.take(looking.reach(pair.replica), *SQL)
        assert asyncio.get_running_loop().time() - started < 1.0 + 2.0
    finally:
        pair.replica.thaw()
    assert all("no answer within 1 s" in item.error for item in taken.values())
    await until(lambda: pair.replica.sessions() == 0)


async def test_a_full_server_is_seen_by_the_probes_own_connection_and_that_one_stays(
    pair: Pair, looking: Looking
) -> None:
    server = pair.primary
    reach = looking.reach(server)
    assert reach.login is not None
    warm = looking.warm[reach.target.key] = Session(reach.login, 2.0)
    await warm.value("SELECT 1")
    backend = await warm.value("SELECT pg_backend_pid()")
    clients: list[asyncpg.Connection[asyncpg.Record]] = []
    try:
        while len(clients) < 12:  # 16 less 3 for superusers, one of which the probe holds
            clients.append(await client(server, f"c{len(clients)}"))
        taken = await looking.take(reach, "postgres_activity", "postgres_settings")
        assert [item.error for item in taken.values()] == ["", ""]
        assert json.loads(taken["postgres_activity"].data)["clients"] >= 12
        assert await warm.value("SELECT pg_backend_pid()") == backend
        assert await warm.value("SELECT current_setting('statement_timeout')") == "2s"
    finally:
        for connection in clients:
            await connection.close()


async def test_a_statement_that_takes_too_long_is_ended_and_does_not_cost_the_warm_connection(
    pair: Pair, looking: Looking
) -> None:
    async def slow(context: Any) -> Any:
        await context.sql.value("SELECT pg_sleep(5)")

    reach = looking.reach(pair.primary)
    assert reach.login is not None
    warm = looking.warm[reach.target.key] = Session(reach.login, 2.0)
    backend = await warm.value("SELECT pg_backend_pid()")
    taken = await looking.snapshots._borrowed(Collector("slow", slow, ("postgres",), "node", "slow"), reach)
    assert taken is not None and "statement timeout" in taken.error
    assert await warm.value("SELECT pg_backend_pid()") == backend
    assert await warm.value("SELECT current_setting('statement_timeout')") == "2s"


async def test_a_statement_that_takes_too_long_costs_its_own_snapshot_only(
    pair: Pair, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(context: Any) -> Any:
        await context.sql.value("SELECT pg_sleep(5)")

    monkeypatch.setattr("probed.snapshots.STATEMENT_SECONDS", 0.3)
    reach = looking.reach(pair.primary)
    wanted = [(Collector("slow", slow, ("postgres",), "node", "slow"), reach), (evidence.find("postgres_wal"), reach)]
    taken = await looking.snapshots.all(wanted, since=SystemClock().wall())
    assert "statement timeout" in taken["slow", reach.target.key].error
    assert taken["postgres_wal", reach.target.key].data


async def test_a_standing_snapshot_uses_the_warm_connection_only_while_it_is_idle(pair: Pair, looking: Looking) -> None:
    reach = looking.reach(pair.primary)
    assert reach.login is not None
    activity = evidence.find("postgres_activity")
    assert await looking.snapshots.standing(activity, reach) is None
    warm = looking.warm[reach.target.key] = Session(reach.login, 2.0)
    await warm.value("SELECT 1")
    async with warm.turn():
        assert await looking.snapshots.standing(activity, reach) is None
    taken = await looking.snapshots.standing(activity, reach)
    assert taken is not None and taken.data
    assert pair.primary.sessions() == 1


async def test_a_standing_snapshot_costs_a_few_cycles_at_most(pair: Pair, looking: Looking) -> None:
    """In the server's time, beside the statement that each cycle costs anyway; there are 18 cycles to a snapshot."""
    reach = looking.reach(pair.primary)
    assert reach.login is not None
    session = Session(reach.login, 2.0)
    looking.warm[reach.target.key] = session

    async def best(query: str) -> float:
        times = []
        for _ in range(10):
            started = asyncio.get_running_loop().time()
            await session.value(query)
            times.append(asyncio.get_running_loop().time() - started)
        return min(times)

    from probed.evidence.postgres_activity import ACTIVITY

    cycle, snapshot = await best(STATS), await best(ACTIVITY)
    assert snapshot < 18 * cycle, f"snapshot {1000 * snapshot:.2f} ms, cycle {1000 * cycle:.2f} ms"
