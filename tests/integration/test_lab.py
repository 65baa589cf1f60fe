"""The demo's lab on real servers: it starts, breaks, heals and ends as it says, and leaves nothing behind.

``PROBED_LAB_POSTGRES_BIN`` and ``PROBED_LAB_PATRONI_PYTHON`` choose other programs than those found by themselves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from probed.demo import blueprint
from probed.demo.binaries import find_binaries
from probed.demo.faults import FAULTS, broken_faults, find_fault
from probed.demo.lab import APP_USER, Lab, LabError, find_haproxy
from probed.demo.ledger import Ledger
from probed.demo.mechanisms import slots
from probed.demo.processes import all_processes, boot_id, command_line, identify, is_alive, read_stat
from probed.demo.waiting import until

POSTGRES_BIN = Path(os.environ["PROBED_LAB_POSTGRES_BIN"]) if "PROBED_LAB_POSTGRES_BIN" in os.environ else None
PATRONI_PYTHON = os.environ.get("PROBED_LAB_PATRONI_PYTHON")
HAPROXY = find_haproxy() is not None
REPOSITORY = Path(__file__).parents[2]

try:
    find_binaries(postgres_bin=POSTGRES_BIN, patroni_python=PATRONI_PYTHON, haproxy=False)
except LabError as error:
    pytest.skip(f"the lab cannot run here: {error}", allow_module_level=True)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 30.0) -> None:
    async def missing() -> str:
        try:
            return "" if await condition() else "not yet"
        except LabError as error:
            return error.what

    await until(missing, what=what, seconds=seconds)


async def started(directory: Path, *, haproxy: bool = False, components: bool = False) -> Lab:
    return await Lab.start(
        directory,
        haproxy=haproxy,
        components=components,
        postgres_bin=POSTGRES_BIN,
        patroni_python=PATRONI_PYTHON,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    lab = await started(tmp_path_factory.mktemp("lab"), haproxy=HAPROXY, components=True)
    yield lab
    await lab.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def roles(lab: Lab) -> tuple[str, str]:
    """Leader and replica of a lab that is well: no test inherits the damage of another."""
    for name in broken_faults(lab):
        await FAULTS[name].heal(lab)
    await lab.wait_healthy()
    leader = await lab.leader()
    assert leader is not None
    return leader, next(name for name in lab.nodes if name != leader)


def traces(lab: Lab) -> list[str]:
    """Every living process that belongs to the lab by its command line or its place in the family; for humans."""
    found = []
    for stat in all_processes():
        text = " ".join(command_line(stat.pid))
        if str(lab.directory) in text or lab.scope in text:
            found.append(f"{stat.pid} {stat.state} {text[:100]}")
    return found


def accepts(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def ports(lab: Lab) -> list[int]:
    urls = [node.patroni_url for node in lab.nodes.values()] + [*lab.etcd_urls, *lab.components.values()]
    return [int(url.rpartition(":")[2]) for url in urls] + [node.postgres_port for node in lab.nodes.values()]


async def one(lab: Lab, node: str, query: str) -> object:
    async with lab.session(node) as connection:
        return await connection.fetchval(query)


# -- as started ------------------------------------------------------------------------------------------------------


async def test_a_started_lab_has_a_leader_that_writes_and_a_replica_that_streams(
    lab: Lab, roles: tuple[str, str]
) -> None:
    leader, replica = roles
    assert list(lab.nodes) == ["node1", "node2"]
    assert await lab.replicas_streaming()
    assert await lab.unhealthy() == ""
    assert await one(lab, leader, "SELECT pg_is_in_recovery()") is False
    assert await one(lab, replica, "SELECT pg_is_in_recovery()") is True
    assert await one(lab, replica, "SELECT status FROM pg_stat_wal_receiver") == "streaming"
    assert (await lab.patroni(leader))["role"] in ("primary", "master")  # 3 says master
    assert (await lab.patroni(replica))["replication_state"] == "streaming"
    assert await one(lab, leader, "SELECT current_setting('server_version_num')::int / 10000") == lab.postgres_major


async def test_the_monitor_logs_in_by_password_only_and_sees_others_sessions(lab: Lab, roles: tuple[str, str]) -> None:
    leader, _ = roles
    connection = await lab.connect(leader, user=lab.monitor_user)
    try:
        assert await connection.fetchval("SELECT pg_has_role('pg_read_all_stats', 'usage')")
        assert not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if lab.postgres_major >= 16:
            assert await connection.fetchval("SELECT pg_has_role('pg_use_reserved_connections', 'usage')")
            assert await connection.fetchval("SELECT current_setting('reserved_connections')") == "2"
    finally:
        await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host="127.0.0.1",
            port=lab.nodes[leader].postgres_port,
            user=lab.monitor_user,
            password="wrong",
            database="postgres",
            ssl=False,
        )


async def test_another_lab_object_attaches_and_works(lab: Lab, roles: tuple[str, str]) -> None:
    other = Lab.attach(lab.directory)
    assert other.nodes == lab.nodes
    assert other.etcd_urls == lab.etcd_urls
    assert other.haproxy_stats_url == lab.haproxy_stats_url
    assert await other.leader() == roles[0]
    assert await other.replicas_streaming()


async def test_attaching_where_no_lab_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no lab runs in"):
        Lab.attach(tmp_path)


async def test_a_second_lab_in_the_same_directory_is_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="already runs"):
        await started(lab.directory)
    assert await lab.unhealthy() == ""


async def test_unknown_names_are_answered_with_the_known_ones(lab: Lab) -> None:
    with pytest.raises(LabError, match="node1, node2"):
        await lab.kill_node("node7")
    with pytest.raises(LabError, match="counted from 0"):
        await lab.kill_etcd(1)
    with pytest.raises(LabError, match="did you mean primary-kill"):
        find_fault("primary-kil")


async def test_postgres_runs_as_an_ordinary_user_on_loopback_alone(lab: Lab, roles: tuple[str, str]) -> None:
    leader, _ = roles
    pid = await one(lab, leader, "SELECT pg_backend_pid()")
    assert isinstance(pid, int)
    assert lab.nodes[leader].data_dir.stat().st_uid != 0
    assert await one(lab, leader, "SHOW listen_addresses") == "127.0.0.1"
    assert await one(lab, leader, "SHOW unix_socket_directories") == ""


# -- faults ------------------------------------------------------------------------------------------------------------


async def test_every_fault_names_events_and_explains_itself() -> None:
    for name, fault in FAULTS.items():
        assert fault.name == name
        assert fault.says.endswith(".")
        assert fault.expects


async def test_breaking_twice_and_healing_the_whole_is_an_error(lab: Lab, roles: tuple[str, str]) -> None:
    fault = find_fault("patroni-freeze")
    with pytest.raises(LabError, match="not broken"):
        await fault.heal(lab)
    await fault.break_(lab)
    assert broken_faults(lab) == ["patroni-freeze"]
    # From another process, which knows the lab by its directory only.
    with pytest.raises(LabError, match="broken already"):
        await fault.break_(Lab.attach(lab.directory))
    await fault.heal(Lab.attach(lab.directory))
    assert broken_faults(lab) == []
    with pytest.raises(LabError, match="not broken"):
        await fault.heal(lab)


async def test_healing_one_of_two_faults_does_not_wait_for_the_other(lab: Lab, roles: tuple[str, str]) -> None:
    said: list[str] = []
    other = Lab.attach(lab.directory, progress=said.append)
    await FAULTS["wal-receiver"].break_(lab)
    await FAULTS["patroni-freeze"].break_(lab)
    await FAULTS["patroni-freeze"].heal(other)
    assert said == ["not waiting for a healthy cluster: still broken: wal-receiver"]
    await FAULTS["wal-receiver"].heal(other)
    assert await lab.unhealthy() == ""


async def test_primary_kill_ends_the_node_and_the_replica_takes_over(lab: Lab, roles: tuple[str, str]) -> None:
    leader, replica = roles
    await FAULTS["primary-kill"].break_(lab)
    node = lab.nodes[leader]
    assert not accepts(node.postgres_port)
    assert not accepts(int(node.patroni_url.rpartition(":")[2]))
    # Patroni goes on to name the dead one until the lock expires.
    assert await lab.leader() == leader
    await eventually(lambda: _leads(lab, replica), "the replica to take over", lab.ttl_seconds + 15)
    await FAULTS["primary-kill"].heal(lab)
    assert await lab.leader() == replica
    assert await one(lab, leader, "SELECT pg_is_in_recovery()") is True


async def test_primary_freeze_leaves_the_port_open_and_moves_the_leader(lab: Lab, roles: tuple[str, str]) -> None:
    leader, replica = roles
    await FAULTS["primary-freeze"].break_(lab)
    assert accepts(lab.nodes[leader].postgres_port)
    with pytest.raises(TimeoutError):
        await lab.connect(leader, timeout=1)
    await eventually(lambda: _leads(lab, replica), "the replica to take over", lab.ttl_seconds + 15)
    await FAULTS["primary-freeze"].heal(lab)
    assert await lab.leader() == replica
    assert await one(lab, leader, "SELECT pg_is_in_recovery()") is True


async def _leads(lab: Lab, name: str) -> bool:
    return await lab.leader() == name and await one(lab, name, "SELECT pg_is_in_recovery()") is False


async def test_switchover_moves_the_leader_and_back_again(lab: Lab, roles: tuple[str, str]) -> None:
    leader, replica = roles
    await FAULTS["switchover"].break_(lab)
    assert await lab.leader() == replica
    await FAULTS["switchover"].heal(lab)
    await lab.switchover(leader)
    assert await lab.leader() == leader
    assert await lab.replicas_streaming()
    with pytest.raises(LabError, match="is the leader already"):
        await lab.switchover(leader)


async def test_replication_lag_holds_replay_while_the_receiver_streams_on(lab: Lab, roles: tuple[str, str]) -> None:
    leader, replica = roles
    await FAULTS["replication-lag"].break_(lab)
    replayed = await one(lab, replica, "SELECT pg_last_wal_replay_lsn()::text")
    received = "SELECT pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn() > 150000"

    async def far_behind() -> bool:
        return bool(await one(lab, replica, received))

    # At 25 kB/s that is several of Patroni's loops, each of which would have resumed a paused replay.
    await eventually(far_behind, "150 kB to be received but not replayed")
    assert await one(lab, replica, "SELECT pg_last_wal_replay_lsn()::text") == replayed
    assert await one(lab, replica, "SELECT status FROM pg_stat_wal_receiver") == "streaming"
    assert await lab.leader() == leader
    await FAULTS["replication-lag"].heal(lab)
    assert not await one(lab, replica, received)
    assert await one(lab, replica, "SHOW max_standby_streaming_delay") == "30s"
    assert await one(lab, leader, "SELECT count(*) FROM pg_class WHERE relname LIKE 'lab\\_%'") == 0


async def test_wal_receiver_stays_cut_while_both_servers_live(lab: Lab, roles: tuple[str, str]) -> None:
    leader, replica = roles
    await FAULTS["wal-receiver"].break_(lab)

    async def patroni_saw_it() -> bool:
        members = (await lab.patroni(leader, "/cluster"))["members"]
        return any(member["name"] == replica and member["state"] == "running" for member in members)

    await eventually(patroni_saw_it, "Patroni to call the replica running, not streaming")
    assert await one(lab, replica, "SELECT count(*) FROM pg_stat_wal_receiver") == 0
    assert await one(lab, leader, "SELECT count(*) FROM pg_stat_replication") == 0
    assert await one(lab, leader, "SELECT pg_is_in_recovery()") is False
    assert await lab.leader() == leader
    await FAULTS["wal-receiver"].heal(lab)
    assert await one(lab, replica, "SELECT status FROM pg_stat_wal_receiver") == "streaming"


async def test_connections_fills_nine_tenths_and_locks_nobody_out_who_has_reserved_slots(
    lab: Lab, roles: tuple[str, str]
) -> None:
    leader, _ = roles
    await FAULTS["connections"].break_(lab)
    monitor = await lab.connect(leader, user=lab.monitor_user)
    try:
        used, usable = await slots(monitor)
        assert usable >= used >= 0.9 * usable

        async def held() -> bool:
            # PostgreSQL 18 counts a session before it has said who it is.
            query = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
            return int(await monitor.fetchval(query, APP_USER)) > 20

        await eventually(held, "the sessions to be the application's")
    finally:
        await monitor.close()
    assert await lab.unhealthy() == ""
    await FAULTS["connections"].heal(lab)

    async def free() -> bool:
        async with lab.session(leader) as connection:
            used, usable = await slots(connection)
            return used < usable / 2

    await eventually(free, "the sessions to end")


async def test_deadlocks_raise_the_counter_by_eight_or_more_within_seconds(lab: Lab, roles: tuple[str, str]) -> None:
    leader, _ = roles
    counter = "SELECT sum(deadlocks)::bigint FROM pg_stat_database"
    before = await one(lab, leader, counter)
    began = time.monotonic()
    await FAULTS["deadlocks"].break_(lab)
    assert time.monotonic() - began < 8
    after = await one(lab, leader, counter)
    assert isinstance(before, int) and isinstance(after, int)
    assert after - before >= 8
    assert await one(lab, leader, "SELECT to_regclass('lab_deadlock')::text") is None
    await FAULTS["deadlocks"].heal(lab)


async def test_replica_kill_ends_the_replica_and_leaves_the_leader_alone(lab: Lab, roles: tuple[str, str]) -> None:
    leader, replica = roles
    await FAULTS["replica-kill"].break_(lab)
    assert not accepts(lab.nodes[replica].postgres_port)
    assert await one(lab, leader, "SELECT pg_is_in_recovery()") is False
    await FAULTS["replica-kill"].heal(lab)
    assert await lab.leader() == leader


async def test_patroni_freeze_silences_the_replicas_rest_but_not_its_database(lab: Lab, roles: tuple[str, str]) -> None:
    leader, replica = roles
    await FAULTS["patroni-freeze"].break_(lab)
    with pytest.raises(LabError, match="no answer in time"):
        await lab.patroni(replica)
    assert await one(lab, replica, "SELECT status FROM pg_stat_wal_receiver") == "streaming"
    assert await lab.leader() == leader
    await FAULTS["patroni-freeze"].heal(lab)
    assert (await lab.patroni(replica))["state"] == "running"


async def test_etcd_kill_turns_the_leader_read_only_until_healed(lab: Lab, roles: tuple[str, str]) -> None:
    leader, _ = roles
    await FAULTS["etcd-kill"].break_(lab)

    async def demoted() -> bool:
        return bool(await one(lab, leader, "SELECT pg_is_in_recovery()"))

    await eventually(demoted, "the leader to demote itself")
    assert await lab.leader() is None
    await FAULTS["etcd-kill"].heal(lab)
    assert await lab.leader() is not None


@pytest.mark.skipif(not HAPROXY, reason="haproxy is not installed")
async def test_haproxy_kill_closes_the_write_port_alone(lab: Lab, roles: tuple[str, str]) -> None:
    leader, _ = roles
    assert lab.haproxy_write_address is not None
    port = int(lab.haproxy_write_address.rpartition(":")[2])
    assert accepts(port)
    await FAULTS["haproxy-kill"].break_(lab)
    assert not accepts(port)
    assert await one(lab, leader, "SELECT pg_is_in_recovery()") is False
    await FAULTS["haproxy-kill"].heal(lab)
    assert accepts(port)


async def test_no_leader_leaves_two_standbys_and_is_healed_to_the_same_leader_on_its_timeline(
    lab: Lab, roles: tuple[str, str]
) -> None:
    leader, replica = roles
    timeline = (await lab.patroni(leader))["timeline"]
    await FAULTS["no-leader"].break_(lab)
    for name in roles:
        assert await one(lab, name, "SELECT pg_is_in_recovery()") is True
        assert (await lab.patroni(name))["state"] == "running"
    # It stays so: the other one is not promoted.
    await asyncio.sleep(3 * 2)
    assert await lab.leader() is None
    assert await one(lab, replica, "SELECT pg_is_in_recovery()") is True
    await FAULTS["no-leader"].heal(lab)
    assert await lab.leader() == leader
    assert (await lab.patroni(leader))["timeline"] == timeline
    assert not (await lab.patroni(leader)).get("pause")


async def test_cache_misses_reads_more_than_shared_buffers_can_hold(lab: Lab, roles: tuple[str, str]) -> None:
    leader, _ = roles
    counters = "SELECT array[sum(blks_hit), sum(blks_read)]::bigint[] FROM pg_stat_database"
    await FAULTS["cache-misses"].break_(lab)
    before = await one(lab, leader, counters)

    async def mostly_read() -> bool:
        after = await one(lab, leader, counters)
        assert isinstance(before, list) and isinstance(after, list)
        hit, read = (now - then for now, then in zip(after, before, strict=True))
        return bool(read > 10_000 and hit < 9 * read)  # our own polling hits, too, the more the slower the machine

    await eventually(mostly_read, "a hit ratio below 90 % with enough traffic to judge it")
    await FAULTS["cache-misses"].heal(lab)
    assert await one(lab, leader, "SELECT to_regclass('lab_cold')::text") is None


async def test_slow_answers_delays_the_monitor_and_nobody_else(lab: Lab, roles: tuple[str, str]) -> None:
    leader, _ = roles
    monitor = await lab.connect(leader, user=lab.monitor_user)
    other = await lab.connect(leader, user=APP_USER)
    try:
        await FAULTS["slow-answers"].break_(lab)
        for _ in range(2):
            await asyncio.sleep(2)  # a monitor's pause; it may ask several things in a row
            assert await round_trip(monitor) >= 0.4
            assert await round_trip(other) < 0.4
        await FAULTS["slow-answers"].heal(lab)
        assert await round_trip(monitor) < 0.4
    finally:
        monitor.terminate()
        other.terminate()


async def round_trip(connection: asyncpg.Connection) -> float:
    began = time.monotonic()
    await connection.execute("SELECT 1")
    return time.monotonic() - began


async def test_the_runaway_job_makes_the_leaders_database_grow_and_no_other(lab: Lab, roles: tuple[str, str]) -> None:
    leader, replica = roles
    size = "SELECT sum(pg_database_size(oid))::bigint / 1048576 FROM pg_database"
    small, other = await one(lab, leader, size), await one(lab, replica, size)
    await FAULTS["runaway-job"].break_(lab)
    large = await one(lab, leader, size)
    assert isinstance(small, int) and isinstance(large, int) and isinstance(other, int)
    assert small < 128 and large > 320
    same = await one(lab, replica, size)
    assert isinstance(same, int) and same - other < 32
    await FAULTS["runaway-job"].heal(lab)
    again = await one(lab, leader, size)
    assert isinstance(again, int) and again < small + 32


async def test_an_oom_kill_is_counted_as_the_kernel_counts_it(lab: Lab, roles: tuple[str, str]) -> None:
    leader, replica = roles
    before = (lab.oom_directory(leader) / "memory.events").stat()
    await FAULTS["oom-kill"].break_(lab)
    after = (lab.oom_directory(leader) / "memory.events").stat()
    assert "oom_kill 1\n" in (lab.oom_directory(leader) / "memory.events").read_text()
    assert "oom_kill 0\n" in (lab.oom_directory(replica) / "memory.events").read_text()
    assert before.st_ino == after.st_ino


# -- components --------------------------------------------------------------------------------------------------------


async def test_a_stand_in_is_switched_by_another_process_and_healed(lab: Lab, roles: tuple[str, str]) -> None:
    assert await status(f"{lab.components['kong']}/auth/v1/health") == 401
    await FAULTS["gateway-amnesia"].break_(Lab.attach(lab.directory))
    assert await status(f"{lab.components['kong']}/auth/v1/health") == 404
    assert await lab.unhealthy() == "kong is not in its state healthy"
    await FAULTS["gateway-amnesia"].heal(Lab.attach(lab.directory))
    assert await status(f"{lab.components['kong']}/auth/v1/health") == 401


async def test_stand_ins_and_states_are_asked_for_by_their_names(lab: Lab) -> None:
    with pytest.raises(LabError, match="there are kong, auth"):
        await lab.switch("gong")
    with pytest.raises(LabError, match=r"but in healthy, .*config_lost"):
        await lab.switch("kong", "frozzen")
    assert await lab.unhealthy() == ""


async def test_postgres_meta_is_real_and_is_killed_and_started(lab: Lab, roles: tuple[str, str]) -> None:
    if "meta" in lab.stand_ins:
        pytest.skip("postgres-meta is not installed (scripts/postgres-meta.sh says why)")
    url = lab.components["meta"]
    async with aiohttp.ClientSession() as http, http.get(f"{url}/config/version") as answer:
        assert (await answer.json())["version"].startswith(f"PostgreSQL {lab.postgres_major}")
    await FAULTS["meta-kill"].break_(lab)
    with pytest.raises(aiohttp.ClientConnectorError):
        await status(f"{url}/health")
    await FAULTS["meta-kill"].heal(lab)
    assert await status(f"{url}/health") == 200


async def status(url: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status


async def test_a_killed_postgres_is_started_again_by_its_patroni(lab: Lab, roles: tuple[str, str]) -> None:
    leader, _ = roles
    before = await one(lab, leader, "SELECT pg_postmaster_start_time()::text")
    await lab.kill_postgres(leader)

    async def anew() -> bool:
        return await one(lab, leader, "SELECT pg_postmaster_start_time()::text") != before

    await eventually(anew, "Patroni to start PostgreSQL again")
    await lab.wait_healthy()


# -- its end -----------------------------------------------------------------------------------------------------------


async def test_a_stopped_lab_leaves_no_process_no_port_and_no_shared_memory(tmp_path: Path) -> None:
    lab = await started(tmp_path / "lab", haproxy=HAPROXY, components=True)
    assert traces(lab)
    segments = _segments(lab)
    assert segments
    await lab.kill_node("node1")  # a killed server leaves its segment
    await lab.stop()
    assert traces(lab) == []
    assert not any(accepts(port) for port in ports(lab))
    assert not segments & _segments_on_machine()
    with pytest.raises(LabError, match="no lab runs in"):
        Lab.attach(lab.directory)
    await lab.stop()  # once more does nothing


def _segments(lab: Lab) -> set[str]:
    """Keys of the System V segments of the lab's servers."""
    return {(node.data_dir / "postmaster.pid").read_text().splitlines()[6].split()[0] for node in lab.nodes.values()}


