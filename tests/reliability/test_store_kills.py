"""kill -9 at any moment loses nothing that was acknowledged, doubles nothing, and leaves a store that opens."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.reliability.appending import WATCHES

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("PROBED_KILLS", "60"))
"""3,000 is the nightly run."""


def start(directory: Path, ledger: Path) -> subprocess.Popen[str]:
    """A child that is appending already."""
    command = [sys.executable, "-m", "tests.reliability.appending", str(directory), str(ledger)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = child.stdout.readline().strip()
    assert said == "appending", said
    return child


def kill(child: subprocess.Popen[str]) -> int:
    child.kill()
    code = child.wait(timeout=20)
    assert child.stdout is not None
    child.stdout.close()
    return code


def noted(ledger: Path) -> Counter[tuple[str, str]]:
    """(event id, kind) of every acknowledged transition; a last line that was cut by the kill was not noted."""
    text = ledger.read_text(encoding="ascii")
    return Counter((line.split()[0], line.split()[1]) for line in text[: text.rfind("\n") + 1].splitlines())


def verify(directory: Path, ledger: Path) -> tuple[int, int]:
    """The invariants of reliability.md 1.1; (acknowledged, stored)."""
    acknowledged = noted(ledger)
    with contextlib.closing(sqlite3.connect(directory / "probed.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT seq, event_id, kind FROM transition ORDER BY seq").fetchall()
        stored = Counter((event, kind) for _, event, kind in rows)
        lost = acknowledged - stored
        assert not lost, f"acknowledged and lost: {list(lost)[:3]} …"
        assert max(stored.values(), default=1) == 1, "a transition is stored twice"
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1)), "the numbers of transitions have a gap"
        states = dict(connection.execute("SELECT id, state FROM event").fetchall())
        assert states == {event: "resolved" if (event, "resolved") in stored else "open" for event, _ in stored}
        twice = connection.execute(
            "SELECT fingerprint FROM event WHERE state = 'open' GROUP BY fingerprint HAVING count(*) > 1"
        )
        assert twice.fetchall() == [], "two open events of one fingerprint"
        indices = {row[1] for row in connection.execute("PRAGMA index_list(event)")}
        assert "one_open_event" in indices
        (open_streaks,) = connection.execute("SELECT count(*) FROM streak").fetchone()
        assert open_streaks == sum(state == "open" for state in states.values()) <= WATCHES
    return len(acknowledged), len(stored)


@pytest.mark.timeout(60 + 5 * KILLS)
def test_no_acknowledged_transition_is_lost_or_doubled_whenever_the_daemon_is_killed(tmp_path: Path) -> None:
    """Over one and the same store, so that each start recovers what the last kill left."""
    directory, ledger = tmp_path / "store", tmp_path / "ledger"
    ledger.touch()
    chance = random.Random(20261122)
    acknowledged, stored, busy = 0, 0, 0
    for _ in range(KILLS):
        child = start(directory, ledger)
        time.sleep(chance.uniform(0.0, 0.15))
        assert kill(child) == -signal.SIGKILL
        before = acknowledged
        acknowledged, stored = verify(directory, ledger)
        busy += acknowledged > before
    print(f"{KILLS} kills, {acknowledged} acknowledged, {stored - acknowledged} stored and not acknowledged")
    assert busy > KILLS // 2, "most kills must hit a store that is writing"
