"""Disk usage: every file system of a data directory, the worst decides, and one that hangs blinds only itself."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probed.clock import SystemClock
from probed.config.settings import Defaults, Instance
from probed.evaluators import step
from probed.incidents import message
from probed.model import Kind, Outcome, Policy, Sample, Streak, Target
from probed.policy.load import load
from probed.probes import Context, Probe, catalogue
from probed.probes.disk_usage import AT_ONCE
from probed.sampling import take_sample
from probed.watching import InstancePlan, plan
from tests.leaks import eventually
from tests.threads import in_calls

READINGS = {name: frozenset(probe.readings) for name, probe in catalogue().items()}
GIB = 2**30


@dataclass
class Disks:
    """Two file systems of which the kernel says what the test wants; a data directory is on the first."""

    data: Path
    wal: Path
    used: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Device -> (used, free) in bytes."""
    hanging: set[int] = field(default_factory=set)
    release: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.context = Context(Target("orders", "a", "host", kind="disk"), 1.0, path=self.data)

    def fill(self, path: Path, used: float, free: float) -> None:
        self.used[path.stat().st_dev] = (used * GIB, free * GIB)

    def hang(self, path: Path) -> None:
        self.hanging.add(path.stat().st_dev)

    def recover(self) -> None:
        self.hanging.clear()
        self.release.set()

    def statvfs(self, path: Path) -> Any:
        device = os.stat(path).st_dev
        if device in self.hanging:
            self.release.wait(30)
        used, free = self.used[device]
        blocks = int((used + free) / 4096)
        return SimpleNamespace(
            f_frsize=4096, f_blocks=blocks, f_bfree=int(free / 4096), f_bavail=int(free / 4096), f_files=100, f_ffree=60
        )

    def cluster(self, *, wal: Path | None = None, spaces: Mapping[str, Path] | None = None) -> None:
        """Make the data directory one."""
        (self.data / "PG_VERSION").write_text("18\n")
        if wal is None:
            (self.data / "pg_wal").mkdir()
        else:
            (self.data / "pg_wal").symlink_to(wal)
        (self.data / "pg_tblspc").mkdir()
        for name, space in (spaces or {}).items():
            (self.data / "pg_tblspc" / name).symlink_to(space)

    async def cycle(self) -> Sample:
        probe = catalogue()["disk_usage"]
        assert isinstance(probe, Probe)
        return await take_sample(probe, self.context, self.context.timeout, SystemClock())


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no file system of its own here: two devices are needed")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        made = Disks(tmp_path / "data", Path(other))
        made.data.mkdir()
        made.fill(made.data, 4, 12)
        made.fill(made.wal, 9, 1)
        monkeypatch.setattr("os.statvfs", made.statvfs)
        yield made
        made.recover()


async def test_one_file_system_is_told_without_many_words(disks: Disks) -> None:
    disks.cluster(spaces={"16385": disks.data})
    sample = await disks.cycle()
    assert (sample.outcome, sample.reason) == (Outcome.OBSERVED, "")
    assert sample.readings == {
        "used_bytes": 4 * GIB, "used_pct": 25.0, "free_bytes": 12 * GIB, "inodes_used_pct": 40.0
    }  # fmt: skip


async def test_the_wal_of_a_data_directory_is_found_where_its_link_leads(disks: Disks) -> None:
    disks.cluster(wal=disks.wal)
    sample = await disks.cycle()
    assert (sample.readings["used_bytes"], sample.readings["used_pct"]) == (9 * GIB, 90.0)
    assert sample.readings["free_bytes"] == 1 * GIB
    assert sample.reason == (
        f"worst of 2 file systems: {disks.wal} (pg_wal) (used_bytes, used_pct, free_bytes), {disks.data} "
        "(inodes_used_pct)"
    )


async def test_a_tablespace_is_found_where_its_link_leads_and_every_reading_has_its_own_worst(disks: Disks) -> None:
    disks.cluster(spaces={"16385": disks.wal, "16400": disks.data})
    disks.fill(disks.data, 40, 60)
    sample = await disks.cycle()
    assert (sample.readings["used_bytes"], sample.readings["used_pct"]) == (40 * GIB, 90.0)
    assert f"{disks.wal} (tablespace 16385) (used_pct, free_bytes)" in sample.reason
    assert f"{disks.data} (used_bytes, inodes_used_pct)" in sample.reason


async def test_a_tablespace_that_is_made_later_and_a_wal_that_moves_are_found_in_the_next_cycle(disks: Disks) -> None:
    disks.cluster()
    assert (await disks.cycle()).readings["used_bytes"] == 4 * GIB
    (disks.data / "pg_tblspc" / "16385").symlink_to(disks.wal)
    assert (await disks.cycle()).readings["used_bytes"] == 9 * GIB
    (disks.data / "pg_tblspc" / "16385").unlink()
    assert (await disks.cycle()).readings["used_bytes"] == 4 * GIB
    (disks.data / "pg_wal").rmdir()
    (disks.data / "pg_wal").symlink_to(disks.wal)
    assert (await disks.cycle()).readings["used_bytes"] == 9 * GIB


