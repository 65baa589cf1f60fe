"""Windows that come back: their text, and every minute of them on the days when clocks are set."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probed.recurrence import DAY, LAST, MAX_LENGTH, Recurrence, parse

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Europe/Dublin", "Asia/Kathmandu", "Australia/Lord_Howe",
    "America/Sao_Paulo", "Asia/Tehran", "Africa/Casablanca", "Pacific/Apia", "America/St_Johns", "Africa/Cairo",
    "Asia/Beirut", "America/Havana", "Antarctica/Troll", "Asia/Shanghai", "Pacific/Chatham",
)  # fmt: skip
"""Whole hours, half hours, two hours, jumps at midnight, negative summer time, a day that never was."""


def at(text: str, zone: str, *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def told(window: object, zone: str) -> str:
    """Local times with their offsets."""
    opens_at, closes_at = (getattr(window, name) for name in ("opens_at", "closes_at"))
    shown = [datetime.fromtimestamp(stamp, ZoneInfo(zone)).strftime("%m-%d %H:%M%z") for stamp in (opens_at, closes_at)]
    return " to ".join(shown)


# --- what is written


@pytest.mark.parametrize(
    "text, same",
    [
        ("daily 02:00-04:00 UTC", Recurrence(120, 120, "UTC")),
        ("02:00-04:00 UTC", Recurrence(120, 120, "UTC")),
        ("mon-fri 22:00-02:00 Europe/Berlin", Recurrence(1320, 240, "Europe/Berlin", (0, 1, 2, 3, 4))),
        ("sat,sun 00:00-24:00 UTC", Recurrence(0, DAY, "UTC", (5, 6))),
        ("fri-mon 12:00-12:30 UTC", Recurrence(720, 30, "UTC", (0, 4, 5, 6))),
        ("SUN 1-7 03:00-05:00 UTC", Recurrence(180, 120, "UTC", (6,), (1, 2, 3, 4, 5, 6, 7))),
        ("1,15,last 03:00-05:00 UTC", Recurrence(180, 120, "UTC", (), (LAST, 1, 15))),
        ("fri 22:00 for 56h Asia/Tokyo", Recurrence(1320, 56 * 60, "Asia/Tokyo", (4,))),
    ],
)
def test_a_window_is_written_as_people_say_it(text: str, same: Recurrence) -> None:
    assert parse(text) == same


@pytest.mark.parametrize(
    "text, mistake",
    [
        ("", "expected such as"),
        ("UTC", "expected such as"),
        ("mon 22:00-02:00", "a time of day means something else in every zone"),
        ("mon 22:00 for 4h", "a time of day means something else in every zone"),
        ("mon 22:00-02:00 Europe/Berln", 'did you mean "Europe/Berlin"?'),
        ("mon 22:00-02:00 ../../etc/passwd", "expected a time zone"),
        ("mon 25:00-02:00 UTC", 'expected a time of day such as 22:00, got "25:00"'),
        ("mon 2:00-3:00 UTC", 'expected a time of day such as 22:00, got "2:00"'),
        ("mon 24:00-02:00 UTC", "expected a start from 00:00 to 23:59"),
        ("mon 22:00-22:00 UTC", 'a whole day is "22:00 for 24h"'),
        ("mondays 22:00-23:00 UTC", 'did you mean "mon"?'),
        ("0 22:00-23:00 UTC", "expected days of the month from 1 to 31, or last"),
        ("32 22:00-23:00 UTC", "expected days of the month from 1 to 31, or last"),
        ("7-1 22:00-23:00 UTC", "expected days of the month such as 1-7"),
        ("25-last 22:00-23:00 UTC", "expected days of the month such as 1-7"),
        ("mon tue 22:00-23:00 UTC", "each once"),
        ("1-7 sun 22:00-23:00 UTC", "each once"),
        ("daily mon 22:00-23:00 UTC", "expected days of the week"),
        ("mon 22:00 for 8d UTC", "from 1m to 7d"),
        ("mon 22:00 for 90s UTC", "whole minutes"),
        ("mon 22:00 for ever UTC", "expected a duration"),
        ("mon 22:00 UTC", "expected such as"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(text: str, mistake: str) -> None:
    with pytest.raises(ValueError, match=r"expected|means") as caught:
        parse(text)
    assert mistake in str(caught.value)


recurrences = st.builds(
    Recurrence,
    start=st.integers(0, DAY - 1),
    length=st.one_of(st.integers(1, 240), st.integers(1, MAX_LENGTH)),
    zone=st.sampled_from(ZONES),
    weekdays=st.lists(st.integers(0, 6), unique=True).map(lambda days: tuple(sorted(days))),
    monthdays=st.lists(st.integers(0, 31), unique=True, max_size=9).map(lambda days: tuple(sorted(days))),
)


@given(recurrences)
def test_what_is_shown_can_be_written(recurrence: Recurrence) -> None:
    assert parse(str(recurrence)) == recurrence


# --- days


def test_both_lists_of_days_must_name_a_day() -> None:
    first_sunday = parse("sun 1-7 03:00-04:00 UTC")
    window = first_sunday.next_after(at("2026-11-02T00:00", "UTC"))
    assert window is not None
    assert told(window, "UTC") == "12-06 03:00+0000 to 12-06 04:00+0000"


def test_the_last_day_of_the_month_is_found_whatever_its_number() -> None:
    last = parse("last 23:00-01:00 UTC")
    now = at("2028-02-01T00:00", "UTC")
    found = []
    for _ in range(3):
        window = last.next_after(now)
        assert window is not None
        found.append(told(window, "UTC"))
        now = window.opens_at
    assert found == [
        "02-29 23:00+0000 to 03-01 01:00+0000",
        "03-31 23:00+0000 to 04-01 01:00+0000",
        "04-30 23:00+0000 to 05-01 01:00+0000",
    ]


def test_a_day_on_which_a_window_opens_is_the_day_of_its_start() -> None:
    night = parse("fri 22:00-02:00 UTC")
    assert night.window_at(at("2026-11-28T01:59", "UTC")) is not None  # a Saturday
    assert night.window_at(at("2026-11-27T01:00", "UTC")) is None  # Friday before


def test_of_windows_that_overlap_the_one_that_closes_last_counts() -> None:
    days = parse("daily 12:00 for 3d UTC")
    window = days.window_at(at("2026-11-25T13:00", "UTC"))
    assert window is not None
    assert told(window, "UTC") == "11-25 12:00+0000 to 11-28 12:00+0000"


# --- the days when clocks are set


@pytest.mark.parametrize(
    "text, day, window",
    [
        # Spring in Berlin: 02:00 becomes 03:00.
        ("02:30-03:30 Europe/Berlin", "2026-03-29", "03-29 03:00+0200 to 03-29 04:00+0200"),
        ("02:00-03:00 Europe/Berlin", "2026-03-29", "03-29 03:00+0200 to 03-29 04:00+0200"),
        ("01:30-02:30 Europe/Berlin", "2026-03-29", "03-29 01:30+0100 to 03-29 03:30+0200"),
        ("01:30-04:00 Europe/Berlin", "2026-03-29", "03-29 01:30+0100 to 03-29 04:00+0200"),
        ("22:00-06:00 Europe/Berlin", "2026-03-28", "03-28 22:00+0100 to 03-29 06:00+0200"),
        # Autumn in Berlin: 03:00 becomes 02:00, and the hour comes twice.
        ("02:30-03:30 Europe/Berlin", "2026-10-25", "10-25 02:30+0200 to 10-25 03:30+0100"),
        ("02:10-02:20 Europe/Berlin", "2026-10-25", "10-25 02:10+0200 to 10-25 02:20+0100"),
        ("01:30-02:30 Europe/Berlin", "2026-10-25", "10-25 01:30+0200 to 10-25 02:30+0100"),
        # It ends where that hour begins, and does not begin anew when the clock is set back to its end.
        ("01:00-02:00 Europe/Berlin", "2026-10-25", "10-25 01:00+0200 to 10-25 02:00+0200"),
        ("22:00-06:00 Europe/Berlin", "2026-10-24", "10-24 22:00+0200 to 10-25 06:00+0100"),
        # Half an hour on Lord Howe, midnight in Havana and Beirut.
        ("02:15-02:45 Australia/Lord_Howe", "2026-10-04", "10-04 02:30+1100 to 10-04 03:00+1100"),
        ("01:45-02:15 Australia/Lord_Howe", "2026-04-05", "04-05 01:45+1100 to 04-05 02:15+1030"),
        ("00:00-00:30 America/Havana", "2026-03-08", "03-08 01:00-0400 to 03-08 01:30-0400"),
        # The day that Samoa left out: its window takes place when that day is over.
        ("10:00-11:00 Pacific/Apia", "2011-12-30", "12-31 00:00+1400 to 12-31 01:00+1400"),
    ],
)
def test_a_window_on_a_day_when_clocks_are_set(text: str, day: str, window: str) -> None:
    recurrence = parse(text)
    midnight = at(f"{day}T00:00", recurrence.zone)
    found = recurrence.next_after(midnight - 1)
    assert found is not None
    assert told(found, recurrence.zone) == window


def reference(recurrence: Recurrence, day: date) -> tuple[int, int]:
    """The window that opens on a day, found by looking at the clock in every minute around it."""
    zone = ZoneInfo(recurrence.zone)
    start = datetime.combine(day, time()) + timedelta(minutes=recurrence.start)
    end = start + timedelta(minutes=recurrence.length)
    from_ = int(datetime.combine(day, time(), ZoneInfo("UTC")).timestamp()) - 3 * 86400
    minutes = range(from_, from_ + (6 * DAY + recurrence.length) * 60, 60)
    shown = [datetime.fromtimestamp(minute, zone).replace(tzinfo=None) for minute in minutes]
    opens = next(minute for minute, reading in zip(minutes, shown, strict=True) if reading >= start)
    if start not in shown or end not in shown:
        return opens, opens + recurrence.length * 60
    reached = [
        minute for (before, now), minute in zip(pairwise(shown), minutes[1:], strict=True) if before < end <= now
    ]
    return opens, reached[-1]


def days_of_change(zone: str) -> list[date]:
    """Days from 2010 to 2030 on which the offset changes, and some on which it does not."""
    found = [date(2026, 1, 15)]
    day, until = datetime(2010, 1, 1, tzinfo=ZoneInfo(zone)), 2030
    while day.year <= until:
        after = day + timedelta(days=1)
        if after.utcoffset() != day.utcoffset():
            found.append(day.date())
        day = after
    return found


CHANGES = {zone: days_of_change(zone) for zone in ZONES}


@st.composite
def near_a_change(draw: st.DrawFn) -> tuple[Recurrence, date]:
    """A window that opens on the day of a change, or the day before or after, mostly in the small hours."""
    zone = draw(st.sampled_from(ZONES))
    day = draw(st.sampled_from(CHANGES[zone])) + timedelta(days=draw(st.integers(-1, 1)))
    start = draw(st.one_of(st.integers(0, 240), st.integers(0, DAY - 1)))
    length = draw(st.one_of(st.integers(1, 240), st.integers(1, 2 * DAY)))
    return Recurrence(start, length, zone, (), (day.day,)), day


@settings(max_examples=150, deadline=None)
@given(near_a_change(), st.data())
def test_every_minute_is_inside_or_outside_as_the_clock_on_the_wall_says(
    case: tuple[Recurrence, date], data: st.DataObject
) -> None:
    recurrence, day = case
    opens_at, closes_at = reference(recurrence, day)
    moment = 60 * data.draw(st.integers(opens_at // 60 - 600, closes_at // 60 + 600))
    edges = (opens_at - 60, opens_at - 1, opens_at, opens_at + 59, closes_at - 60, closes_at - 1, closes_at, moment)
    for now in edges:
        window = recurrence.window_at(now)
        if opens_at <= now < closes_at:
            assert window is not None
            assert (window.opens_at, window.closes_at) == (opens_at, closes_at)
        else:
            assert window is None, f"{now} is not between {opens_at} and {closes_at}"
    after = recurrence.next_after(opens_at - 1)
    assert after is not None
    assert after.opens_at == opens_at


@settings(deadline=None)
@given(recurrences, st.integers(1104537600, 2082758400))
def test_the_next_window_opens_later_and_nothing_opens_before_it(recurrence: Recurrence, now: int) -> None:
    window = recurrence.next_after(now)
    assert window is None or window.opens_at > now
    if window is not None:
        assert recurrence.window_at(window.opens_at) is not None
        current = recurrence.window_at(window.opens_at - 1)
        assert current is None or current.opens_at <= now


@given(recurrences, st.integers(1104537600, 2082758400))
def test_no_window_is_empty_and_none_is_longer_than_written_but_by_the_time_that_comes_twice(
    recurrence: Recurrence, now: int
) -> None:
    window = recurrence.window_at(now)
    if window is not None:
        seconds = window.closes_at - window.opens_at
        assert 0 < seconds <= (recurrence.length + 2 * 60) * 60  # two hours in Troll
