"""The PostgreSQL probes against real servers: a primary and its streaming replica, of each major version at hand."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from probed.clock import SystemClock
from probed.errors import Blind, TargetFailed
from probed.model import Outcome, Sample, Target
from probed.probes import Combined, Context, Probe, View, catalogue
from probed.probes._sql import LOGIN_EVERY, Login, Session
from probed.sampling import combine, take_sample
from tests import hostile
from tests.integration.postgres import NONE_FOUND, PASSWORD, ROLE, Pair, Server, binaries, major, running_pair, until
from tests.leaks import descriptors, eventually, nothing_left_behind, unstarved

TIMEOUT, INTERVAL = 2.0, 5.0
PATIENT = 10.0
"""Deadline of cycles that must succeed: this machine may be busy."""
RUN = re.compile(r"run: ((?:[A-Z][^;]*;\s*)+)")
AT_FIRST = re.compile(r"pg_reload_conf\(\): (.+)$")


FOLDERS = binaries()
if not FOLDERS:
    pytest.skip(NONE_FOUND, allow_module_level=True)


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: f"pg{major(folder)}")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with running_pair(request.param) as pair:
        yield pair


@pytest.fixture(autouse=True)
async def clean(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    async with nothing_left_behind(caplog):
        yield


@dataclass
class Eye:
    """One server as the daemon watches it: both probes of a round on one session, ``INTERVAL`` apart by its clock."""

    session: Session
    clock: list[float]
    timeout: float = PATIENT
    node: str = "node"
    before: dict[str, Sample] = field(default_factory=dict)

    @property
    def context(self) -> Context:
        target = Target("orders", self.node, "postgres", self.session.login.address, kind="postgres")
        return Context(target, self.timeout, _sql=self.session)

    async def cycle(self) -> tuple[Sample, Sample]:
        """(liveness, stats) of the next round."""
        self.clock[0] += INTERVAL
        liveness, stats = await asyncio.gather(self.sample("postgres_liveness"), self.sample("postgres_stats"))
        return liveness, stats

    async def sample(self, name: str) -> Sample:
        probe = catalogue()[name]
        assert isinstance(probe, Probe)
        return await unstarved(lambda: take_sample(probe, self.context, self.timeout, SystemClock()))

    def combined(self, name: str, samples: Mapping[str, Sample]) -> Sample:
        """A combined probe over the stats of several nodes by name; remembers its sample for the next time."""
        probe = catalogue()[name]
        assert isinstance(probe, Combined)
        seen = {("postgres_stats", node): sample for node, sample in samples.items()}
        before = self.before.get(name)
        view = View(self.context.target, tuple(samples), seen, 0.0, self.clock[0], before)
        self.before[name] = combine(probe, view)
        return self.before[name]


class Eyes:
    """Makes eyes, and closes their sessions after the test."""

    def __init__(self, place: Path) -> None:
        self._place, self._made = place, list[Eye]()
        self.clock = [0.0]

    def on(
        self, server: Server, role: str = ROLE, password: str = PASSWORD, database: str = "postgres", **more: Any
    ) -> Eye:
        file = self._place / f"password-{len(self._made)}"
        file.write_text(password + "\n")
        login = Login("127.0.0.1", server.port, role, database, file)
        eye = Eye(Session(login, TIMEOUT, now=lambda: self.clock[0]), self.clock, **more)
        self._made.append(eye)
        return eye

    def close(self) -> None:
        for eye in self._made:
            eye.session.drop()


@pytest.fixture
async def eyes(tmp_path: Path, clean: None) -> AsyncIterator[Eyes]:
    made = Eyes(tmp_path)
    yield made
    made.close()


def mend(server: Server, reason: str, password: str = PASSWORD) -> None:
    """Do to the letter what the sample's reason tells the operator to do."""
    told = RUN.search(reason)
    assert told is not None, reason
    server.sql(*(part for part in told[1].replace("…", password).split(";") if part.strip()))


async def connected(server: Server, role: str = "postgres") -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(host="127.0.0.1", port=server.port, user=role, database="postgres", ssl="disable")


# --- healthy ------------------------------------------------------------------------------------------------------


