"""What one instance cycle costs, as a number of calls: no clock in it, so it holds on a busy machine, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from benchmarks import cycle

SEEDS = ("0", "1", "20261125")


def _counted(seed: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.cycle", "--json"]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return cast("dict[str, float]", json.loads(done.stdout))


@pytest.fixture(scope="module")
def counted() -> list[dict[str, float]]:
    """Calls by module, in an interpreter of its own for each hash seed: nothing of this process is in them."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_counted, SEEDS))


def test_the_calls_of_a_cycle_are_the_same_whatever_the_hash_seed(counted: list[dict[str, float]]) -> None:
    totals = [sum(calls.values()) for calls in counted]
    # A thread that answers a moment earlier or later saves or costs a call.
    assert max(totals) - min(totals) <= 0.005 * min(totals), totals


def test_a_cycle_got_neither_dearer_nor_cheaper_than_was_committed(counted: list[dict[str, float]]) -> None:
    committed = cycle.recorded_calls()
    if committed is None:
        pytest.skip(f"no calls were recorded for Python {cycle.interpreter()}: python -m benchmarks.cycle --record")
    said = cycle.compared(counted[0], committed)
    assert not said, said


def test_a_cycle_that_got_dearer_is_told_with_how_much_where_and_how_to_record_it() -> None:
    before = {"probed.pipeline": 900.0, "probed.judging": 100.0}
    assert cycle.compared({**before, "probed.judging": 129.0}, before) == ""
    assert cycle.compared({**before, "probed.judging": 71.0}, before) == ""
    said = cycle.compared({**before, "probed.judging": 131.0}, before)
    assert "1031 calls instead of 1000: +3.1%" in said
    assert "probed.judging: 100 -> 131" in said
    assert "python -m benchmarks.cycle --record" in said
    assert "-3.1%" in cycle.compared({**before, "probed.judging": 69.0}, before)
