"""The ledger over HTTP: downloads, the stream and how it is resumed, acknowledgements. Real sockets, a real store."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import random
import socket
import sqlite3
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from probed.api import downloads, streams
from probed.api.app import serve
from probed.model import EventState, Outcome
from probed.store import AuditQuery, Change, Commit
from tests.unit.editing import Operator
from tests.unit.serving import HOSTILE, Stack, free_port, stack
from tests.unit.test_api import an_event

EVENTS = "/api/v1/events"


@dataclass
class Ledger(Operator):
    """A served stack, with what a reader of its stream needs."""

    seen: Stack
    address: str
    path: Path

    async def happen(self, number: int = 1, **more: Any) -> list[str]:
        """So many occurrences, durable and announced; their ids."""
        events = [an_event(n, self.seen.clock.wall(), **more) for n in range(number)]
        for event in events:
            self.seen.pipeline._commit(Commit(changes=(Change(event, "occurred", event.opened_at),)))
        await self.seen.settle()
        return [event.id for event in events]

    @contextlib.asynccontextmanager
    async def stream(self, query: str = "", **headers: str) -> AsyncIterator[Reader]:
        async with aiohttp.ClientSession() as session:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            async with session.get(f"http://{self.address}{EVENTS}/stream{query}", headers=sent) as response:
                assert response.status == 200, await response.text()
                yield Reader(response)

    @contextlib.asynccontextmanager
    async def slow(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is read only as far as it is asked for."""
        async with (
            aiohttp.ClientSession(read_bufsize=1024) as session,
            session.get(f"http://{self.address}{path}") as response,
        ):
            yield response


async def told(logs: list[MutableMapping[str, Any]], event: str) -> None:
    """Until the daemon has logged it."""
    async with asyncio.timeout(10):
        while not [entry for entry in logs if entry["event"] == event]:  # noqa: ASYNC110 - a log wakes nobody
            await asyncio.sleep(0.01)


@dataclass
class Reader:
    """Server-sent events as the standard has them read."""

    response: aiohttp.ClientResponse
    last_id: str = ""

    async def block(self) -> dict[str, str]:
        """The next block of lines, comments too, under the key ''."""
        found: dict[str, str] = {}
        while line := (await asyncio.wait_for(self.response.content.readline(), 10)).decode().rstrip("\n"):
            name, _, value = line.partition(":")
            found[name] = value.removeprefix(" ")
        if not found and self.response.content.at_eof():
            raise EOFError
        self.last_id = found.get("id", self.last_id)
        return found

    async def event(self) -> tuple[str, dict[str, Any]]:
        """(kind, data) of the next event, past heartbeats."""
        while "data" not in (block := await self.block()):
            pass
        return block["event"], json.loads(block["data"])

    async def events(self, number: int) -> list[dict[str, Any]]:
        return [(await self.event())[1] for _ in range(number)]


@pytest_asyncio.fixture
async def ledger(tmp_path: Path, place: Path) -> AsyncIterator[Ledger]:
    seen = await stack(tmp_path)
    address, path = f"127.0.0.1:{free_port()}", place / "probed.sock"
    close = await serve(seen, addresses=[address], socket_path=path)
    yield Ledger(seen, address, path)
    await close()
    await seen.store.close()


