"""Policies at run time over the API: on a real store and pipeline, over both doors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from probed.model import Outcome
from probed.policy.library import Library
from probed.store import AuditQuery, EventQuery
from tests.unit.editing import BASE, Operator, served


@pytest_asyncio.fixture
async def api(tmp_path: Path, place: Path) -> AsyncIterator[Operator]:
    async for operator in served(tmp_path, place):
        yield operator


def params(api: Operator, policy: str = "database_unavailable") -> Mapping[str, Any]:
    return api.seen.editor.library.policies[policy].params


# --- reading


async def test_the_list_tells_the_layers_and_one_policy_where_each_value_comes_from(api: Operator) -> None:
    await api.edit("deadlocks_frequent", params={"deadlock_count": 9})
    items = {item["id"]: item for item in (await api.get(BASE))["items"]}
    assert items["deadlocks_frequent"]["layers"] == ["built-in", "file", "patch"]
    assert items["no_leader"]["layers"] == ["built-in"]
    origin = (await api.get(f"{BASE}/deadlocks_frequent"))["origin"]
    assert origin["params.deadlock_count"]["layer"] == "patch"
    assert origin["params.deadlock_count"]["version"] == 2
    assert origin["params.deadlock_count"]["author"].startswith("local:")
    assert origin["enabled"]["layer"] == "file"
    assert origin["enabled"]["where"].endswith("policies.d/deadlocks.yaml:2:10")
    assert origin["severity"]["layer"] == "built-in"


async def test_a_tag_is_strong_stays_while_nothing_changes_and_changes_with_every_edit(api: Operator) -> None:
    first = await api.tag("no_leader")
    assert first.startswith('"') and first == await api.tag("no_leader")
    await api.edit("etcd_unavailable", severity="critical")
    assert await api.tag("no_leader") == first
    await api.edit("no_leader", severity="critical")
    second = await api.tag("no_leader")
    await api.edit("no_leader", severity="fatal")
    assert len({first, second, await api.tag("no_leader")}) == 3, "taken back is not undone: the version moved on"


# --- editing


async def test_an_edit_needs_the_tag_of_what_it_changes(api: Operator) -> None:
    tag = await api.tag("no_leader")
    status, _, problem = await api.send("PATCH", f"{BASE}/no_leader", {"severity": "normal"})
    assert (status, problem["type"]) == (428, "urn:probed:precondition-required")
    assert "If-Match" in problem["detail"]
    status, headers, answer = await api.send(
        "PATCH", f"{BASE}/no_leader", {"severity": "normal"}, headers={"If-Match": tag}
    )
    assert status == 200
    assert headers["ETag"] == await api.tag("no_leader") != tag
    assert (answer["severity"], answer["version"]) == ("normal", 2)
    status, _, problem = await api.send("PATCH", f"{BASE}/no_leader", {"severity": "fatal"}, headers={"If-Match": tag})
    assert (status, problem["type"]) == (412, "urn:probed:stale")
    assert "version 2" in problem["detail"]
    assert (await api.get(f"{BASE}/no_leader"))["severity"] == "normal"


async def test_a_merge_patch_may_say_so_and_carries_its_reason(api: Operator) -> None:
    status, _, answer = await api.send(
        "PATCH",
        f"{BASE}/database_unavailable",
        {"params": {"failure_count": 5}, "reason": "failover takes 20 s"},
        headers={"If-Match": "*", "Content-Type": "application/merge-patch+json"},
    )
    assert status == 200
    revision = answer["revision"]
    assert (revision["reason"], revision["kind"], revision["via"]) == ("failover takes 20 s", "edit", "socket")
    [touched] = revision["policies"]
    assert touched["differences"] == [{"path": "params.failure_count", "before": 3, "after": 5}]
    assert params(api) == {"failure_count": 5}
    [record] = await api.seen.store.audit(AuditQuery(limit=10))
    assert (record.action, record.subject, record.reason) == (
        "policy.edit",
        "database_unavailable",
        "failover takes 20 s",
    )
    assert (record.before, record.after) == ({}, {"params": {"failure_count": 5}})


async def test_who_only_reads_cannot_edit(api: Operator) -> None:
    for method, path in (
        ("PATCH", "no_leader"),
        ("POST", "no_leader/restore"),
        ("POST", "rollback"),
        ("POST", "import"),
    ):
        status, _, _ = await api.send(method, f"{BASE}/{path}", {}, tcp=True)
        assert status == 403
    assert api.seen.editor.library.version == 1


async def test_every_problem_of_an_edit_is_told_at_once_and_nothing_is_changed(api: Operator) -> None:
    problems = await api.refused("database_unavailable", severity="grave", params={"failure_count": 0}, intervall="3s")
    assert problems == {
        "severity": "expected 'fatal', 'critical' or 'normal', got \"grave\"",
        "params.failure_count": "expected a whole number from 1 to 1000, got 0",
        "intervall": 'unknown key "intervall"; did you mean "interval"?',
    }
    assert (params(api), api.seen.editor.library.version) == ({"failure_count": 3}, 1)
    assert (await api.get(f"{BASE}/history"))["items"] == []


async def test_a_fixed_rule_is_refused_but_severity_and_switch_change(api: Operator) -> None:
    assert "is fixed" in (await api.refused("ha_switchover", detect={"reading": "timeline"}))["detect"]
    answer = await api.edit("ha_switchover", severity="normal", enabled=False)
    assert (answer["severity"], answer["enabled"]) == ("normal", False)


async def test_what_is_asked_of_whom_cannot_be_changed_at_run_time(api: Operator) -> None:
    problems = await api.refused("no_leader", probe="http", http={"url": "http://169.254.169.254/latest"})
    assert "comes from files only" in problems["http"]


@pytest.mark.parametrize(
    "body, kind",
    [
        (b"{", "bad-body"),
        (b"\xff\xfe", "bad-body"),
        (b'{"severity": "fatal", "severity": "normal"}', "bad-body"),
        (b'{"params": {"failure_count": NaN}}', "bad-body"),
        (b'{"params": ' * 3000 + b"1" + b"}" * 3000, "refused-by-rule"),
        (b"[]", "invalid"),
        (b'{"reason": 5}', "invalid"),
        (b'{"name": "\\ud800"}', "refused-by-rule"),
        (b'{"params": {"failure_count": 1e999}}', "refused-by-rule"),
        (b'{"name": "' + b"a" * 70_000 + b'"}', "too-large"),
    ],
)
async def test_a_body_that_is_no_patch_is_refused_and_changes_nothing(api: Operator, body: bytes, kind: str) -> None:
    status, _, problem = await api.send("PATCH", f"{BASE}/database_unavailable", body, headers={"If-Match": "*"})
    assert problem["type"].removeprefix("urn:probed:") in (kind, "bad-body")
    assert 400 <= status < 500
    assert api.seen.editor.library.version == 1


async def test_an_edit_that_changes_nothing_is_no_revision(api: Operator) -> None:
    answer = await api.edit("no_leader", severity="fatal")
    assert (answer["revision"], answer["version"]) == (None, 1)


async def test_edits_at_the_same_time_take_turns_and_none_is_lost(api: Operator) -> None:
    names = ["no_leader", "etcd_unavailable", "haproxy_unavailable", "database_unavailable"]
    await asyncio.gather(*(api.edit(name, severity="normal") for name in names))
    history = (await api.get(f"{BASE}/history"))["items"]
    assert [item["version"] for item in history] == [5, 4, 3, 2]
    assert {api.seen.editor.library.policies[name].severity.value for name in names} == {"normal"}
    tag = await api.tag("no_leader")
    edits = [
        api.send("PATCH", f"{BASE}/no_leader", {"name": f"number {n}"}, headers={"If-Match": tag}) for n in range(5)
    ]
    statuses = sorted([status for status, _, _ in await asyncio.gather(*edits)])
    assert statuses == [200, 412, 412, 412, 412], "of those who read the same, one wins"


async def test_while_the_store_cannot_write_nothing_is_changed(api: Operator) -> None:
    api.seen.store.degraded = "disk full"
    status, _, problem = await api.send("PATCH", f"{BASE}/no_leader", {"name": "x"}, headers={"If-Match": "*"})
    assert (status, problem["type"]) == (503, "urn:probed:store")
    assert api.seen.editor.library.version == 1


# --- open events and streaks


async def test_an_edit_keeps_streaks_and_open_events_and_the_next_event_carries_its_version(api: Operator) -> None:
    seen = api.seen
    await seen.outage("node-a")
    seen.clock.step(5)
    for _ in range(2):
        seen.sample("postgres_liveness", "node-b", Outcome.FAILED, kind="refused")
        seen.clock.step(5)
    await api.edit("database_unavailable", params={"failure_count": 4})
    await seen.settle()
    [before] = await seen.store.events(EventQuery(event="database_unavailable"))
    assert (before.state.value, before.policy_version, before.details["opened_under"]) == ("open", 2, 1)
    seen.sample("postgres_liveness", "node-b", Outcome.FAILED, kind="refused")
    await seen.settle()
    assert len(await seen.store.events(EventQuery(event="database_unavailable"))) == 1, "three are not enough any more"
    seen.sample("postgres_liveness", "node-b", Outcome.FAILED, kind="refused")
    await seen.settle()
    newest, _ = await seen.store.events(EventQuery(event="database_unavailable"))
    assert (newest.target.node, newest.count, newest.policy_version) == ("node-b", 4, 2)


async def test_disabling_closes_open_events_with_that_reason(api: Operator) -> None:
    await api.seen.outage("node-a")
    answer = await api.edit("database_unavailable", enabled=False, reason="planned work")
    assert answer["revision"]["kind"] == "disable"
    await api.seen.settle()
    [event] = await api.seen.store.events(EventQuery(event="database_unavailable"))
    assert (event.state.value, event.resolve_reason) == ("resolved", "disabled")
    assert (await api.edit("database_unavailable", enabled=True))["revision"]["kind"] == "enable"


# --- restoring, history, rolling back


async def test_one_value_is_restored_or_all_of_a_policy(api: Operator) -> None:
    await api.edit("cache_hit_ratio_low", enabled=True, params={"min_blocks": 5, "sample_count": 4})
    path = f"{BASE}/cache_hit_ratio_low/restore"
    answer = await api.post(path, {"key": "params.min_blocks", "reason": "as before"})
    assert answer["patch"] == {"enabled": True, "params": {"sample_count": 4}}
    assert (answer["revision"]["kind"], answer["version"]) == ("restore", 3)
    answer = await api.post(path, {})
    assert (answer["patch"], answer["enabled"], answer["version"]) == ({}, False, 4)
    status, _, problem = await api.send("POST", path, {"key": "params.min_block"})
    assert status == 422
    assert 'did you mean "params.min_blocks"?' in problem["detail"]
    status, _, _ = await api.send("POST", path, {}, headers={"If-Match": '"old"'})
    assert status == 412


async def test_the_history_comes_in_pages_newest_first_and_by_policy(api: Operator) -> None:
    for number in range(5):
        await api.edit("no_leader" if number % 2 else "etcd_unavailable", name=f"name {number}")
    first = await api.get(f"{BASE}/history?limit=2")
    second = await api.get(f"{BASE}/history?limit=2&cursor={first['next_cursor']}")
    third = await api.get(f"{BASE}/history?limit=2&cursor={second['next_cursor']}")
    assert [item["version"] for page in (first, second, third) for item in page["items"]] == [6, 5, 4, 3, 2]
    assert third["next_cursor"] is None
    mine = await api.get(f"{BASE}/history?policy=no_leader")
    assert [item["version"] for item in mine["items"]] == [5, 3]
    [difference] = mine["items"][0]["policies"][0]["differences"]
    assert difference == {"path": "name", "before": "name 1", "after": "name 3"}


async def test_a_rollback_makes_all_policies_as_they_were_and_is_a_revision_itself(api: Operator) -> None:
    await api.edit("no_leader", severity="normal")
    then = (await api.exported())["policies"]
    await api.edit("no_leader", severity="critical", name="Nobody leads")
    await api.edit("etcd_unavailable", enabled=False)
    answer = await api.post(f"{BASE}/rollback", {"version": 2, "reason": "was better"})
    revision = answer["revision"]
    assert (revision["version"], revision["kind"], revision["reason"]) == (5, "rollback", "was better")
    assert {item["id"] for item in revision["policies"]} == {"no_leader", "etcd_unavailable"}
    assert (await api.exported())["policies"] == then
    assert (await api.post(f"{BASE}/rollback", {"version": 2}))["revision"] is None, "it is so already"
    await api.post(f"{BASE}/rollback", {"version": 1})
    assert (await api.exported("?modified=true"))["policies"] == [{"id": "deadlocks_frequent", "enabled": True}]
    status, _, problem = await api.send("POST", f"{BASE}/rollback", {"version": 99})
    assert (status, problem["errors"][0]["path"]) == (422, "version")
    assert "from 1 to 6" in problem["detail"]


async def test_a_rollback_to_what_no_longer_fits_is_refused_whole_with_policy_and_path(api: Operator) -> None:
    await api.edit("no_leader", params={"no_leader_count": 5})
    await api.edit("no_leader", params={"no_leader_count": 2})
    await api.edit("etcd_unavailable", severity="normal")
    library = api.seen.editor.library
    document = library.filed["no_leader"].document
    document.data["detect"] = {**document.data["detect"], "count": 3}
    document.data.pop("params")
    api.seen.editor.library = Library(
        library.filed, library._from_files, library._rules, library.patches, library.version
    )
    status, _, problem = await api.send("POST", f"{BASE}/rollback", {"version": 2})
    assert status == 422
    assert [item["path"] for item in problem["errors"]] == ["no_leader.params.no_leader_count"]
    assert api.seen.editor.library.policies["etcd_unavailable"].severity.value == "normal"


async def test_another_daemon_on_the_same_store_finds_the_patches_again(tmp_path: Path, place: Path) -> None:
    origin, tag = {}, ""
    async for api in served(tmp_path, place):
        await api.edit("no_leader", params={"no_leader_count": 5})
        origin = (await api.get(f"{BASE}/no_leader"))["origin"]
        tag = await api.tag("no_leader")
    async for api in served(tmp_path, place):
        assert params(api, "no_leader") == {"no_leader_count": 5}
        assert (await api.get(f"{BASE}/no_leader"))["origin"] == origin
        assert await api.tag("no_leader") == tag
        assert (await api.edit("no_leader", name="x"))["version"] == 3


async def test_a_patch_that_no_longer_fits_is_told_in_api_and_log_and_does_not_stop_the_start(
    tmp_path: Path, place: Path
) -> None:
    async for api in served(tmp_path, place):
        await api.edit("deadlocks_frequent", params={"deadlock_count": 9})
    files = tmp_path / "policies.d"
    text = "id: deadlocks_frequent\ndetect: {at_least: 4}\nseverity: fatal\n"
    (files / "deadlocks.yaml").write_text(text)
    library = Library.read(files, api.seen.editor.library._rules, api.seen.editor.library.patches, 2)
    with capture_logs() as said:
        api.seen.editor.replace(library)
    [told] = [line for line in said if line["event"] == "policy.patch_does_not_fit"]
    assert "params.deadlock_count" in str(told)
    assert library.policies["deadlocks_frequent"].severity.value == "fatal"


# --- exchange


async def test_what_is_exported_and_imported_into_a_fresh_daemon_gives_the_same_policies(
    api: Operator, tmp_path: Path, place: Path
) -> None:
    await api.edit("no_leader", params={"no_leader_count": 5}, name='odd: "1e5" # ☃')
    await api.edit("capacity_high", enabled=True, params={"size_threshold": "20GiB"}, interval=None)
    await api.edit("ha_switchover", severity="normal", name="1e5")
    whole, changed = await api.exported(), await api.exported("?modified=true")
    _, headers, yaml_text = await api.send("GET", f"{BASE}/export?modified=true&format=yaml")
    assert headers["Content-Type"] == "application/yaml; charset=utf-8"
    assert [item["id"] for item in changed["policies"]] == [
        "capacity_high",
        "deadlocks_frequent",
        "ha_switchover",
        "no_leader",
    ]
    bodies: list[tuple[object, str]] = [
        (whole, "application/json"),
        (changed, "application/json"),
        (yaml_text.encode(), "application/yaml"),
    ]
    for number, (body, kind) in enumerate(bodies):
        (place / str(number)).mkdir()
        async for fresh in served(tmp_path / str(number), place / str(number)):
            answer = await fresh.post(f"{BASE}/import", body, headers={"Content-Type": kind})
            assert answer["revision"]["kind"] == "import"
            again = await fresh.exported()
            assert again["policies"] == whole["policies"]
            assert (await fresh.post(f"{BASE}/import", body, headers={"Content-Type": kind}))["revision"] is None


async def test_the_form_of_an_export_is_what_accept_asks_for(api: Operator) -> None:
    for accept, kind in (
        ("application/yaml", "application/yaml"),
        ("application/json, application/yaml", "application/json"),
        ("text/yaml;q=0.9", "application/yaml"),
        ("*/*", "application/json"),
    ):
        _, headers, _ = await api.send("GET", f"{BASE}/export", headers={"Accept": accept})
        assert headers["Content-Type"].startswith(kind)
        assert headers["Vary"] == "Accept"


async def test_a_dry_run_answers_the_difference_and_changes_nothing(api: Operator) -> None:
    body = {"policies": [{"id": "no_leader", "params": {"no_leader_count": 7}}]}
    answer = await api.post(f"{BASE}/import?dry_run=true", body)
    assert answer["dry_run"] is True
    [touched] = answer["revision"]["policies"]
    assert touched["differences"] == [{"path": "params.no_leader_count", "before": 2, "after": 7}]
    assert (api.seen.editor.library.version, params(api, "no_leader")) == (1, {"no_leader_count": 2})


async def test_an_import_makes_the_policies_that_it_names_as_it_says_and_leaves_the_others(api: Operator) -> None:
    await api.edit("no_leader", severity="normal")
    await api.edit("etcd_unavailable", severity="normal")
    body = b"policies:\n- id: no_leader\n  params: {no_leader_count: 7}\n"
    await api.post(f"{BASE}/import?reason=from+git", body, headers={"Content-Type": "application/yaml"})
    one, other = (api.seen.editor.library.policies[name] for name in ("no_leader", "etcd_unavailable"))
    assert (one.severity.value, one.params, other.severity.value) == ("fatal", {"no_leader_count": 7}, "normal")
    assert (await api.get(f"{BASE}/history?limit=1"))["items"][0]["reason"] == "from git"


async def test_a_bad_import_is_refused_whole_with_line_column_and_path_of_every_problem(api: Operator) -> None:
    body = b"""\
