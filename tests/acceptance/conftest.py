"""One real cluster for all acceptance tests of this process, and one daemon on it for those that only watch."""

from __future__ import annotations

import contextlib
import fcntl
import os
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
    """A short path that the database's user can reach, too. Removes what a run left that was killed."""
    for left in Path(tempfile.gettempdir()).glob("pa-*-*"):
        pid = left.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"pa-{os.getpid()}-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """One process at a time."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab(place: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    # Of the workers of `make test`: clusters that start together keep each other from being there in time.
    with in_turn(tmp_path_factory.getbasetemp().parent / "acceptance.lock"):
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
