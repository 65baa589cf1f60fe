"""Of what the benchmarks measure, what is a count or a bound in intervals, and so holds on a busy machine, too."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import detect, inproc, questions
from benchmarks.contenders import default_loop
from benchmarks.up import Stack, up
from tests.integration.postgres import NONE_FOUND, binaries

FAULTS = 21
INTERVAL = 2.0
STARVED = 1.0
"""Intervals that this machine may be late by, which is busy with other tests; ``python -m benchmarks detect`` is not."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if not binaries():
        pytest.skip(NONE_FOUND)
    with tempfile.TemporaryDirectory(prefix="pm-") as place, up(Path(place), rows=1_000) as stack:
        yield stack


@pytest.mark.timeout(180)
def test_a_node_is_asked_two_statements_a_cycle_on_one_connection_that_stays(stack: Stack) -> None:
    asked = questions.count(stack, stack.place / "daemon", default_loop(), interval="1s", seconds=12.0)
    assert asked.cycles > 5, asked
    # A cycle that was cut by the beginning or the end may have asked the servers and not yet the components.
    assert asked.statements <= 2 * asked.nodes * (asked.cycles + 1), asked
    assert asked.connections == asked.nodes, asked
    assert asked.surplus == 0, asked


async def test_the_exposition_says_the_same_as_prometheus_own_renderer_would() -> None:
    goals = {goal.id: goal for goal in await inproc.exposition(1, instances=3)}
    assert goals["P16a"].value == 0


@pytest.mark.timeout(180)
def test_faults_at_random_moments_are_each_found_in_their_interval_and_none_before_its_count(tmp_path: Path) -> None:
    found = detect.faulty(tmp_path / "faults", INTERVAL, FAULTS, seed=20261125)
    assert len(found) == FAULTS
    assert {one.way for one in found} == set(detect.WAYS)
    earliest = detect.COUNT - 1 - detect.SLACK  # as much as the first of the three cycles may start late
    wrong = [one for one in found if not earliest <= one.latency <= detect.bound(one.way) + STARVED]
    assert not wrong, f"in intervals of {INTERVAL:g} s: {wrong}"
