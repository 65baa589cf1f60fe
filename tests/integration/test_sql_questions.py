"""Statements of users' own, from the policy's file to the sample, on a real primary and its replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from probed import steps, strict_yaml
from probed.clock import SystemClock
from probed.config.settings import Settings
from probed.model import Outcome, Sample
from probed.policy.load import resolve
from probed.policy.site import Site
from probed.probes import catalogue
from probed.probes._http import HttpClient
from probed.probes._sql import Session
from probed.reaching import context_for
from probed.sampling import take_sample
from probed.watching import Cycle, plan
from tests.integration.postgres import NONE_FOUND, PASSWORD, ROLE, Pair, Server, binaries, major, running_pair, until
from tests.leaks import nothing_left_behind, unstarved

PATIENT = 10.0
READINGS = {"sql": frozenset(catalogue()["sql"].readings)}
FOLDERS = binaries()
if not FOLDERS:
    pytest.skip(NONE_FOUND, allow_module_level=True)


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: f"pg{major(folder)}")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with running_pair(request.param, _prepare) as pair:
        yield pair


def _prepare(primary: Server) -> None:
    primary.sql(
        "CREATE TABLE jobs (id int, state text)",
        "INSERT INTO jobs SELECT n, 'waiting' FROM generate_series(1, 7) n",
        f"GRANT SELECT ON jobs TO {ROLE}; GRANT INSERT, UPDATE, DELETE, TRUNCATE ON jobs TO {ROLE}",
        "CREATE TABLE secrets (id int)",
        "CREATE SEQUENCE numbers; GRANT ALL ON SEQUENCE numbers TO PUBLIC",
        "CREATE PROCEDURE change() LANGUAGE sql AS 'INSERT INTO public.jobs VALUES (0)'",
        "CREATE DATABASE private",
    )
    primary.sql("CREATE TABLE orders AS SELECT 42 AS n; GRANT SELECT ON orders TO PUBLIC", database="private")


@dataclass
class Watcher:
    """A daemon's eyes without its rounds: sessions shared as the plan says, contexts that keep their memory."""

    pair: Pair
    place: Path
    http: HttpClient
    sessions: dict[str, Session] = field(default_factory=dict)
    memories: dict[str, dict[str, Any]] = field(default_factory=dict)

    def cycles(self, **sql: Any) -> list[Cycle]:
        """The cycles of a policy ``mine`` with these keys under ``sql``; what else stands in the file under ``also``."""
        also = sql.pop("also", "")
        password = self.place / "password"
        password.write_text(PASSWORD)
        login = {"user": ROLE, "password_file": password}
        nodes = [
            {"name": name, "postgres": {"host": "127.0.0.1", "port": server.port}}
            for name, server in (("a", self.pair.primary), ("b", self.pair.replica))
        ]
        settings = Settings.model_validate(
            {"policies": {"allow_sql": True}, "instances": [{"name": "orders", "postgres": login, "nodes": nodes}]}
        )
        keys = "".join(f"  {key}: {_yaml(value)}\n" for key, value in sql.items())
        file = self.place / "mine.yaml"
        file.write_text(
            f"id: mine\nname: Mine\nseverity: normal\nprobe: sql\nsql:\n{keys}{also}\n"
            "detect: {type: threshold, when: failed, count: 2}\n"
        )
        policy = resolve(strict_yaml.read(file), READINGS, settings.defaults, Site.of(settings))
        cycles = plan(settings.instances[0], (), {policy.id: policy}, catalogue(), settings.defaults).cycles
        return [cycle for cycle in cycles if cycle.probe.name == "sql"]

    async def ask(self, timeout: float = PATIENT, **sql: Any) -> dict[str, Sample]:
        """The samples of such a policy, by node."""
        return {c.reach.target.node: await self.sample(c, timeout) for c in self.cycles(**sql)}

    async def on_primary(self, statement: str, timeout: float = PATIENT, **sql: Any) -> Sample:
        return (await self.ask(timeout, statement=statement, **sql))["a"]

    async def sample(self, cycle: Cycle, timeout: float = PATIENT) -> Sample:
        login = cycle.reach.login
        assert login is not None
        session = self.sessions.setdefault(cycle.reach.session_key, Session(login, PATIENT))
        context = context_for(cycle.reach, timeout, self.http, session)
        context.memory = self.memories.setdefault(cycle.reach.target.key, {})
        return await unstarved(lambda: take_sample(cycle.probe, context, timeout, SystemClock()))


def _yaml(value: Any) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else repr(value)
        if isinstance(value, float | int)
        else _text(value)
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@pytest.fixture
async def watcher(pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Watcher]:
    async with nothing_left_behind(caplog):
        made = Watcher(pair, tmp_path, HttpClient())
        yield made
        for session in made.sessions.values():
            session.drop()
        await made.http.close()


