"""``probed ack``, ``events stream`` and ``export`` against a served stack; ``probed db`` beside a store in use."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from structlog.testing import capture_logs

from probed.api.app import serve
from probed.cli.client import Client
from probed.cli.following import Follower
from probed.errors import ApiError, StoreError
from probed.store import EventQuery, tending
from probed.store.migrating import SCHEMA
from probed.store.opening import FILE
from probed.store.sqlite import SqliteStore
from probed.testing import FakeClock
from tests.unit.serving import free_port, stack
from tests.unit.test_cli import run
from tests.unit.test_ledger_api import EVENTS, Ledger, ledger
from tests.unit.test_store import NOON, an_event, opened, resolved

__all__ = ["ledger"]  # a fixture


async def command(ledger: Ledger, *arguments: str) -> Result:
    """A command beside the daemon, which goes on meanwhile."""
    with capture_logs():  # the daemon's, which is in this very process
        return await asyncio.to_thread(run, *arguments, "--socket", str(ledger.path))


class TestAck:
    async def test_an_event_is_acknowledged_by_the_beginning_of_its_id_and_given_back(self, ledger: Ledger) -> None:
        await ledger.seen.outage("node-a")
        [event] = (await ledger.get(EVENTS))["items"]
        done = await command(ledger, "ack", event["id"][:18], "--comment", "on my way")
        assert done.exit_code == 0, done.stderr
        assert done.stdout.startswith("acknowledged by local:")
        assert "Database access unavailable" in done.stdout
        shown = (await command(ledger, "events", "show", event["id"])).stdout
        assert "on my way" in shown
        again = await command(ledger, "ack", event["id"])
        assert again.exit_code == 1
        assert "has acknowledged it already" in again.stderr
        undone = await command(ledger, "ack", event["id"], "--undo", "-o", "json")
        assert json.loads(undone.stdout)["acked_by"] is None
        assert (await command(ledger, "ack", event["id"], "--undo")).exit_code == 1

    async def test_undoing_takes_no_comment(self, ledger: Ledger) -> None:
        assert (await command(ledger, "ack", "0" * 36, "--undo", "--comment", "x")).exit_code == 2


class TestExport:
    async def test_all_events_come_as_csv_or_json(self, ledger: Ledger) -> None:
        ids = set(await ledger.happen(230))
        [other] = await ledger.happen(event="ha_switchover")
        done = await command(ledger, "events", "export")
        assert {row["id"] for row in csv.DictReader(io.StringIO(done.stdout))} == {*ids, other}
        done = await command(ledger, "events", "export", "--format", "json", "--event", "ha_switchover")
        assert [item["id"] for item in json.loads(done.stdout)["items"]] == [other]

    async def test_a_refusal_is_told(self, ledger: Ledger) -> None:
        done = await command(ledger, "events", "export", "--since", "yesterday")
        assert done.exit_code == 1
        assert "since" in done.stderr


def follow(follower: Follower, number: int) -> Sequence[tuple[str, dict[str, Any]]]:
    messages = follower.messages()
    return [next(messages) for _ in range(number)]


class TestFollower:
    async def test_what_happens_while_the_daemon_is_away_is_told_when_it_is_back(
        self, tmp_path: Path, place: Path
    ) -> None:
        seen = await stack(tmp_path)
        ledger = Ledger(seen, f"127.0.0.1:{free_port()}", place / "probed.sock")
        close = await serve(seen, addresses=[ledger.address], socket_path=None)
        lost: list[str] = []
        follower = Follower(
            Client(f"http://{ledger.address}"), {"instance": "orders"}, "0", lost.append, lambda _: time.sleep(0.05)
        )
        ids = await ledger.happen(3)
        reading = asyncio.create_task(asyncio.to_thread(follow, follower, 6))
        while follower.last_id != "3":  # noqa: ASYNC110 - it is another thread's
            await asyncio.sleep(0.01)
        await close()
        ids += await ledger.happen(2)
        close = await serve(seen, addresses=[ledger.address], socket_path=None)
        ids += await ledger.happen()
        messages = await asyncio.wait_for(reading, 20)
        assert [data["transition"]["seq"] for _, data in messages] == [1, 2, 3, 4, 5, 6]
        assert [data["id"] for _, data in messages] == ids
        assert lost
        await close()
        await seen.store.close()

    async def test_a_daemon_that_was_never_there_ends_it_with_the_reason(self) -> None:
        follower = Follower(Client("http://127.0.0.1:1"), {})
        with pytest.raises(ApiError, match="no probed answers"):
            await asyncio.to_thread(follow, follower, 1)

    async def test_a_line_tells_when_what_where_and_who(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("probed.cli.following.Follower.messages", some_messages(await self._told(ledger)))
        shown = (await command(ledger, "events", "stream", "--after", "0")).stdout.splitlines()
        assert "opened" in shown[0] and "database_unavailable" in shown[0] and "orders/node-a" in shown[0]
        assert " by local:" in shown[1] and shown[1].count("on my way \\x1b[31m") == 1
        as_json = (await command(ledger, "events", "stream", "-o", "json")).stdout.splitlines()
        assert [json.loads(line)["transition"]["kind"] for line in as_json] == ["opened", "acked"]

    async def _told(self, ledger: Ledger) -> Sequence[tuple[str, dict[str, Any]]]:
        await ledger.seen.outage("node-a")
        [event] = (await ledger.get(EVENTS))["items"]
        await ledger.send("POST", f"{EVENTS}/{event['id']}/ack", {"comment": "on my way \x1b[31m"})
        client = Client(f"http://{ledger.address}")
        return await asyncio.to_thread(follow, Follower(client, {}, "0"), 2)


def some_messages(messages: Sequence[tuple[str, dict[str, Any]]]) -> Any:
    """A stream that ends, as none does by itself."""
    return lambda _: iter(messages)


@contextlib.asynccontextmanager
async def in_use(directory: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(directory, clock=FakeClock(NOON))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def filled(store: SqliteStore) -> None:
    for number in range(5):
        event = an_event(NOON + number)
        await store.append(opened(event))
        if number:
            await store.append(resolved(event, NOON + number + 60))


class TestDb:
    async def test_the_state_is_told_while_the_daemon_runs_and_when_it_does_not(self, tmp_path: Path) -> None:
        async with in_use(tmp_path) as store:
            await filled(store)
            state = await asyncio.to_thread(tending.state_of, tmp_path)
            assert (state.in_use, state.schema, state.newest_schema) == (True, len(SCHEMA), len(SCHEMA))
            assert (state.events, state.open_events, state.transitions, state.purged) == (5, 1, 9, 0)
            assert (state.oldest, state.newest, state.last_sign_of_life) == (NOON, NOON + 4, NOON)
            assert state.shrinks
            assert state.log_bytes > 0
        assert tending.state_of(tmp_path).in_use is False
        told = run("db", "status", "--storage.path", str(tmp_path))
        assert told.exit_code == 0, told.stderr
        assert "2026-11-18T12:00:04Z" in told.stdout
        as_json = json.loads(run("db", "status", "--storage.path", str(tmp_path), "-o", "json").stdout)
        assert (as_json["events"], as_json["retention_seconds"]) == (5, 90 * 86400)

    async def test_a_copy_of_a_store_in_use_is_whole_and_its_owners_alone(self, tmp_path: Path) -> None:
        target = tmp_path / "copies" / FILE
        target.parent.mkdir()
        async with in_use(tmp_path / "store") as store:
            await filled(store)
            expected = await store.events(EventQuery())
            writing = asyncio.create_task(_go_on(store))
            done = await asyncio.to_thread(run, "db", "backup", str(target), "--storage.path", str(tmp_path / "store"))
            writing.cancel()
            assert done.exit_code == 0, done.stderr
        assert target.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in target.parent.iterdir()] == [FILE]
        async with in_use(target.parent) as copy:
            kept = {event.id for event in await copy.events(EventQuery(limit=100_000))}
            assert {event.id for event in expected} <= kept

    async def test_a_copy_never_takes_another_files_place(self, tmp_path: Path) -> None:
        async with in_use(tmp_path):
            pass
        target = tmp_path / "copy"
        target.write_text("mine")
        done = run("db", "backup", str(target), "--storage.path", str(tmp_path))
        assert done.exit_code == 1
        assert "exists already" in done.stderr
        assert target.read_text() == "mine"

    async def test_a_copy_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        async with in_use(tmp_path / "store") as store:
            await filled(store)
        path = tmp_path / "store" / FILE
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(StoreError):
            tending.back_up(tmp_path / "store", tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
        assert not list(tmp_path.glob("copy*"))

    @pytest.mark.parametrize("what", [("status",), ("migrate",), ("backup", "copy")])
    def test_where_there_is_no_store_the_remedy_is_named(self, tmp_path: Path, what: tuple[str, ...]) -> None:
        done = run("db", *what, "--storage.path", str(tmp_path))
        assert done.exit_code == 1
        assert "--storage.path" in done.stderr
        assert list(tmp_path.iterdir()) == []

    async def test_an_older_store_is_migrated_unless_a_daemon_owns_it(self, tmp_path: Path) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            for number, file in enumerate(SCHEMA[:5], start=1):
                connection.executescript(file.read_text(encoding="utf-8") + f"\nPRAGMA user_version = {number};")
        told = run("db", "status", "--storage.path", str(tmp_path)).stdout
        assert f"5, and {len(SCHEMA)} after `probed db migrate`" in told
        done = run("db", "migrate", "--storage.path", str(tmp_path))
        assert done.stdout == f"schema 5 -> {len(SCHEMA)}\n"
        assert run("db", "migrate", "--storage.path", str(tmp_path)).stdout == f"schema {len(SCHEMA)}, as it was\n"
        async with in_use(tmp_path):
            refused = await asyncio.to_thread(run, "db", "migrate", "--storage.path", str(tmp_path))
        assert refused.exit_code == 1
        assert "is in use by another probed" in refused.stderr


async def _go_on(store: SqliteStore) -> None:
    for number in range(10_000):
        await store.append(opened(an_event(NOON + 100 + number)))