async def test_a_primary_and_a_replica_are_alive_and_tell_their_facts(pair: Pair, eyes: Eyes) -> None:
    alive, stats = await eyes.on(pair.primary).cycle()
    assert alive.outcome is Outcome.OBSERVED
    assert 0 < float(alive.readings["login_seconds"]) < PATIENT
    assert (stats.outcome, stats.reason) == (Outcome.OBSERVED, "")
    assert stats.readings["in_recovery"] == 0.0
    assert stats.facts["usable"] == 13
    assert stats.facts["version"] == int(major(pair.primary.folder))
    assert stats.facts["timeline"] == "00000001"
    assert float(stats.facts["current_lsn"]) > 0  # type: ignore[arg-type]

    write(pair.primary)
    await until(lambda: pair.replica.sql("SELECT latest_end_lsn FROM pg_stat_wal_receiver") != "")
    alive, standby = await eyes.on(pair.replica).cycle()
    assert alive.outcome is Outcome.OBSERVED
    assert (standby.outcome, standby.reason) == (Outcome.OBSERVED, "")
    assert standby.readings["in_recovery"] == 1.0
    assert standby.facts["current_lsn"] is None
    assert standby.facts["receiver_status"] == "streaming"
    assert standby.facts["received_tli"] == 1
    assert standby.facts["replay_paused"] is False
    assert standby.facts["apply_delay"] == 0.0
    for fact in ("replay_lsn", "receive_lsn", "latest_end_lsn"):
        assert isinstance(standby.facts[fact], float), fact
    assert standby.facts["system_identifier"] == stats.facts["system_identifier"]


async def test_the_second_cycle_pings_the_warm_connection_without_a_login(pair: Pair, eyes: Eyes) -> None:
    eye = eyes.on(pair.primary)
    await eye.cycle()
    alive, _ = await eye.cycle()
    assert set(alive.readings) == {"ping_seconds"}
    assert 0 < float(alive.readings["ping_seconds"]) < PATIENT


async def test_fifty_cycles_cost_two_statements_each_and_no_backend_but_the_due_logins(pair: Pair, eyes: Eyes) -> None:
    server, eye, cycles = pair.primary, eyes.on(pair.primary), 50
    await eye.cycle()
    server.set(log_statement="all", log_min_duration_statement="-1")
    await until(lambda: eye_sees(server, "log_statement") == "all")
    seen, logins = len(server.log()), 0
    for _ in range(cycles):
        alive, stats = await eye.cycle()
        assert alive.outcome is stats.outcome is Outcome.OBSERVED
        logins += "login_seconds" in alive.readings
    lines = list(server.log())[seen:]
    server.reset("log_statement", "log_min_duration_statement")
    statements = [line for line in lines if re.search(r"^\d+ probed LOG:  (statement|execute)", line)]
    opened = [line for line in lines if "connection authorized" in line and f"user={ROLE}" in line]
    assert len(statements) == 2 * cycles + logins
    assert len(opened) == logins
    assert logins <= cycles * INTERVAL / LOGIN_EVERY + 1
    assert logins >= cycles * INTERVAL / (LOGIN_EVERY + INTERVAL) - 1
    await until(lambda: server.sessions() == 1)


def eye_sees(server: Server, setting: str) -> str:
    return server.sql(f"SHOW {setting}")


async def test_probes_leave_no_complaint_in_the_servers_log(pair: Pair, eyes: Eyes) -> None:
    seen = len(pair.primary.log())
    for _ in range(3):
        eye = eyes.on(pair.primary)
        await eye.cycle()
        eye.clock[0] += LOGIN_EVERY
        await eye.cycle()
        await eye.session.close()
    await until(lambda: pair.primary.sessions() == 0)
    assert [
        line for line in list(pair.primary.log())[seen:] if "LOG:  conn" not in line and "LOG:  rec" not in line
    ] == []


async def test_the_session_is_read_only_named_bounded_and_looks_only_into_pg_catalog(pair: Pair, eyes: Eyes) -> None:
    session = eyes.on(pair.primary).session
    pair.primary.sql("CREATE TABLE shadow ()", "GRANT ALL ON SCHEMA public TO public")
    setting = "SELECT current_setting('{}')".format
    assert await session.value(setting("application_name")) == "probed"
    assert await session.value(setting("statement_timeout")) == f"{TIMEOUT:g}s"
    assert await session.value(setting("lock_timeout")) == "200ms"
    assert await session.value(setting("idle_in_transaction_session_timeout")) == "5s"
    assert await session.value("SELECT to_regclass('shadow') IS NULL") is True
    with pytest.raises(TargetFailed, match=r"read-only transaction \(SQLSTATE 25006\)"):
        await session.ping("CREATE TABLE public.ours ()")
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(TargetFailed, match="statement timeout"):
        await session.ping("SELECT pg_sleep(60)")
    assert loop.time() - started < 3 * TIMEOUT
    pair.primary.sql("DROP TABLE shadow")


