"""Nodes from Patroni's own list: over a real socket at the start, from cluster samples later."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from probed.discovery import discover, learned, listed
from probed.model import Outcome, Sample
from probed.probes._http import HttpClient
from probed.probes._patroni import ClusterMember
from probed.store import Member
from probed.testing import blackhole, make_sample

ANSWER = {
    "members": [
        {
            "name": "pg-1", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni",
            "host": "10.0.0.1", "port": 5433, "timeline": 3,
        },
        {
            "name": "pg-2", "role": "replica", "state": "streaming", "api_url": "http://10.0.0.2:8008/patroni",
            "host": "10.0.0.2", "port": 5433, "timeline": 3, "lag": "unknown",
        },
    ],
    "scope": "batman",
}  # fmt: skip
"""GET /cluster of Patroni 4.0.4."""

ONE = Member("orders", "pg-1", "10.0.0.1", 5433, "http://10.0.0.1:8008")
TWO = Member("orders", "pg-2", "10.0.0.2", 5433, "http://10.0.0.2:8008")


@contextlib.asynccontextmanager
async def patroni(answer: Any, status: int = 200) -> AsyncIterator[str]:
    """A server that gives one answer to every request; the address."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


async def test_scope_and_members_are_learned_from_one_answer(http: HttpClient) -> None:
    async with patroni(ANSWER) as url:
        assert await discover([url], http, 2.0, "orders") == ("batman", (ONE, TWO))


async def test_an_address_that_hangs_is_no_obstacle_while_another_answers(http: HttpClient) -> None:
    async with blackhole() as (host, port), patroni(ANSWER) as url:
        scope, members = await discover([f"http://{host}:{port}", url], http, 1.0, "orders")
    assert (scope, len(members)) == ("batman", 2)


async def test_when_nobody_answers_in_time_nothing_is_known(http: HttpClient) -> None:
    async with blackhole() as (host, port):
        assert await discover([f"http://{host}:{port}"], http, 0.1, "orders") == ("", ())


@pytest.mark.parametrize(
    "answer",
    [
        {"members": "none"}, {}, [], None, b"", b"no json", b"\xff\xfe", {"members": []}, {"members": [None, 5, {}, []]},
        {"members": [{"name": 5}, {"name": ""}]},
        {"members": [{"name": "pg-1", "api_url": "http://[bad", "host": "h"}]},
        {"members": [{"name": "pg-1", "api_url": "file:///etc/passwd", "host": "h"}]},
        {"members": [{"name": "pg-1", "api_url": "http://10.0.0.1:8008", "host": "/var/run"}, {"name": "pg-2"}],
         "scope": 5},
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_patronis_ends_nothing(http: HttpClient, answer: Any) -> None:
    async with patroni(answer) as url:
        scope, members = await discover([url], http, 2.0, "orders")
    assert scope == ""
    assert all(member.host == "10.0.0.1" for member in members)


async def test_a_status_that_is_no_success_is_no_answer(http: HttpClient) -> None:
    async with patroni(ANSWER, status=503) as url:
        assert await discover([url], http, 2.0, "orders") == ("", ())


async def test_names_from_patroni_cannot_break_the_keys_of_targets(http: HttpClient) -> None:
    row = {**ANSWER["members"][0], "name": "a/b\u202e\ud800"}  # type: ignore[dict-item]
    async with patroni({"members": [row], "scope": "x/../y\n"}) as url:
        scope, (member,) = await discover([url], http, 2.0, "orders")
    assert scope == "x_.._y"
    assert member.name == "a_b"


# --- from samples


def cluster(*members: tuple[str, str], outcome: Outcome = Outcome.OBSERVED) -> Sample:
    rows = tuple(
        ClusterMember(name, "replica", "running", host, 5433, f"http://{host}:8008" if host else "", 3, None)
        for name, host in members
    )
    return make_sample(outcome, probe="patroni_cluster", facts={"members": rows})


def test_a_member_that_came_is_learned() -> None:
    assert learned("orders", [ONE], cluster(("pg-1", "10.0.0.1"), ("pg-2", "10.0.0.2"))) == (TWO,)


def test_a_member_that_moved_is_learned() -> None:
    (moved,) = learned("orders", [ONE], cluster(("pg-1", "10.0.0.9")))
    assert (moved.name, moved.host, moved.api_url) == ("pg-1", "10.0.0.9", "http://10.0.0.9:8008")


def test_a_member_that_vanished_stays_known() -> None:
    assert learned("orders", [ONE, TWO], cluster(("pg-1", "10.0.0.1"))) == ()


def test_nothing_new_is_nothing_learned() -> None:
    assert learned("orders", [ONE, TWO], cluster(("pg-2", "10.0.0.2"), ("pg-1", "10.0.0.1"))) == ()


@pytest.mark.parametrize(
    "sample",
    [None, *(cluster(("pg-3", "10.0.0.3"), outcome=outcome) for outcome in (Outcome.FAILED, Outcome.BLIND))],
    ids=["none", "failed", "blind"],
)
def test_a_sample_that_says_nothing_teaches_nothing(sample: Sample | None) -> None:
    assert learned("orders", [ONE], sample) == ()
    assert listed("orders", sample) == ()


def test_a_member_that_cannot_be_reached_yet_is_not_learned() -> None:
    assert learned("orders", [], cluster(("pg-1", ""))) == ()
