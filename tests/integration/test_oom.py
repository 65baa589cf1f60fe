"""Out-of-memory kills by the kernel of this machine, in a small memory cgroup; and a daemon that is killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from probed.clock import SystemClock
from probed.demo.ports import free_port
from probed.model import Outcome, Sample, Target
from probed.probes import Context, Probe, catalogue
from probed.sampling import take_sample

MIB = 2**20
LIMIT = 24 * MIB
PATIENCE = 30.0
COMM = "pg) hog (x"
HOG = f"""
import sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
open("/proc/self/comm", "w").write({COMM!r})
held = []
while True:
    held.append(bytearray({MIB}))
"""


@dataclass(frozen=True)
class Cell:
    """A memory cgroup of this test's own, with a small limit."""

    path: Path
    version: int

    def overfill(self) -> int:
        """Start a process in it that takes more than there is; its pid, once the kernel has killed it."""
        hog = subprocess.Popen([sys.executable, "-c", HOG, str(self.path)], stderr=subprocess.PIPE)
        try:
            _, said = hog.communicate(timeout=PATIENCE)
        finally:
            hog.kill()
        assert hog.returncode == -signal.SIGKILL, said.decode()
        return hog.pid


@pytest.fixture
def cell() -> Iterator[Cell]:
    """Skips, with the reason, where this machine does not let us make one."""
    parent, version = _parent()
    path = parent / f"probed-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made below {parent} ({error.strerror}): no real kill was looked at")
    try:
        _limit(path, version)
        yield Cell(path, version)
    finally:
        _remove(path)


def _parent() -> tuple[Path, int]:
    """Where a cgroup can be made: below our own (v1), or below the root, for processes and children exclude each other (v2)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, system = line.partition(" - ")
        mount, kind, options = Path(place.split()[4]), system.split()[0], system.split()[2].split(",")
        if kind == "cgroup" and "memory" in options:
            own = Path("/proc/self/cgroup").read_text().split(":memory:")[1].splitlines()[0]
            below = mount / own.lstrip("/")
            return (below if below.is_dir() else mount), 1
        if kind == "cgroup2" and "memory" in (mount / "cgroup.subtree_control").read_text().split():
            return mount, 2
    pytest.skip("no cgroup hierarchy with the memory controller is mounted here: no real kill was looked at")


def _limit(path: Path, version: int) -> None:
    (path / ("memory.limit_in_bytes" if version == 1 else "memory.max")).write_text(str(LIMIT))
    # Without swap the limit is reached at once; where swap is not accounted for there is no such file.
    with contextlib.suppress(OSError):
        name, value = ("memory.memsw.limit_in_bytes", LIMIT) if version == 1 else ("memory.swap.max", 0)
        (path / name).write_text(str(value))


def _remove(path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            path.rmdir()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


async def _cycle(context: Context) -> Sample:
    probe = catalogue()["oom"]
    assert isinstance(probe, Probe)
    return await take_sample(probe, context, context.timeout, SystemClock())


def _context(**sources: Path) -> Context:
    return Context(
        Target("orders", "a", "host", kind="oom"), 10.0, paths={name: (path,) for name, path in sources.items()}
    )


# --- the kernel


async def test_a_real_kill_is_counted_once_and_told_by_name_and_cgroup(cell: Cell) -> None:
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("/dev/kmsg cannot be read here: the name of a real victim was not looked at")
    context = _context(kmsg=Path("/dev/kmsg"), cgroups=cell.path, vmstat=Path("/proc/vmstat"))
    quiet = await _cycle(context)
    assert (quiet.outcome, quiet.readings["oom_kills"]) == (Outcome.OBSERVED, 0)
    assert quiet.keep is not None
    context.kept = quiet.keep
    pid = cell.overfill()
    sample = await _cycle(context)
    victims = sample.facts["victims"]
    assert isinstance(victims, list)
    (victim,) = [victim for victim in victims if victim.pid == pid]
    assert victim.comm == COMM
    assert victim.cgroup.endswith(cell.path.name)
    assert victim.limit == victim.cgroup
    assert 0 < victim.resident_bytes <= 2 * LIMIT
    if len(victims) == 1:  # nobody else's process was killed meanwhile
        assert sample.readings["oom_kills"] == 1
        assert sample.reason.startswith(f"the kernel killed {COMM} (pid {pid}, ")
        assert sample.reason.endswith(": its cgroup's memory limit was reached")


@pytest.mark.proves("oom_killed", server="the kernel's kill in a small cgroup")
async def test_a_cgroup_alone_counts_its_own_kills_and_says_where(cell: Cell) -> None:
    context = _context(cgroups=cell.path)
    first = await _cycle(context)
    assert first.readings["oom_kills"] == 0
    assert first.keep is not None
    context.kept = first.keep
    for _ in range(3):
        cell.overfill()
    sample = await _cycle(context)
    assert sample.readings == {"oom_kills": 3, "oom_kills_total": 3}
    where = cell.path.relative_to("/sys/fs/cgroup").as_posix().removeprefix("memory/")
    assert sample.reason.startswith(f"the kernel killed 3 processes for lack of memory in /{where};")


async def test_the_kernels_own_log_names_a_victim_of_the_time_before_the_daemon(cell: Cell) -> None:
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("/dev/kmsg cannot be read here: the name of a real victim was not looked at")
    first = _context(kmsg=Path("/dev/kmsg"), cgroups=cell.path)
    baseline = await _cycle(first)
    pid = cell.overfill()
    second = _context(kmsg=Path("/dev/kmsg"), cgroups=cell.path)
    second.kept = baseline.keep or {}
    sample = await _cycle(second)
    second.kept = sample.keep or {}
    assert sample.reason.startswith("noticed late (it happened while probed was not looking): the kernel killed ")
    assert f"(pid {pid}, " in sample.reason
    assert (await _cycle(second)).readings["oom_kills"] == 0


# --- the daemon


def _events(kills: int, folder: Path) -> None:
    """As the kernel: the file's content changes as a whole."""
    fresh = folder.with_suffix(".new")
    fresh.write_text(f"oom 0\noom_kill {kills}\n")
    fresh.replace(folder / "memory.events")


