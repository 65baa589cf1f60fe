"""How the benchmarks tell what was met: by the median, with a limit to how bad one round may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.goals import Goal, into, tell


@pytest.mark.parametrize(
    "values, missed",
    [
        ([0.5, 0.7, 0.74], False),
        ([0.5, 0.7, 0.9], False),  # one round beyond the goal, within 1.3 times it
        ([0.5, 0.7, 1.0], True),  # one round far beyond it
        ([0.7, 0.76, 0.8], True),  # the median beyond it
    ],
)
def test_a_goal_is_met_by_its_median_unless_a_round_is_far_off(values: list[float], missed: bool) -> None:
    assert Goal("P1", "a ratio", values, must=0.75).missed is missed


@pytest.mark.parametrize("values, missed", [([3.1, 2.5, 3.0], False), ([3.1, 2.2, 3.0], True), ([2.9, 2.9], True)])
def test_where_more_is_better_the_bounds_are_turned_round(values: list[float], missed: bool) -> None:
    assert Goal("P8", "probes", values, must=3, more=True).missed is missed


def test_each_goal_is_one_json_line_and_one_row_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    goals = [
        Goal("P1", "a ratio", [0.8, 0.9, 0.7], 0.75, 0.45),
        Goal("P4", "beside monit", [], skipped="not installed"),
    ]
    tell(goals, {"python": "3.11"})
    told = capsys.readouterr()
    first, second = map(json.loads, told.out.splitlines())
    assert (first["value"], first["spread"], first["missed"]) == (0.8, [0.7, 0.9], True)
    assert first["versions"] == {"python": "3.11"}
    assert second == {"id": "P4", "what": "beside monit", "skipped": "not installed"}
    assert "MISSED" in told.err
    assert "skipped: not installed" in told.err


def test_a_table_replaces_the_one_of_its_name_in_a_page_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- /one -->\nbetween\n<!-- two -->\nkept\n<!-- /two -->\n")
    into(page, "one", [Goal("P1", "a ratio", [0.5], 0.75).row({"python": "3.11"})])
    text = page.read_text()
    assert "| P1 | a ratio | 0.5 |  | <= 0.75 |  | ok |" in text
    assert "Measured with python 3.11." in text
    assert "old" not in text
    assert text.endswith("<!-- /one -->\nbetween\n<!-- two -->\nkept\n<!-- /two -->\n")
    with pytest.raises(ValueError, match="<!-- three -->"):
        into(page, "three", [])
