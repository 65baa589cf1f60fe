"""Recorded samples, backtests and shadows over the API, on a real store, pipeline and file of samples."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner

from probed.api.app import serve
from probed.cli import cli
from probed.cli.client import Client, NotThere
from probed.errors import ApiError
from probed.model import Outcome
from probed.shadows import Shadow, ShadowChanges
from probed.store import Commit
from tests.unit.serving import Stack, free_port, stack

Json = dict[str, Any]
TARGET = "orders/node-b/postgres"
LAG = "replication_lag_high"


class Desk:
    """Somebody at the UNIX socket, and the stack behind it."""

    def __init__(self, seen: Stack, path: Path) -> None:
        self.seen, self._path = seen, path

    async def get(self, path: str, **query: object) -> Json:
        answer: Json = await asyncio.to_thread(Client(socket_path=self._path).get, f"/api/v1/{path}", query)
        return answer

    async def change(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        client = Client(socket_path=self._path)
        return await asyncio.to_thread(client.change, method, f"/api/v1/{path}", body, headers=headers)

    async def lines(self, path: str, body: object) -> list[Json]:
        client = Client(socket_path=self._path)
        answer = await asyncio.to_thread(
            client.ask, "POST", f"/api/v1/{path}", body, {"Accept": "application/x-ndjson"}
        )
        return [json.loads(line) for line in answer.body.splitlines()]

    def lag(self, *seconds: float | None) -> None:
        """One round of the lag probe each 5 s; ``None``: the target failed."""
        for value in seconds:
            self.seen.clock.step(5)
            if value is None:
                self.seen.sample("replication_lag", "node-b", Outcome.FAILED, reason="refused", kind="refused")
            else:
                self.seen.sample("replication_lag", "node-b", lag_seconds=value, lag_bytes=0.0)

    async def backtest(self, policy: str = LAG, since: str = "-1d", **patch: object) -> Json:
        answer: Json = await self.change("POST", f"policies/{policy}/backtest", {"patch": patch, "since": since})
        return answer


@pytest_asyncio.fixture
async def desk(tmp_path: Path, place: Path) -> AsyncIterator[Desk]:
    made = await stack(tmp_path)
    made.archive.open()
    close = await serve(made, addresses=[f"127.0.0.1:{free_port()}"], socket_path=place / "probed.sock")
    yield Desk(made, place / "probed.sock")
    await close()
    await made.archive.close()
    await made.store.close()


# --- samples


async def test_recorded_samples_come_oldest_first_page_by_page(desk: Desk) -> None:
    desk.lag(*(float(number) for number in range(10)))
    seen: list[float] = []
    query: dict[str, object] = {"target": TARGET, "probe": "replication_lag", "limit": 4}
    cursor: str | None = None
    page: Json = {}
    for _ in range(3):
        page = await desk.get("samples", **query, cursor=cursor)
        seen += [item["readings"]["lag_seconds"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == [float(number) for number in range(10)]
    assert set(page["items"][0]) == {"at", "outcome", "readings", "reason", "kind", "duration_ms"}


async def test_samples_are_thinned_for_a_chart_and_keep_their_peak(desk: Desk) -> None:
    desk.lag(*([1.0] * 200), 77.0, *([1.0] * 200))
    page = await desk.get("samples", target=TARGET, probe="replication_lag", points=20)
    assert max(item["readings"]["lag_seconds"] for item in page["items"]) == 77.0
    assert len(page["items"]) <= 20


async def test_what_is_recorded_is_listed(desk: Desk) -> None:
    desk.lag(1.0, 2.0)
    (item,) = (await desk.get("samples/recorded"))["items"]
    assert (item["probe"], item["target"], item["samples"]) == ("replication_lag", TARGET, 2)


async def test_samples_of_nothing_are_refused_with_what_there_is(desk: Desk) -> None:
    desk.lag(1.0)
    await desk.seen.archive.written()
    with pytest.raises(ApiError, match="target: expected it; GET /api/v1/samples/recorded"):
        await desk.get("samples")
    with pytest.raises(NotThere, match='did you mean "orders/node-b/postgres"'):
        await desk.get("samples", target="orders/node-b/postgre", probe="replication_lag")
    with pytest.raises(NotThere, match='did you mean "replication_lag"'):
        await desk.get("samples", target=TARGET, probe="replication_lags")
    assert (await desk.get("samples", target=TARGET, probe="wal_receiver"))["items"] == []


# --- backtests


async def test_a_backtest_tells_what_a_change_would_gain_lose_and_move(desk: Desk) -> None:
    desk.lag(*[0.0] * 10, *[12.0] * 4, *[0.0] * 10, 40.0, 40.0, *[0.0] * 10, 20.0, *[31.0] * 6, 20.0, *[0.0] * 6)
    found = await desk.backtest(params={"lag_threshold_sec": 10, "sample_count": 3})
    assert (found["present"]["events"], found["changed"]["events"]) == (2, 2)
    assert (found["gained"], found["lost"], found["moved"], found["kept"]) == (1, 1, 1, 0)
    (target,) = [item for item in found["targets"] if item["target"] == TARGET]
    (moved,) = target["moved"]
    assert moved["present"]["opened_at"] == moved["changed"]["opened_at"]
    assert moved["present"]["resolved_at"] < moved["changed"]["resolved_at"]
    assert target["gained"][0]["value"] == 12.0
    assert (found["present"]["detect_seconds"], found["changed"]["detect_seconds"]) == (5.0, 10.0)
    assert found["samples"] == target["samples"]


async def test_a_backtest_changes_nothing(desk: Desk) -> None:
    desk.lag(0.0, 40.0, 40.0)
    before = await desk.get(f"policies/{LAG}")
    await desk.backtest(params={"lag_threshold_sec": 1})
    assert await desk.get(f"policies/{LAG}") == before
    assert (await desk.get("policies/history"))["items"] == []


async def test_a_change_that_changes_nothing_keeps_every_event(desk: Desk) -> None:
    desk.lag(*[0.0] * 5, *[50.0] * 5, *[0.0] * 5)
    found = await desk.backtest()
    assert (found["kept"], found["gained"], found["lost"], found["moved"]) == (1, 0, 0, 0)


async def test_a_backtest_says_what_it_cannot_know(desk: Desk) -> None:
    desk.lag(0.0)
    notes = " ".join((await desk.backtest(interval="30s", enabled=False))["notes"])
    assert "cannot sample each 30 s" in notes
    assert "the changed policy is disabled" in notes
    assert "does not reach back" in notes
    assert "without causes" in notes
    empty = await desk.backtest("auth_unavailable")
    assert 'no samples of the probe "auth" are recorded' in " ".join(empty["notes"])
    assert empty["targets"] == []


async def test_a_patch_that_does_not_fit_is_refused_as_an_edit_would_be(desk: Desk) -> None:
    with pytest.raises(ApiError, match="lag_threshold_sec"):
        await desk.backtest(params={"lag_threshold_sec": -1})
    with pytest.raises(ApiError, match="since: expected a time such as"):
        await desk.backtest(since="yesterday")
    with pytest.raises(ApiError, match="since: expected a time before until"):
        await desk.change("POST", f"policies/{LAG}/backtest", {"since": "-1h", "until": "-2h"})
    with pytest.raises(NotThere, match="did you mean"):
        await desk.backtest("replication_lag_hihg")


async def test_lines_of_progress_come_before_the_answer(desk: Desk) -> None:
    desk.lag(*[0.0] * 5, *[50.0] * 5)
    *progress, last = await desk.lines(f"policies/{LAG}/backtest", {"since": "-1d"})
    assert last["result"]["present"]["events"] == 1
    assert [line["progress"] for line in progress] == sorted(line["progress"] for line in progress)
    assert progress[-1] == {"progress": 1.0}


async def test_a_backtest_spares_what_a_switchover_spared(desk: Desk) -> None:
    def leader(name: str) -> None:
        desk.seen.sample("leader", leader=name, has_leader=1.0)

    for name, lag in [("node-a", 0.0)] * 5 + [("node-b", 99.0)] * 6 + [("node-b", 0.0)] * 10:
        desk.seen.clock.step(5)
        leader(name)
        desk.seen.sample("replication_lag", "node-b", lag_seconds=lag, lag_bytes=0.0)
    found = await desk.backtest(switchover_grace=False)
    assert (found["present"]["events"], found["changed"]["events"]) == (0, 1)


# --- shadows


async def test_a_shadow_tells_nobody_and_keeps_what_it_would_have_told(desk: Desk) -> None:
    laid = await desk.change("PUT", f"policies/{LAG}/shadow", {"patch": {"params": {"lag_threshold_sec": 10}}})
    assert (laid["policy"], laid["problem"]) == (LAG, None)
    desk.lag(0.0, *[15.0] * 4, *[0.0] * 4, *[50.0] * 2)
    await desk.seen.settle()
    shadow = await desk.get(f"policies/{LAG}/shadow")
    assert [item["resolved_at"] is None for item in shadow["items"]] == [True, False]
    assert [item["value"] for item in shadow["items"]] == [50.0, 15.0]
    assert shadow["live_events"] == 1
    events = (await desk.get("events"))["items"]
    assert [event["event"] for event in events] == [LAG]
    assert [item["policy"] for item in (await desk.get("policies/shadows"))["items"]] == [LAG]


async def test_events_of_a_shadow_come_page_by_page(desk: Desk) -> None:
    await desk.change("PUT", f"policies/{LAG}/shadow", {"patch": {"params": {"lag_threshold_sec": 10}}})
    for _ in range(3):
        desk.lag(*[15.0] * 2, *[0.0] * 2)
    await desk.seen.settle()
    first = await desk.get(f"policies/{LAG}/shadow", limit=2)
    second = await desk.get(f"policies/{LAG}/shadow", limit=2, cursor=first["next_cursor"])
    opened = [item["opened_at"] for item in first["items"] + second["items"]]
    assert len(opened) == 3
    assert opened == sorted(opened, reverse=True)
    assert second["next_cursor"] is None


async def test_promoting_a_shadow_is_an_ordinary_edit_and_ends_it(desk: Desk) -> None:
    patch = {"params": {"lag_threshold_sec": 10}}
    await desk.change("PUT", f"policies/{LAG}/shadow", {"patch": patch, "reason": "tried for a week"})
    edited = await desk.change("POST", f"policies/{LAG}/shadow/promote", {})
    assert edited["params"]["lag_threshold_sec"] == 10
    assert (edited["revision"]["kind"], edited["revision"]["reason"]) == ("edit", "tried for a week")
    with pytest.raises(NotThere, match="has no shadow"):
        await desk.get(f"policies/{LAG}/shadow")
    actions = [item["action"] for item in (await desk.get("audit"))["items"]]
    assert actions == ["shadow.promote", "policy.edit", "shadow.lay"]


async def test_a_shadow_that_ends_takes_along_what_was_kept_of_it(desk: Desk) -> None:
    await desk.change("PUT", f"policies/{LAG}/shadow", {"patch": {"params": {"lag_threshold_sec": 10}}})
    desk.lag(*[15.0] * 3)
    await desk.change("DELETE", f"policies/{LAG}/shadow")
    desk.lag(*[15.0] * 3)
    await desk.change("PUT", f"policies/{LAG}/shadow", {"patch": {"params": {"lag_threshold_sec": 12}}})
    assert (await desk.get(f"policies/{LAG}/shadow"))["items"] == []


async def test_a_shadow_follows_edits_of_its_policy(desk: Desk) -> None:
    await desk.change("PUT", f"policies/{LAG}/shadow", {"patch": {"params": {"sample_count": 4}}})
    edit = {"params": {"lag_threshold_sec": 5}}
    await desk.change("PATCH", f"policies/{LAG}", edit, **{"If-Match": "*"})
    shadow = await desk.get(f"policies/{LAG}/shadow")
    assert "5 s" in shadow["rule"]
    assert "4" in shadow["rule"]


async def test_a_shadow_is_refused_as_an_edit_would_be(desk: Desk) -> None:
    with pytest.raises(ApiError, match="422"):
        await desk.change("PUT", f"policies/{LAG}/shadow", {"patch": {"params": {"lag_threshold_sec": -1}}})
    with pytest.raises(ApiError, match="422"):
        await desk.change("PUT", f"policies/{LAG}/shadow", {"patch": {}})
    assert (await desk.get("policies/shadows"))["items"] == []


async def test_a_shadow_goes_on_over_a_restart(tmp_path: Path) -> None:
    shadow = Shadow(LAG, {"params": {"lag_threshold_sec": 10}}, 1_795_003_200.0, "ops")
    first = await stack(tmp_path)
    await first.store.append(Commit(shadows=ShadowChanges(laid=(shadow,))))
    first.shadowing.lay(shadow, first.editor.library.tried(LAG, shadow.patch))
    await lagging(first, 15.0, 15.0, 15.0)
    await first.store.close()
    second = await stack(tmp_path)
    second.clock.now_wall, second.clock.now_mono = first.clock.now_wall, first.clock.now_mono
    await lagging(second, 0.0, 0.0, 0.0)
    (event,) = await second.store.shadow_events(LAG, None, 10)
    assert (event.resolved_at, event.resolve_reason) == (second.clock.wall() - 5, "recovered")
    await second.store.close()


async def lagging(seen: Stack, *seconds: float) -> None:
    for value in seconds:
        seen.clock.step(5)
        seen.sample("replication_lag", "node-b", lag_seconds=value, lag_bytes=0.0)
    await seen.settle()


# --- proposals


async def test_a_noisy_policy_is_listed_with_a_value_and_what_it_would_tell(desk: Desk) -> None:
    for _ in range(8):
        desk.lag(*[0.0] * 100, 40.0, 40.0, 0.0)
    found = await desk.get("policies/proposals")
    (item,) = found["items"]
    assert (item["policy"], item["kind"], item["patch"]) == (LAG, "noisy", {"params": {"sample_count": 3}})
    assert (item["present"]["events"], item["changed"]["events"], item["lost"]) == (8, 0, 8)
    assert "over within 60 s" in item["says"]
    assert await desk.get("policies/proposals") == found


async def test_nothing_recorded_proposes_nothing(desk: Desk) -> None:
    assert (await desk.get("policies/proposals"))["items"] == []


# --- commands


class Shell:
    """Runs commands against the desk's daemon."""

    def __init__(self, desk: Desk) -> None:
        self._socket = str(desk._path)

    async def run(self, *words: str, code: int = 0) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli, ["policy", *words, "--socket", self._socket])
        assert result.exit_code == code, result.output + result.stderr
        return result.stdout + result.stderr


