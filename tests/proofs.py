"""Which test proves which event: the marks ``proves`` of all tests, as JSON. ``python -m tests.proofs`` prints them.

The mark stands on a test, or on one of its parameters, that sees the event appear and (unless it is an occurrence)
resolve: ``@pytest.mark.proves("etcd_unavailable", server="etcd 3.5")`` against a real server, ``recording="kong"``
against the answers that were recorded of one, ``written=...`` against what the test itself writes in its place. Tests are collected, not run, and only in files that have the mark.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TypedDict

import pytest

from tests.standin import source

HERE = Path(__file__).parent


class Proof(TypedDict):
    event: str
    kind: str
    """``real``, ``recorded`` or ``written``."""
    by: str
    """The server and its version; of a recording its own words."""
    test: str


class _Collector:
    def __init__(self) -> None:
        self.proofs: list[Proof] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("proves"):
                self.proofs.append(_proof(item.nodeid, *mark.args, **mark.kwargs))


def _proof(test: str, event: str, *, server: str = "", recording: str = "", written: str = "") -> Proof:
    given = [("real", server), ("recorded", recording and source(recording)), ("written", written)]
    found = [(kind, by) for kind, by in given if by]
    if len(found) != 1:
        raise ValueError(f"{test}: proves({event!r}) names one of server, recording and written")
    return {"event": event, "kind": found[0][0], "by": found[0][1], "test": test}


def collect() -> list[Proof]:
    """All proofs, by event and test. RuntimeError when a test file cannot be imported."""
    files = [str(path) for path in sorted(HERE.rglob("test_*.py")) if "proves(" in path.read_text(encoding="utf-8")]
    collector = _Collector()
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *files], plugins=[collector])
    if code != pytest.ExitCode.OK:
        raise RuntimeError("the tests cannot be collected")
    return sorted(collector.proofs, key=lambda proof: (proof["event"], proof["test"]))


if __name__ == "__main__":
    print(json.dumps(collect(), indent=1))
