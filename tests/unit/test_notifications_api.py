"""Notifications over real sockets, on a real store and pipeline; and the commands that ask for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from click.testing import CliRunner

from probed.api.app import serve
from probed.cli import cli
from probed.couriers import Appointment
from probed.errors import Undelivered
from probed.model import Outcome
from probed.receivers import Receiver
from probed.testing import settle
from tests.unit.serving import Stack, free_port, stack
from tests.unit.test_couriers import Far

Json = dict[str, Any]
PATH = "/api/v1/notifications"

pytestmark = pytest.mark.usefixtures("quiet")


@dataclass
class Api:
    seen: Stack
    address: str
    path: Path
    well: Far = field(default_factory=Far)
    dead: Far = field(default_factory=lambda: Far(otherwise=Undelivered("HTTP 500")))

    async def ask(self, method: str, path: str, body: object = None, *, tcp: bool = False) -> tuple[int, Any]:
        connector = aiohttp.TCPConnector() if tcp else aiohttp.UnixConnector(str(self.path))
        base = f"http://{self.address}" if tcp else "http://localhost"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, base + path, json=body) as response,
        ):
            return response.status, json.loads(await response.text())

    async def get(self, path: str) -> Json:
        status, answer = await self.ask("GET", path, tcp=True)
        assert status == 200, answer
        found: Json = answer
        return found

    async def command(self, *arguments: str, code: int = 0) -> str:
        def run() -> Any:
            return CliRunner().invoke(cli, ["notify", *arguments, "--socket", str(self.path)], prog_name="probed")

        result = await asyncio.to_thread(run)
        assert result.exit_code == code, result.output
        return str(result.output)

    async def alarm(self) -> None:
        """An event of which both receivers are to be told, and as much as comes of it without time passing."""
        await self.seen.outage("node-a")
        page: Json = {}
        for _ in range(2000):
            page = await self.get(PATH)
            if [item["attempts"] for item in page["items"]] == [1, 1]:
                await settle()
                return
            await asyncio.sleep(0.005)
        raise AssertionError(page)


@pytest_asyncio.fixture
async def api(tmp_path: Path, place: Path) -> AsyncIterator[Api]:
    seen = await stack(tmp_path)
    address, path = f"127.0.0.1:{free_port()}", place / "probed.sock"
    made = Api(seen, address, path)
    wanted = [Appointment(Receiver("well"), lambda: made.well), Appointment(Receiver("dead"), lambda: made.dead)]
    await seen.couriers.appoint(wanted)
    seen.pipeline.owe = seen.couriers.owed
    seen.pipeline.on_announce(seen.couriers.announced)
    close = await serve(seen, addresses=[address], socket_path=path)
    yield made
    await close()
    await seen.couriers.close()
    await seen.store.close()


async def test_before_anything_happened_the_receivers_are_shown_and_nothing_else(api: Api) -> None:
    nothing = {"owed": 0, "oldest_owed_at": None, "dead_letters": 0, "failing_since": None, "answer": ""}
    assert await api.get(PATH) == {
        "receivers": [{"name": name, "kind": "webhook", **nothing} for name in ("well", "dead")],
        "items": [],
        "next_cursor": None,
    }


async def test_what_was_sent_and_what_is_owed_is_shown_with_why(api: Api) -> None:
    await api.alarm()
    page = await api.get(PATH)
    well, dead = page["receivers"]
    assert (well["owed"], well["failing_since"]) == (0, None)
    assert (dead["owed"], dead["answer"]) == (1, "HTTP 500")
    assert dead["failing_since"] is not None and dead["oldest_owed_at"] is not None
    by_receiver = {item["receiver"]: item for item in page["items"]}
    sent, owed = by_receiver["well"], by_receiver["dead"]
    assert sent["transition"] == owed["transition"]
    assert (sent["event"], sent["instance"], sent["told"]) == ("database_unavailable", "orders", "opened")
    assert (sent["fate"], sent["answer"], sent["attempts"]) == ("delivered", "HTTP 200", 1)
    assert (owed["fate"], owed["answer"], owed["settled_at"]) == ("owed", "HTTP 500", None)


async def test_an_event_shows_its_deliveries(api: Api) -> None:
    await api.alarm()
    (event,) = (await api.get("/api/v1/events"))["items"]
    detail = await api.get(f"/api/v1/events/{event['id']}")
    page = await api.get(PATH)
    assert sorted(item["receiver"] for item in detail["deliveries"]) == ["dead", "well"]
    assert all(item in page["items"] for item in detail["deliveries"])


async def test_the_list_is_filtered_and_paged(api: Api) -> None:
    await api.alarm()
    (item,) = (await api.get(f"{PATH}?receiver=well"))["items"]
    assert item["receiver"] == "well"
    (item,) = (await api.get(f"{PATH}?fate=owed&event_id={item['event_id']}"))["items"]
    assert item["receiver"] == "dead"
    first = await api.get(f"{PATH}?limit=1")
    second = await api.get(f"{PATH}?limit=1&cursor={first['next_cursor']}")
    assert {page["items"][0]["receiver"] for page in (first, second)} == {"well", "dead"}
    assert second["next_cursor"] is None


@pytest.mark.parametrize("query", ["fate=lost", "cursor=x", "limit=0", "receiver=", "wat=1"])
async def test_a_query_that_is_wrong_is_refused(api: Api, query: str) -> None:
    status, problem = await api.ask("GET", f"{PATH}?{query}", tcp=True)
    assert (status, problem["type"]) == (400, "urn:probed:bad-query")


async def test_a_test_message_says_what_came_of_it_and_who_sent_it_is_kept(api: Api) -> None:
    status, tested = await api.ask("POST", f"{PATH}/test", {"receiver": "well"})
    assert (status, tested["delivered"], tested["answer"]) == (200, True, "HTTP 200")
    status, tested = await api.ask("POST", f"{PATH}/test", {"receiver": "dead"})
    assert (status, tested["delivered"], tested["answer"]) == (200, False, "HTTP 500")
    _, page = await api.ask("GET", "/api/v1/audit")
    assert [(item["action"], item["subject"]) for item in page["items"]] == [
        ("notifications.test", "dead"), ("notifications.test", "well"),
    ]  # fmt: skip


async def test_a_test_message_needs_an_operator_and_a_receiver_that_there_is(api: Api) -> None:
    status, _ = await api.ask("POST", f"{PATH}/test", {"receiver": "well"}, tcp=True)
    assert status in (401, 403)
    status, problem = await api.ask("POST", f"{PATH}/test", {"receiver": "wel"})
    assert (status, problem["type"]) == (404, "urn:probed:not-found")
    assert 'did you mean "well"?' in problem["detail"]
    status, _ = await api.ask("POST", f"{PATH}/test", {"receiver": "well", "text": "x"})
    assert status == 422


async def test_the_commands_show_and_test(api: Api) -> None:
    assert "Nobody was told of anything yet" in await api.command("list")
    await api.alarm()
    told = await api.command("list")
    assert "database_unavailable" in told and "HTTP 500" in told
    assert json.loads(await api.command("list", "-o", "json", "--fate", "owed"))["items"][0]["receiver"] == "dead"
    assert (await api.command("list", "-o", "tsv")).splitlines()[0].split("\t")[:2] == ["owed_at", "receiver"]
    assert (await api.command("test", "well")).startswith("well took it (HTTP 200, ")
    assert "dead did not take it: HTTP 500" in await api.command("test", "dead", code=1)
    assert 'no receiver is called "nobody"' in await api.command("test", "nobody", code=1)


# --- dead letters


async def given_up(api: Api) -> str:
    """The event of which ``dead``, gone for good, did not take the opening; its id."""
    api.dead.otherwise = Undelivered("HTTP 410", final=True)
    await api.alarm()
    (item,) = (await api.get(f"{PATH}?fate=refused"))["items"]
    return str(item["event_id"])


async def until_settled(api: Api) -> list[Json]:
    """The deliveries to ``dead``, newest first, when none of them is owed."""
    for _ in range(2000):
        items: list[Json] = (await api.get(f"{PATH}?receiver=dead"))["items"]
        if not [item for item in items if item["fate"] == "owed"]:
            return items
        await asyncio.sleep(0.005)
    raise AssertionError("something is owed for ever")


async def test_dead_letters_are_counted_and_marked_sent_again_and_who_did_it_is_kept(api: Api) -> None:
    event = await given_up(api)
    page = await api.get(PATH)
    assert {one["name"]: one["dead_letters"] for one in page["receivers"]} == {"well": 0, "dead": 1}
    assert {one["receiver"]: one["dead_letter"] for one in page["items"]} == {"well": False, "dead": True}
    api.dead.otherwise = None
    body = {"receiver": "dead", "reason": "mended"}
    assert await api.ask("POST", f"{PATH}/resend", body) == (200, {"receiver": "dead", "owed": 1, "held_back": 0})
    newest, oldest = await until_settled(api)
    assert (newest["fate"], newest["event_id"], oldest["fate"], oldest["dead_letter"]) == (
        "delivered", event, "refused", False,
    )  # fmt: skip
    assert await api.ask("POST", f"{PATH}/resend", body) == (200, {"receiver": "dead", "owed": 0, "held_back": 0})
    _, audit = await api.ask("GET", "/api/v1/audit")
    assert [(one["action"], one["subject"], one["reason"]) for one in audit["items"]] == [
        ("notifications.resend", "dead", "mended"),
    ]  # fmt: skip
    history = (await api.get(f"/api/v1/events/{event}"))["history"]
    assert [(one["kind"], one["comment"]) for one in history] == [("opened", None), ("resent", "to dead: mended")]


async def test_those_of_one_event_are_sent_again_and_those_of_others_are_not(api: Api) -> None:
    event = await given_up(api)
    await api.seen.outage("node-b")
    for _ in range(2000):
        if (await api.seen.store.dead_letters()) == {"dead": 2}:
            break
        await asyncio.sleep(0.005)
    api.dead.otherwise = None
    status, answer = await api.ask("POST", f"{PATH}/resend", {"receiver": "dead", "event_id": event})
    assert (status, answer["owed"]) == (200, 1)
    await until_settled(api)
    assert [notice.event.id for notice in api.dead.got] == [event]
    assert await api.seen.store.dead_letters() == {"dead": 1}


async def test_what_nobody_is_told_of_now_stays_a_dead_letter(api: Api) -> None:
    await given_up(api)
    scope = {"instances": ["orders"], "duration": "2h", "comment": "upgrade"}
    assert (await api.ask("POST", "/api/v1/silences", scope))[0] == 201
    api.seen.clock.step(5)
    api.seen.sample("postgres_liveness", "node-a", Outcome.FAILED, kind="refused", reason="connection refused")
    await api.seen.settle()
    body = {"receiver": "dead"}
    assert await api.ask("POST", f"{PATH}/resend", body) == (200, {"receiver": "dead", "owed": 0, "held_back": 1})
    assert await api.seen.store.dead_letters() == {"dead": 1}


async def test_sending_again_needs_an_operator_a_receiver_and_an_event_that_there_are(api: Api) -> None:
    await given_up(api)
    status, _ = await api.ask("POST", f"{PATH}/resend", {"receiver": "dead"}, tcp=True)
    assert status in (401, 403)
    await api.seen.couriers.appoint([Appointment(Receiver("well"), lambda: api.well)])
    status, problem = await api.ask("POST", f"{PATH}/resend", {"receiver": "dead"})
    assert (status, problem["type"]) == (404, "urn:probed:not-found")
    assert 'no receiver is called "dead"' in problem["detail"] and "well" in problem["detail"]
    status, problem = await api.ask("POST", f"{PATH}/resend", {"receiver": "well", "event_id": "nope"})
    assert status == 404 and 'no event has the id "nope"' in problem["detail"]


async def test_the_command_sends_again(api: Api) -> None:
    event = await given_up(api)
    api.dead.otherwise = None
    assert await api.command("resend", "dead", "--event-id", event) == "owed to dead again: 1\n"
    await until_settled(api)
    assert "owed nothing again" in await api.command("resend", "dead", "--reason", "once more")
    assert 'did you mean "dead"' in await api.command("resend", "daed", code=1)
