"""HAProxy: decided on itself, over HTTP, its socket or its ports; what is behind it is told and no failure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.clock import SystemClock
from probed.config.settings import Defaults, Instance
from probed.errors import ProbeError
from probed.model import Outcome, Sample
from probed.probes import catalogue
from probed.probes._haproxy import HEADER, Row, remarks, rows, write_backend
from probed.probes._http import HttpClient
from probed.reaching import context_for
from probed.sampling import take_sample
from probed.watching import plan
from tests.hostile import HTTP, answering, listening, refusing
from tests.leaks import nothing_left_behind, peak_growth, unstarved
from tests.standin import recorded, standing_in

PATIENT, DEADLINE = 10.0, 0.4
STATES = recorded("haproxy")


def table(state: str) -> str:
    answer = STATES[state].answers["GET /;csv"]
    assert answer is not None
    return answer.partition(b"\r\n\r\n")[2].decode()


@pytest.fixture
async def http(caplog: pytest.LogCaptureFixture) -> AsyncIterator[HttpClient]:
    async with nothing_left_behind(caplog):
        client = HttpClient()
        yield client
        await client.close()


async def ask(
    http: HttpClient, stats: str | None = None, frontends: Sequence[int] = (), deadline: float = PATIENT
) -> Sample:
    """A sample of HAProxy as an operator would declare it; ports are of loopback."""
    declared = {"stats": stats, "frontends": [f"127.0.0.1:{port}" for port in frontends]}
    instance = Instance.model_validate({"name": "orders", "haproxy": declared})
    cycles = plan(instance, (), {}, catalogue(), Defaults()).cycles
    (cycle,) = [cycle for cycle in cycles if cycle.probe.name == "haproxy_stats"]

    async def take() -> Sample:
        return await take_sample(cycle.probe, context_for(cycle.reach, deadline, http), deadline, SystemClock())

    return await unstarved(take)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def socket_at(path: Path, serve: Serve) -> AsyncIterator[None]:
    lines: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        lines.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_unix_server(one, str(path))
    try:
        yield
    finally:
        server.close()
        for task in lines:
            task.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
        await server.wait_closed()


def saying(text: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"show info;show stat\n"
        writer.write(text)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    return serve


# --- over HTTP


async def test_replicas_that_are_down_in_the_write_backend_are_as_they_should_be(http: HttpClient) -> None:
    async with standing_in(STATES["healthy"]) as peer:
        taken = await ask(http, f"{peer.url}/;csv")
    assert (taken.outcome, taken.reason) == (Outcome.OBSERVED, "")
    assert taken.readings == {"sessions": 1.0, "servers_up": 2.0, "write_servers_up": 1.0}
    down = [row for row in table("healthy").splitlines() if ",DOWN," in row]
    assert len(down) == 2


@pytest.mark.parametrize("suffix", ["", "/", "/;csv"])
async def test_the_csv_is_asked_for_also_when_only_the_address_of_the_page_is_given(
    http: HttpClient, suffix: str
) -> None:
    async with standing_in(STATES["healthy"]) as peer:
        assert (await ask(http, peer.url + suffix)).outcome is Outcome.OBSERVED
        assert peer.requests[0].startswith(b"GET /;csv ")


@pytest.mark.parametrize(
    "state, up, reason",
    [
        ("no_primary", 0.0, "no server of primary is up: nothing leads to a primary"),
        ("two_primaries", 2.0, "2 servers of primary are up (node1, node2): writes may go to either"),
    ],
)
async def test_routing_that_is_wrong_is_told_and_is_not_haproxys_failure(
    http: HttpClient, state: str, up: float, reason: str
) -> None:
    async with standing_in(STATES[state]) as peer:
        taken = await ask(http, peer.url)
    assert (taken.outcome, taken.readings["write_servers_up"], taken.reason) == (Outcome.OBSERVED, up, reason)


@pytest.mark.parametrize(
    "state, kind", [("login_wanted", "auth"), ("elsewhere", "config"), ("page_for_people", "config")]
)
async def test_statistics_that_we_are_not_given_are_blind_and_say_what_to_do(
    http: HttpClient, state: str, kind: str
) -> None:
    async with standing_in(STATES[state]) as peer:
        taken = await ask(http, peer.url)
    assert (taken.outcome, taken.kind) == (Outcome.BLIND, kind)
    assert "stats" in taken.reason


@pytest.mark.parametrize(
    "state, kind", [("no_server_behind", "status"), ("another_service", "body"), ("frozen", "timeout")]
)
async def test_what_does_not_answer_as_haproxy_has_failed(http: HttpClient, state: str, kind: str) -> None:
    async with standing_in(STATES[state]) as peer:
        taken = await ask(http, peer.url, deadline=DEADLINE if kind == "timeout" else PATIENT)
    assert (taken.outcome, taken.kind) == (Outcome.FAILED, kind)


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize("ports", [False, True])
async def test_a_hostile_peer_fails_its_own_sample(http: HttpClient, name: str, ports: bool) -> None:
    hangs = name in ("accept_and_hang", "slow_headers", "slow_body", "hang_in_body")
    async with listening(HTTP["accept_and_hang"]) as other, listening(HTTP[name], elsewhere=other.url) as peer:
        frontends = [refusing()] if ports else []
        taken = await ask(http, peer.url, frontends, DEADLINE if hangs else PATIENT)
        assert taken.outcome is Outcome.FAILED, taken
        assert taken.reason.isprintable()
        assert len(taken.reason) <= 500
        assert other.accepted == 0


async def test_fifty_that_hang_cost_little_and_end_in_time(http: HttpClient) -> None:
    async with listening(HTTP["accept_and_hang"]) as peer:
        await ask(http, peer.url, [peer.port], 0.05)
        work = asyncio.gather(*(ask(http, peer.url, [peer.port], DEADLINE) for _ in range(50)))
        samples, growth = await peak_growth(work)
    assert {taken.kind for taken in samples} == {"timeout"}
    assert growth < 20


# --- over its socket


async def test_the_socket_tells_the_same_as_the_page(http: HttpClient, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    info = b"Name: HAProxy\nVersion: 2.6.12\nUptime_sec: 9\nStopping: 0\n\n"
    async with socket_at(path, saying(info + table("healthy").encode() + b"\n\n")):
        taken = await ask(http, f"unix:{path}")
    assert (taken.outcome, taken.reason) == (Outcome.OBSERVED, "")
    assert taken.readings["write_servers_up"] == 1.0
    assert taken.facts["info"] == {"Name": "HAProxy", "Version": "2.6.12", "Uptime_sec": "9", "Stopping": "0"}


async def test_a_process_that_is_being_replaced_says_so(http: HttpClient, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with socket_at(path, saying(b"Stopping: 1\n\n" + table("healthy").encode())):
        taken = await ask(http, f"unix:{path}")
    assert (taken.outcome, taken.reason) == (Outcome.OBSERVED, "it is stopping")


@pytest.mark.parametrize(
    "text, outcome, kind",
    [
        (b"", Outcome.FAILED, "closed"),
        (b"Permission denied\n", Outcome.BLIND, "privilege"),
        (b"Unknown command.\n", Outcome.FAILED, "body"),
        (b"\xff\x00" * 1000, Outcome.FAILED, "body"),
        (HEADER.encode() + b"svname\n", Outcome.FAILED, "body"),
        (HEADER.encode() + b'"' * 50_000, Outcome.FAILED, "body"),
    ],
)
async def test_a_socket_that_says_something_else_is_told_for_what_it_is(
    http: HttpClient, tmp_path: Path, text: bytes, outcome: Outcome, kind: str
) -> None:
    path = tmp_path / "admin.sock"
    async with socket_at(path, saying(text)):
        taken = await ask(http, f"unix:{path}")
    assert (taken.outcome, taken.kind) == (outcome, kind), taken
    assert taken.reason.isprintable()


async def test_of_a_socket_without_end_only_so_much_is_read(http: HttpClient, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(table("healthy").encode())
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    path = tmp_path / "admin.sock"
    async with socket_at(path, serve):
        await ask(http, f"unix:{path}")
        taken, growth = await peak_growth(ask(http, f"unix:{path}"))
    assert taken.outcome in (Outcome.OBSERVED, Outcome.FAILED)
    assert growth < 20


async def test_a_socket_that_hangs_or_is_not_there_has_failed(http: HttpClient, tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    path = tmp_path / "admin.sock"
    async with socket_at(path, hang), listening(HTTP["accept_and_hang"]) as port:
        assert (await ask(http, f"unix:{path}", deadline=DEADLINE)).kind == "timeout"
        taken = await ask(http, f"unix:{path}", [port.port], DEADLINE)
        assert (taken.outcome, taken.kind) == (Outcome.FAILED, "timeout")
    assert (await ask(http, f"unix:{path}")).kind == "refused"


# --- by its ports


async def test_without_statistics_every_port_must_accept(http: HttpClient) -> None:
    async with listening(HTTP["accept_and_hang"]) as one, listening(HTTP["accept_and_hang"]) as two:
        assert (await ask(http, None, [one.port, two.port])).outcome is Outcome.OBSERVED
        gone = refusing()
        taken = await ask(http, None, [one.port, gone])
    assert (taken.outcome, taken.kind) == (Outcome.FAILED, "refused")
    assert str(gone) in taken.reason


async def test_statistics_that_are_gone_while_the_ports_accept_are_told_and_no_failure(http: HttpClient) -> None:
    async with listening(HTTP["accept_and_hang"]) as port:
        taken = await ask(http, f"http://127.0.0.1:{refusing()}", [port.port])
    assert taken.outcome is Outcome.OBSERVED
    assert taken.reason.startswith("degraded: the frontends accept")


async def test_statistics_and_ports_gone_is_haproxy_gone(http: HttpClient) -> None:
    taken = await ask(http, f"http://127.0.0.1:{refusing()}", [refusing()])
    assert (taken.outcome, taken.kind) == (Outcome.FAILED, "refused")
    assert taken.reason.count("refused") == 2


async def test_a_haproxy_that_accepts_and_never_answers_hangs_whatever_its_ports_say(http: HttpClient) -> None:
    async with listening(HTTP["accept_and_hang"]) as stats, listening(HTTP["accept_and_hang"]) as port:
        taken = await ask(http, stats.url, [port.port], DEADLINE)
    assert (taken.outcome, taken.kind) == (Outcome.FAILED, "timeout")
    assert "accepts a connection and does not answer" in taken.reason


async def test_statistics_that_answer_need_no_look_at_the_ports(http: HttpClient) -> None:
    async with standing_in(STATES["healthy"]) as peer, listening(answering(b"")) as port:
        assert (await ask(http, peer.url, [port.port])).outcome is Outcome.OBSERVED
        assert port.accepted == 0


async def test_a_port_by_a_name_without_an_address_is_blind(http: HttpClient) -> None:
    instance = Instance.model_validate({"name": "o", "haproxy": {"frontends": ["no-such-host.invalid:5000"]}})
    cycle = plan(instance, (), {}, catalogue(), Defaults()).cycles[0]
    taken = await take_sample(cycle.probe, context_for(cycle.reach, PATIENT, http), PATIENT, SystemClock())
    assert (cycle.probe.name, taken.outcome, taken.kind) == ("haproxy_stats", Outcome.BLIND, "dns")


# --- the table


def test_columns_are_found_by_name_wherever_a_version_puts_them() -> None:
    header = "# pxname,new_one,svname,type,status,check_status,scur,slim,another,\n"
    found = rows(header + "pg,x,node1,2,UP 1/3,* L7OK,7,100,y,\npg,x,node2,2,DOWN,L7STS,,,y,\n", "here")
    assert found == (
        Row("pg", "node1", "2", "UP 1/3", "L7OK", 7.0, 100.0),
        Row("pg", "node2", "2", "DOWN", "L7STS", 0.0, 0.0),
    )


def test_a_table_that_was_cut_off_is_read_up_to_its_last_whole_line() -> None:
    whole = rows(table("healthy"), "here")
    cut = rows(table("healthy")[:-40], "here", truncated=True)
    assert cut == whole[: len(cut)]
    assert len(cut) == len(whole) - 1


@pytest.mark.parametrize(
    "status, up",
    [("UP", True), ("UP 1/3", True), ("no check", True), ("DOWN", False), ("DOWN 1/2", False), ("MAINT", False),
     ("DRAIN", False), ("NOLB", False), ("", False)],
)  # fmt: skip
def test_a_server_is_up_when_traffic_may_go_there(status: str, up: bool) -> None:
    assert Row("p", "s", "2", status, "", 0, 0).up is up


@pytest.mark.parametrize(
    "names, write",
    [
        (["batman"], "batman"),
        (["primary", "replicas"], "primary"),
        (["master", "standbys"], "master"),
        (["pg_write", "pg_read"], "pg_write"),
        (["postgres-rw", "postgres-ro"], "postgres-rw"),
        (["read_write", "read_only"], "read_write"),
        (["forward", "backward"], ""),
        (["primary_a", "primary_b"], ""),
        (["primary", "primary_replica"], "primary"),
        ([], ""),
    ],
)
def test_the_write_backend_is_the_only_one_or_the_one_whose_name_says_so(names: list[str], write: str) -> None:
    assert write_backend([Row(name, "node1", "2", "UP", "", 0, 0) for name in names]) == write


def test_a_frontend_that_is_full_or_stopped_is_told() -> None:
    found = [Row("w", "FRONTEND", "0", "FULL", "", 200, 200), Row("r", "FRONTEND", "0", "STOP", "", 0, 200)]
    assert remarks(found, write_backend(found)) == ["frontend w is full (200 of 200 sessions)", "frontend r is STOP"]


@given(st.text(max_size=300))
def test_whatever_follows_the_header_is_rows_or_the_peers_failure(text: str) -> None:
    try:
        found = rows(f"{HEADER}svname,type,status\n{text}", "here")
    except ProbeError:
        return
    remarks(found, write_backend(found))