@pytest.fixture
def shell(desk: Desk) -> Shell:
    return Shell(desk)


async def test_the_backtest_command_tells_both_sides_and_what_differs(desk: Desk, shell: Shell) -> None:
    desk.lag(*[0.0] * 10, *[12.0] * 4, *[0.0] * 10)
    said = await shell.run("backtest", LAG, "lag_threshold_sec=10", "--since", "-1h")
    assert "1 gained, 0 lost, 0 moved, 0 kept" in said
    assert "to detect, seconds" in said
    assert TARGET in said
    assert "note: " in said
    data = json.loads(await shell.run("backtest", LAG, "lag_threshold_sec=10", "-o", "json"))
    assert (data["patch"], data["gained"]) == ({"params": {"lag_threshold_sec": 10}}, 1)
    rows = await shell.run("backtest", LAG, "lag_threshold_sec=10", "-o", "tsv")
    assert rows.splitlines()[1].split("\t")[:2] == [TARGET, "gained"]


async def test_a_backtest_of_what_cannot_be_says_why(shell: Shell) -> None:
    said = await shell.run("backtest", LAG, "lag_threshold_sec=-1", code=1)
    assert "lag_threshold_sec" in said
    assert "expected seconds" in said


async def test_a_shadow_is_added_shown_promoted_and_removed_by_commands(desk: Desk, shell: Shell) -> None:
    assert await shell.run("shadow", "list") == "No policy has a shadow.\n"
    assert "tells nobody" in await shell.run("shadow", "add", LAG, "lag_threshold_sec=10", "--reason", "a try")
    desk.lag(*[15.0] * 3, *[0.0] * 3)
    await desk.seen.settle()
    assert "params.lag_threshold_sec=10" in await shell.run("shadow", "list")
    shown = await shell.run("shadow", "show", LAG)
    assert "the policy itself told 0 events meanwhile" in shown
    assert TARGET in shown
    assert "params.lag_threshold_sec: 30 -> 10" in await shell.run("shadow", "promote", LAG)
    await shell.run("shadow", "add", LAG, "sample_count=9")
    assert f"{LAG}: its shadow has ended\n" in await shell.run("shadow", "remove", LAG)


async def test_proposals_are_told_as_changes_that_set_takes(desk: Desk, shell: Shell) -> None:
    assert await shell.run("proposals") == "Nothing to propose from 14 days of samples.\n"
    for _ in range(8):
        desk.lag(*[0.0] * 100, 40.0, 40.0, 0.0)
    said = await shell.run("proposals", "--days", "1")
    assert "params.sample_count=3" in said