async def test_a_link_that_leads_nowhere_is_told_and_the_data_directory_counts(disks: Disks) -> None:
    disks.cluster(wal=Path("../nowhere"))
    sample = await disks.cycle()
    assert (sample.outcome, sample.readings["used_bytes"]) == (Outcome.OBSERVED, 4 * GIB)
    assert sample.reason == f"cannot read the file system of {disks.data.parent}/nowhere: No such file or directory"


async def test_hundreds_of_tablespaces_are_measured_a_few_at_a_time(disks: Disks) -> None:
    disks.cluster(spaces={str(number): disks.wal for number in range(16384, 16584)})
    threads = in_calls()
    for number in range(16384, 16584):
        folder = disks.wal / str(number)
        folder.mkdir()
        link = disks.data / "pg_tblspc" / str(number)
        link.unlink()
        link.symlink_to(folder)
    disks.hang(disks.wal)
    for _ in range(3):
        sample = await disks.cycle()
        assert (sample.outcome, sample.readings["used_bytes"]) == (Outcome.OBSERVED, 4 * GIB)
    await eventually(lambda: len(in_calls() - threads) == AT_ONCE)


async def test_calls_that_return_start_no_further_thread(disks: Disks) -> None:
    await disks.cycle()
    await eventually(lambda: not in_calls())
    threads = set(threading.enumerate())
    for _ in range(5):
        await disks.cycle()
        await eventually(lambda: not in_calls())
    assert set(threading.enumerate()) <= threads


async def test_what_is_no_data_directory_is_measured_for_itself(disks: Disks) -> None:
    (disks.data / "pg_wal").symlink_to(disks.wal)
    assert (await disks.cycle()).readings["used_bytes"] == 4 * GIB


async def test_declared_directories_count_beside_the_data_directory(disks: Disks) -> None:
    disks.context.paths = {"wal": (disks.wal,), "more": (disks.wal, disks.data)}
    sample = await disks.cycle()
    assert sample.readings["used_bytes"] == 9 * GIB
    assert sample.reason.startswith(f"worst of 2 file systems: {disks.wal} (WAL) (")


async def test_a_directory_that_is_missing_is_told_and_the_others_count(disks: Disks) -> None:
    disks.context.paths = {"more": (disks.data / "nowhere",)}
    sample = await disks.cycle()
    assert (sample.outcome, sample.readings["used_bytes"]) == (Outcome.OBSERVED, 4 * GIB)
    assert sample.reason == f"cannot read the file system of {disks.data}/nowhere: No such file or directory"


async def test_a_mount_that_hangs_blinds_only_itself_and_keeps_what_was_known_of_it(disks: Disks) -> None:
    disks.cluster(wal=disks.wal)
    assert (await disks.cycle()).readings["used_bytes"] == 9 * GIB
    await eventually(lambda: not in_calls())
    threads = in_calls()
    disks.hang(disks.wal)
    disks.fill(disks.data, 5, 11)
    for _ in range(3):
        sample = await disks.cycle()
        assert sample.outcome is Outcome.OBSERVED
        assert sample.readings["used_bytes"] == 9 * GIB
        assert f"{disks.wal}: " in sample.reason
        assert sample.reason.endswith("its last known usage stands in")
    await eventually(lambda: len(in_calls() - threads) == 1)
    disks.fill(disks.data, 10, 6)
    assert (await disks.cycle()).readings["used_bytes"] == 10 * GIB
    disks.recover()
    await eventually(lambda: len(in_calls() - threads) == 0)
    assert (await disks.cycle()).readings["used_bytes"] == 10 * GIB
    assert "a call into the kernel" not in (await disks.cycle()).reason


async def test_a_mount_that_hangs_from_the_beginning_does_not_hide_the_others(disks: Disks) -> None:
    disks.cluster(wal=disks.wal)
    disks.hang(disks.wal)
    sample = await disks.cycle()
    assert (sample.outcome, sample.readings["used_bytes"]) == (Outcome.OBSERVED, 4 * GIB)
    assert f"{disks.wal}: a call into the kernel hangs" in sample.reason


async def test_a_data_directory_that_hangs_does_not_hide_its_wal(disks: Disks) -> None:
    disks.cluster(wal=disks.wal)
    await disks.cycle()
    disks.hang(disks.data)
    disks.fill(disks.wal, 9.5, 0.5)
    sample = await disks.cycle()
    assert (sample.outcome, sample.readings["used_pct"]) == (Outcome.OBSERVED, 95.0)
    assert sample.duration < disks.context.timeout


async def test_when_everything_hangs_the_probe_is_blind(disks: Disks) -> None:
    disks.cluster(wal=disks.wal)
    await disks.cycle()
    disks.hang(disks.wal)
    disks.hang(disks.data)
    for _ in range(2):
        sample = await disks.cycle()
        assert (sample.outcome, sample.kind) == (Outcome.BLIND, "timeout")
        assert f"{disks.data}: " in sample.reason


