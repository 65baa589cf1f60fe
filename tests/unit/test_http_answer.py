"""HTTP answers as bytes: the same answer however they are cut, and nothing but an answer or Malformed, whatever they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.errors import Blind, TargetFailed
from probed.probes._dns import Resolver
from probed.probes._http import HttpClient
from probed.probes._http_answer import MAX_ANSWER, MAX_BODY, MAX_HEADER, Incoming, Malformed
from tests.hostile import OK, Line, answering, deaf, listening

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "plain": OK + b"Content-Length: 4\r\n\r\nbody",
    "without a body": OK + b"Content-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
    "in chunks": CHUNKED + b"2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n",
    "in chunks with trailers": CHUNKED + b"004\r\nbody\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
    "after early hints": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 2 + OK + b"Content-Length: 4\r\n\r\nbody",
    "with bare line feeds": b"HTTP/1.1 200\nContent-Length: 4\nServer: x\n\nbody",
    "folded": b"HTTP/1.1 200 OK\r\nServer: a\r\n  b\r\nContent-Length:4\r\n\r\nbody",
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\ncontent-LENGTH: 4 \r\n\r\nbody",
    "too large": OK + b"Content-Length: 100000\r\n\r\n" + b"x" * (MAX_BODY + 1),
}


def whole(*pieces: bytes, to_head: bool = False) -> Incoming:
    incoming = Incoming(to_head=to_head)
    assert [incoming.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return incoming


def shown(incoming: Incoming) -> tuple[object, ...]:
    return incoming.status, dict(incoming.headers), bytes(incoming.body), incoming.truncated, incoming.keeps


@pytest.mark.parametrize("name", ANSWERS)
@given(st.data())
def test_an_answer_is_the_same_however_it_is_cut(name: str, data: st.DataObject) -> None:
    answer = ANSWERS[name]
    cuts = sorted(data.draw(st.sets(st.integers(1, min(len(answer), 400) - 1), max_size=20)))
    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert shown(whole(*pieces)) == shown(whole(answer))


def test_answers_are_read_as_they_are_meant() -> None:
    for name in (
        "plain",
        "in chunks",
        "in chunks with trailers",
        "after early hints",
        "with bare line feeds",
        "folded",
    ):
        found = whole(ANSWERS[name])
        assert (found.status, bytes(found.body), found.truncated, found.keeps) == (200, b"body", False, True), name
    assert whole(ANSWERS["folded"]).headers["SERVER"] == "a b"
    assert "absent" not in whole(ANSWERS["plain"]).headers
    assert whole(ANSWERS["no content"]).status == 204
    large = whole(ANSWERS["too large"])
    assert (len(large.body), large.truncated, large.keeps) == (MAX_BODY, True, False)


def test_the_answer_to_a_head_has_no_body() -> None:
    for head in (b"Content-Length: 4", b"Transfer-Encoding: chunked", b"Server: x"):
        assert whole(OK + head + b"\r\n\r\n", to_head=True).keeps


@pytest.mark.parametrize(
    "head, keeps",
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_a_connection_is_kept_where_both_sides_mean_to(head: bytes, keeps: bool) -> None:
    assert whole(head + b"Content-Length: 2\r\n\r\n{}").keeps is keeps


def test_without_a_length_the_answer_ends_with_its_connection() -> None:
    incoming = Incoming()
    assert not incoming.feed(OK + b"\r\nbo")
    assert not incoming.feed(b"dy")
    incoming.end()
    assert (bytes(incoming.body), incoming.keeps) == (b"body", False)
    for cut in (
        b"HTTP/1.1 2",
        OK,
        OK + b"Content-Length: 5\r\n\r\nbody",
        CHUNKED + b"4\r\nbody\r\n",
        CHUNKED + b"0\r\n",
    ):
        incoming = Incoming()
        incoming.feed(cut)
        with pytest.raises(Malformed, match="broke off"):
            incoming.end()


@pytest.mark.parametrize(
    "data",
    [
        b"<html>",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        OK + b"No colon\r\n\r\n",
        OK + b"Space : before\r\n\r\n",
        OK + b": nameless\r\n\r\n",
        OK + b"X: a\0b\r\n\r\n",
        OK + b"X: a\rb\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\n",
        OK + b"Content-Length: 1, 1\r\n\r\n",
        OK + b"Content-Length: \xd9\xa1\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"X: " + b"x" * MAX_HEADER + b"\r\n\r\n",
        OK + b"X: " + b"x" * (MAX_HEADER + 1),
        OK + b"X: 1\r\n" * 100 + b"\r\n",
        OK + b"X: 1\r\n" * 101,
        CHUNKED + b"-1\r\n",
        CHUNKED + b"0x1\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"1\r\nbody\r\n",
        CHUNKED + b"1" * 17 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5,
        OK + b"Content-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n",
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        Incoming().feed(data)
    assert refused.value.kind in ("protocol", "too_large")
    assert str(refused.value).isprintable()


@given(st.lists(st.sampled_from([*ANSWERS.values(), CHUNKED, OK, b"\r\n", b"1\r\n", b"0\r\n", b"\0"]) | st.binary()))
def test_whatever_comes_is_bounded_and_nothing_else_is_raised(pieces: list[bytes]) -> None:
    incoming, fed = Incoming(), 0
    try:
        for piece in pieces:
            fed += len(piece)
            if incoming.feed(piece):
                break
        else:
            assert fed <= MAX_ANSWER
            incoming.end()
    except Malformed:
        return
    assert len(incoming.body) <= MAX_BODY


# --- connections


async def test_a_silent_address_is_passed_over_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    async def addresses(self: Resolver, host: str) -> Sequence[str]:
        return ("127.0.0.1", "127.0.0.2")

    monkeypatch.setattr(Resolver, "addresses", addresses)
    client = HttpClient()
    with deaf(1) as (port,):
        async with await asyncio.start_server(serve, "127.0.0.2", port):
            assert (await client.get(f"http://name.example:{port}/")).body == b"{}"
    assert b"Host: name.example:%d\r\n" % port in asked[0]
    await client.close()


async def test_a_notice_is_never_posted_twice_by_itself() -> None:
    async def once(line: Line) -> None:
        await line.request()
        await line.say(OK + b"Content-Length: 2\r\n\r\n{}")
        await line.request()
        line.reset()

    client = HttpClient()
    async with listening(once) as peer:
        assert (await client.get(peer.url)).status == 200
        with pytest.raises(TargetFailed):
            await client.post(peer.url, b"{}", headers={})
        assert [request.split()[0] for request in peer.requests] == [b"GET", b"POST"]
    await client.close()


async def test_addresses_and_headers_are_sent_as_http_has_them() -> None:
    client = HttpClient()
    async with listening(answering(b"{}")) as peer:
        await client.get(f"{peer.url}/a b/ü;csv?q=ä&p=%20#part", headers={"X-Mine": "1"})
        await client.get(peer.url)
        first, second = peer.requests
    assert first.startswith(b"GET /a%20b/%C3%BC;csv?q=%C3%A4&p=%20 HTTP/1.1\r\n")
    assert b"X-Mine: 1\r\n" in first
    assert second.startswith(b"GET / HTTP/1.1\r\n")
    for url in ("http://", "ftp://x/", "http://u:p@x/", "http://x:99999/"):
        with pytest.raises(Blind, match="not an address"):
            await client.get(url)
    with pytest.raises(Blind, match="line end"):
        await client.get("http://127.0.0.1:1/", headers={"X": "a\r\nY: b"})
    await client.close()