policies:
- id: no_leader
  params: {no_leader_count: 7}
- id: no_leadr
- id: database_unavailable
  params:
    failure_count: 0
- id: ha_switchover
  detect: {reading: timeline}
- id: no_leader
- severity: fatal
"""
    status, _, problem = await api.send("POST", f"{BASE}/import", body, headers={"Content-Type": "application/yaml"})
    assert status == 422
    told = {(item["line"], item["path"]) for item in problem["errors"]}
    assert told == {
        (4, "policies[1].id"),
        (9, "policies[3].detect"),
        (10, "policies[4].id"),
        (11, "policies[5].id"),
    }
    fewer = b"policies:\n- id: database_unavailable\n  params:\n    failure_count: 0\n  severty: fatal\n- {id: no_leader, name: x}\n"
    status, _, problem = await api.send("POST", f"{BASE}/import", fewer, headers={"Content-Type": "application/yaml"})
    assert status == 422
    assert {(item["line"], item["column"], item["path"]) for item in problem["errors"]} == {
        (4, 20, "policies[0].params.failure_count"),
        (5, 3, "policies[0].severty"),
    }
    assert api.seen.editor.library.version == 1


BOMB = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(30))


@pytest.mark.parametrize(
    "body, kind, status",
    [
        (bytes(range(256)), "application/yaml", 400),
        (bytes(range(256)), "application/json", 400),
        (b"\x00" * 100, "application/yaml", 400),
        (BOMB.encode(), "application/yaml", 400),
        (b"policies: " + b"[" * 3000 + b"]" * 3000, "application/yaml", 400),
        (b'{"policies": ' + b"[" * 3000 + b"]" * 3000 + b"}", "application/json", 400),
        (b"policies: []\npolicies: []\n", "application/yaml", 400),
        (b'{"policies": [], "policies": []}', "application/json", 400),
        (b'{"policies": [{"id": "no_leader", "params": {"no_leader_count": Infinity}}]}', "application/json", 400),
        (b'{"policies": [' + b"9" * 5000 + b"]}", "application/json", 400),
        (b"policies: [!!python/object/apply:os.system [id]]\n", "application/yaml", 400),
        (b"", "application/yaml", 422),
        (b"", "application/json", 400),
        (b"policies: {no_leader: {}}\n", "application/yaml", 422),
        (b"format: 2\npolicies: []\n", "application/yaml", 422),
        (b"policies: [{id: no_leader, http: {url: 'http://169.254.169.254/'}}]\n", "application/yaml", 422),
        (b"policies: [{id: no_leader, can_disable: false}]\n", "application/yaml", 422),
        (b"policies: []\n#" + b"x" * (1 << 20), "application/yaml", 413),
        (b"policies: []\n", "text/plain", 415),
    ],
)
async def test_an_import_that_is_none_is_refused(api: Operator, body: bytes, kind: str, status: int) -> None:
    got, _, problem = await api.send("POST", f"{BASE}/import", body, headers={"Content-Type": kind})
    assert got == status, problem
    assert api.seen.editor.library.version == 1


async def test_a_variable_in_an_import_is_text_and_tells_nothing_of_this_daemons_environment(api: Operator) -> None:
    body = b"policies: [{id: no_leader, name: 'from ${HOME}'}]\n"
    await api.post(f"{BASE}/import", body, headers={"Content-Type": "application/yaml"})
    assert api.seen.editor.library.policies["no_leader"].name == "from ${HOME}"


async def test_an_empty_import_changes_nothing(api: Operator) -> None:
    assert (await api.post(f"{BASE}/import", {"policies": []}))["revision"] is None
