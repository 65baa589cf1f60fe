"""A pytest plugin of `make test`: what a worker of pytest-xdist takes from the queue, and failures as they happen."""

from __future__ import annotations

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

CLUSTERS = "tests/acceptance/"
APART = (CLUSTERS, "tests/reliability/")
NICE = 5


class Spread(LoadScopeScheduling):  # type: ignore[misc]  # xdist 3.8 comes without types
    """A file, so that its servers are started once. But a test where files share none, or each worker has its own.

    Acceptance comes first, and waits more than it computes: what computes follows when most of it is done.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(APART) else nodeid.split("::", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Spread:
    """Replaces --dist; the queue keeps the order in which tests were collected."""
    config.option.loadscopereorder = False
    return Spread(config, log)


class Polite:
    """A worker that is through with acceptance lets those go first that are not: their servers must answer in time."""

    def __init__(self) -> None:
        self._yields = False

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if not self._yields and not item.nodeid.startswith(CLUSTERS):
            self._yields = True
            os.nice(NICE)


class AtOnce:
    """Names a failure when it happens: the run goes on for some minutes before pytest tells the whole of it."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            lines = report.longreprtext.splitlines()
            said = next((line[1:].strip() for line in lines if line.startswith("E  ")), "".join(lines[-1:]))
            self._reporter.write_line("")
            self._reporter.write_line(f"{report.when} of {report.nodeid} failed: {said}", red=True)


def pytest_sessionstart(session: pytest.Session) -> None:
    plugins = session.config.pluginmanager
    if hasattr(session.config, "workerinput"):
        plugins.register(Polite())
    elif (reporter := plugins.get_plugin("terminalreporter")) is not None:
        plugins.register(AtOnce(reporter))