class TestStream:
    async def test_a_transition_is_told_as_soon_as_it_is_durable_with_its_number_kind_and_event(
        self, ledger: Ledger
    ) -> None:
        async with ledger.stream() as reader:
            assert reader.response.headers["Content-Type"] == "text/event-stream"
            assert reader.response.headers["Cache-Control"] == "no-store"
            assert await reader.block() == {"retry": "2000", "id": "0"}
            await ledger.seen.outage("node-a")
            block = await reader.block()
        assert (block["id"], block["event"]) == ("1", "opened")
        told = json.loads(block["data"])
        listed = (await ledger.get(EVENTS))["items"][0]
        assert told == {**listed, "transition": told["transition"]}
        assert told["transition"] == {
            "seq": 1, "kind": "opened", "at": listed["opened_at"], "who": None, "comment": None
        }  # fmt: skip

    async def test_a_resumed_stream_goes_on_after_its_last_id_through_the_backlog_into_what_is_live(
        self, ledger: Ledger
    ) -> None:
        ids = await ledger.happen(130)  # more than are read at a stretch
        async with ledger.stream("?last_event_id=0") as reader:
            first = await reader.events(30)
        async with ledger.stream(Last_Event_ID=reader.last_id) as reader:
            rest = await reader.events(100)
            ids += await ledger.happen(5)
            live = await reader.events(5)
        told = [*first, *rest, *live]
        assert [item["transition"]["seq"] for item in told] == list(range(1, 136))
        assert [item["id"] for item in told] == ids

    async def test_a_stream_without_an_id_begins_with_now(self, ledger: Ledger) -> None:
        await ledger.happen(3)
        async with ledger.stream() as reader:
            assert await reader.block() == {"retry": "2000", "id": "3"}
            await ledger.happen()
            assert (await reader.event())[1]["transition"]["seq"] == 4

    async def test_the_header_of_a_browser_that_comes_again_counts_more_than_its_first_address(
        self, ledger: Ledger
    ) -> None:
        await ledger.happen(3)
        async with ledger.stream("?last_event_id=0", Last_Event_ID="2") as reader:
            assert (await reader.event())[1]["transition"]["seq"] == 3

    async def test_readers_who_come_go_and_drop_out_all_get_everything_once_and_in_order(self, ledger: Ledger) -> None:
        chance = random.Random(5)
        total, done = 400, asyncio.Event()

        async def read(seed: int) -> list[int]:
            moods, got = random.Random(seed), list[int]()
            while len(got) < total:
                async with ledger.stream(f"?last_event_id={got[-1] if got else 0}") as reader:
                    for _ in range(moods.randrange(1, 120)):
                        got.append((await reader.event())[1]["transition"]["seq"])
                        if len(got) == total:
                            break
            return got

        async def write() -> None:
            left = total
            while left:
                number = min(left, chance.randrange(1, 60))
                await ledger.happen(number)
                left -= number
            done.set()

        *readings, _ = await asyncio.gather(*(read(seed) for seed in range(4)), write())
        assert readings == [list(range(1, total + 1))] * 4

    async def test_filters_leave_out_what_does_not_fit(self, ledger: Ledger) -> None:
        async with ledger.stream("?event=ha_switchover&suppressed=false&instance=orders") as reader:
            await reader.block()
            await ledger.happen()
            [wanted] = await ledger.happen(event="ha_switchover")
            await ledger.happen(event="ha_switchover", suppressed=True)
            [last] = await ledger.happen(event="ha_switchover")
            assert [item["id"] for item in await reader.events(2)] == [wanted, last]

    @pytest.mark.parametrize(
        "asked, reason", [("99", "unknown"), ("1", "purged")], ids=["of another store", "older than what is kept"]
    )
    async def test_who_cannot_go_on_without_a_gap_is_told_so(self, ledger: Ledger, asked: str, reason: str) -> None:
        await ledger.happen(4)
        if reason == "purged":
            await forget_the_first(ledger, 2)
        async with ledger.stream(f"?last_event_id={asked}") as reader:
            kind, data = await reader.event()
            assert (kind, data["reason"], data["newest"]) == ("reset", reason, 4)
            if reason == "purged":
                assert [item["transition"]["seq"] for item in await reader.events(2)] == [3, 4]
            await ledger.happen()
            assert (await reader.event())[1]["transition"]["seq"] == 5

    @pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 30])
    async def test_an_id_that_is_none_is_refused(self, ledger: Ledger, text: str) -> None:
        status, _, answer = await ledger.send("GET", f"{EVENTS}/stream", headers={"Last-Event-ID": text}, tcp=True)
        assert (status, answer["type"]) == (400, "urn:probed:bad-query")
        status, _, answer = await ledger.send("GET", f"{EVENTS}/stream?last_event_id={text}", tcp=True)
        assert (status, answer["errors"][0]["path"]) == (400, "last_event_id")

    async def test_silence_is_broken_by_heartbeats_that_carry_the_newest_id(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.05)
        async with ledger.stream("?event=no_leader") as reader:
            await reader.block()
            assert await reader.block() == {"": "still here", "id": "0"}
            await ledger.happen()  # which does not fit
            while (block := await reader.block())["id"] == "0":
                assert block[""] == "still here"
            assert block == {"": "still here", "id": "1"}

    async def test_there_are_so_many_streams_and_a_place_is_free_again_when_one_ends(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "MAX_STREAMS", 2)
        monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.05)
        async with ledger.stream():
            async with ledger.stream():
                status, headers, answer = await ledger.send("GET", f"{EVENTS}/stream", tcp=True)
                assert (status, answer["type"], int(headers["Retry-After"]) >= 0) == (429, "urn:probed:too-many", True)
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(AssertionError):
                        async with ledger.stream() as reader:
                            assert (await reader.block())["retry"]
                            break
                    await asyncio.sleep(0.02)

    async def test_a_reader_that_never_reads_is_cut_off_and_harms_nobody(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "STALLED_SECONDS", 0.3)
        host, port = ledger.address.split(":")
        with socket.socket() as lazy, capture_logs() as logs:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(lazy, (host, int(port)))
            await loop.sock_sendall(lazy, f"GET {EVENTS}/stream HTTP/1.1\r\nHost: {ledger.address}\r\n\r\n".encode())
            async with ledger.stream() as eager:
                await eager.block()
                got = 0
                for _ in range(12):  # some 6 MiB, which no buffer of a socket holds
                    await ledger.happen(20, message="x" * 25_000)
                    got += len(await eager.events(20))
                assert got == 240
                await told(logs, "api.stream_cut_off")

    async def test_streams_end_within_a_second_when_the_daemon_stops(self, tmp_path: Path, place: Path) -> None:
        seen = await stack(tmp_path)
        ledger = Ledger(seen, f"127.0.0.1:{free_port()}", place / "probed.sock")
        close = await serve(seen, addresses=[ledger.address], socket_path=None)
        async with ledger.stream() as reader:
            await reader.block()
            loop = asyncio.get_running_loop()
            asked = loop.time()
            stopping = asyncio.ensure_future(close())
            with pytest.raises(EOFError):
                await reader.block()
            await stopping
            assert loop.time() - asked < 1.0
        await seen.store.close()

    async def test_a_head_is_answered_and_ends(self, ledger: Ledger) -> None:
        status, headers, _ = await ledger.send("HEAD", f"{EVENTS}/stream", tcp=True)
        assert (status, headers["Content-Type"]) == (200, "text/event-stream")


