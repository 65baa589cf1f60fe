"""Marks by folder, how many examples the property tests try, and the two fixtures that files everywhere share.

All others stand where they are used.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

HERE = Path(__file__).parent

# `pytest --hypothesis-profile=thorough` is the nightly run.
settings.register_profile("probed", deadline=None, max_examples=200)
settings.register_profile("thorough", deadline=None, max_examples=20_000)
# CI tries the same examples at every run, so that a red run can be repeated; at a desk they are new each time.
settings.register_profile("ci", settings.get_profile("probed"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "probed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "unit: needs nothing but this process; every test in tests/unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test carries the name of its folder, so that ``-m unit`` and ``-m 'not acceptance'`` work."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(item.path.relative_to(HERE).parts[0])


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose path is short enough for a UNIX socket in it."""
    directory = Path(tempfile.mkdtemp(prefix="pp-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """What the daemon logs must not stand between the lines of a command, with which it shares this process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()
