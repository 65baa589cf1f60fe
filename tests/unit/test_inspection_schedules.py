"""When inspections are due: words and cron expressions, by the clock of a zone, and what people write wrongly."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from probed.config import load
from probed.errors import ConfigError
from probed.inspection.schedules import parse


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def stamps(text: str, zone: str, since: str, number: int) -> list[str]:
    """The next times, as UTC."""
    schedule, at = parse(text, zone), unix(since)
    found = []
    for _ in range(number):
        following = schedule.next_after(at)
        assert following is not None
        at = following
        found.append(datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    "text, expected",
    [
        ("daily 03:00", ["11-23 03:00", "11-24 03:00"]),
        ("weekly mon 03:00", ["11-23 03:00", "11-30 03:00"]),
        ("weekly sat,sun 23:30", ["11-22 23:30", "11-28 23:30"]),
        ("monthly 1 03:00", ["12-01 03:00", "01-01 03:00"]),
        ("monthly last 03:00", ["11-30 03:00", "12-31 03:00"]),
        ("0 3 * * 1-5", ["11-23 03:00", "11-24 03:00"]),
    ],
)
def test_words_and_cron_name_the_next_times(text: str, expected: list[str]) -> None:
    assert stamps(text, "UTC", "2026-11-22T10:00:00+00:00", 2) == expected


def test_an_hour_that_is_left_out_is_made_up_for_and_one_that_comes_twice_counts_once() -> None:
    # Europe/Berlin: 02:00 becomes 03:00 on 2026-03-29, and 03:00 becomes 02:00 on 2026-10-25.
    spring = stamps("daily 02:30", "Europe/Berlin", "2026-03-28T12:00:00+00:00", 2)
    assert spring == ["03-29 01:00", "03-30 00:30"]
    autumn = stamps("daily 02:30", "Europe/Berlin", "2026-10-24T12:00:00+00:00", 2)
    assert autumn == ["10-25 00:30", "10-26 01:30"]


def test_what_is_due_is_the_newest_time_since_and_none_when_none_has_come() -> None:
    schedule = parse("daily 03:00")
    slot = unix("2026-11-22T03:00:00+00:00")
    assert schedule.due(slot - 1, slot) == slot
    assert schedule.due(slot, slot + 3600) is None
    assert schedule.due(slot - 3 * 86_400, slot + 60) == slot
    assert schedule.due(slot - 3600, slot - 1) is None


@pytest.mark.parametrize(
    "text, says",
    [
        ("dayly 03:00", 'did you mean "daily"?'),
        ("daily 25:00", "expected a time of day such as 03:00"),
        ("daily", "expected a time of day such as 03:00"),
        ("weekly funday 03:00", 'expected a day of the week such as mon or sat,sun, got "funday"'),
        ("monthly 31 03:00", "from 1 to 28, or last"),
        ("61 3 * * *", "cannot read the minute of the cron expression"),
        ("0 3 31 2 *", "cannot read the day-of-month"),
        ("* * * * *", "at least 5 minutes between two inspections"),
        ("0 3 * *", "expected such as"),
        ("", "expected such as"),
    ],
)
def test_a_schedule_that_cannot_be_read_says_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse(text)
    assert says in str(raised.value)


CONFIG = """instances:
  - {{name: orders, nodes: [{{name: node-a, postgres: {{host: 10.0.0.1}}}}]}}
inspections:
  - {{name: nightly, schedule: "daily 03:00", instances: [orders]}}
  - {lines}
"""


@pytest.mark.parametrize(
    "lines, place, says",
    [
        ('{name: b, schedule: "dayly 03:00"}', "5:25: inspections[1].schedule", 'did you mean "daily"?'),
        ('{name: b, schedule: "daily 03:00", zone: Berlin}', "5:46: inspections[1].zone", "Europe/Berlin"),
        ('{name: b, schedule: "daily 03:00", instances: [order]}', "5:52", 'did you mean "orders"?'),
        ('{name: nightly, schedule: "daily 04:00"}', "5:12: inspections[1].name", "is used twice"),
        ('{name: b, schedule: "daily 03:00", days: 91}', "5:46", "90"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, lines: str, place: str, says: str) -> None:
    file = tmp_path / "probed.yml"
    file.write_text(CONFIG.format(lines=lines))
    with pytest.raises(ConfigError) as raised:
        load.load_file(file)
    [problem] = raised.value.problems
    assert place in str(problem)
    assert says in str(problem)


def test_only_events_whose_monitoring_is_on_can_be_chosen(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from probed.cli import cli

    file = tmp_path / "probed.yml"
    events = "[deadlocks_frequent, no_leder]"
    file.write_text(CONFIG.format(lines=f'{{name: b, schedule: "daily 03:00", events: {events}}}'))
    result = CliRunner().invoke(cli, ["check", str(file)])
    assert result.exit_code == 1
    assert f'{file}:5:1: inspections[1].events: monitoring of "deadlocks_frequent" is off' in result.output
    assert 'there is no event "no_leder"; did you mean "no_leader"?' in result.output