@contextlib.contextmanager
def _daemon(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Killed at the end, without a chance to say good-bye."""
    with (place / "log").open("ab") as log:
        command = [sys.executable, "-m", "probed", "run", "--config.file", str(place / "probed.yml")]
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield daemon
    finally:
        daemon.kill()
        daemon.wait()


def _stored(place: Path, sql: str) -> list[tuple[object, ...]]:
    file = place / "store" / "probed.db"
    if not file.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.OperationalError:  # not yet made
            return []


def _wait_for(place: Path, sql: str, number: int) -> list[tuple[object, ...]]:
    until = time.monotonic() + PATIENCE
    while len(rows := _stored(place, sql)) < number:
        assert time.monotonic() < until, (place / "log").read_text()
        time.sleep(0.1)
    return rows


@pytest.mark.proves("oom_killed", written="memory.events of Linux 5.17 and later")
def test_no_kill_is_lost_or_told_twice_by_a_daemon_that_is_killed_itself(tmp_path: Path) -> None:
    folder, policies = tmp_path / "pg", tmp_path / "policies"
    folder.mkdir()
    policies.mkdir()
    (policies / "oom.yaml").write_text("{id: oom_killed, interval: 500ms, timeout: 300ms}\n")
    (tmp_path / "probed.yml").write_text(
        f"""
web: {{listen: ["127.0.0.1:{free_port()}"]}}
storage: {{path: {tmp_path}/store}}
policies: {{directory: {policies}}}
instances:
  - name: orders
    nodes: [{{name: a, local: true, oom: {{cgroups: [{folder}]}}}}]
"""
    )
    told = "SELECT count, message FROM event ORDER BY id"
    looked = "SELECT * FROM kept WHERE probe = 'oom'"
    _events(4, folder)
    with _daemon(tmp_path):
        _wait_for(tmp_path, looked, 1)
        _events(6, folder)
        _wait_for(tmp_path, told, 1)
    _events(7, folder)
    with _daemon(tmp_path):
        _wait_for(tmp_path, told, 2)
    with _daemon(tmp_path):
        _events(8, folder)
        rows = _wait_for(tmp_path, told, 3)
    assert [count for count, _ in rows] == [2, 1, 1]
    assert str(rows[1][1]).startswith(
        "noticed late (it happened while probed was not looking): the kernel killed 1 process"
    )
    assert f"in {folder}" in str(rows[0][1])