async def forget_the_first(ledger: Ledger, number: int) -> None:
    """What a purge leaves of the first so many transitions; as the store's own writer would write it."""
    with contextlib.closing(sqlite3.connect(ledger.seen.store._path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM event WHERE id IN (SELECT event_id FROM transition WHERE seq <= ?)", (number,))
        connection.execute("DELETE FROM transition WHERE seq <= ?", (number,))
        connection.execute("UPDATE purged SET seq = ?", (number,))


class TestDownload:
    @pytest.mark.parametrize("ask", [{"query": "?format=csv"}, {"accept": "text/csv"}, {"accept": "text/csv;q=1, */*"}])
    async def test_all_events_come_as_csv_however_many(self, ledger: Ledger, ask: dict[str, str]) -> None:
        await ledger.happen(250)
        accept = {"Accept": ask["accept"]} if "accept" in ask else {}
        status, headers, text = await ledger.send("GET", EVENTS + ask.get("query", ""), headers=accept, tcp=True)
        assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8; header=present")
        assert headers["Content-Disposition"] == 'attachment; filename="probed-events-20261118T120000Z.csv"'
        assert headers["X-Content-Type-Options"] == "nosniff"
        rows = list(csv.DictReader(io.StringIO(text)))
        assert tuple(rows[0]) == downloads.COLUMNS
        listed = [*(await ledger.get(f"{EVENTS}?limit=1000"))["items"]]
        assert [row["id"] for row in rows] == [item["id"] for item in listed]
        assert rows[0]["suppressed"] == "false"
        assert rows[0]["resolved_at"] == ""

    async def test_all_events_come_as_json_in_the_shape_of_the_list(self, ledger: Ledger) -> None:
        for number in (0, 1, 249):
            await ledger.happen(number)
            download = await ledger.get(f"{EVENTS}?format=json")
            assert download == await ledger.get(f"{EVENTS}?limit=1000")

    async def test_filters_are_heeded(self, ledger: Ledger) -> None:
        await ledger.happen(3)
        [wanted] = await ledger.happen(event="ha_switchover")
        _, _, text = await ledger.send("GET", f"{EVENTS}?format=csv&event=ha_switchover", tcp=True)
        assert [row["id"] for row in csv.DictReader(io.StringIO(text))] == [wanted]

    async def test_no_cell_is_a_formula_and_every_text_comes_back(self, ledger: Ledger) -> None:
        texts = [*HOSTILE, "=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x")', "\t=1", "\r=1"]
        for text in texts:
            await ledger.happen(message=text, value=-1.5)
        _, _, answer = await ledger.send("GET", f"{EVENTS}?format=csv", tcp=True)
        rows = list(csv.DictReader(io.StringIO(answer, newline="")))
        found = [row["message"] for row in rows]
        assert not [text for text in found if text[:1] in "=+-@\t\r" and text]
        plain = [text.removeprefix("'") if text[1:2] in ("=", "+", "-", "@", "\t", "\r") else text for text in found]
        assert sorted(plain) == sorted(texts)
        assert {row["value"] for row in rows} == {"-1.5"}, "a number is no text"

    @pytest.mark.parametrize("query", ["limit=5", "cursor=ZXZlbnRzOjAx"])
    async def test_pages_and_downloads_do_not_mix(self, ledger: Ledger, query: str) -> None:
        status, _, answer = await ledger.send("GET", f"{EVENTS}?format=csv&{query}", tcp=True)
        assert (status, answer["errors"][0]["path"]) == (400, query.partition("=")[0])

    async def test_what_arrives_during_a_download_is_not_in_it(self, ledger: Ledger) -> None:
        before = await ledger.happen(400, message="x" * 5_000)
        async with ledger.slow(f"{EVENTS}?format=json") as response:
            first = await response.content.read(1000)
            ledger.seen.clock.step(5)
            await ledger.happen(50)
            rest = await response.content.read()
        assert sorted(item["id"] for item in json.loads(first + rest)["items"]) == sorted(before)

    async def test_a_reader_that_never_reads_is_cut_off(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(downloads, "STALLED_SECONDS", 0.2)
        await ledger.happen(800, message="x" * 10_000)
        with capture_logs() as logs:
            async with ledger.slow(f"{EVENTS}?format=csv") as response:
                await told(logs, "api.download_cut_off")
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
        assert await ledger.get(EVENTS)


class TestAck:
    async def test_an_open_event_is_acknowledged_once_with_audit_transition_and_history(self, ledger: Ledger) -> None:
        await ledger.seen.outage("node-a")
        [opened] = (await ledger.get(EVENTS))["items"]
        path = f"{EVENTS}/{opened['id']}/ack"
        async with ledger.stream() as reader:
            await reader.block()
            status, _, acked = await ledger.send("POST", path, {"comment": " on my way \n"})
            kind, told = await reader.event()
        who = acked["acked_by"]
        assert (status, who.partition(":")[0]) == (200, "local")
        assert acked["details"]["ack"] == {"by": who, "at": told["transition"]["at"], "comment": "on my way"}
        assert (kind, told["transition"]["who"], told["transition"]["comment"]) == ("acked", who, "on my way")
        detail = await ledger.get(f"{EVENTS}/{opened['id']}")
        assert detail["acked_by"] == who
        assert [(item["kind"], item["who"]) for item in detail["history"]] == [("opened", None), ("acked", who)]
        [record] = await ledger.seen.store.audit(AuditQuery(limit=10))
        assert (record.action, record.subject, record.who, record.reason) == (
            "event.ack", opened["id"], who, "on my way"
        )  # fmt: skip
        status, _, refused = await ledger.send("POST", path, {})
        assert (status, refused["type"]) == (409, "urn:probed:conflict")
        assert who in refused["detail"]

    async def test_what_comes_next_of_the_event_keeps_the_acknowledgement(self, ledger: Ledger) -> None:
        await ledger.seen.outage("node-a")
        [opened] = (await ledger.get(EVENTS))["items"]
        _, _, acked = await ledger.send("POST", f"{EVENTS}/{opened['id']}/ack", {"comment": "mine"})
        for _ in range(2):
            ledger.seen.clock.step(5)
            ledger.seen.sample("postgres_liveness", "node-a", ping_seconds=0.001)
        await ledger.seen.settle()
        detail = await ledger.get(f"{EVENTS}/{opened['id']}")
        assert (detail["state"], detail["acked_by"]) == ("resolved", acked["acked_by"])
        assert detail["details"]["ack"]["comment"] == "mine"
        assert [item["kind"] for item in detail["history"]] == ["opened", "acked", "resolved"]

    @pytest.mark.parametrize("state", [EventState.OCCURRED, EventState.RESOLVED])
    async def test_an_event_that_is_over_can_be_acknowledged(self, ledger: Ledger, state: EventState) -> None:
        [over] = await ledger.happen(state=state)
        status, _, acked = await ledger.send("POST", f"{EVENTS}/{over}/ack", {"comment": ""})
        assert (status, acked["state"], acked["acked_by"] is not None) == (200, state.value, True)
        assert (await ledger.send("POST", f"{EVENTS}/{over}/ack", {}))[0] == 409

    async def test_an_acknowledgement_is_taken_back(self, ledger: Ledger) -> None:
        [event] = await ledger.happen(details={"switchover": {"class": "failover"}})
        path = f"{EVENTS}/{event}/ack"
        assert (await ledger.send("DELETE", path))[0] == 409
        await ledger.send("POST", path, {"comment": "mine"})
        status, _, freed = await ledger.send("DELETE", path)
        assert (status, freed["acked_by"], freed["details"]) == (200, None, {"switchover": {"class": "failover"}})
        history = (await ledger.get(f"{EVENTS}/{event}"))["history"]
        assert [item["kind"] for item in history] == ["occurred", "acked", "unacked"]
        assert (await ledger.send("POST", path, {"comment": "again"}))[0] == 200

    async def test_two_at_once_are_one(self, ledger: Ledger) -> None:
        [event] = await ledger.happen()
        answers = await asyncio.gather(*(ledger.send("POST", f"{EVENTS}/{event}/ack", {}) for _ in range(8)))
        assert sorted(status for status, _, _ in answers) == [200] + [409] * 7

    async def test_an_acknowledged_switchover_keeps_it_when_more_becomes_known(self, ledger: Ledger) -> None:
        seen = ledger.seen
        seen.sample("leader", has_leader=1.0, leader="node-a", timeline=1.0)
        seen.clock.step(5)
        seen.sample("leader", has_leader=1.0, leader="node-b", timeline=2.0)
        await seen.settle()
        [event] = (await ledger.get(f"{EVENTS}?event=ha_switchover"))["items"]
        await ledger.send("POST", f"{EVENTS}/{event['id']}/ack", {"comment": "seen"})
        held = seen.pipeline.held(event["id"])
        assert held is not None and held.acked_by is not None

    async def test_who_may_only_read_is_told_how_to_do_it(self, ledger: Ledger) -> None:
        [event] = await ledger.happen()
        for method, body in (("POST", {"comment": ""}), ("DELETE", None)):
            status, _, answer = await ledger.send(method, f"{EVENTS}/{event}/ack", body, tcp=True)
            assert (status, answer["type"]) == (403, "urn:probed:read-only")

    @pytest.mark.parametrize(
        "body, status, path",
        [({"coment": "x"}, 422, "coment"), ({"comment": 5}, 422, "comment"), ({"comment": "x" * 1001}, 422, "comment")],
    )
    async def test_a_bad_body_is_refused_naming_the_path(
        self, ledger: Ledger, body: object, status: int, path: str
    ) -> None:
        [event] = await ledger.happen()
        got, _, answer = await ledger.send("POST", f"{EVENTS}/{event}/ack", body)
        assert (got, answer["errors"][0]["path"]) == (status, path)

    async def test_an_event_that_is_not_there_is_not_acknowledged(self, ledger: Ledger) -> None:
        for event in ("nothing", "%00"):
            assert (await ledger.send("POST", f"{EVENTS}/{event}/ack", {}))[0] == 404


async def test_a_node_that_fails_again_after_an_acknowledgement_is_a_new_event(ledger: Ledger) -> None:
    await ledger.seen.outage("node-a")
    [first] = (await ledger.get(EVENTS))["items"]
    await ledger.send("POST", f"{EVENTS}/{first['id']}/ack", {})
    for _ in range(2):
        ledger.seen.clock.step(5)
        ledger.seen.sample("postgres_liveness", "node-a", ping_seconds=0.001)
    for _ in range(3):
        ledger.seen.clock.step(5)
        ledger.seen.sample("postgres_liveness", "node-a", Outcome.FAILED, reason="refused", kind="refused")
    await ledger.seen.settle()
    [again] = (await ledger.get(f"{EVENTS}?state=open"))["items"]
    assert again["id"] != first["id"]
    assert again["acked_by"] is None
