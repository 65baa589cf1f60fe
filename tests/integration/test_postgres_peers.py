"""What only looks like PostgreSQL can fail its own sample, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from probed.clock import SystemClock
from probed.errors import Blind, TargetFailed
from probed.model import Outcome, Sample, Target
from probed.probes import Context, Probe, catalogue
from probed.probes._sql import Login, Session
from probed.sampling import take_sample
from tests import hostile
from tests.hostile import POSTGRES, listening
from tests.leaks import (
    descriptors,
    eventually,
    nothing_for_the_collector,
    nothing_left_behind,
    peak_growth,
    unstarved,
)

DEADLINE = 0.25
PATIENT = 10.0

EXPECTED = {
    "accept_and_hang": "failed timeout",
    "close_after_accept": "failed closed reset",
    "speaks_first": "failed tls",
    "tls_then_silence": "failed timeout",
    "tls_garbage": "failed tls",
    "tls_error": "failed server",
    "close_after_startup": "failed closed",
    "hang_after_startup": "failed timeout",
    "hang_after_auth": "failed timeout",
    "garbage": "failed protocol",
    "http": "failed protocol",
    "negative_message": "failed protocol",
    "short_message": "failed protocol",
    "huge_message": "failed protocol too_large",
    "unknown_authentication": "blind auth",
    "endless_authentication": "failed protocol too_large",
    "endless_notices": "failed too_large",
    "endless_parameters": "failed too_large",
    "scram_iterations": "blind unsupported",
    "scram_iterations_beyond_numbers": "blind unsupported",
    "pooler": "blind unsupported",
    "starting": "failed starting",
    "hang_at_query": "failed timeout",
    "garbage_at_query": "failed timeout protocol too_large",
    "huge_row": "failed too_large",
    "endless_rows": "failed too_large protocol",
    "endless_notices_at_query": "failed too_large",
}
FLOODS = [
    "endless_notices",
    "endless_parameters",
    "huge_message",
    "huge_row",
    "endless_rows",
    "endless_notices_at_query",
]


@pytest.fixture(autouse=True)
async def clean(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    async with nothing_left_behind(caplog):
        yield


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("secret")
    return file


async def sample(session: Session, name: str = "postgres_liveness", deadline: float = PATIENT) -> Sample:
    probe = catalogue()[name]
    assert isinstance(probe, Probe)
    target = Target("orders", "node-a", "postgres", session.login.address, kind="postgres")
    context = Context(target, deadline, _sql=session)
    return await unstarved(lambda: take_sample(probe, context, deadline, SystemClock()))


def session_at(port: int, password: Path | None = None, sslmode: str = "prefer") -> Session:
    return Session(Login("127.0.0.1", port, "probed", "postgres", password, sslmode), PATIENT)


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_hostile_server_fails_its_own_sample_in_time(name: str, password: Path) -> None:
    outcome, *kinds = EXPECTED[name].split()
    deadline = DEADLINE if "timeout" in kinds else PATIENT
    async with listening(POSTGRES[name]) as peer:
        session = session_at(peer.port, password)
        for probe in ("postgres_liveness", "postgres_stats"):
            taken = await sample(session, probe, deadline)
            assert taken.outcome.value == outcome, taken
            assert taken.kind in kinds, taken
            assert taken.duration < 2 * deadline
            assert taken.reason.isprintable()
            assert "secret" not in taken.reason
            await eventually(lambda: peer.open == 0)
        assert peer.most_open == 1
        assert not session.warm


@pytest.mark.parametrize("name", [*EXPECTED, "nobody"])
async def test_a_failure_leaves_nothing_for_the_garbage_collector(name: str, password: Path) -> None:
    deadline = DEADLINE if "timeout" in EXPECTED.get(name, "") else PATIENT
    async with contextlib.AsyncExitStack() as peers:
        port = hostile.refusing()
        if name in EXPECTED:
            port = (await peers.enter_async_context(listening(POSTGRES[name]))).port
        session = session_at(port, password)
        await sample(session, deadline=deadline)
        with nothing_for_the_collector():
            for probe in ("postgres_liveness", "postgres_stats"):
                await sample(session, probe, deadline)
            session.drop()
            await asyncio.sleep(0)


async def test_every_hostile_server_has_its_expectation() -> None:
    assert POSTGRES.keys() - EXPECTED.keys() == {"one_text_column"}


async def test_rows_of_the_wrong_shape_are_not_postgresqls() -> None:
    async with listening(POSTGRES["one_text_column"]) as peer:
        session = session_at(peer.port)
        assert (await sample(session)).outcome is Outcome.OBSERVED
        taken = await sample(session, "postgres_stats")
        assert (taken.outcome, taken.kind) == (Outcome.FAILED, "protocol")
        session.drop()
        await eventually(lambda: peer.open == 0)


async def test_random_bytes_never_escape_as_anything_but_a_failure() -> None:
    chance = random.Random(20)
    kinds = b"RSKZENTDCAGHWtI123nsdcv"
    blob = b""

    async def behave(line: hostile.Line) -> None:
        await hostile.startup(line)
        await line.say(blob)

    async def behave_after_login(line: hostile.Line) -> None:
        await hostile.startup(line)
        await line.say(hostile.WELCOME)
        await line.reader.read(5)
        await line.say(blob)

    for behaviour in (behave, behave_after_login):
        async with listening(behaviour) as peer:
            session = session_at(peer.port)
            for _ in range(150):
                blob = b"".join(
                    hostile.message(bytes([chance.choice(kinds)]), chance.randbytes(chance.choice((0, 4, 8, 30))))
                    for _ in range(chance.randrange(1, 6))
                )
                for probe in ("postgres_liveness", "postgres_stats"):
                    taken = await sample(session, probe)
                    assert taken.outcome in (Outcome.FAILED, Outcome.BLIND), (blob, taken)
                    assert taken.kind != "bug", (blob, taken)
            session.drop()
            await eventually(lambda: peer.open == 0)


async def test_a_warm_connection_that_is_flooded_between_two_cycles_is_dropped() -> None:
    async def behave(line: hostile.Line) -> None:
        await hostile.startup(line)
        await line.say(hostile.WELCOME)
        await hostile.word_x(line)
        await line.endlessly(hostile.NOTICE * 100)

    async with listening(behave) as peer:
        session = session_at(peer.port)
        assert (await sample(session)).outcome is Outcome.OBSERVED
        await eventually(lambda: peer.open == 0)
        assert not session.warm


@pytest.mark.parametrize(
    "noise",
    [
        hostile.READY,
        hostile.TEXT_ROW + hostile.READY,
        hostile.DONE * 3,
        hostile.WELCOME,
        hostile.error("FATAL", "57P01", "bye"),
    ],
)
async def test_messages_out_of_turn_between_two_cycles_are_no_failure_and_no_noise(noise: bytes) -> None:
    async def behave(line: hostile.Line) -> None:
        await hostile.startup(line)
        await line.say(hostile.WELCOME)
        await hostile.word_x(line, after=noise)

    async with listening(behave) as peer:
        session = session_at(peer.port)
        for _ in range(3):
            assert (await sample(session)).outcome is Outcome.OBSERVED
            await eventually(lambda: not session.warm)


async def test_the_bound_is_on_one_answer_and_not_on_the_life_of_a_connection() -> None:
    row = hostile.message(b"D", b"\0\1\0\0\x28\0" + b"x" * 0x2800)

    async def behave(line: hostile.Line) -> None:
        await hostile.startup(line)
        await line.say(hostile.WELCOME)
        while True:
            await hostile.word_x(line, row)

    async with listening(behave) as peer:
        session = session_at(peer.port)
        for _ in range(100):
            assert await session.ping() >= 0
        assert (peer.accepted, await session.value("SELECT x")) == (1, "x" * 0x2800)
        session.drop()
        await eventually(lambda: peer.open == 0)


async def test_what_is_known_of_a_server_is_forgotten_with_its_connection() -> None:
    async def behave(line: hostile.Line) -> None:
        await hostile.startup(line)
        await line.say(hostile.WELCOME)
        await hostile.word_x(line)

    async with listening(behave) as peer:
        session = session_at(peer.port)
        await session.fresh_login()
        session.system_identifier = "7195247349871235110"
        await eventually(lambda: not session.warm)
        await session.fresh_login()  # behind an address that moves, this may be another server
        assert session.system_identifier == ""
        session.system_identifier = "7195247349871235110"
        session.forget()
        assert session.system_identifier == ""
        session.drop()


async def test_a_session_that_ends_while_a_login_is_under_way_keeps_nothing() -> None:
    async def behave(line: hostile.Line) -> None:
        await hostile.startup(line)
        await release.wait()
        await line.say(hostile.WELCOME)
        await hostile.word_x(line)
        await line.hang()

    for work in (Session.fresh_login, Session.ping):
        release = asyncio.Event()
        async with listening(behave) as peer:
            session = session_at(peer.port)
            task: asyncio.Task[object] = asyncio.create_task(work(session))
            await eventually(lambda peer=peer: len(peer.requests) == 1)  # type: ignore[misc]
            session.drop()
            release.set()
            await asyncio.wait({task})
            assert not session.warm
            assert work is Session.fresh_login or isinstance(task.exception(), TargetFailed)
            await eventually(lambda peer=peer: peer.open == 0)  # type: ignore[misc]


async def test_fifty_flooding_servers_at_once_cost_little_memory() -> None:
    for name in FLOODS:
        with hostile.elsewhere(f"postgres:{name}") as port:
            await asyncio.gather(*(sample(session_at(port)) for _ in range(5)))
            work = asyncio.gather(*(sample(session_at(port), deadline=60) for _ in range(50)))
            taken, growth = await peak_growth(work)
            assert {one.outcome for one in taken} == {Outcome.FAILED}, name
            assert growth < 20, f"{name}: {growth:.0f} MiB"


async def test_two_hundred_timeouts_leak_nothing() -> None:
    names = ("accept_and_hang", "tls_then_silence", "hang_after_startup", "hang_at_query")
    for name in names:
        async with listening(POSTGRES[name]) as peer:
            sessions = [session_at(peer.port) for _ in range(10)]
            before, tasks = descriptors(), len(asyncio.all_tasks())
            for _ in range(5):
                taken = await asyncio.gather(*(sample(session, deadline=0.2) for session in sessions))
                # Every cycle runs out of time. On a busy machine a peer may not even come to accept, and that is told.
                assert {one.kind for one in taken} <= {"timeout", "no_answer"}
            await eventually(lambda peer=peer: peer.open == 0)  # type: ignore[misc]
            await eventually(lambda limit=before: descriptors() <= limit)  # type: ignore[misc]
            assert len(asyncio.all_tasks()) <= tasks
            assert peer.most_open <= 2 * len(sessions)


@pytest.mark.parametrize("name", ["one_text_column", "accept_and_hang"])
async def test_a_login_cancelled_at_any_moment_leaves_no_socket(name: str) -> None:
    for when in range(40):
        async with listening(POSTGRES[name]) as peer:
            session = session_at(peer.port)
            login = asyncio.create_task(session.fresh_login())
            for _ in range(when):
                await asyncio.sleep(0)
            login.cancel()
            await asyncio.wait({login})
            session.drop()
            del session, login
            await eventually(lambda peer=peer: peer.open == 0)  # type: ignore[misc]


async def test_tls_that_is_demanded_and_not_offered_is_blind_with_its_remedy() -> None:
    async with listening(POSTGRES["hang_after_startup"]) as peer:
        for sslmode in ("require", "verify-full"):
            with pytest.raises(Blind, match=r"does not offer TLS, .*set sslmode: prefer") as raised:
                await session_at(peer.port, sslmode=sslmode).fresh_login()
            assert raised.value.kind == "tls"


async def test_a_login_refused_in_this_round_is_not_tried_again_by_the_next_probe() -> None:
    now = [100.0]
    async with listening(POSTGRES["starting"]) as peer:
        session = Session(Login("127.0.0.1", peer.port), PATIENT, now=lambda: now[0])
        assert (await sample(session)).kind == "starting"
        assert (await sample(session, "postgres_stats")).kind == "starting"
        assert peer.accepted == 1
        now[0] += 5
        assert (await sample(session, "postgres_stats")).kind == "starting"
        assert peer.accepted == 2


async def test_a_missing_socket_and_a_closed_port_are_refused(tmp_path: Path) -> None:
    for login in (Login(str(tmp_path)), Login("127.0.0.1", hostile.refusing()), Login("localhost", hostile.refusing())):
        with pytest.raises(TargetFailed) as raised:
            await Session(login, PATIENT).fresh_login()
        assert raised.value.kind == "refused"


async def test_a_name_without_an_address_is_blind() -> None:
    taken = await sample(Session(Login("no-such-host.invalid"), PATIENT))
    assert (taken.outcome, taken.kind) == (Outcome.BLIND, "dns")