# --- what is read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement, reading",
    [
        ("SELECT count(*) FROM public.jobs", {"value": 7.0}),
        ("SELECT count(*) FROM public.jobs;", {"value": 7.0}),
        ("SELECT 1.5::numeric", {"value": 1.5}),
        ("SELECT true", {"value": 1.0}),
        ("TABLE public.numbers", {"value": 1.0}),
        ("VALUES (3)", {"value": 3.0}),
        ("SHOW server_encoding", {"text": "UTF8"}),
        ("SELECT 'Infinity'::float8", {"text": "inf"}),
        ("SELECT repeat('x', 5000)", {"text": "x" * 200}),
        ("SELECT E'a\\nb'", {"text": "ab"}),
        ("SELECT ARRAY[1, 2]", {"text": "[1, 2]"}),
        ("SELECT NULL::int", {}),
        ("SELECT 1 WHERE false", {}),
    ],
)
async def test_the_first_column_of_the_only_row_is_the_reading(
    watcher: Watcher, statement: str, reading: Mapping[str, Any]
) -> None:
    taken = await watcher.on_primary(statement)
    assert taken.outcome is Outcome.OBSERVED, taken
    assert {name: value for name, value in taken.readings.items() if name != "statement_seconds"} == reading
    assert taken.readings["statement_seconds"]
    assert bool(taken.reason) is not bool(reading)


@pytest.mark.parametrize(
    "statement, expect, told",
    [
        ("SELECT 7", 7, ""),
        ("SELECT 7", 8, "expected 8, got 7"),
        ("SELECT true", True, ""),
        ("SELECT 1", True, "expected true, got 1"),
        ("SELECT 'on'", "on", ""),
        ("SELECT 'off'", "on", 'expected "on", got "off"'),
        ("SELECT NULL", "on", 'expected "on", got NULL'),
        ("SELECT 1 WHERE false", 1, "expected 1, got no row"),
    ],
)
async def test_another_value_than_expected_has_failed(watcher: Watcher, statement: str, expect: Any, told: str) -> None:
    taken = await watcher.on_primary(statement, expect=expect)
    assert taken.outcome is (Outcome.FAILED if told else Outcome.OBSERVED), taken
    assert told in taken.reason
    assert taken.kind == ("state" if told else "")


# --- where ----------------------------------------------------------------------------------------------------------


async def test_it_runs_on_the_primary_on_replicas_on_every_server_or_on_one_node(watcher: Watcher) -> None:
    seen, na = Outcome.OBSERVED, Outcome.NOT_APPLICABLE
    for on, outcomes in {
        "primary": {"a": seen, "b": na}, "replicas": {"a": na, "b": seen}, "every": {"a": seen, "b": seen},
        "b": {"b": seen},
    }.items():  # fmt: skip
        samples = await watcher.ask(statement="SELECT 1", on=on)
        assert {node: sample.outcome for node, sample in samples.items()} == outcomes, on


async def test_a_silent_server_that_was_no_primary_is_not_what_a_policy_on_the_primary_is_about(
    watcher: Watcher,
) -> None:
    await watcher.ask(statement="SELECT 1")
    for session in watcher.sessions.values():
        session.drop()
    watcher.sessions.clear()
    watcher.pair.replica.stop("immediate")
    try:
        assert (await watcher.ask(statement="SELECT 1"))["b"].outcome is Outcome.NOT_APPLICABLE
        watcher.memories.clear()
        taken = (await watcher.ask(statement="SELECT 1"))["b"]
        assert (taken.outcome, taken.kind) == (Outcome.FAILED, "refused")
    finally:
        watcher.pair.replica.start()


async def test_another_database_is_reached_by_one_connection_for_all_of_its_statements(watcher: Watcher) -> None:
    taken = await watcher.on_primary("SELECT n FROM public.orders", database="private")
    assert taken.readings["value"] == 42.0
    assert (await watcher.on_primary("SELECT current_database()", database="private")).readings["text"] == "private"
    assert set(watcher.sessions) == {"orders/a/postgres/sql/private", "orders/b/postgres/sql/private"}
    assert watcher.pair.primary.sessions() == 1


# --- harmless -------------------------------------------------------------------------------------------------------