# --- the server goes away -----------------------------------------------------------------------------------------


async def test_a_killed_postmaster_is_refused_and_seen_again_after_its_start(pair: Pair, eyes: Eyes) -> None:
    server, eye = pair.primary, eyes.on(pair.primary)
    await eye.cycle()
    server.kill_postmaster()
    try:
        for _ in range(3):
            alive, stats = await eye.cycle()
            assert (alive.outcome, alive.kind) == (Outcome.FAILED, "refused")
            assert (stats.outcome, stats.kind) == (Outcome.FAILED, "refused")
    finally:
        server.start()
    alive, stats = await eye.cycle()
    assert alive.outcome is stats.outcome is Outcome.OBSERVED


async def test_a_restart_between_two_cycles_is_no_failure(pair: Pair, eyes: Eyes) -> None:
    eye = eyes.on(pair.primary)
    _, before = await eye.cycle()
    for mode in ("fast", "immediate"):
        pair.primary.stop(mode)
        pair.primary.start()
        alive, stats = await eye.cycle()
        assert (alive.outcome, stats.outcome) == (Outcome.OBSERVED, Outcome.OBSERVED)
        assert "login_seconds" in alive.readings
        assert stats.series != before.series
        before = stats


async def test_a_terminated_backend_between_two_cycles_is_no_failure(pair: Pair, eyes: Eyes) -> None:
    eye = eyes.on(pair.primary)
    await eye.cycle()
    pair.primary.sql(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{ROLE}'")
    alive, stats = await eye.cycle()
    assert (alive.outcome, stats.outcome) == (Outcome.OBSERVED, Outcome.OBSERVED)


async def test_a_server_is_reached_through_its_unix_socket(pair: Pair, eyes: Eyes) -> None:
    server, place = pair.primary, str(pair.primary.data)
    server.stop()
    server.start("-c", f"unix_socket_directories={place}")
    eye = eyes.on(server)
    eye.session.login = replace(eye.session.login, host=place, sslmode="verify-full")
    for _ in range(2):
        alive, stats = await eye.cycle()
        assert (alive.outcome, stats.outcome) == (Outcome.OBSERVED, Outcome.OBSERVED), alive.reason
    server.stop()
    alive, _ = await eye.cycle()
    assert (alive.outcome, alive.kind) == (Outcome.FAILED, "refused")
    server.start()


async def test_a_server_that_is_starting_up_has_failed_and_says_so(pair: Pair, eyes: Eyes) -> None:
    server, eye = pair.replica, eyes.on(pair.replica)
    # A standby that may not be read from stays, for a client, a server that is starting up.
    server.stop()
    server.start("-c", "hot_standby=off")
    try:
        alive, stats = await eye.cycle()
        assert (alive.outcome, alive.kind) == (Outcome.FAILED, "starting")
        assert (stats.outcome, stats.kind) == (Outcome.FAILED, "starting")
    finally:
        server.stop()
        server.start()
    alive, _ = await eye.cycle()
    assert alive.outcome is Outcome.OBSERVED


async def test_a_frozen_server_times_out_within_the_deadline_and_keeps_no_backend(pair: Pair, eyes: Eyes) -> None:
    server, eye = pair.primary, eyes.on(pair.primary)
    await eye.cycle()
    before = descriptors()
    server.freeze()
    try:
        eye.timeout = TIMEOUT / 4
        for _ in range(5):
            alive, stats = await eye.cycle()
            assert (alive.outcome, alive.kind) == (Outcome.FAILED, "timeout")
            assert (stats.outcome, stats.kind) == (Outcome.FAILED, "timeout")
            assert alive.duration < 2 * eye.timeout
            assert stats.duration < 2 * eye.timeout
            assert descriptors() <= before
    finally:
        server.thaw()
    eye.timeout = PATIENT
    alive, stats = await eye.cycle()
    assert alive.outcome is stats.outcome is Outcome.OBSERVED
    await until(lambda: server.sessions() == 1)


async def test_with_a_frozen_postmaster_logins_fail_while_the_warm_connection_goes_on_seeing(
    pair: Pair, eyes: Eyes
) -> None:
    server, eye = pair.primary, eyes.on(pair.primary)
    await eye.cycle()
    server.signal_postmaster(signal.SIGSTOP)
    try:
        alive, stats = await eye.cycle()
        assert alive.outcome is stats.outcome is Outcome.OBSERVED
        eye.clock[0] += LOGIN_EVERY
        eye.timeout = TIMEOUT / 2
        for _ in range(3):
            alive, stats = await eye.cycle()
            assert (alive.outcome, alive.kind) == (Outcome.FAILED, "timeout")
            assert stats.outcome is Outcome.OBSERVED
    finally:
        server.signal_postmaster(signal.SIGCONT)
    eye.timeout = PATIENT
    alive, _ = await eye.cycle()
    assert alive.outcome is Outcome.OBSERVED
    await until(lambda: server.sessions() == 1)


async def test_a_lock_on_the_catalogue_makes_the_probe_blind_soon_instead_of_waiting(pair: Pair, eyes: Eyes) -> None:
    eye = eyes.on(pair.primary)
    await eye.cycle()
    holder = await connected(pair.primary)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
            alive, stats = await eye.cycle()
            assert alive.outcome is Outcome.OBSERVED
            assert (stats.outcome, stats.kind) == (Outcome.BLIND, "lock")
            assert stats.duration < TIMEOUT / 2
            # Nobody can log in meanwhile: that is a failure, and it does not cost the warm connection.
            eye.clock[0] += LOGIN_EVERY
            eye.timeout = TIMEOUT / 2
            alive, stats = await eye.cycle()
            assert (alive.outcome, alive.kind) == (Outcome.FAILED, "timeout")
            assert (stats.outcome, stats.kind) == (Outcome.BLIND, "lock")
    finally:
        await holder.close()
    eye.timeout = PATIENT
    alive, stats = await eye.cycle()
    assert alive.outcome is stats.outcome is Outcome.OBSERVED
    await until(lambda: pair.primary.sessions() == 1)


# --- logins that are refused, and what mends them -----------------------------------------------------------------


async def refused_then_mended(eye: Eye, kind: str, mending: Any) -> str:
    """Both probes are blind with ``kind`` until ``mending(reason)`` was done; the reason."""
    alive, stats = await eye.cycle()
    assert (alive.outcome, alive.kind) == (Outcome.BLIND, kind), alive.reason
    assert (stats.outcome, stats.kind) == (Outcome.BLIND, kind), stats.reason
    mending(alive.reason)
    alive, stats = await eye.cycle()
    assert (alive.outcome, stats.outcome) == (Outcome.OBSERVED, Outcome.OBSERVED), f"{alive.reason} {stats.reason}"
    return stats.reason


async def test_a_wrong_password_is_blind_and_mended_as_told(pair: Pair, eyes: Eyes) -> None:
    pair.primary.sql("CREATE ROLE forgetful LOGIN PASSWORD 'other'")
    eye = eyes.on(pair.primary, "forgetful")
    await refused_then_mended(eye, "auth", lambda reason: mend(pair.primary, reason))


async def test_a_missing_role_is_blind_and_mended_as_told(pair: Pair, eyes: Eyes) -> None:
    eye = eyes.on(pair.primary, "nobody_yet")
    assert await refused_then_mended(eye, "auth", lambda reason: mend(pair.primary, reason)) == ""
    # Where a password is asked for, the server does not tell a missing role from a wrong password: nor can we.
    eye = eyes.on(pair.primary, "no one")
    assert await refused_then_mended(
        eye, "auth", lambda reason: mend(pair.primary, "run: " + reason.partition("refused alike: ")[2])
    ) == ""  # fmt: skip


async def test_a_role_that_may_not_log_in_is_blind_and_mended_as_told(pair: Pair, eyes: Eyes) -> None:
    pair.primary.sql(f"CREATE ROLE resting NOLOGIN PASSWORD '{PASSWORD}'")
    await refused_then_mended(eyes.on(pair.primary, "resting"), "auth", lambda reason: mend(pair.primary, reason))


@pytest.mark.parametrize("role, database", [("rejected", "postgres"), (ROLE, "unlisted")])
async def test_a_rejection_by_pg_hba_is_blind_and_mended_as_told(
    pair: Pair, eyes: Eyes, role: str, database: str
) -> None:
    server, hba = pair.primary, pair.primary.data / "pg_hba.conf"
    before = hba.read_text()
    if role != ROLE:
        server.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    if database != "postgres":
        server.sql(f"CREATE DATABASE {database}")

    def put(reason: str) -> None:
        line = AT_FIRST.search(reason)
        assert line is not None, reason
        hba.write_text(f"{line[1]}\n{before}")
        server.sql("SELECT pg_reload_conf()")
        server.sql("SELECT pg_sleep(0.2)")

    await refused_then_mended(eyes.on(server, role, database=database), "auth", put)
    hba.write_text(before)
    server.sql("SELECT pg_reload_conf()")


async def test_a_missing_database_is_blind_and_says_which_one_exists_everywhere(pair: Pair, eyes: Eyes) -> None:
    alive, stats = await eyes.on(pair.primary, database="private").cycle()
    assert (alive.outcome, alive.kind) == (Outcome.BLIND, "no_database")
    assert 'correct "database" (postgres exists everywhere)' in alive.reason
    assert (stats.outcome, stats.kind) == (Outcome.BLIND, "no_database")


async def test_a_database_that_may_not_be_entered_is_blind_and_mended_as_told(pair: Pair, eyes: Eyes) -> None:
    pair.primary.sql("CREATE DATABASE private", "REVOKE CONNECT ON DATABASE private FROM public")
    eye = eyes.on(pair.primary, database="private")
    await refused_then_mended(eye, "privilege", lambda reason: mend(pair.primary, reason))
    eye.session.drop()
    pair.primary.sql("DROP DATABASE private WITH (FORCE)")


async def test_without_pg_monitor_the_hidden_parts_are_blind_and_mended_as_told(pair: Pair, eyes: Eyes) -> None:
    pair.primary.sql(f'CREATE ROLE "Mon""itor" LOGIN PASSWORD \'{PASSWORD}\'')
    there = pair.primary.sql("SELECT pg_current_wal_lsn()")
    await until(lambda: pair.replica.sql(f"SELECT pg_last_wal_replay_lsn() >= '{there}'") == "t")
    eye = eyes.on(pair.replica, 'Mon"itor')
    alive, stats = await eye.cycle()
    assert alive.outcome is stats.outcome is Outcome.OBSERVED
    for probe in ("connections", "wal_receiver"):
        sample = eye.combined(probe, {"node": stats})
        assert (sample.outcome, sample.kind) == (Outcome.BLIND, "privilege")
        assert sample.reason == stats.reason
    lag = eye.combined("replication_lag", {"node": stats, "primary": (await eyes.on(pair.primary).cycle())[1]})
    assert lag.readings["lag_seconds"] == 0.0
    mend(pair.primary, stats.reason)
    there = pair.primary.sql("SELECT pg_current_wal_lsn()")
    await until(lambda: pair.replica.sql(f"SELECT pg_last_wal_replay_lsn() >= '{there}'") == "t")
    _, stats = await eye.cycle()
    assert stats.reason == ""
    assert eye.combined("connections", {"node": stats}).outcome is Outcome.OBSERVED
    assert eye.combined("wal_receiver", {"node": stats}).readings["wal_receiver_streaming"] == 1.0


# --- no free connection -------------------------------------------------------------------------------------------


async def test_a_full_server_is_alive_and_full_with_and_without_a_warm_connection(pair: Pair, eyes: Eyes) -> None:
    warm, cold = eyes.on(pair.primary), eyes.on(pair.primary)
    pair.primary.sql(f"CREATE ROLE filler LOGIN PASSWORD '{PASSWORD}'")
    await warm.cycle()
    held: list[asyncpg.Connection[asyncpg.Record]] = []
    usable = 13
    try:
        async with asyncio.timeout(30):
            while len(held) < usable - 1:  # the warm connection is the other one
                try:
                    held.append(
                        await asyncpg.connect(
                            host="127.0.0.1", port=pair.primary.port, user="filler", password=PASSWORD,
                            database="postgres", ssl="disable",
                        )
                    )  # fmt: skip
                except asyncpg.TooManyConnectionsError:
                    await asyncio.sleep(0.05)  # a backend of an earlier test is still on its way out
        warm.clock[0] += LOGIN_EVERY
        alive, stats = await warm.cycle()
        assert alive.outcome is Outcome.OBSERVED
        assert set(alive.readings) == {"ping_seconds"}
        assert "full" in alive.reason
        assert stats.outcome is Outcome.OBSERVED
        used = warm.combined("connections", {"node": stats})
        assert used.readings == {
            "connections_used": 13.0, "connections_usable": 13.0, "connections_used_pct": 100.0,
        }  # fmt: skip

        alive, stats = await cold.cycle()
        assert (alive.outcome, dict(alive.readings)) == (Outcome.OBSERVED, {})
        assert "full" in alive.reason
        assert stats.kind == "too_many_connections"
        used = cold.combined("connections", {"node": stats})
        assert (used.outcome, dict(used.readings)) == (Outcome.OBSERVED, {"connections_used_pct": 100.0})
    finally:
        for connection in held:
            await connection.close()
    alive, stats = await cold.cycle()
    assert alive.outcome is stats.outcome is Outcome.OBSERVED
    assert float(cold.combined("connections", {"node": stats}).readings["connections_used_pct"]) < 60.0


async def test_a_roles_own_connection_limit_is_blind_and_mended_as_told(pair: Pair, eyes: Eyes) -> None:
    pair.primary.sql(
        f"CREATE ROLE limited LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 1", "GRANT pg_monitor TO limited"
    )
    first, second = eyes.on(pair.primary, "limited"), eyes.on(pair.primary, "limited")
    await first.cycle()
    alive, stats = await second.cycle()
    assert alive.outcome is Outcome.OBSERVED
    assert stats.kind == "too_many_connections"
    used = second.combined("connections", {"node": stats})
    assert (used.outcome, used.kind) == (Outcome.BLIND, "too_many_connections")
    mend(pair.primary, used.reason)
    alive, stats = await second.cycle()
    assert alive.outcome is stats.outcome is Outcome.OBSERVED


# --- replication --------------------------------------------------------------------------------------------------


@dataclass
class Both:
    """A primary and its replica, watched in the same rounds."""

    primary: Eye
    replica: Eye

    async def cycle(self) -> tuple[Sample, Sample]:
        """(lag, receiver) of the replica in the next round."""
        _, above = await self.primary.cycle()
        self.primary.clock[0] -= INTERVAL  # the same round
        _, below = await self.replica.cycle()
        assert above.outcome is below.outcome is Outcome.OBSERVED
        samples = {"primary": above, "node": below}
        return self.replica.combined("replication_lag", samples), self.replica.combined("wal_receiver", samples)

    async def caught_up(self) -> None:
        """Cycle until the replica has everything and streams."""
        for _ in range(200):
            lag, receiver = await self.cycle()
            streams = receiver.readings.get("wal_receiver_streaming") == 1.0
            if lag.readings.get("lag_bytes") == 0.0 and streams:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the replica does not catch up")


@pytest.fixture
def both(pair: Pair, eyes: Eyes) -> Both:
    return Both(eyes.on(pair.primary), eyes.on(pair.replica))


def write(server: Server) -> None:
    """Some WAL, flushed."""
    server.sql("CREATE TABLE noise AS SELECT generate_series(1, 1000) n", "DROP TABLE noise")


async def test_an_idle_primary_has_a_replica_without_delay_for_twenty_cycles(both: Both) -> None:
    await both.caught_up()
    for _ in range(20):
        lag, receiver = await both.cycle()
        assert lag.readings == {"lag_seconds": 0.0, "lag_bytes": 0.0}
        assert receiver.readings["wal_receiver_streaming"] == 1.0


async def test_the_delay_of_a_replica_that_is_cut_off_grows_with_the_clock(pair: Pair, both: Both) -> None:
    await both.caught_up()
    settings = pair.replica.data / "postgresql.auto.conf"
    before = settings.read_text()  # pg_basebackup -R wrote the true address there: ALTER SYSTEM RESET would delete it
    dead = f"host=127.0.0.1 port={pair.replica.port + 1} user=postgres"
    pair.replica.set(primary_conninfo=dead)
    try:
        await until(lambda: pair.replica.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0")
        write(pair.primary)
        delays = []
        for _ in range(8):
            lag, _ = await both.cycle()
            delays.append(float(lag.readings["lag_seconds"]))
            assert float(lag.readings["lag_bytes"]) > 0
        assert delays == [delays[0] + index * INTERVAL for index in range(8)]
        assert delays[0] <= INTERVAL
        # A receiver may live for a moment between two attempts; it is never seen streaming twice.
        streaming = [(await both.cycle())[1].readings["wal_receiver_streaming"] for _ in range(6)]
        assert streaming.count(0.0) >= 5
    finally:
        settings.write_text(before)
        pair.replica.sql("SELECT pg_reload_conf()")
    await both.caught_up()


async def test_a_paused_replay_is_a_delay_and_is_named(pair: Pair, both: Both) -> None:
    await both.caught_up()
    pair.replica.sql("SELECT pg_wal_replay_pause()")
    try:
        write(pair.primary)
        first, _ = await both.cycle()
        for _ in range(3):
            await both.cycle()
        lag, receiver = await both.cycle()
        assert lag.readings["lag_seconds"] == float(first.readings["lag_seconds"]) + 4 * INTERVAL
        assert "paused" in lag.reason
        assert receiver.readings["wal_receiver_streaming"] == 1.0
    finally:
        pair.replica.sql("SELECT pg_wal_replay_resume()")
    await both.caught_up()


# --- counters -----------------------------------------------------------------------------------------------------


async def test_a_reset_of_the_statistics_starts_a_new_series(pair: Pair, eyes: Eyes) -> None:
    eye = eyes.on(pair.primary)
    _, first = await eye.cycle()
    _, second = await eye.cycle()
    assert first.series == second.series
    pair.primary.sql("SELECT pg_stat_reset()")
    _, third = await eye.cycle()
    assert third.series != second.series
    assert float(third.readings["blocks_hit"]) < float(second.readings["blocks_hit"])


async def test_a_deadlock_is_counted(pair: Pair, eyes: Eyes) -> None:
    eye = eyes.on(pair.primary)
    _, before = await eye.cycle()
    pair.primary.sql("CREATE TABLE counter (id int PRIMARY KEY, n int)", "INSERT INTO counter VALUES (1, 0), (2, 0)")
    one, two = await connected(pair.primary), await connected(pair.primary)
    update = "UPDATE counter SET n = n + 1 WHERE id = {}".format
    await one.execute("BEGIN; " + update(1))
    await two.execute("BEGIN; " + update(2))
    results = await asyncio.gather(one.execute(update(2)), two.execute(update(1)), return_exceptions=True)
    assert [type(result) for result in results if isinstance(result, Exception)] == [asyncpg.DeadlockDetectedError]
    await one.close()
    await two.close()
    # A session's counters reach the others when it ends.
    await until(lambda: pair.primary.sql("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'") == "0")
    _, after = await eye.cycle()
    assert float(after.readings["deadlocks"]) == float(before.readings["deadlocks"]) + 1
    assert after.series == before.series
    pair.primary.sql("DROP TABLE counter")


async def test_the_size_of_databases_and_wal_is_what_the_server_counts_and_keeps_no_connection(
    pair: Pair, eyes: Eyes
) -> None:
    for server in (pair.primary, pair.replica):
        eye = eyes.on(server)
        sample = await eye.sample("database_size")
        assert (sample.outcome, sample.reason) == (Outcome.OBSERVED, "")
        counted = float(server.sql("SELECT sum(pg_database_size(oid)) FROM pg_database"))
        assert abs(float(sample.readings["database_size_bytes"]) - counted) < 0.1 * counted
        assert float(sample.readings["wal_size_bytes"]) >= 16 * 2**20
        assert not eye.session.warm


async def test_without_pg_monitor_the_size_is_blind_and_mended_as_told(pair: Pair, eyes: Eyes) -> None:
    pair.primary.sql("CREATE ROLE sizer LOGIN PASSWORD 'pass word'")
    try:
        eye = eyes.on(pair.primary, role="sizer")
        blind = await eye.sample("database_size")
        assert (blind.outcome, blind.kind) == (Outcome.BLIND, "privilege")
        mend(pair.primary, blind.reason)
        assert (await eye.sample("database_size")).outcome is Outcome.OBSERVED
    finally:
        pair.primary.sql("DROP OWNED BY sizer", "DROP ROLE sizer")


async def test_a_write_port_that_leads_to_a_standby_has_failed(pair: Pair, eyes: Eyes) -> None:
    for server, outcome in ((pair.primary, Outcome.OBSERVED), (pair.replica, Outcome.FAILED)):
        eye = eyes.on(server)
        target = Target("orders", "", "haproxy", eye.session.login.address, kind="frontend", member="w")
        probe = catalogue()["postgres_liveness"]
        assert isinstance(probe, Probe)
        context = Context(target, PATIENT, _sql=eye.session)
        for _ in range(2):
            sample = await take_sample(probe, context, PATIENT, SystemClock())
            assert sample.outcome is outcome, sample.reason
            assert sample.kind == ("" if outcome is Outcome.OBSERVED else "read_only")


async def test_a_login_without_its_password_file_is_blind(pair: Pair, eyes: Eyes) -> None:
    eye = eyes.on(pair.primary)
    assert eye.session.login.password_file is not None
    eye.session.login.password_file.unlink()
    alive, _ = await eye.cycle()
    assert (alive.outcome, alive.kind) == (Outcome.BLIND, "config")


async def test_a_server_without_tls_is_blind_where_tls_is_demanded(pair: Pair) -> None:
    session = Session(Login("127.0.0.1", pair.primary.port, "postgres", sslmode="require"), TIMEOUT)
    with pytest.raises(Blind, match=r"does not offer TLS, .*; set sslmode: prefer"):
        await session.fresh_login()


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(pair: Pair, tmp_path: Path) -> Iterator[Path]:
    """Switches TLS on with a certificate for ``localhost``; the file to verify it against."""
    server, key, certificate = pair.primary, pair.primary.data / "server.key", pair.primary.data / "server.crt"
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program here: apt-get install openssl")
    if not server.sql("SHOW ssl_library"):
        pytest.skip("this PostgreSQL is built without TLS")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject], check=True, capture_output=True
    )
    if server.account.switch:
        os.chown(key, server.account.uid, server.account.gid)
    key.chmod(0o600)
    file = tmp_path / "authority.crt"
    shutil.copy(certificate, file)
    server.set(ssl="on")
    yield file
    server.reset("ssl")


