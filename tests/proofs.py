"""Which test proves which event: the marks ``proves`` of all tests, as JSON. ``python -m tests.proofs`` prints them.

The mark stands on a test, or on one of its parameters, that sees the event appear and (unless it is an occurrence)
resolve: ``@pytest.mark.proves("etcd_unavailable", server="etcd 3.5")`` against a real server, ``recording="kong"``
against the answers that were recorded of one. Tests are collected, not run, and only in files that have the mark.
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
    server: str
    recording: str
    """What was recorded of whom, when no server was run: the recording's own words."""
    test: str


class _Collector:
    def __init__(self) -> None:
        self.proofs: list[Proof] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("proves"):
                self.proofs.append(_proof(item.nodeid, *mark.args, **mark.kwargs))


def _proof(test: str, event: str, *, server: str = "", recording: str = "") -> Proof:
    if bool(server) == bool(recording):
        raise ValueError(f"{test}: proves({event!r}) names either a server or a recording")
    return {"event": event, "server": server, "recording": source(recording) if recording else "", "test": test}


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