FORBIDDEN = [
    # writes
    "INSERT INTO public.jobs VALUES (9) RETURNING id",
    "UPDATE public.jobs SET id = 0 RETURNING id",
    "DELETE FROM public.jobs RETURNING id",
    "WITH gone AS (DELETE FROM public.jobs RETURNING id) SELECT count(*) FROM gone",
    "TRUNCATE public.jobs",
    "CREATE TABLE public.mine ()",
    "CREATE TABLE public.mine AS SELECT 1",
    "SELECT 1 AS n INTO public.mine",
    "CREATE TEMP TABLE mine ()",
    "DROP TABLE public.jobs",
    "ALTER ROLE probed SUPERUSER",
    "GRANT ALL ON public.jobs TO PUBLIC",
    "CALL public.change()",
    "DO $$ BEGIN EXECUTE 'DELETE FROM public.jobs'; END $$",
    "SELECT nextval('public.numbers')",
    "SELECT setval('public.numbers', 1000)",
    "COPY public.jobs TO STDOUT",
    "COPY public.jobs FROM STDIN",
    "COPY public.jobs TO PROGRAM 'id'",
    "REFRESH MATERIALIZED VIEW public.jobs",
    "COMMENT ON TABLE public.jobs IS 'x'",
    "VACUUM public.jobs",
    "CHECKPOINT",
    # more than one
    "SELECT 1; DELETE FROM public.jobs",
    "SELECT 1; COMMIT; DELETE FROM public.jobs",
    "COMMIT; DELETE FROM public.jobs",
    "SELECT 1; SELECT 2",
    # out of the transaction, or beyond it
    "COMMIT",
    "ROLLBACK",
    "BEGIN",
    "SAVEPOINT mine",
    "SET TRANSACTION READ WRITE",
    "PREPARE TRANSACTION 'mine'",
    "SET default_transaction_read_only = off",
    "SET search_path = public",
    "SET SESSION AUTHORIZATION postgres",
    "RESET ALL",
    "DISCARD ALL",
    "LISTEN mine",
    "NOTIFY mine",
    "PREPARE mine AS SELECT 1",
    "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "LOAD 'auto_explain'",
    # locks and time
    "LOCK TABLE public.jobs",
    "SELECT id FROM public.jobs FOR UPDATE",
    "SELECT pg_sleep(60)",
    "SELECT count(*) FROM generate_series(1, 10^12::bigint)",
    # files, other sessions, the server
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_reload_conf()",
    "SELECT pg_switch_wal()",
    "SELECT pg_stat_reset()",
    "SELECT * FROM public.secrets",
    # not a value
    "SELECT generate_series(1, 3)",
    "SELECT $1::int",
    "SELECT",
    "EXECUTE mine",
]
LEFT_BEHIND = """
SELECT (SELECT count(*) FROM public.jobs), (SELECT count(*) FROM pg_prepared_xacts),
       (SELECT count(*) FROM pg_locks WHERE locktype IN ('advisory', 'relation') AND pid IN
           (SELECT pid FROM pg_stat_activity WHERE usename = 'probed')),
       (SELECT count(*) FROM pg_stat_activity WHERE usename = 'probed' AND state <> 'idle'),
       (SELECT last_value FROM public.numbers), to_regclass('public.mine') IS NULL,
       (SELECT rolsuper FROM pg_roles WHERE rolname = 'probed')
"""
UNTOUCHED = "7|0|0|0|1|t|f"


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_a_forbidden_statement_is_refused_and_nothing_of_it_stays(watcher: Watcher, statement: str) -> None:
    assert (await watcher.on_primary("SELECT 1")).outcome is Outcome.OBSERVED
    taken = await watcher.on_primary(statement)
    assert taken.outcome in (Outcome.BLIND, Outcome.FAILED), taken
    assert taken.kind in ("config", "privilege", "timeout", "server"), taken
    assert taken.reason.isprintable()
    # The connection is the same, as it was, and free for the next.
    session = watcher.sessions["orders/a/postgres"]
    assert session.warm
    assert await session.value("SELECT current_setting('search_path') || current_setting('statement_timeout')") == (
        f"pg_catalog{PATIENT:g}s"
    )
    assert await session.value("SELECT current_setting('transaction_read_only')") == "on"
    assert watcher.pair.primary.sql(LEFT_BEHIND) == UNTOUCHED


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(2)",
        "SELECT set_config('search_path', 'public', false)",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT pg_export_snapshot()",
        "SELECT pg_notify('mine', 'x')",
        "SELECT txid_current()",
    ],
)
async def test_what_a_function_holds_or_sets_is_gone_after_the_transaction(watcher: Watcher, statement: str) -> None:
    assert (await watcher.on_primary(statement)).outcome is Outcome.OBSERVED
    session = watcher.sessions["orders/a/postgres"]
    assert await session.value("SELECT current_setting('search_path') || current_setting('statement_timeout')") == (
        f"pg_catalog{PATIENT:g}s"
    )
    assert watcher.pair.primary.sql(LEFT_BEHIND) == UNTOUCHED