def over_tls(eyes: Eyes, server: Server, host: str, sslmode: str, authority: Path | None = None) -> Eye:
    eye = eyes.on(server)
    login = replace(eye.session.login, host=host, sslmode=sslmode, sslrootcert=authority)
    eye.session.login = login
    return eye


async def test_tls_is_used_where_it_is_offered_and_verified_where_it_is_demanded(
    pair: Pair, eyes: Eyes, authority: Path
) -> None:
    server = pair.primary
    for host, sslmode, file, kind in (
        ("127.0.0.1", "prefer", None, ""),
        ("127.0.0.1", "require", None, ""),
        ("127.0.0.1", "verify-ca", authority, ""),
        ("localhost", "verify-full", authority, ""),
        ("127.0.0.1", "verify-full", authority, "tls"),
        ("localhost", "verify-full", None, "tls"),
        ("localhost", "verify-full", authority.with_name("missing"), "config"),
        ("127.0.0.1", "disable", None, ""),
    ):
        eye = over_tls(eyes, server, host, sslmode, file)
        alive, _ = await eye.cycle()
        assert (alive.outcome, alive.kind) == (Outcome.BLIND if kind else Outcome.OBSERVED, kind), (host, alive.reason)
        if not kind:
            encrypted = await eye.session.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            assert encrypted is (sslmode != "disable")
        eye.session.drop()


