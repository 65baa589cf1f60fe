"""Silences over real sockets, on a real store and pipeline; and the commands that ask for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from probed.api.app import serve
from probed.cli import cli
from probed.exposition import Writer
from probed.model import Outcome
from probed.recurrence import parse
from probed.silences import Scope, Silence
from probed.store import AuditQuery
from probed.store.sqlite import SqliteStore
from tests.unit.serving import NOON, Stack, free_port, stack

Json = dict[str, Any]
PATH = "/api/v1/silences"
UPGRADE: Json = {"comment": "upgrade", "instances": ["orders"], "duration": "2h"}

pytestmark = pytest.mark.usefixtures("quiet")


@dataclass
class Api:
    seen: Stack
    address: str
    path: Path

    async def ask(self, method: str, path: str, body: object = None, *, tcp: bool = False) -> tuple[int, Any, str]:
        """(status, answer, Location)"""
        connector = aiohttp.TCPConnector() if tcp else aiohttp.UnixConnector(str(self.path))
        base = f"http://{self.address}" if tcp else "http://localhost"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, base + path, json=body) as response,
        ):
            return response.status, json.loads(await response.text()), response.headers.get("Location", "")

    async def add(self, **more: object) -> Json:
        status, answer, _ = await self.ask("POST", PATH, {**UPGRADE, **more})
        assert status == 201, answer
        made: Json = answer
        return made

    async def problems(self, **body: object) -> dict[str, str]:
        """What is wrong with a body, by path."""
        status, answer, _ = await self.ask("POST", PATH, body)
        assert status == 422, answer
        return {error["path"]: error["detail"] for error in answer["errors"]}

    async def listed(self, query: str = "") -> list[str]:
        _, answer, _ = await self.ask("GET", PATH + query)
        return [item["id"] for item in answer["items"]]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--socket", str(self.path)], prog_name="probed")

    async def command(self, *arguments: str, code: int = 0) -> str:
        """What a command prints; errors too."""
        result = await asyncio.to_thread(self.run, "silence", *arguments)
        assert result.exit_code == code, result.output
        return result.output


@pytest_asyncio.fixture
async def api(tmp_path: Path, place: Path) -> AsyncIterator[Api]:
    seen = await stack(tmp_path)
    address, path = f"127.0.0.1:{free_port()}", place / "probed.sock"
    close = await serve(seen, addresses=[address], socket_path=path)
    yield Api(seen, address, path)
    await close()
    await seen.store.close()


def declared(**more: Any) -> Silence:
    every = parse("daily 02:00-04:00 UTC")
    return Silence(
        "file:nightly", Scope(("orders",)), "vacuum", "p.yml", 0, 0, None, every, where="/etc/p.yml:7", **more
    )


# --- adding


async def test_a_silence_that_was_added_is_shown_where_its_location_says(api: Api) -> None:
    status, made, location = await api.ask("POST", PATH, UPGRADE)
    assert (status, location) == (201, f"{PATH}/{made['id']}")
    assert (made["state"], made["origin"], made["warnings"], made["open_events"]) == ("active", "api", [], [])
    assert (made["starts_at"], made["ends_at"]) == ("2026-11-18T12:00:00.000Z", "2026-11-18T14:00:00.000Z")
    assert made["window"] == {"opens_at": made["starts_at"], "closes_at": made["ends_at"]}
    assert made["author"].startswith("local:")
    _, found, _ = await api.ask("GET", location)
    assert found == {key: value for key, value in made.items() if key != "warnings"}


async def test_windows_that_come_back_are_told_with_the_next_one(api: Api) -> None:
    made = await api.add(every="MON-fri 22:00-02:00 Europe/Berlin", duration="30d")
    assert (made["state"], made["every"]) == ("pending", "mon-fri 22:00-02:00 Europe/Berlin")
    assert made["window"] == {"opens_at": "2026-11-18T21:00:00.000Z", "closes_at": "2026-11-19T01:00:00.000Z"}
    assert made["recurrence"] == {
        "weekdays": ["mon", "tue", "wed", "thu", "fri"],
        "monthdays": [],
        "start": "22:00",
        "length_seconds": 14400,
        "zone": "Europe/Berlin",
    }


@pytest.mark.parametrize(
    "times, ends",
    [
        ({"duration": "90m"}, "2026-11-18T13:30:00.000Z"),
        ({"ends_at": "+90m"}, "2026-11-18T13:30:00.000Z"),
        ({"ends_at": "2026-11-18T14:30:00+01:00"}, "2026-11-18T13:30:00.000Z"),
        ({"starts_at": "+30m", "duration": "1h"}, "2026-11-18T13:30:00.000Z"),
        ({"starts_at": "2026-11-18T09:00:00Z", "duration": "90m"}, "2026-11-18T13:30:00.000Z"),
    ],
)
async def test_its_times_are_absolute_or_from_now_and_it_begins_no_earlier(api: Api, times: Json, ends: str) -> None:
    status, made, _ = await api.ask("POST", PATH, {"comment": "c", "nodes": ["node-a"], **times})
    assert (status, made["ends_at"]) == (201, ends)


async def test_all_that_is_wrong_is_told_at_once_with_what_was_meant(api: Api) -> None:
    found = await api.problems(comment=" ", instances=["orders"], every="mon 22:00-02:00 Europe/Berln", **{"x-foo": 1})
    assert "says why" in found["comment"]
    assert 'did you mean "Europe/Berlin"?' in found["every"]
    assert 'unknown key "x-foo"' in found["x-foo"]
    found = await api.problems(comment="c", events=["no_leder"], starts_at="tomorrow", ends_at="+1h", duration="2 h")
    assert 'did you mean "no_leader"?' in found["events[0]"]
    assert found["starts_at"] == (
        'expected a time with its offset such as 2026-11-28T22:00:00Z, or one from now such as +2h, got "tomorrow"'
    )
    assert "duration" in found


@pytest.mark.parametrize(
    "body, path, says",
    [
        ({"duration": "2h"}, "", "it would hide everything"),
        ({"instances": ["orders"]}, "ends_at", "hides the next outage"),
        ({"instances": ["orders"], "duration": "32d"}, "duration", "disable its policy"),
        ({"instances": ["orders"], "ends_at": "2026-11-18T11:00:00Z"}, "ends_at", "after the start"),
        ({"instances": ["orders"], "every": "daily 01:00-02:00 UTC"}, "ends_at", "probed.yml"),
        ({"instances": ["orders"], "severities": ["dire"], "duration": "2h"}, "severities[0]", "fatal"),
    ],
)
async def test_what_would_never_end_or_hide_everything_is_refused(api: Api, body: Json, path: str, says: str) -> None:
    found = await api.problems(comment="c", **body)
    assert says in found[path]
    assert await api.listed() == []


async def test_a_name_that_nothing_has_now_is_taken_with_a_warning(api: Api) -> None:
    made = await api.add(instances=["ordrs"], nodes=["node-z"])
    assert made["warnings"] == [
        'no instance is called "ordrs"; did you mean "orders"?',
        'no node is called "node-z"; did you mean "node-b"?',
    ]


async def test_a_dry_run_says_which_open_events_it_would_cover_and_changes_nothing(api: Api) -> None:
    await api.seen.outage("node-a")
    [event] = (await api.ask("GET", "/api/v1/events?state=open"))[1]["items"]
    status, would, _ = await api.ask("POST", f"{PATH}?dry_run=true", UPGRADE)
    assert (status, would["id"], would["open_events"]) == (200, None, [event["id"]])
    assert (await api.ask("POST", f"{PATH}?dry_run=true", {**UPGRADE, "nodes": ["node-b"]}))[1]["open_events"] == []
    assert await api.listed() == []
    assert await api.seen.store.audit(AuditQuery(limit=10)) == []


async def test_over_tcp_without_credentials_silences_are_only_read(api: Api) -> None:
    status, answer, _ = await api.ask("POST", PATH, UPGRADE, tcp=True)
    assert (status, answer["type"]) == (403, "urn:probed:read-only")
    assert (await api.ask("GET", PATH, tcp=True))[0] == 200


# --- under it


async def test_an_event_under_a_silence_names_it_with_its_comment(api: Api) -> None:
    made = await api.add()
    await api.seen.outage("node-a")
    [event] = (await api.ask("GET", "/api/v1/events?silenced=true"))[1]["items"]
    assert (event["silenced"], event["silenced_by"], event["state"]) == (True, made["id"], "open")
    assert event["details"]["silence"]["comment"] == "upgrade"
    [again] = (await api.ask("GET", f"/api/v1/events?silenced_by={made['id']}"))[1]["items"]
    assert again["id"] == event["id"]
    assert (await api.ask("GET", "/api/v1/events?silenced=false"))[1]["items"] == []
    assert (await api.ask("GET", f"{PATH}/{made['id']}"))[1]["open_events"] == [event["id"]]


async def test_a_silenced_event_counts_in_the_metrics_and_in_the_state_of_its_instance(api: Api) -> None:
    await api.add()
    await api.seen.outage("node-a")
    scraped = b"".join(Writer().pieces(api.seen, openmetrics=False)).decode().splitlines()
    assert "probed_silences_active 1" in scraped
    [active] = [line for line in scraped if "probed_event_active{" in line
                and 'event="database_unavailable"' in line and 'node="node-a"' in line]  # fmt: skip
    assert active.endswith(" 1.0")
    assert await api.seen.store.counts() == {("database_unavailable", "fatal", "orders"): 1}


# --- ending


async def test_ending_it_is_at_once_and_asking_again_is_the_same_answer(api: Api) -> None:
    made = await api.add()
    api.seen.clock.step(60)
    first = await api.ask("DELETE", f"{PATH}/{made['id']}")
    api.seen.clock.step(60)
    again = await api.ask("DELETE", f"{PATH}/{made['id']}")
    assert first == again
    assert (first[0], first[1]["state"], first[1]["ended_at"]) == (200, "expired", "2026-11-18T12:01:00.000Z")
    assert first[1]["ended_by"].startswith("local:")
    actions = [
        (record.action, record.subject, record.reason) for record in await api.seen.store.audit(AuditQuery(limit=10))
    ]
    assert actions == [("silence.expire", made["id"], ""), ("silence.add", made["id"], "upgrade")]


async def test_what_the_configuration_declares_is_ended_there(api: Api) -> None:
    api.seen.pipeline.silencing.declare([declared()])
    status, answer, _ = await api.ask("DELETE", f"{PATH}/file:nightly")
    assert (status, answer["type"]) == (422, "urn:probed:refused-by-rule")
    assert "/etc/p.yml:7" in answer["detail"]
    _, found, _ = await api.ask("GET", f"{PATH}/file:nightly")
    assert (found["origin"], found["where"], found["created_at"], found["ends_at"]) == (
        "file",
        "/etc/p.yml:7",
        None,
        None,
    )


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_one_that_there_is_not_is_not_found(api: Api, method: str) -> None:
    status, answer, _ = await api.ask(method, f"{PATH}/nothing")
    assert (status, answer["type"]) == (404, "urn:probed:not-found")


async def test_the_list_has_those_of_the_configuration_then_the_newest_first(api: Api) -> None:
    api.seen.pipeline.silencing.declare([declared()])
    ids = []
    for number in range(3):
        api.seen.clock.step(1)
        ids.append((await api.add(comment=f"c{number}"))["id"])
    api.seen.clock.step(1)
    await api.ask("DELETE", f"{PATH}/{ids[1]}")
    assert await api.listed() == ["file:nightly", *reversed(ids)]
    assert await api.listed("?state=active") == [ids[2], ids[0]]
    assert await api.listed("?state=expired") == [ids[1]]
    assert await api.listed("?state=pending") == ["file:nightly"]
    _, page, _ = await api.ask("GET", f"{PATH}?limit=2")
    assert await api.listed(f"?limit=2&cursor={page['next_cursor']}") == [ids[1], ids[0]]


async def test_silences_survive_a_restart_and_those_that_are_over_stay_listed(api: Api, tmp_path: Path) -> None:
    lasting, windows, ended = (
        await api.add(),
        await api.add(every="sun 1-7 02:00-04:00 UTC", duration="60d"),
        await api.add(),
    )
    await api.ask("DELETE", f"{PATH}/{ended['id']}")
    held = {silence.id: silence for silence in api.seen.pipeline.silencing.all()}
    await api.seen.store.close()
    api.seen.store = store = SqliteStore(tmp_path, clock=api.seen.clock)
    recovered = await store.open()
    assert {silence.id: silence for silence in recovered.silences} == {
        made["id"]: held[made["id"]] for made in (lasting, windows)
    }
    assert {silence.id for silence in await store.silences(10)} == {*held, ended["id"]}


# --- commands


async def test_the_commands_add_list_and_expire(api: Api) -> None:
    await api.seen.outage("node-a")
    said = await api.command("add", "--instance", "orders", "--comment", "upgrade", "--for", "2h", "--dry-run")
    assert said.startswith(
        "would cover instance orders, until 2026-11-18T14:00:15Z\nopen events that it would cover: 1\n"
    )
    assert "database_unavailable" in said
    said = await api.command("add", "--instance", "orders", "--node", "node-b", "--comment", "upgrade", "--for", "2h")
    made = said.split()[0]
    assert said == (
        f"{made} covers instance orders, node node-b, until 2026-11-18T14:00:15Z\nopen events that it covers: none\n"
    )
    lines = (await api.command("list")).splitlines()
    assert lines[0].split() == ["ID", "STATE", "COVERS", "WHEN", "BY", "COMMENT"]
    assert made in lines[1]
    assert "active" in lines[1]
    said = await api.command("expire", made[:12])
    assert said.startswith(f"{made} ended at 2026-11-18T12:00:15Z by local:")
    assert await api.command("list") == "No silence holds or is to come.\n"
    assert made in await api.command("list", "--state", "expired")


async def test_windows_are_written_and_listed_in_words(api: Api) -> None:
    said = await api.command(
        "add", "--event", "replication_lag_high", "--comment", "reports", "--for", "30d",
        "--every", "mon-fri 22:00-02:00 Europe/Berlin",
    )  # fmt: skip
    assert "mon-fri 22:00-02:00 Europe/Berlin, until 2026-12-18T12:00:00Z; next 2026-11-18T21:00:00Z" in said


@pytest.mark.parametrize("form", ["json", "yaml", "tsv"])
async def test_programs_get_the_whole_answer(api: Api, form: str) -> None:
    made = await api.add()
    said = await api.command("list", "-o", form)
    assert made["id"] in said
    if form == "json":
        assert json.loads(said)["items"][0]["comment"] == "upgrade"


async def test_a_command_that_is_refused_says_why_and_what_instead(api: Api) -> None:
    said = await api.command("add", "--event", "no_leder", "--comment", "c", "--for", "2h", code=1)
    assert 'did you mean "no_leader"?' in said
    assert "no silence's id begins with" in await api.command("expire", "01234567", code=1)


async def test_an_event_tells_of_its_silence_and_of_patronis_pause(api: Api) -> None:
    api.seen.clock.step(5)
    api.seen.sample("patroni_cluster", "", Outcome.OBSERVED, members=2.0, paused=1.0)
    await api.add()
    await api.seen.outage("node-a")
    [event] = (await api.ask("GET", "/api/v1/events"))[1]["items"]
    assert event["details"]["patroni_paused"] is True
    for arguments in (("events", "show", event["id"]), ("explain", event["id"])):
        said = (await asyncio.to_thread(api.run, *arguments)).output
        assert "upgrade (local:" in said
        assert "aused" in said
    assert "open (silenced)" in (await asyncio.to_thread(api.run, "events", "list")).output
    assert "Patroni is paused" in (await asyncio.to_thread(api.run, "status")).output
    [instance] = (await api.ask("GET", "/api/v1/status"))[1]["instances"]
    assert instance["paused"] is True


async def test_without_a_word_from_patroni_nobody_knows_whether_it_is_paused(api: Api) -> None:
    [instance] = (await api.ask("GET", "/api/v1/status"))[1]["instances"]
    assert instance["paused"] is None


async def test_one_that_is_over_when_its_clock_says_so_is_listed_as_expired(api: Api) -> None:
    made = await api.add()
    api.seen.clock.step(7200)
    assert (await api.ask("GET", f"{PATH}/{made['id']}"))[1]["state"] == "expired"
    assert api.seen.clock.wall() == NOON + 7200
