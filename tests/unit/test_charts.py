"""Samples along time as a drawing: what has a mark and where, and labels that can be read."""

from __future__ import annotations

from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from probed.web import charts, drawing
from probed.web.charts import Taken
from probed.web.drawing import Dot
from tests.unit.serving import NOON

UTC = ZoneInfo("UTC")
LETTER = 7.0
"""About as wide as one of a label's, in units of the drawing."""


def test_a_good_sample_that_has_no_such_reading_has_no_mark_in_its_chart() -> None:
    """Not every cycle logs in: a mark on the ground line would say that it took no time."""
    taken = [
        Taken(NOON + 5 * number, "observed", {"ping_seconds": 0.01, **({"login_seconds": 0.1} if number == 2 else {})})
        for number in range(6)
    ]
    taken.append(Taken(NOON + 30, "failed", {}, "connection refused"))
    ping, login = charts.charts(taken, {}, UTC)
    assert [len(chart.plot.points) for chart in (ping, login)] == [7, 2]
    assert [point.look for point in login.plot.points] == ["ok", "failing"]


@pytest.mark.parametrize("before", [1, 4, 10, 40])
@pytest.mark.parametrize("after", [4, 10, 40])
def test_no_two_times_are_written_over_each_other_at_a_break(before: int, after: int) -> None:
    times = [NOON + 5 * number for number in range(before)]
    times += [NOON + 5 * before + 600 + 5 * number for number in range(after)]
    found = drawing.plot([Dot(at, "observed") for at in times], reading="", threshold=None, flags=(), zone=UTC)
    assert found is not None and len(found.breaks) == 1
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}
    spans = []
    for tick in found.ticks:
        left = tick.x - LETTER * len(tick.label) * shift[tick.anchor]
        spans.append((left, left + LETTER * len(tick.label)))
    assert all(left >= 0 and right <= drawing.WIDTH for left, right in spans)
    assert all(one[1] <= two[0] for one, two in pairwise(spans)), spans
