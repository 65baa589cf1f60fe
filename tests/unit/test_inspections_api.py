"""Inspections from the order to the kept report: the inspector, its timetable, the API and the command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result
from msgspec.structs import replace

from probed.api.app import serve
from probed.cli import cli
from probed.cli.client import Client, Declined
from probed.inspection import ReportState, packing
from probed.inspection.choosing import Order
from probed.inspection.inspecting import ENDED, STOPPED
from probed.inspection.schedules import parse
from probed.inspection.timetable import Entry, Timetable, said
from probed.model import OBSERVER, Target
from probed.probes import Context, Measured, Probe, catalogue
from probed.store import AuditQuery, Commit
from probed.store.inspections import MAX_KEPT
from probed.store.purging import Limits
from probed.store.reports import InspectedRecord, InspectionQuery, InspectionRecord
from probed.vitals import Vitals
from tests.hostile import accept_and_hang, listening, refusing
from tests.unit.serving import NOON, Stack, free_port, stack

Json = dict[str, Any]
PATH = "/api/v1/inspections"
LINES = {"Accept": "application/x-ndjson"}


def nodes(*ports: int) -> list[Json]:
    return [
        {"name": f"node-{name}", "postgres": {"host": "127.0.0.1", "port": port, "sslmode": "disable"}}
        for name, port in zip("abc", ports, strict=False)
    ]


class Desk:
    """An operator at the UNIX socket, and the stack behind it."""

    def __init__(self, seen: Stack, path: Path) -> None:
        self.seen, self._path = seen, path

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        client = Client(socket_path=self._path)
        return await asyncio.to_thread(client.change, method, path, body, headers=headers)

    async def inspect(self, **body: object) -> Json:
        """The report of an inspection, from the last line of its answer."""
        answer = await asyncio.to_thread(Client(socket_path=self._path).ask, "POST", PATH, body, LINES, seconds=60.0)
        lines = [json.loads(line) for line in answer.body.splitlines()]
        assert all("progress" in line for line in lines[:-1])
        report: Json = lines[-1]["result"]
        return report

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["inspect", *arguments, "--socket", str(self._path)], prog_name="probed")

    async def command(self, *arguments: str) -> Result:
        return await asyncio.to_thread(self.run, *arguments)


@pytest_asyncio.fixture
async def desk(tmp_path: Path, place: Path) -> AsyncIterator[Desk]:
    """Two nodes at which nobody listens."""
    seen = await stack(tmp_path, nodes=nodes(refusing(), refusing()), haproxy=None)
    seen.archive.open()
    close = await serve(seen, addresses=[f"127.0.0.1:{free_port()}"], socket_path=place / "probed.sock")
    yield Desk(seen, place / "probed.sock")
    await close()
    await seen.inspector.close()
    await seen.archive.close()
    await seen.store.close()


# --- on demand ---------------------------------------------------------------------------------------------------


async def test_a_report_tells_what_is_so_and_is_kept(desk: Desk) -> None:
    report = await desk.inspect()
    [orders] = report["instances"]
    assert (report["state"], report["verdict"], report["name"], report["days"]) == ("done", "fail", None, 7)
    assert report["author"].startswith("local:")
    assert (orders["instance"], orders["labels"], orders["grade"]) == ("orders", {"env": "prod"}, "E")
    assert orders["grade_reason"].startswith("Database access unavailable (orders/node-a/postgres) fails")
    failing = {(item["id"], item["target"]) for item in orders["items"] if item["verdict"] == "fail"}
    assert failing == {("database_unavailable", f"orders/node-{name}/postgres") for name in "ab"}
    sections = list(dict.fromkeys(item["section"] for item in orders["items"]))
    assert sections == ["events", "history", "switchovers"]
    assert orders["nodes"][0] == {"name": "node-a", "role": "", "version": "", "state": "fail"}
    assert await desk.ask("GET", f"{PATH}/{report['id']}") == report
    listed = await desk.ask("GET", PATH)
    assert [item["id"] for item in listed["items"]] == [report["id"]]
    assert listed["items"][0]["instances"][0]["grade"] == "E"
    [record] = await desk.seen.store.audit(AuditQuery(limit=10))
    assert (record.action, record.subject) == ("inspection.start", report["id"])


async def test_two_looks_at_an_unchanged_cluster_differ_only_in_times(desk: Desk) -> None:
    first = await desk.inspect()
    desk.seen.clock.step(60)
    second = await desk.inspect()
    assert second["instances"][0]["items"] == first["instances"][0]["items"]
    assert second["instances"][0]["differences"] == []
    assert second["instances"][0]["compared_with"] == first["id"]


async def test_chosen_events_alone_are_looked_at(desk: Desk) -> None:
    report = await desk.inspect(events=["database_unavailable"], days=30)
    assert report["events"] == ["database_unavailable"]
    events = [item for item in report["instances"][0]["items"] if item["section"] in ("events", "history")]
    assert {item["id"] for item in events} == {"database_unavailable"}


async def test_what_happened_before_is_counted_and_linked(desk: Desk) -> None:
    await desk.seen.outage("node-a")
    report = await desk.inspect()
    items = report["instances"][0]["items"]
    [history] = [i for i in items if (i["section"], i["id"]) == ("history", "database_unavailable")]
    assert (history["verdict"], history["evidence"]["triggers"], len(history["events"])) == ("warn", 1, 1)
    event = next(i for i in items if (i["section"], i["target"]) == ("events", "orders/node-a/postgres"))
    assert event["events"] == history["events"]
    assert "open since 2026-11-18 12:00:15 UTC" in event["finding"]


async def test_an_order_that_cannot_be_is_refused_with_every_reason(desk: Desk) -> None:
    with pytest.raises(Declined) as raised:
        await desk.ask("POST", PATH, {"instances": ["order"], "events": ["no_leder"], "days": 7})
    assert [error["path"] for error in raised.value.errors] == ["instances[0]", "events[0]"]
    with pytest.raises(Declined, match='monitoring of "capacity_high" is off, and only what is watched'):
        await desk.ask("POST", PATH, {"events": ["capacity_high"]})
    with pytest.raises(Declined, match="422"):
        await desk.ask("POST", PATH, {"days": 91})


async def test_while_one_runs_another_is_refused_and_the_first_shows_its_progress(tmp_path: Path, place: Path) -> None:
    async with listening(accept_and_hang) as peer:
        seen = await stack(tmp_path, nodes=nodes(peer.port), haproxy=None)
        seen.archive.open()
        close = await serve(seen, addresses=[f"127.0.0.1:{free_port()}"], socket_path=place / "probed.sock")
        desk = Desk(seen, place / "probed.sock")
        begun = await desk.ask("POST", PATH, {})
        assert (begun["state"], begun["progress"]["total"], begun["instances"]) == ("running", 1, [])
        with pytest.raises(Declined, match=f"inspection {begun['id']} runs, one at a time"):
            await desk.ask("POST", PATH, {})
        shown = await desk.ask("GET", f"{PATH}/{begun['id']}")
        assert (shown["state"], shown["progress"]["done"]) == ("running", 0)
        await seen.inspector.close()
        await seen.settle()
        failed = await desk.ask("GET", f"{PATH}/{begun['id']}")
        assert (failed["state"], failed["error"], failed["progress"]) == ("failed", STOPPED, None)
        await close()
        await seen.archive.close()
        await seen.store.close()


async def test_a_report_in_the_making_at_a_crash_is_failed_at_the_next_start(desk: Desk) -> None:
    head = {"observer": "o", "version": "1", "days": 7, "zone": "UTC", "error": "", "note": "", "chosen": []}
    left = InspectionRecord("0195", "instances:orders", "", "running", "alice", NOON - 60, None, head)
    await desk.seen.store.append(Commit(inspections=(left,)))
    await desk.seen.inspector.recover()
    await desk.seen.settle()
    failed = await desk.ask("GET", f"{PATH}/0195")
    assert (failed["state"], failed["error"], failed["ended_at"]) == ("failed", ENDED, "2026-11-18T12:00:00.000Z")


# --- the command -------------------------------------------------------------------------------------------------


async def test_the_command_tells_the_worst_and_ends_as_it_was_asked_to(desk: Desk, tmp_path: Path) -> None:
    file, page = tmp_path / "report.json", tmp_path / "report.html"
    result = await desk.command("--instance", "orders", "--json", str(file), "--html", str(page))
    assert result.exit_code == 1
    assert "E      orders        2" in result.output
    assert "fail     events   Database access unavailable" in result.output
    report = json.loads(file.read_text())
    assert report["instances"][0]["grade"] == "E"
    assert page.read_text().startswith("<!doctype html>")
    shown = await desk.command("show", report["id"][:18])
    assert (shown.exit_code, "orders" in shown.output) == (0, True)
    listed = await desk.command("list", "-o", "tsv")
    assert listed.output.splitlines()[1].split("\t")[0] == report["id"]


async def test_findings_below_the_least_that_counts_are_no_failure(desk: Desk) -> None:
    """What is off by default opens nothing: the only finding left is a warning."""
    event = ["--event", "replication_lag_high"]
    assert (await desk.command(*event)).exit_code == 1
    assert (await desk.command(*event, "--fail-on", "fail")).exit_code == 0


async def test_a_file_that_cannot_be_written_is_told(desk: Desk, tmp_path: Path) -> None:
    result = await desk.command("--json", str(tmp_path / "no" / "report.json"))
    assert (result.exit_code, "--json: cannot write" in result.output) == (1, True)


# --- schedules ---------------------------------------------------------------------------------------------------


def entry(schedule: str = "daily 13:00", name: str = "nightly") -> Entry:
    return Entry(name, parse(schedule), Order((), name=name), schedule)


async def ran(seen: Stack) -> list[InspectionRecord]:
    """Reports, newest first, once nothing runs."""
    await asyncio.sleep(0.05)
    await seen.inspector.free()
    return list(await seen.store.inspections(InspectionQuery()))


async def test_a_time_that_comes_is_inspected_once(desk: Desk) -> None:
    seen = desk.seen
    seen.timetable.follow([entry()])
    running = asyncio.create_task(seen.timetable.run())
    await seen.clock.move(3599)
    assert await ran(seen) == []
    await seen.clock.move(1)
    [record] = await ran(seen)
    assert (record.name, record.author, record.state, record.head["note"]) == ("nightly", "schedule", "done", "")
    await seen.clock.move(3600)
    assert len(await ran(seen)) == 1
    listed = await desk.ask("GET", PATH)
    assert listed["schedules"][0]["next_at"] == "2026-11-19T13:00:00.000Z"
    running.cancel()


async def test_a_time_that_was_missed_while_no_daemon_ran_is_made_up_for_once(desk: Desk) -> None:
    seen = desk.seen
    seen.timetable.follow([entry("daily 11:00")])
    await seen.timetable.make_up(7200.0)
    running = asyncio.create_task(seen.timetable.run())
    await seen.clock.move(1)
    [record] = await ran(seen)
    assert record.head["note"] == "it was due at 2026-11-18 11:00 UTC, when no daemon ran"
    running.cancel()
    again = Timetable(lambda: seen.inspector, seen.store, seen.clock)
    again.follow([entry("daily 11:00")])
    await again.make_up(7200.0)
    running = asyncio.create_task(again.run())
    await seen.clock.move(60)
    assert len(await ran(seen)) == 1
    running.cancel()


async def test_a_schedule_that_is_new_or_a_daemon_that_was_there_makes_up_for_nothing(desk: Desk) -> None:
    seen = desk.seen
    seen.timetable.follow([entry("daily 11:00")])
    await seen.timetable.make_up(None)
    running = asyncio.create_task(seen.timetable.run())
    await seen.clock.move(60)
    assert await ran(seen) == []
    running.cancel()


async def test_a_date_that_was_set_back_does_not_repeat_a_time_nor_end_the_schedule(desk: Desk) -> None:
    seen = desk.seen
    seen.timetable.follow([entry()])
    running = asyncio.create_task(seen.timetable.run())
    await seen.clock.move(3600)
    assert len(await ran(seen)) == 1
    seen.clock.step_wall(-1800)
    await seen.clock.move(3600)
    assert len(await ran(seen)) == 1
    seen.clock.step_wall(-40 * 86_400.0)
    await seen.clock.move(30)
    await seen.clock.move(86_400)
    assert len(await ran(seen)) == 2
    running.cancel()


async def test_a_report_of_a_schedule_becomes_an_event_of_the_observer_alone(desk: Desk) -> None:
    seen = desk.seen
    await seen.inspector.start(Order(("orders",), name="nightly"))
    await ran(seen)
    [record] = await seen.store.inspections(InspectionQuery())
    found = await seen.store.inspection(record.id)
    assert found is not None
    report = packing.report_of(found)
    text = said(report, "https://probed.example")
    assert text.startswith("inspection nightly: grade E for orders, Database access unavailable")
    assert text.endswith(f"; https://probed.example/inspections/{report.id}")
    failed = said(replace(report, state=ReportState.FAILED, error="the disk is full"))
    assert failed == f"inspection nightly failed: the disk is full; probed inspect show {report.id}"
    vitals = Vitals(seen.clock)
    vitals.note_inspection(text)
    target = Target(OBSERVER, "watcher", "probed", kind="observer")
    probe = catalogue()["observer_inspections"]
    assert isinstance(probe, Probe)
    context = Context(target, 1.0, _vitals=vitals)
    for expected in (1.0, 0.0):
        measured = await probe.run(context)
        assert isinstance(measured, Measured)
        assert measured.readings == {"inspections": expected}


# --- how long reports are kept -----------------------------------------------------------------------------------


def kept(number: int, series: str = "name:nightly", began_at: float = NOON) -> InspectionRecord:
    part = InspectedRecord("orders", "A", 0, 0, b"x")
    return InspectionRecord(f"{number:08d}", series, "nightly", "done", "schedule", began_at, began_at, {}, (part,))


async def test_of_one_series_the_newest_are_kept_and_others_do_not_suffer(desk: Desk) -> None:
    store = desk.seen.store
    await store.append(Commit(inspections=(kept(0, "name:weekly"),)))
    await store.append(Commit(inspections=tuple(kept(number) for number in range(1, MAX_KEPT + 11))))
    found = await store.inspections(InspectionQuery(limit=1000))
    assert len(found) == MAX_KEPT + 1
    assert found[-1].id == "00000000"
    assert found[-2].id == "00000011"
    assert await store.inspection("00000005") is None


async def test_reports_older_than_the_history_go_with_it(tmp_path: Path) -> None:
    seen = await stack(tmp_path, nodes=nodes(refusing()), haproxy=None)
    store, clock = seen.store, seen.clock
    store.keep(Limits(age=86_400.0))
    await store.append(Commit(inspections=(kept(1),)))
    for _ in range(40):
        clock.step(7200)
        await store.append(Commit())
        await asyncio.sleep(0.02)
    await store.append(Commit(inspections=(kept(2, began_at=clock.wall()),)))
    for _ in range(50):
        if len(await store.inspections(InspectionQuery())) == 1:
            break
        clock.step(61)
        await store.append(Commit())
        await asyncio.sleep(0.05)
    assert [record.id for record in await store.inspections(InspectionQuery())] == ["00000002"]
    assert await store.inspected_before("orders", "00000002") is None
    await store.close()
