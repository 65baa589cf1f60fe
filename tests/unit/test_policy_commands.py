"""``probed policy`` against a served stack, over its UNIX socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from click.testing import CliRunner, Result

from probed.cli import cli
from probed.policy.library import Library
from tests.unit.editing import Operator, served

pytestmark = pytest.mark.usefixtures("quiet")


class Terminal:
    def __init__(self, operator: Operator) -> None:
        self.operator = operator

    def run(self, *arguments: str) -> Result:
        command = ["policy", *arguments, "--socket", str(self.operator.path)]
        return CliRunner().invoke(cli, command, prog_name="probed")

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        """What ``probed policy …`` prints, errors too."""
        result = await asyncio.to_thread(self.run, *arguments)
        assert result.exit_code == code, result.output
        return result.output

    @property
    def library(self) -> Library:
        return self.operator.seen.editor.library


@pytest_asyncio.fixture
async def policy(tmp_path: Path, place: Path) -> AsyncIterator[Terminal]:
    async for operator in served(tmp_path, place):
        yield Terminal(operator)


async def test_set_prints_what_it_changed_and_a_parameter_may_be_named_alone(policy: Terminal) -> None:
    told = await policy(
        "set", "database_unavailable", "failure_count=5", "severity=critical", "--reason", "too nervous"
    )
    assert told.splitlines() == [
        "version 2",
        "",
        "database_unavailable",
        "  params.failure_count: 3 -> 5",
        "  severity: fatal -> critical",
    ]
    history = await policy("history", "database_unavailable", "-o", "json")
    assert json.loads(history)["items"][0]["reason"] == "too nervous"
    told = await policy("set", "database_unavailable", "params.failure_count=5")
    assert told == "Nothing to change: it is so already.\n"


async def test_a_value_is_written_as_in_a_file_and_nothing_takes_the_key_away(policy: Terminal) -> None:
    told = await policy("set", "capacity_high", "size_threshold=20GiB", "enabled=true", "interval=", 'name="10"')
    assert told.splitlines()[3:] == [
        "  enabled: false -> true",
        "  interval: 60s -> (default)",
        "  name: Database capacity alert -> 10",
        "  params.size_threshold: 10737418240 -> 20GiB",
    ]
    assert "name: expected a string, got 11" in await policy("set", "capacity_high", "name=11", code=1)


async def test_a_refused_edit_names_every_path_and_changes_nothing(policy: Terminal) -> None:
    told = await policy("set", "database_unavailable", "params.failure_cont=5", code=1)
    assert 'params.failure_cont: no part of the rule uses the parameter "failure_cont"; did you mean' in told
    told = await policy("set", "database_unavailable", "failure_count=0", "interval=5", code=1)
    assert "\n  params.failure_count: expected a whole number from 1 to 1000, got 0" in told
    assert "\n  interval: expected a duration with its unit" in told
    assert policy.library.version == 1


@pytest.mark.parametrize("change", ["failure_count", "=3", "params..x=3", "severity=[", "a=*b"])
async def test_what_is_no_assignment_is_a_usage_error(policy: Terminal, change: str) -> None:
    assert "Error: expected" in await policy("set", "database_unavailable", change, code=2)


async def test_a_key_set_twice_is_a_usage_error(policy: Terminal) -> None:
    assert "set twice" in await policy("set", "no_leader", "severity=fatal", "severity=normal", code=2)
    assert "set twice" in await policy("set", "no_leader", "params=3", "params.no_leader_count=4", code=2)


async def test_enable_disable_and_restore(policy: Terminal) -> None:
    assert "enabled: true -> false" in await policy("disable", "no_leader")
    assert "enabled: false -> true" in await policy("enable", "no_leader")
    await policy("set", "no_leader", "no_leader_count=7", "severity=normal")
    assert "params.no_leader_count: 7 -> 2" in await policy("restore", "no_leader", "no_leader_count")
    assert "severity: normal -> fatal" in await policy("restore", "no_leader", "--reason", "as it was")
    kinds = [made["kind"] for made in json.loads(await policy("history", "-o", "json"))["items"]]
    assert kinds == ["restore", "restore", "edit", "enable", "disable"]
    assert 'did you mean "no_leader"?' in await policy("enable", "no_leadr", code=1)


async def test_show_origin_tells_of_each_value_where_it_comes_from(policy: Terminal) -> None:
    await policy("set", "deadlocks_frequent", "deadlock_count=9")
    lines = (await policy("show", "deadlocks_frequent", "--origin")).splitlines()
    told = {line.split()[0]: line for line in lines[1:]}
    assert "version 2 by local:" in told["params.deadlock_count"]
    assert "policies.d/deadlocks.yaml:2:10" in told["enabled"]
    assert "built-in" in told["severity"]
    assert "built-in, file, patch" in await policy("show", "deadlocks_frequent")
    rows = json.loads(await policy("show", "deadlocks_frequent", "--origin", "-o", "json"))["items"]
    assert {"path", "value", "origin"} == set(rows[0])


async def test_the_origin_of_files_can_be_seen_without_a_daemon(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("id: no_leader\nparams: {no_leader_count: 4}\n")
    command = ["policy", "show", "no_leader", "--origin", "--policies.directory", str(tmp_path)]
    result = CliRunner().invoke(cli, command)
    assert f"{tmp_path}/x.yaml:2:27" in result.output


async def test_history_and_rollback(policy: Terminal) -> None:
    await policy("set", "no_leader", "no_leader_count=3", "--reason", "first")
    await policy("set", "etcd_unavailable", "failure_count=9", "description=" + "long words " * 20)
    lines = (await policy("history")).splitlines()
    assert lines[0].split()[:4] == ["VERSION", "AT", "AUTHOR", "KIND"]
    assert [line.split()[0] for line in lines[1:]] == ["3", "2"]
    assert "no_leader: params.no_leader_count: 2 -> 3" in lines[2] and lines[2].endswith("first")
    told = await policy("rollback", "2", "--reason", "was better")
    assert told.startswith("version 4\n\netcd_unavailable\n")
    assert "\n    - long words" in told and "\n    + " in told
    assert policy.library.policies["etcd_unavailable"].params == {"failure_count": 3}
    assert "expected a version from 1 to 4, got 9" in await policy("rollback", "9", code=1)
    assert await policy("history", "haproxy_unavailable") == "Nothing was changed at run time.\n"


async def test_export_and_import(policy: Terminal, tmp_path: Path) -> None:
    await policy("set", "no_leader", "no_leader_count=3")
    text = await policy("export", "--modified")
    assert [item["id"] for item in yaml.safe_load(text)["policies"]] == ["deadlocks_frequent", "no_leader"]
    whole = json.loads(await policy("export", "-o", "json"))
    assert len(whole["policies"]) == len(policy.library.policies)
    file = tmp_path / "policies.yaml"
    file.write_text(text.replace("no_leader_count: 3", "no_leader_count: 4"))
    told = await policy("import", str(file), "--dry-run")
    assert told == "would be version 3\n\nno_leader\n  params.no_leader_count: 3 -> 4\n"
    assert policy.library.version == 2
    assert (await policy("import", str(file), "--reason", "from git")).startswith("version 3\n")
    assert await policy("import", str(file)) == "Nothing to change: it is so already.\n"
    (tmp_path / "whole.json").write_text(json.dumps(whole))
    assert "params.no_leader_count: 4 -> 3" in await policy("import", str(tmp_path / "whole.json"))


async def test_a_bad_import_names_file_line_and_column_of_every_problem(policy: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("policies:\n- id: no_leader\n  params: {no_leader_count: 0}\n  severty: fatal\n")
    lines = (await policy("import", str(file), code=1)).splitlines()
    assert {line.removeprefix("probed: ").rpartition(": ")[0].split(": ")[0] for line in lines} == {
        f"{file}:3:29",
        f"{file}:4:3",
    }
    file.write_text("policies: [")
    assert f"{file}:2:1: not valid YAML" in await policy("import", str(file), code=1)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    assert "is not UTF-8 text" in await policy("import", str(tmp_path / "binary"), code=1)


async def test_rows_for_programs(policy: Terminal) -> None:
    told = await policy("set", "no_leader", "no_leader_count=3", "-o", "tsv")
    assert told == "policy\tpath\tbefore\tafter\nno_leader\tparams.no_leader_count\t2\t3\n"
    assert json.loads(await policy("rollback", "1", "-o", "json"))["revision"]["kind"] == "rollback"
    assert yaml.safe_load(await policy("history", "-o", "yaml"))["items"][0]["version"] == 3
    assert (await policy("list", "-o", "tsv")).splitlines()[0].split("\t") == [
        "id", "severity", "enabled", "version", "layers", "group", "rule",
    ]  # fmt: skip
