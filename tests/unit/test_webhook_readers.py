"""What our webhooks send, read and verified by other people's packages: ``cloudevents`` and ``standardwebhooks``."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from msgspec.structs import replace
from standardwebhooks import Webhook, WebhookVerificationError

from probed.api import shapes
from probed.clock import SystemClock
from probed.errors import Undelivered
from probed.incidents import new_id
from probed.model import Event, EventState, Severity, Target
from probed.outlets import Link
from probed.outlets.webhook import WebhookOutlet
from probed.probes._http import HttpClient
from probed.store.notices import Notice, Told
from probed.telling import HttpDoor
from tests.receiving import Received, Sink
from tests.unit.serving import HOSTILE

NOW = SystemClock().wall()
OPEN = Event(
    new_id(NOW), "database_unavailable", "Database access unavailable", Severity.FATAL, EventState.OPEN,
    Target("orders", "node-a", "postgres", "10.0.0.1:5432"), NOW, "3 of 3 samples in a row failed", observer="wächter 1",
)  # fmt: skip
OWN = replace(OPEN, event="observer_isolated", target=Target("observer"))
"""Of the daemon itself: its target is nothing but an instance."""
EVENTS = {
    Told.OPENED: OPEN,
    Told.REMINDED: OPEN,
    Told.RESOLVED: replace(OPEN, state=EventState.RESOLVED, resolved_at=NOW + 60, resolve_reason="recovered"),
    Told.OCCURRED: replace(OPEN, event="ha_switchover", state=EventState.RESOLVED, resolved_at=NOW, severity=Severity.NORMAL),
}  # fmt: skip


def a_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


async def sent(http: HttpClient, notice: Notice | None, *lines: str, directory: Path) -> Received:
    """One request of ours, signed with every secret of ``lines``; a test message for ``None``."""
    file = directory / "secret"
    file.write_text("\n".join(lines))
    async with Sink().listen() as sink:
        outlet = WebhookOutlet(
            HttpDoor(http, "hook", sink.url), SystemClock(), observer="wächter 1", render=shapes.event,
            instant=shapes.instant, secret_file=file, link=Link("https://probed.example"),
        )  # fmt: skip
        assert await (outlet.test() if notice is None else outlet.send([notice])) == "HTTP 200"
    return sink.seen[0]


def a_notice(told: Told, event: Event | None = None) -> Notice:
    event = event or EVENTS[told]
    return Notice(1, f"{event.id}-41", told, event, NOW)


def read(request: Received) -> BaseCloudEvent:
    """As the package reads it: by its content type, which says that it is structured."""
    return from_http_event(HTTPMessage(request.headers, request.body))


@pytest.mark.parametrize("told", Told)
async def test_every_kind_of_transition_is_a_cloud_event_to_others(
    http: HttpClient, told: Told, tmp_path: Path
) -> None:
    request = await sent(http, a_notice(told), a_secret(), directory=tmp_path)
    event = read(request)
    assert event.get_specversion() == "1.0"
    assert event.get_type() == f"probed.event.{told.value}"
    assert event.get_source() == "urn:probed:w%C3%A4chter%201"
    assert event.get_subject() == "orders/node-a/postgres"
    assert event.get_id() == request.headers["webhook-id"] == f"{OPEN.id}-41"
    at = event.get_time()
    assert at is not None
    assert at.timestamp() == pytest.approx(NOW, abs=0.001)
    data = event.get_data()
    assert isinstance(data, dict)
    assert data["id"] == OPEN.id
    assert data["state"] == EVENTS[told].state.value
    assert data["url"] == f"https://probed.example/events/{OPEN.id}"


async def test_a_test_message_and_the_daemons_own_event_are_cloud_events_too(http: HttpClient, tmp_path: Path) -> None:
    assert read(await sent(http, None, a_secret(), directory=tmp_path)).get_type() == "probed.test"
    own = read(await sent(http, a_notice(Told.OPENED, OWN), a_secret(), directory=tmp_path))
    assert own.get_subject() == "observer"


@pytest.mark.parametrize("told", [*Told, None])
async def test_others_verify_the_signature_and_refuse_what_was_touched(
    http: HttpClient, told: Told | None, tmp_path: Path
) -> None:
    secret = a_secret()
    request = await sent(http, a_notice(told) if told else None, secret, directory=tmp_path)
    reader = Webhook(secret)
    assert reader.verify(request.body, request.headers) == request.json
    at = request.body.index(b'"data"')
    old = str(int(request.headers["webhook-timestamp"]) - 301)
    for body, headers in (
        (request.body[:at] + b" " + request.body[at:], {}),  # nothing but a blank more
        (request.body.replace(b"probed", b"Probed", 1), {}),
        (request.body[:-1], {}),
        (request.body, {"webhook-id": "another"}),  # so nobody can make two of one
        (request.body, {"webhook-timestamp": str(int(request.headers["webhook-timestamp"]) + 1)}),
        (request.body, {"webhook-timestamp": old}),  # nor keep it and send it again
    ):
        with pytest.raises(WebhookVerificationError):
            reader.verify(body, {**request.headers, **headers})
    with pytest.raises(WebhookVerificationError):
        Webhook(a_secret()).verify(request.body, request.headers)


async def test_while_a_secret_is_rotated_who_knows_either_verifies(http: HttpClient, tmp_path: Path) -> None:
    old, new = a_secret(), a_secret()
    both = await sent(http, a_notice(Told.OPENED), new, old, directory=tmp_path)
    for secret in (old, new):
        assert Webhook(secret).verify(both.body, both.headers) == both.json
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(both.body + b" ", both.headers)
    after = await sent(http, a_notice(Told.RESOLVED), new, directory=tmp_path)
    assert Webhook(new).verify(after.body, after.headers) == after.json
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(after.body, after.headers)


@pytest.mark.parametrize("form", ["padded", "unpadded", "plain words"])
async def test_a_secret_means_the_same_to_us_and_to_others(http: HttpClient, form: str, tmp_path: Path) -> None:
    """Some services hand out base64 without its padding; a secret of plain words is its bytes."""
    raw = os.urandom(25)
    encoded = "whsec_" + base64.b64encode(raw).decode()
    secret = {"padded": encoded, "unpadded": encoded.rstrip("="), "plain words": form}[form]
    reader = Webhook(form.encode() if form == "plain words" else secret)
    request = await sent(http, a_notice(Told.OPENED), secret, directory=tmp_path)
    assert reader.verify(request.body, request.headers) == request.json


async def test_an_empty_secret_signs_nothing(http: HttpClient, tmp_path: Path) -> None:
    """Anybody could make a signature with it; the other side refuses to be set up so."""
    with pytest.raises(Undelivered, match="secret_file"):
        await sent(http, a_notice(Told.OPENED), "whsec_", directory=tmp_path)


@pytest.mark.parametrize("word", HOSTILE)
async def test_whatever_a_peer_said_is_read_as_it_was_meant(http: HttpClient, word: str, tmp_path: Path) -> None:
    secret = a_secret()
    request = await sent(http, a_notice(Told.OPENED, replace(OPEN, message=word)), secret, directory=tmp_path)
    assert Webhook(secret).verify(request.body, request.headers) == request.json
    data = read(request).get_data()
    assert isinstance(data, dict)
    assert data["message"] == shapes.event(replace(OPEN, message=word))["message"]
