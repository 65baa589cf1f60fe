"""One real cluster for all acceptance tests, and one daemon on it for those that only watch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from probed.demo.lab import Lab, find_haproxy
from tests.acceptance.watching import Watcher, configure, until


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A short path that the database's user can reach, too."""
    directory = Path(tempfile.mkdtemp(prefix="pa-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab(place: Path) -> AsyncIterator[Lab]:
    lab = await Lab.start(place / "lab", haproxy=find_haproxy() is not None, etcd_members=3, components=True)
    yield lab
    await lab.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def watcher(place: Path, lab: Lab) -> AsyncIterator[Watcher]:
    watcher = Watcher(configure(place / "watcher", lab, declared=True))
    await watcher.start()
    await until(watcher.healthy, 30, "a healthy picture of a healthy cluster")
    yield watcher
    assert await watcher.stop() == 0