def _segments_on_machine() -> set[str]:
    return {row.split()[0] for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


async def test_stopping_ends_processes_that_are_frozen(tmp_path: Path) -> None:
    lab = await started(tmp_path / "lab")
    for name in lab.nodes:
        await lab.freeze_postgres(name)
        await lab.freeze_patroni(name)
    for process in Ledger(lab.directory).read().processes.values():
        os.kill(process.pid, signal.SIGSTOP)
    # A postmaster that dies beneath its frozen children leaves them to nobody.
    postmaster = (lab.nodes["node1"].data_dir / "postmaster.pid").read_text().split("\n", 1)[0]
    os.kill(int(postmaster), signal.SIGKILL)
    began = time.monotonic()
    await lab.stop()
    assert time.monotonic() - began < 15
    assert traces(lab) == []


OWNER = """
import asyncio, os, sys
from pathlib import Path
from probed.demo.lab import Lab

async def main():
    bin = os.environ.get("PROBED_LAB_POSTGRES_BIN")
    await Lab.start(Path(sys.argv[1]), postgres_bin=Path(bin) if bin else None,
                    patroni_python=os.environ.get("PROBED_LAB_PATRONI_PYTHON"))
    print("ready", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def start_owner(directory: Path) -> subprocess.Popen[bytes]:
    """A process of its own that starts a lab and stays; returns once the lab is up."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert owner.stdout is not None
    with owner.stdout as output:
        assert output.readline() == b"ready\n"
    return owner


async def test_the_lab_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    owner = await asyncio.to_thread(start_owner, tmp_path / "lab")
    lab = Lab.attach(tmp_path / "lab")
    # Started by somebody else than the owner, and ended all the same.
    await lab.kill_node("node2")
    await lab.start_node("node2")
    await lab.wait_healthy()
    owner.kill()
    owner.wait()

    async def ended() -> bool:
        return not traces(lab) and not (lab.directory / "lab.json").exists()

    await eventually(ended, "the warden to end the lab", 15)


async def test_attaching_and_stopping_cleans_up_when_owner_and_warden_were_both_killed(tmp_path: Path) -> None:
    owner = await asyncio.to_thread(start_owner, tmp_path / "lab")
    lab = Lab.attach(tmp_path / "lab")
    warden = Ledger(lab.directory).read().processes["warden"]
    os.kill(warden.pid, signal.SIGKILL)
    owner.kill()
    owner.wait()
    assert traces(lab), "PostgreSQL at least lives on"
    with pytest.raises(LabError, match="warden"):
        lab.start_companion("x", "y")
    await Lab.attach(lab.directory).stop()
    assert traces(lab) == []


async def test_a_recycled_pid_is_never_signalled(lab: Lab, tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        known = identify(bystander.pid)
        assert known is not None
        state = Ledger(lab.directory).read()
        # Not one of this lab's processes and ports: a ledger that remembers numbers which others have now.
        state.nodes = []
        state.scope = "demo-nobody"
        old = type(known)(known.pid, known.started - 1)
        state.processes = {"node1": old, "etcd1": old, "warden": old}
        state.boot_id = boot_id()
        Ledger(tmp_path).write_new(state)
        await Lab.attach(tmp_path).stop()
        assert is_alive(known)
        stat = read_stat(bystander.pid)
        assert stat is not None and stat.state not in "Tt"
        assert not (tmp_path / "lab.json").exists()
    finally:
        bystander.kill()
        bystander.wait()


# -- when it cannot start ----------------------------------------------------------------------------------------------


async def test_settings_that_patroni_would_quietly_replace_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="loop_wait"):
        await Lab.start(tmp_path / "lab", ttl=20, loop_wait=10, retry_timeout=10)
    assert not (tmp_path / "lab").exists()


async def test_an_incomplete_postgres_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is not a complete PostgreSQL: it has no postgres"):
        await Lab.start(tmp_path / "lab", postgres_bin=tmp_path)


async def test_a_start_that_fails_tells_where_the_log_is_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = blueprint._patroni_config

    def unsound(*arguments: object) -> dict[str, object]:
        config = sound(*arguments)  # type: ignore[arg-type]
        config["bootstrap"]["initdb"].append({"encoding": "KLINGON"})
        return config

    monkeypatch.setattr(blueprint, "_patroni_config", unsound)
    with pytest.raises(LabError) as caught:
        await started(tmp_path / "lab")
    assert "node1 ended while the lab was starting" in str(caught.value)
    assert caught.value.log is not None
    assert "KLINGON" in caught.value.log.read_text()
    assert f"log: {caught.value.log}" in str(caught.value)
    assert not any(str(tmp_path) in " ".join(command_line(stat.pid)) for stat in all_processes())
    assert not (tmp_path / "lab" / "lab.json").exists()


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    task = asyncio.create_task(started(tmp_path / "lab"))

    async def under_way() -> bool:
        return bool(list((tmp_path / "lab" / "data").glob("node1/postmaster.pid")))

    await eventually(under_way, "PostgreSQL to be started")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(str(tmp_path) in " ".join(command_line(stat.pid)) for stat in all_processes())
