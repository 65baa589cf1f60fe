"""A pytest plugin of `make test`: what one of pytest-xdist's workers takes from the queue at a time."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

APART = ("tests/acceptance/", "tests/reliability/")


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
