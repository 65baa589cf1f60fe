"""Hostile HTTP peers can fail their own sample, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from probed.clock import SystemClock
from probed.errors import TargetFailed
from probed.model import Outcome, Sample, Target
from probed.probes import Context, Probe, catalogue
from probed.probes._http import MAX_BODY, HttpClient
from probed.sampling import take_sample
from tests import hostile
from tests.hostile import HTTP, listening
from tests.leaks import (
    descriptors,
    eventually,
    nothing_for_the_collector,
    nothing_left_behind,
    peak_growth,
    unstarved,
)

HEALTHY = b'{"state": "running", "role": "primary", "timeline": 3}'
DEADLINE = 0.25
PATIENT = 10.0
"""Deadline of cycles that must succeed or fail by themselves: this machine may be busy."""

EXPECTED = {
    "accept_and_hang": "timeout",
    "close_after_accept": "closed reset",
    "close_after_request": "closed",
    "reset_after_request": "reset",
    "half_close": "closed",
    "slow_headers": "timeout",
    "slow_body": "timeout",
    "hang_in_body": "timeout",
    "endless_body": "too_large",
    "endless_chunks": "too_large",
    "endless_tiny_chunks": "too_large",
    "endless_informational": "too_large",
    "endless_answers": "body too_large",
    "endless_headers": "protocol",
    "gzip_bomb": "body",
    "redirect_to_itself": "redirect",
    "redirect_elsewhere": "redirect",
    "short_length": "body protocol",
    "long_length": "protocol",
    "two_lengths": "protocol",
    "negative_length": "protocol",
    "bad_chunk": "protocol",
    "garbage": "protocol",
    "garbage_status": "protocol",
    "http_0_9": "protocol",
    "nul_in_header": "protocol",
    "huge_header": "protocol too_large",
    "many_headers": "protocol",
    "reset_in_body": "protocol reset",
}
HANGING = [name for name, kind in EXPECTED.items() if kind == "timeout"]
FLOODS = [name for name in HTTP if name.startswith("endless")] + ["gzip_bomb", "huge_header", "many_headers"]


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture(autouse=True)
async def clean(http: HttpClient, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    async with nothing_left_behind(caplog):
        yield
        await http.close()


async def sample(
    http: HttpClient,
    *urls: str,
    probe: str = "patroni_rest",
    deadline: float = PATIENT,
    memory: dict[str, object] | None = None,
) -> Sample:
    found = catalogue()[probe]
    assert isinstance(found, Probe)
    target = Target("orders", "node-a", "patroni", urls[0], kind=found.kinds[0])
    context = Context(target, deadline, urls, _http=http, memory={} if memory is None else memory)
    return await unstarved(lambda: take_sample(found, context, deadline, SystemClock()))


@pytest.mark.parametrize("name", HTTP)
async def test_a_hostile_peer_fails_its_own_sample_in_time(http: HttpClient, name: str) -> None:
    kinds = EXPECTED.get(name, "body").split()
    deadline = DEADLINE if kinds == ["timeout"] else PATIENT
    async with listening(HTTP["accept_and_hang"]) as other, listening(HTTP[name], elsewhere=other.url) as peer:
        for _ in range(2):
            taken = await sample(http, peer.url, deadline=deadline)
            assert taken.outcome is Outcome.FAILED, taken
            assert taken.kind in kinds, taken
            assert taken.duration < 2 * deadline
            assert len(taken.reason) <= 500
            assert taken.reason.isprintable()
            await eventually(lambda: peer.open == 0 or name.startswith(("json", "redirect", "short")))
        assert peer.most_open == 1
        assert len(peer.requests) <= 4  # the client asks a second time where a connection ends without an answer
        assert other.accepted == 0


@pytest.mark.parametrize("name", [*HTTP, "nobody"])
async def test_a_failure_leaves_nothing_for_the_garbage_collector(http: HttpClient, name: str) -> None:
    deadline = DEADLINE if name in HANGING else PATIENT
    async with contextlib.AsyncExitStack() as peers:
        url = f"http://127.0.0.1:{hostile.refusing()}"
        if name in HTTP:
            url = (await peers.enter_async_context(listening(HTTP[name], elsewhere=url))).url
        await sample(http, url, deadline=deadline)
        with nothing_for_the_collector():
            await sample(http, url, deadline=deadline)
            await http.close()
            await asyncio.sleep(0)


@pytest.mark.parametrize("probe", ["patroni_cluster", "etcd_member", "haproxy_stats", "api_gateway"])
async def test_nor_does_a_failure_at_several_addresses(http: HttpClient, probe: str) -> None:
    urls = [f"http://127.0.0.1:{hostile.refusing()}" for _ in range(3)]
    await sample(http, *urls, probe=probe)
    with nothing_for_the_collector():
        taken = await sample(http, *urls, probe=probe)
    assert taken.outcome is Outcome.FAILED


async def test_a_refused_connection_is_refused(http: HttpClient) -> None:
    taken = await sample(http, f"http://127.0.0.1:{hostile.refusing()}")
    assert (taken.outcome, taken.kind) == (Outcome.FAILED, "refused")


async def test_every_hostile_peer_has_its_expectation() -> None:
    assert {name for name in HTTP if not name.startswith("json")} == EXPECTED.keys()


async def test_a_large_page_has_a_status_and_no_json(http: HttpClient) -> None:
    async with listening(hostile.answering(b"x" * (MAX_BODY + 1))) as peer:
        answer = await http.get(peer.url)
        assert (answer.status, answer.truncated, len(answer.body)) == (200, True, MAX_BODY)
        with pytest.raises(TargetFailed, match="larger than"):
            answer.object()
    async with listening(hostile.answering(b'"' + b"x" * (MAX_BODY - 2) + b'"')) as peer:
        answer = await http.get(peer.url)
        assert (answer.truncated, len(answer.json())) == (False, MAX_BODY - 2)
    async with listening(HTTP["endless_body"]) as peer:
        answer = await http.get(peer.url)
        assert (answer.status, answer.truncated) == (200, True)


async def test_json_that_is_said_again_is_read_once_and_everything_else_anew(http: HttpClient) -> None:
    bodies = [HEALTHY, HEALTHY, b'{"state": "stopped"}', b"{", b"{", HEALTHY]

    async def behave(line: hostile.Line) -> None:
        for body in bodies:
            await line.request()
            await line.say(hostile.OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async with listening(behave) as peer:
        answers = [await http.get(peer.url) for _ in bodies]
        assert peer.accepted == 1
    first, again, other, broken, broken_again, last = answers
    assert again.object() is first.object() is first.object()
    assert other.object() == {"state": "stopped"}
    for answer in (broken, broken_again):
        with pytest.raises(TargetFailed, match="not JSON"):
            answer.object()
    assert last.object() == first.object()


async def test_a_secret_in_the_query_stays_out_of_messages(http: HttpClient) -> None:
    with pytest.raises(TargetFailed) as raised:
        await http.get(f"http://127.0.0.1:{hostile.refusing()}/health?apikey=s3cret")
    assert "s3cret" not in str(raised.value)
    async with listening(HTTP["json_empty"]) as peer:
        answer = await http.get(f"{peer.url}/health?apikey=s3cret")
        assert b"GET /health?apikey=s3cret " in peer.requests[0]
    with pytest.raises(TargetFailed) as raised:
        answer.object()
    assert "s3cret" not in str(raised.value)


async def test_two_hundred_timeouts_leak_nothing(http: HttpClient) -> None:
    async with listening(HTTP["accept_and_hang"]) as peer, listening(HTTP["slow_body"]) as slow:
        await asyncio.gather(*(sample(http, url, deadline=0.2) for url in (peer.url, slow.url)))
        await eventually(lambda: peer.open + slow.open == 0)
        before, tasks = descriptors(), len(asyncio.all_tasks())
        for _ in range(10):
            taken = await asyncio.gather(
                *(sample(http, url, deadline=0.2) for url in (peer.url, slow.url) for _ in range(10))
            )
            assert {one.kind for one in taken} == {"timeout"}
        await eventually(lambda: peer.open + slow.open == 0)
        await eventually(lambda: descriptors() <= before)
        assert len(asyncio.all_tasks()) <= tasks


async def test_fifty_flooding_peers_at_once_cost_little_memory(http: HttpClient) -> None:
    async with listening(hostile.answering(HEALTHY)) as honest:
        await asyncio.gather(*(sample(http, honest.url) for _ in range(50)))
    for name in FLOODS:
        with hostile.elsewhere(name) as port:
            url = f"http://127.0.0.1:{port}"
            await sample(http, url)
            taken, growth = await peak_growth(asyncio.gather(*(sample(http, url, deadline=60) for _ in range(50))))
            assert {one.outcome for one in taken} == {Outcome.FAILED}, name
            assert growth < 20, f"{name}: {growth:.0f} MiB"


@pytest.mark.parametrize("data", [hostile.EMPTY * 100, b"HTTP/1.1 100 Continue\r\n\r\n" * 100, b"x" * 10_000])
async def test_a_kept_connection_that_is_flooded_between_two_cycles_is_dropped(http: HttpClient, data: bytes) -> None:
    async def behave(line: hostile.Line) -> None:
        await line.request()
        await line.say(hostile.OK + b"Content-Length: %d\r\n\r\n" % len(HEALTHY) + HEALTHY)
        await asyncio.sleep(0.05)
        await line.endlessly(data)

    async with listening(behave) as peer:
        assert (await sample(http, peer.url)).outcome is Outcome.OBSERVED
        await eventually(lambda: peer.open == 0)
        taken = await sample(http, peer.url)
        assert (taken.outcome, taken.readings["timeline"]) == (Outcome.OBSERVED, 3.0)


async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one(http: HttpClient) -> None:
    async def behave(line: hostile.Line) -> None:
        stale = b'{"state": "stopped"}'
        await line.request()
        await line.say(hostile.OK + b"Content-Length: %d\r\n\r\n" % len(HEALTHY) + HEALTHY)
        await asyncio.sleep(0.05)
        await line.say(hostile.OK + b"Content-Length: %d\r\n\r\n" % len(stale) + stale)
        await line.hang()

    async with listening(behave) as peer:
        assert (await sample(http, peer.url)).readings["state"] == "running"
        await eventually(lambda: peer.open == 0)
        assert (await sample(http, peer.url)).readings["state"] == "running"


async def test_connections_are_kept_alive_where_the_server_keeps_them(http: HttpClient) -> None:
    async with listening(hostile.answering(HEALTHY)) as peer:
        for _ in range(20):
            assert (await sample(http, peer.url)).outcome is Outcome.OBSERVED
        assert (peer.accepted, len(peer.requests)) == (1, 20)


@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_a_server_that_closes_idle_connections_never_fails_for_it(http: HttpClient, pause: float) -> None:
    async with listening(hostile.closing_idle(pause, HEALTHY)) as peer:
        for cycle in range(40):
            taken = await sample(http, peer.url)
            assert taken.outcome is Outcome.OBSERVED, f"cycle {cycle}: {taken.reason}"
            # Before, while and after the server closes.
            await asyncio.sleep(pause * (cycle % 5) / 2)
        assert peer.most_open <= 2


async def test_a_server_that_closes_as_the_next_request_arrives_never_fails_for_it(http: HttpClient) -> None:
    async with listening(hostile.closing_on_reuse(HEALTHY)) as peer:
        for _ in range(20):
            # Two probes of one round, so that several connections are kept.
            taken = await asyncio.gather(sample(http, peer.url), sample(http, peer.url))
            assert [one.outcome for one in taken] == [Outcome.OBSERVED] * 2, taken
            await asyncio.sleep(0)


async def test_a_restarted_server_is_no_failure(http: HttpClient) -> None:
    async with listening(hostile.answering(HEALTHY)) as peer:
        assert (await sample(http, peer.url)).outcome is Outcome.OBSERVED
        port = peer.port
    async with listening(hostile.answering(HEALTHY), port=port) as peer:
        assert (await sample(http, peer.url)).outcome is Outcome.OBSERVED


async def test_a_name_without_an_address_is_blind(http: HttpClient) -> None:
    taken = await sample(http, "http://no-such-host.invalid:8008")
    assert (taken.outcome, taken.kind) == (Outcome.BLIND, "dns")


async def test_cookies_redirect_targets_and_proxies_are_ignored(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{hostile.refusing()}")
    head = hostile.OK + b"Set-Cookie: session=1\r\n"
    async with listening(hostile.answering(HEALTHY, head)) as peer:
        for _ in range(2):
            assert (await sample(http, peer.url)).outcome is Outcome.OBSERVED
        assert all(b"cookie" not in request.lower() for request in peer.requests)
        assert all(b"accept-encoding: identity" in request.lower() for request in peer.requests)