async def test_refusals_say_what_to_do(watcher: Watcher) -> None:
    for statement, told in {
        "SELECT count(*) FROM jobs": "write the schema, too: public.jobs",
        "SELECT id FROM public.secrets": 'run: GRANT SELECT (or EXECUTE) on it TO "probed";',
        "SELECT 1; SELECT 2": "cannot insert multiple commands into a prepared statement",
        "DELETE FROM public.jobs RETURNING id": "cannot execute DELETE in a read-only transaction; a probe only reads",
        "SELECT generate_series(1, 3)": "several rows",
        "DELETE FROM public.jobs": "returns no rows, so it was not run",
        "SELECT $1::int": "has parameters",
    }.items():
        assert told in (await watcher.on_primary(statement)).reason


async def test_an_answer_beyond_measure_costs_its_own_sample_and_the_next_is_well(watcher: Watcher) -> None:
    taken = await watcher.on_primary("SELECT repeat('x', 10000000)")
    assert (taken.outcome, taken.kind) == (Outcome.FAILED, "too_large")
    assert (await watcher.on_primary("SELECT 1")).outcome is Outcome.OBSERVED


async def test_run_by_hand_a_statement_shows_connection_login_and_how_long_it_took(watcher: Watcher) -> None:
    (cycle,) = watcher.cycles(statement="SELECT 1", on="a")
    with steps.kept() as kept:
        await watcher.sample(cycle)
    done = [step.name for step in kept.taken if step.finished]
    assert done == ["connect", "ask for TLS", "login", "transaction", "statement"]


# --- load -----------------------------------------------------------------------------------------------------------


async def test_statements_share_the_nodes_one_connection_and_take_a_quarter_of_its_time(watcher: Watcher) -> None:
    slow = "SELECT pg_sleep(60)"
    samples = await asyncio.gather(*(watcher.on_primary(f"{slow} -- {n}", 1.0) for n in range(3)))
    assert {sample.kind for sample in samples} <= {"timeout"}
    assert "it may take 250 ms; a policy with a timeout of its own" in samples[0].reason
    assert watcher.pair.primary.sessions() == 1
    taken = await watcher.on_primary("SELECT pg_sleep(1)", also="timeout: 4s")
    assert taken.outcome is Outcome.OBSERVED
    await until(lambda: watcher.pair.primary.sessions() == 2)


async def test_of_many_guests_one_at_most_stands_before_the_nodes_own_probes(watcher: Watcher) -> None:
    (cycle,) = watcher.cycles(statement="SELECT pg_sleep(0.2)", on="a")
    assert (await watcher.sample(cycle)).outcome is Outcome.OBSERVED
    session = watcher.sessions["orders/a/postgres"]
    guests = [asyncio.ensure_future(watcher.sample(cycle)) for _ in range(6)]
    await asyncio.sleep(0.05)

    async def own() -> int:
        async with session.turn():
            await session.ping()
            return sum(guest.done() for guest in guests)

    assert await own() <= 2
    assert {guest.outcome for guest in await asyncio.gather(*guests)} == {Outcome.OBSERVED}


async def test_a_lock_on_the_table_blinds_and_holds_up_nobody(watcher: Watcher) -> None:
    (cycle,) = watcher.cycles(statement="SELECT count(*) FROM public.jobs", on="a")
    locked = asyncio.create_subprocess_exec(
        watcher.pair.primary.folder / "psql", "-h", "127.0.0.1", "-p", str(watcher.pair.primary.port), "-U", "postgres",
        "-d", "postgres", "-c", "BEGIN; LOCK TABLE public.jobs; SELECT pg_sleep(60)",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    process = await locked
    try:
        held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND locktype = 'relation'"
        await until(lambda: watcher.pair.primary.sql(held) != "0")
        taken = await watcher.sample(cycle)
        assert (taken.outcome, taken.kind) == (Outcome.BLIND, "lock"), taken
    finally:
        process.terminate()
        await process.wait()
        watcher.pair.primary.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LOCK TABLE%' AND pid <> pg_backend_pid()"
        )


# --- the leader moves: last, for it does not move back ----------------------------------------------------------------


async def test_a_policy_on_the_primary_follows_it(watcher: Watcher) -> None:
    statement = "SELECT count(*) FROM public.jobs"
    before = await watcher.ask(statement=statement)
    assert (before["a"].outcome, before["b"].outcome) == (Outcome.OBSERVED, Outcome.NOT_APPLICABLE)
    watcher.pair.primary.stop("fast")
    try:
        watcher.pair.replica.run("pg_ctl", "-D", str(watcher.pair.replica.data), "-w", "promote")
        after = await watcher.ask(statement=statement)
        assert (after["a"].outcome, after["b"].outcome) == (Outcome.FAILED, Outcome.OBSERVED)
        assert after["b"].readings["value"] == 7.0
    finally:
        (watcher.pair.primary.data / "standby.signal").touch()
        watcher.pair.primary.start()
    back = await watcher.ask(statement=statement)
    assert (back["a"].outcome, back["b"].outcome) == (Outcome.NOT_APPLICABLE, Outcome.OBSERVED)
