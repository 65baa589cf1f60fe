"""The webhook outlet against real sockets: what is sent, how it is signed, and what every kind of answer means."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from probed.api import shapes
from probed.errors import Undelivered
from probed.model import Event, EventState, Severity, Target
from probed.outlets import Link
from probed.outlets.heartbeat import Heartbeat
from probed.outlets.webhook import WebhookOutlet
from probed.probes._http import HttpClient
from probed.store.notices import Notice, Told
from probed.telling import HttpDoor
from probed.testing import FakeClock
from tests.receiving import Sink

CANARY = "cAnArY-31337"
EVENT = Event(
    id="01a1ee87-3200-7c13-9441-79d663b5af4d",
    event="database_unavailable",
    name="Database access unavailable",
    severity=Severity.FATAL,
    state=EventState.OPEN,
    target=Target("orders", "node-a", "postgres", "10.0.0.1:5432"),
    opened_at=1_790_000_000.0,
    message="3 of 3 samples in a row failed: connection refused",
    suggestion="Usually heals by itself.",
    observer="node-x y",
)
NOTICE = Notice(7, f"{EVENT.id}-41", Told.OPENED, EVENT, 1_790_000_000.5)


@pytest_asyncio.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


def outlet(http: HttpClient, url: str, **options: Any) -> WebhookOutlet:
    door = HttpDoor(http, "hook", url)
    return WebhookOutlet(door, FakeClock(), observer="node-x y", render=shapes.event, instant=shapes.instant, **options)


async def test_a_notice_is_a_cloud_event_whose_data_is_the_event_as_the_api_shows_it(http: HttpClient) -> None:
    async with Sink().listen() as sink:
        link = Link("https://probed.example")
        assert await outlet(http, f"{sink.url}/x?y=1", link=link).send([NOTICE]) == "HTTP 200"
    (request,) = sink.seen
    assert (request.method, request.path) == ("POST", "/x?y=1")
    assert request.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert request.headers["webhook-id"] == NOTICE.transition
    assert request.headers["webhook-timestamp"] == "1790000000"
    assert "webhook-signature" not in request.headers
    envelope = request.json
    data = envelope.pop("data")
    assert envelope == {
        "specversion": "1.0",
        "source": "urn:probed:node-x%20y",
        "datacontenttype": "application/json",
        "type": "probed.event.opened",
        "id": NOTICE.transition,
        "time": "2026-09-21T14:13:20.500Z",
        "subject": "orders/node-a/postgres",
    }
    assert data == {
        **shapes.event(EVENT),
        "title": "[FATAL] Database access unavailable: orders/node-a/postgres",
        "url": f"https://probed.example/events/{EVENT.id}",
    }


async def test_a_retry_carries_the_same_id_and_body_and_a_fresh_time(http: HttpClient, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    clock = FakeClock()
    async with Sink(["500", "200"]).listen() as sink:
        hook = WebhookOutlet(
            HttpDoor(http, "hook", sink.url), clock, observer="o", render=shapes.event, instant=shapes.instant,
            secret_file=secret,
        )  # fmt: skip
        with pytest.raises(Undelivered):
            await hook.send([NOTICE])
        clock.step(60)
        await hook.send([NOTICE])
    first, second = sink.seen
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 60


@pytest.mark.parametrize(
    "text, keys",
    [
        ("whsec_" + base64.b64encode(b"raw key").decode(), [b"raw key"]),
        ("plain words as a key\n", [b"plain words as a key"]),
        ("new\n\nold\n", [b"new", b"old"]),
    ],
)
async def test_signatures_are_those_of_standard_webhooks_one_for_each_secret(
    http: HttpClient, tmp_path: Path, text: str, keys: list[bytes]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(text)
    async with Sink().listen() as sink:
        await outlet(http, sink.url, secret_file=secret).send([NOTICE])
    (request,) = sink.seen
    signed = f"{NOTICE.transition}.1790000000.".encode() + request.body
    expected = ["v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    assert request.headers["webhook-signature"].split(" ") == expected


@pytest.mark.parametrize("text", [None, "", "whsec_not base64", "\n\n"])
async def test_without_a_usable_secret_nothing_is_sent_unsigned(
    http: HttpClient, tmp_path: Path, text: str | None
) -> None:
    secret = tmp_path / "secret"
    if text is not None:
        secret.write_text(text)
    async with Sink().listen() as sink:
        with pytest.raises(Undelivered, match="secret_file"):
            await outlet(http, sink.url, secret_file=secret).send([NOTICE])
    assert sink.seen == []


@pytest.mark.parametrize(
    "answer, reason, final, unwanted, wait",
    [
        ("500", "HTTP 500", False, False, 0),
        ("503 Retry-After: 7", "HTTP 503", False, False, 7),
        ("429 Retry-After: 120", "HTTP 429", False, False, 120),
        ("429 Retry-After: 99999999", "HTTP 429", False, False, 3600),
        ("429 Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", "HTTP 429", False, False, 60),
        ("400", "HTTP 400", False, True, 0),
        ("404", "HTTP 404", False, False, 0),
        ("410", "HTTP 410: the receiver is gone for good", True, False, 0),
        ("lose", "hook: the connection was closed without an answer", False, False, 0),
    ],
)
async def test_only_2xx_is_delivered_and_every_other_answer_says_what_it_means(
    http: HttpClient, answer: str, reason: str, final: bool, unwanted: bool, wait: float
) -> None:
    async with Sink([answer]).listen() as sink:
        with pytest.raises(Undelivered) as caught:
            await outlet(http, sink.url).send([NOTICE])
    error = caught.value
    if answer != "lose":
        assert str(error) == reason
    assert (error.final, error.unwanted, error.retry_after) == (final, unwanted, wait)


async def test_redirects_are_not_followed(http: HttpClient) -> None:
    async with Sink().listen() as other, Sink([f"301 Location: {other.url}"]).listen() as sink:
        with pytest.raises(Undelivered, match="HTTP 301: redirects are not followed"):
            await outlet(http, sink.url).send([NOTICE])
    assert other.seen == []


@pytest.mark.parametrize("answer", ["500", "301 Location: /", "hang", "lose", "410", None, "garbage"])
async def test_what_is_secret_in_an_address_is_in_no_message(http: HttpClient, answer: str | None) -> None:
    async with Sink([answer or "200"]).listen() as sink:
        url = f"{sink.url}/hooks/{CANARY}?token={CANARY}"
        if answer is None:
            with socket.socket() as door:
                door.bind(("127.0.0.1", 0))
                url = f"http://127.0.0.1:{door.getsockname()[1]}/hooks/{CANARY}?token={CANARY}"
        with pytest.raises((Undelivered, TimeoutError)) as caught:
            async with asyncio.timeout(0.5):
                await outlet(http, url).send([NOTICE])
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value)


@pytest.mark.parametrize(
    "text", [f"ftp://x/{CANARY}", f"not an address {CANARY}", f"https://a/{CANARY}\nhttps://b", ""]
)
async def test_an_unusable_url_file_is_told_without_what_it_holds(http: HttpClient, tmp_path: Path, text: str) -> None:
    file = tmp_path / "url"
    file.write_text(text)
    hook = WebhookOutlet(
        HttpDoor(http, "hook", url_file=file), FakeClock(), observer="o", render=shapes.event, instant=shapes.instant
    )
    with pytest.raises(Undelivered, match="url_file") as caught:
        await hook.send([NOTICE])
    assert CANARY not in str(caught.value)


async def test_a_test_is_recognised_as_one(http: HttpClient) -> None:
    async with Sink().listen() as sink:
        assert await outlet(http, sink.url).test() == "HTTP 200"
    (request,) = sink.seen
    assert request.json["type"] == "probed.test"
    assert request.headers["webhook-id"] == request.json["id"]


async def test_the_heartbeat_is_heard_only_while_the_daemon_does_its_work(http: HttpClient) -> None:
    clock, reasons, outcomes = FakeClock(), list[str](), list[tuple[str, str]]()
    async with Sink(["200", "500"]).listen() as sink:
        door = HttpDoor(http, "heartbeat", f"{sink.url}/ping/{CANARY}")
        beat = Heartbeat(door, clock, 15.0, lambda: reasons, lambda *told: outcomes.append(told))
        await beat.beat()
        await beat.beat()
        reasons.append("no round was finished for 30 s")
        await beat.beat()
    assert [(request.method, request.path) for request in sink.seen] == [("GET", f"/ping/{CANARY}")] * 2
    assert outcomes == [("heartbeat", "delivered"), ("heartbeat", "failed")]