async def test_a_frozen_server_behind_tls_keeps_no_socket_of_ours(pair: Pair, eyes: Eyes, authority: Path) -> None:
    server, eye = pair.primary, over_tls(eyes, pair.primary, "localhost", "verify-full", authority)
    await eye.cycle()
    before = descriptors()
    server.freeze()
    try:
        eye.timeout = TIMEOUT / 4
        for _ in range(4):
            alive, _ = await eye.cycle()
            assert (alive.outcome, alive.kind) == (Outcome.FAILED, "timeout")
            assert descriptors() <= before
    finally:
        server.thaw()
    eye.timeout = PATIENT
    alive, _ = await eye.cycle()
    assert alive.outcome is Outcome.OBSERVED
    await until(lambda: server.sessions() == 1)


async def test_a_server_that_hangs_after_the_tls_handshake_keeps_no_socket_of_ours(
    pair: Pair, eyes: Eyes, authority: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.primary.data / "server.crt", pair.primary.data / "server.key")

    async def behave(line: hostile.Line) -> None:
        await line.reader.readexactly(8)
        await line.say(b"S")
        raw = line.writer.transport
        await line.writer.start_tls(context)
        raw.pause_reading()  # type: ignore[attr-defined]  # it answers no farewell either
        await asyncio.sleep(3600)

    async with hostile.listening(behave) as peer:
        eye = over_tls(eyes, pair.primary, "localhost", "verify-full", authority)
        eye.session.login = replace(eye.session.login, port=peer.port)
        eye.timeout = TIMEOUT / 4
        before = descriptors()
        for _ in range(4):  # each leaves the peer's own end open
            alive, _ = await eye.cycle()
            assert (alive.outcome, alive.kind) == (Outcome.FAILED, "timeout")
            # A farewell as TLS would have it waits half a minute for the other side's.
            await eventually(lambda: descriptors() <= before + peer.accepted)