async def test_a_data_directory_that_keeps_us_out_is_measured_and_what_cannot_be_seen_is_told(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        data = Path(place) / "data"
        data.mkdir(mode=0o000)
        context = Context(Target("orders", "a", "host", kind="disk"), 5.0, path=data)
        probe, user = catalogue()["disk_usage"], os.geteuid()
        assert isinstance(probe, Probe)
        try:
            if user == 0:
                os.seteuid(65534)
            sample = await take_sample(probe, context, 5.0, SystemClock())
            context.paths = {"wal": (Path(place),)}
            declared = await take_sample(probe, context, 5.0, SystemClock())
        finally:
            os.seteuid(user)
        data.chmod(0o700)
    assert (sample.outcome, "used_pct" in sample.readings) == (Outcome.OBSERVED, True)
    assert sample.reason == (
        "a WAL or tablespaces elsewhere cannot be seen (Permission denied); declare them as disk.wal, disk.paths"
    )
    assert declared.reason == ""


# --- the measure of capacity_high


def policies(place: Path, override: str) -> dict[str, Policy]:
    (place / "policies").mkdir()
    (place / "policies" / "capacity.yaml").write_text(override)
    return load(place / "policies", READINGS, Defaults())


def planned(found: Mapping[str, Policy], data: Path) -> InstancePlan:
    node = {"name": "a", "local": True, "postgres": {}, "disk": {"path": str(data)}}
    instance = Instance.model_validate({"name": "orders", "nodes": [node]})
    return plan(instance, (), found, catalogue(), Defaults())


@pytest.mark.parametrize(
    "override, opens, told",
    [
        ("{id: capacity_high, enabled: true}", False, ""),
        ("{id: capacity_high, enabled: true, params: {size_threshold: 9GiB}}", True,
         "used_bytes was 9.0 GiB, at or above 9.0 GiB, in 1 sample: worst of 2 file systems: "),
        ('{id: capacity_high, enabled: true, detect: {when: "used_pct >= 90"}}', True,
         "used_pct was 90.0 %, at or above 90.0 %, in 1 sample: worst of 2 file systems: "),
        ('{id: capacity_high, enabled: true, detect: {when: "used_pct >= 91"}}', False, ""),
        ('{id: capacity_high, enabled: true, params: {size_threshold: 2GiB}, detect: {when: "free_bytes < size_threshold"}}',
         True, "free_bytes was 1.0 GiB, below 2.0 GiB, in 1 sample: worst of 2 file systems: "),
        ('{id: capacity_high, enabled: true, detect: {when: "inodes_used_pct >= 40"}}', True,
         "inodes_used_pct was 40.0 %, at or above 40.0 %, in 1 sample: worst of 2 file systems: "),
    ],
    ids=["default", "size", "per cent", "below", "free", "inodes"],
)  # fmt: skip
async def test_the_measure_of_capacity_is_chosen_by_one_line(
    override: str, opens: bool, told: str, disks: Disks, tmp_path: Path
) -> None:
    disks.cluster(wal=disks.wal)
    ((policy, target),) = [
        watch for watch in planned(policies(tmp_path, override), disks.data).watches if watch[0].id == "capacity_high"
    ]
    assert target.key == "orders/a/host"
    sample = await disks.cycle()
    _, transition = step(Streak(), policy, sample)
    assert (transition is not None) == opens
    if transition is not None:
        assert transition.kind is Kind.OPENED
        assert message(transition, policy, sample).startswith(told)
        assert str(disks.wal) in message(transition, policy, sample)


def test_a_measure_that_does_not_exist_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(Exception, match='the probe has no reading "used_percent"; did you mean "used_pct"'):
        policies(tmp_path, '{id: capacity_high, detect: {when: "used_percent >= 90"}}')


BY_SQL = """
id: capacity_high
enabled: true
probe: database_size
detect: {when: "database_size_bytes >= size_threshold"}
interval: 5m
timeout: 10s
"""


def test_the_size_of_databases_is_asked_only_while_a_policy_wants_it(tmp_path: Path) -> None:
    found = planned(load(None, READINGS, Defaults()), tmp_path)
    assert "database_size" not in {cycle.probe.name for cycle in found.cycles}
    found = planned(policies(tmp_path, BY_SQL), tmp_path)
    (cycle,) = [cycle for cycle in found.cycles if cycle.probe.name == "database_size"]
    assert (cycle.interval, cycle.timeout, cycle.reach.target.key) == (300.0, 10.0, "orders/a/postgres")
    assert [target.key for policy, target in found.watches if policy.id == "capacity_high"] == ["orders/a/postgres"]


def test_the_size_of_databases_is_asked_on_a_session_that_no_other_probe_waits_for(tmp_path: Path) -> None:
    found = planned(policies(tmp_path, BY_SQL), tmp_path)
    sessions = {cycle.probe.name: cycle.session for cycle in found.cycles if cycle.reach.login is not None}
    assert sessions.pop("database_size") not in sessions.values()
