"""Silences that stand in the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from probed.cli import cli
from probed.config.load import load_file
from probed.config.silences import misnamed
from probed.errors import ConfigError
from probed.model import Severity
from probed.recurrence import parse
from probed.silences import Scope, Silence

HEAD = 'instances: [{name: orders, patroni: ["http://127.0.0.1:8008"]}]\nsilences:\n'
WINDOW = 'name: w, comment: c, every: "sun 02:00-04:00 Europe/Berlin"'
ONCE = "name: o, comment: c, starts_at: 2026-11-28T22:00:00+01:00, ends_at: 2026-11-29T04:00:00+01:00"


def silences(tmp_path: Path, *items: str) -> list[Silence]:
    return [declared.silence() for declared in load_file(write(tmp_path, *items)).silences]


def problems(tmp_path: Path, *items: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        silences(tmp_path, *items)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def write(tmp_path: Path, *items: str) -> Path:
    file = tmp_path / "probed.yml"
    file.write_text(HEAD + "".join(f"  - {{{item}}}\n" for item in items))
    return file


def test_a_window_that_comes_back_for_good_and_a_night_are_declared_with_their_place(tmp_path: Path) -> None:
    window, once = silences(
        tmp_path, WINDOW + ", instances: [orders, observer], severities: [normal]", ONCE + ", nodes: [n]"
    )
    assert (window.id, window.origin, window.where) == ("file:w", "file", f"{tmp_path}/probed.yml:3")
    assert window.scope == Scope(("orders", "observer"), (), (), (Severity.NORMAL,))
    assert (window.every, window.ends_at) == (parse("sun 02:00-04:00 Europe/Berlin"), None)
    assert (once.starts_at, once.ends_at, once.where) == (1795899600.0, 1795921200.0, f"{tmp_path}/probed.yml:4")


def test_one_that_is_long_over_is_no_mistake(tmp_path: Path) -> None:
    [over] = silences(tmp_path, ONCE.replace("2026", "2019") + ", nodes: [n]")
    assert over.state_at(1_795_000_000.0) == "expired"


@pytest.mark.parametrize(
    "item, expected",
    [
        (WINDOW, "probed.yml:3:5: silences[0]: it would hide everything"),
        ("name: w, instances: [orders]", 'probed.yml:3:5: silences[0].comment: required key "comment" is missing'),
        ("name: w, comment: c, nodes: [n]", "probed.yml:3:5: silences[0].starts_at: expected a start, or windows"),
        (WINDOW + ", event: [no_leader]", 'silences[0].event: unknown key "event"; did you mean "events"?'),
        (
            WINDOW + ", instances: [order]",
            'silences[0].instances[0]: there is no instance "order"; did you mean "orders"?',
        ),
        (ONCE.replace("11-29", "11-27") + ", nodes: [n]", "silences[0].ends_at: expected an end after the start"),
        (ONCE.replace("11-29", "12-31") + ", nodes: [n]", "silences[0].ends_at: expected at most 31 d after the start"),
        (ONCE.replace("T22:00:00+01:00", "T22:00:00") + ", nodes: [n]", "expected a time with its offset"),
        (ONCE.replace("2026-11-28T22:00:00+01:00", "20261128") + ", nodes: [n]", "expected a time with its offset"),
        (WINDOW.replace("-04:00", "") + ", nodes: [n]", "silences[0].every: expected such as"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, item: str, expected: str) -> None:
    found = problems(tmp_path, item)
    assert any(expected in problem for problem in found), found
    assert all(problem.startswith("probed.yml:3:") for problem in found), found


def test_two_of_one_name_are_refused_at_the_second(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, WINDOW + ", nodes: [n]", WINDOW + ", nodes: [m]")
    assert problem == 'probed.yml:4:12: silences[1].name: the name "w" is used twice'


def test_an_event_that_there_is_not_is_told_at_the_silence_that_names_it(tmp_path: Path) -> None:
    declared = load_file(write(tmp_path, WINDOW + ", events: [no_leader, no_leder]")).silences
    [problem] = misnamed(declared, ["no_leader", "ha_switchover"])
    assert str(problem).removeprefix(f"{tmp_path}/") == (
        'probed.yml:3:1: silences[0].events: there is no event "no_leder"; did you mean "no_leader"?'
    )


def test_check_knows_the_events(tmp_path: Path) -> None:
    file = write(tmp_path, WINDOW + ", events: [no_leader]")
    assert CliRunner().invoke(cli, ["check", str(file)]).exit_code == 0
    write(tmp_path, WINDOW + ", events: [no_leder]")
    result = CliRunner().invoke(cli, ["check", str(file)])
    assert result.exit_code == 1
    assert 'did you mean "no_leader"?' in result.output
