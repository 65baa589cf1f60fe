"""Marks by folder, and how many examples the property tests try. Nothing else: fixtures stand where they are used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
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
