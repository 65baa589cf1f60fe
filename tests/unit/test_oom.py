"""Out-of-memory kills: who the kernel's log names, what cgroups count, each kill told once, and nothing by a restart."""

from __future__ import annotations

import errno
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probed.clock import SystemClock
from probed.config.settings import Defaults, Instance, Oom
from probed.model import Outcome, Sample, Target
from probed.pipeline import Pipeline
from probed.policy.load import load
from probed.probes import Context, Probe, catalogue
from probed.probes import oom as module
from probed.probes._cgroups import Counter, news
from probed.probes._kmsg import Kmsg, Victim
from probed.sampling import take_sample
from probed.store.sqlite import SqliteStore
from probed.testing import FakeClock
from probed.watching import plan
from tests.leaks import descriptors
from tests.unit.bench import Bench

RECORDED: dict[str, dict[str, Any]] = tomllib.loads(
    (Path(__file__).parents[1] / "recorded" / "kmsg.toml").read_text(encoding="utf-8")
)
TARGET = Target("orders", "node-a", "host", kind="oom")
POSTGRES = "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/pods,task_memcg=/pg,task=postgres,pid={pid},uid=26"
KILLED = "Memory cgroup out of memory: Killed process {pid} (postgres) total-vm:9kB, anon-rss:4kB, UID:26 pgtables:1kB"


@dataclass
class Machine:
    """A kernel's three sources as files. ``kill`` is seen by those that are named."""

    place: Path
    sequence: int = 100
    vmstat: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"pg": 0})
    kept: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kmsg.write_text("6,0,1,-;Linux version 6.1\n")
        self.write()
        self.context = self.daemon()

    @property
    def kmsg(self) -> Path:
        return self.place / "kmsg"

    def write(self) -> None:
        (self.place / "vmstat").write_text(f"pgfault 12\noom_kill {self.vmstat}\nswap_ra 0\n")
        for name, kills in self.counts.items():
            (self.place / "cgroups" / name).mkdir(parents=True, exist_ok=True)
            (self.place / "cgroups" / name / "memory.events").write_text(events(kills))

    def daemon(self, **kept: object) -> Context:
        """A new daemon, which finds what the last one kept."""
        sources = {
            "kmsg": (self.kmsg,),
            "cgroups": tuple(self.place / "cgroups" / name for name in self.counts),
            "vmstat": (self.place / "vmstat",),
        }
        return Context(TARGET, 5.0, paths=sources, kept={**self.kept, **kept})

    def log(self, text: str) -> None:
        self.sequence += 1
        with self.kmsg.open("a") as file:
            file.write(f"3,{self.sequence},1,-;{text}\n")

    def kill(self, pid: int = 7, by: str = "kmsg cgroups vmstat", cgroup: str = "pg") -> None:
        if "kmsg" in by:
            self.log("postgres invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0")
            self.log(POSTGRES.format(pid=pid))
            self.log(KILLED.format(pid=pid))
        self.counts[cgroup] += "cgroups" in by
        self.vmstat += "vmstat" in by
        self.write()

    async def cycle(self) -> Sample:
        sample = await take_sample(probe(), self.context, 5.0, SystemClock())
        if sample.keep is not None:
            self.context.kept = self.kept = json.loads(json.dumps(dict(sample.keep)))
        return sample

    async def kills(self) -> float:
        return float((await self.cycle()).readings["oom_kills"])

    def restart(self) -> None:
        self.context = self.daemon()


def probe() -> Probe:
    found = catalogue()["oom"]
    assert isinstance(found, Probe)
    return found


def events(kills: int, groups: int = 0) -> str:
    return f"low 0\nhigh 3\nmax 12\noom {kills + 2}\noom_kill {kills}\noom_group_kill {groups}\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(module, "LATE_RECORD_SECONDS", 0.0)
    return Machine(tmp_path)


# --- the kernel's log


@pytest.mark.parametrize("version", RECORDED)
def test_the_log_of_each_kernel_names_its_victims(version: str, tmp_path: Path) -> None:
    log, case = Kmsg(tmp_path / "kmsg"), RECORDED[version]
    log.path.write_text("")
    log.open(None)
    with log.path.open("a") as file:
        file.write(case["records"])
    assert list(log.read(None).values()) == [Victim(*values) for values in case["victims"]]


@pytest.mark.parametrize("version", [version for version in RECORDED if RECORDED[version]["victims"]])
async def test_every_kill_in_the_log_is_counted_and_named_in_the_message(version: str, machine: Machine) -> None:
    await machine.cycle()
    with machine.kmsg.open("a") as file:
        file.write(RECORDED[version]["records"])
    sample, victims = await machine.cycle(), RECORDED[version]["victims"]
    assert sample.readings["oom_kills"] == len(victims)
    for pid, comm, _, *cgroup in victims:
        assert f"{comm.replace(chr(27), ' ')} (pid {pid}, " in sample.reason
        assert not cgroup or cgroup[0] in sample.reason


async def test_a_message_says_who_where_how_large_and_whose_limit_it_was(machine: Machine) -> None:
    await machine.cycle()
    with machine.kmsg.open("a") as file:
        file.write(RECORDED["linux-4_19-memcg"]["records"])
    assert (await machine.cycle()).reason == (
        "the kernel killed postgres (pid 4321, 512.0 MiB resident) in /system.slice/postgresql@11-main.service: "
        "its cgroup's memory limit was reached"
    )
    machine.sequence = 5000
    machine.kill(pid=8)
    assert (await machine.cycle()).reason == (
        "the kernel killed postgres (pid 8, 4.0 KiB resident) in /pg: the memory limit of /pods was reached"
    )
    machine.log("Out of memory: Killed process 911 (beam.smp) total-vm:9kB, anon-rss:1048576kB, file-rss:0kB")
    assert (await machine.cycle()).reason == (
        "the kernel killed beam.smp (pid 911, 1.0 GiB resident): the machine was out of memory"
    )


def test_a_fifo_is_read_without_waiting_and_a_record_that_comes_in_two_pieces_is_one(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    log = Kmsg(path)
    log.open(None)
    assert log.read(None) == {}
    line = f"3,5,1,-;{KILLED.format(pid=5)}\n".encode()
    with path.open("wb", buffering=0) as writer:
        writer.write(line[:50])
        assert log.read(None) == {}
        writer.write(line[50:])
        assert [victim.pid for victim in log.read(None).values()] == [5]
    assert [victim.pid for victim in log.read(None).values()] == [5], "held until it was told"
    assert log.read(5) == {}
    log.close()


async def test_records_that_were_overwritten_are_told_and_their_kills_still_counted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.cycle()
    machine.kill(by="cgroups vmstat")
    read, answers = os.read, [errno.EPIPE]

    def overwritten(fd: int, size: int) -> bytes:
        if answers:
            raise OSError(answers.pop(), "Broken pipe")
        return read(fd, size)

    monkeypatch.setattr("os.read", overwritten)
    sample = await machine.cycle()
    assert sample.readings["oom_kills"] == 1
    assert sample.reason.startswith("the kernel killed 1 process for lack of memory in ")
    assert "records of the kernel's log were overwritten before they were read" in sample.reason
    machine.kill(pid=9)
    assert "pid 9" in (await machine.cycle()).reason


# --- cgroups


def fresh(before: Mapping[str, Counter], now: Mapping[str, Counter]) -> dict[str, int]:
    return {place.path: place.kills for place in news(before, now)}


def test_a_kill_is_placed_where_it_was_and_not_in_every_cgroup_above() -> None:
    before = {"/s": Counter(1, 0)}
    now = {"/s": Counter(1, 2), "/s/pg": Counter(2, 2), "/s/pg/backend": Counter(3, 1)}
    assert fresh(before, now) == {"/s/pg": 1, "/s/pg/backend": 1}


def test_kills_in_a_cgroup_that_has_gone_stand_in_the_one_above() -> None:
    assert fresh({"/s": Counter(1, 1), "/s/a": Counter(2, 1)}, {"/s": Counter(1, 2)}) == {"/s": 1}


@pytest.mark.parametrize(
    "now",
    [Counter(1, 3), Counter(1, 5), Counter(2, 9), Counter(2, 9, own=True)],
    ids=["lower", "equal", "another cgroup of that name", "another one of v1"],
)
def test_a_count_that_went_down_and_a_cgroup_made_anew_are_a_baseline(now: Counter) -> None:
    assert fresh({"/s": Counter(1, 5, own=now.own)}, {"/s": now}) == {}


def test_what_is_seen_for_the_first_time_is_a_baseline() -> None:
    assert fresh({}, {"/s": Counter(1, 5), "/s/pg": Counter(2, 5)}) == {}
    assert fresh({}, {"/m": Counter(1, 0, own=True), "/m/pg": Counter(2, 5, own=True)}) == {}


def test_a_cgroup_of_v1_counts_for_itself_and_from_its_beginning_below_a_known_one() -> None:
    before = {"/m": Counter(1, 1, own=True), "/m/a": Counter(2, 4, own=True)}
    now = {"/m": Counter(1, 1, own=True), "/m/a": Counter(2, 5, own=True), "/m/new": Counter(9, 2, own=True)}
    assert fresh(before, now) == {"/m/a": 1, "/m/new": 2}


async def test_the_whole_tree_is_found_below_the_mount_of_v2_and_of_v1(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for root, leaf, file in (
        ("two", "two/s/pg", "memory.events"),
        ("one/memory", "one/memory/s/pg", "memory.oom_control"),
    ):
        folder = machine.place / leaf
        folder.mkdir(parents=True)
        monkeypatch.setattr(module, "FOUND", {"cgroups": (machine.place / root.split("/")[0],)})
        machine.context, machine.kept = Context(TARGET, 5.0), {}
        above = [folder, folder.parent, *([machine.place / root] if root != "two" else [])]
        for place in above:
            (place / file).write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
        assert await machine.kills() == 0
        for place in above[: 2 if root == "two" else 1]:
            (place / file).write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
        sample = await machine.cycle()
        assert sample.readings["oom_kills"] == 2
        assert f"killed 2 processes for lack of memory in {folder};" in sample.reason


async def test_a_group_that_was_killed_whole_is_told_as_such(machine: Machine) -> None:
    del machine.counts["pg"]
    folder = machine.place / "cgroups" / "pg"
    machine.context = Context(TARGET, 5.0, paths={"cgroups": (folder,)})
    assert await machine.kills() == 0
    (folder / "memory.events").write_text(events(4, groups=1))
    sample = await machine.cycle()
    assert sample.readings["oom_kills"] == 4
    assert (
        f"killed 4 processes for lack of memory in {folder} (the whole cgroup: memory.oom.group is set)"
        in sample.reason
    )


async def test_cgroups_that_contain_each_other_count_once_in_whichever_order_they_are_named(machine: Machine) -> None:
    outer, inner = machine.place / "o", machine.place / "o" / "i"
    inner.mkdir(parents=True)
    for kills in (0, 1):
        for folder in (outer, inner):
            (folder / "memory.events").write_text(events(kills))
        if not kills:
            machine.context = Context(TARGET, 5.0, paths={"cgroups": (inner, outer)})
        assert await machine.kills() == kills


async def test_several_cgroups_are_told_apart_and_what_only_the_machine_saw_is_added(machine: Machine) -> None:
    machine.counts["api"] = 0
    machine.write()
    machine.kmsg.write_text("")
    machine.restart()
    await machine.cycle()
    for cgroup, by in (("pg", "cgroups vmstat"), ("pg", "cgroups vmstat"), ("api", "cgroups vmstat"), ("pg", "vmstat")):
        machine.kill(by=by, cgroup=cgroup)
    folder = machine.place / "cgroups"
    assert (await machine.cycle()).reason == (
        f"the kernel killed 4 processes for lack of memory: 1 in {folder}/api, 2 in {folder}/pg, 1 not known; their names "
        "are not known"
    )


# --- each kill once


async def test_the_first_cycle_is_a_baseline_whatever_the_sources_hold(machine: Machine) -> None:
    machine.kill()
    machine.kill()
    sample = await machine.cycle()
    assert (sample.readings, sample.reason) == ({"oom_kills": 0, "oom_kills_total": 0}, "")
    assert await machine.kills() == 0


@pytest.mark.parametrize("by", ["kmsg", "cgroups", "vmstat", "kmsg cgroups", "cgroups vmstat", "kmsg cgroups vmstat"])
async def test_a_kill_is_one_kill_however_many_sources_saw_it(by: str, machine: Machine) -> None:
    assert await machine.kills() == 0
    machine.kill(by=by)
    assert [await machine.kills(), await machine.kills()] == [1, 0]


async def test_a_burst_is_one_occurrence_with_its_count(machine: Machine) -> None:
    await machine.cycle()
    for pid in range(1, 8):
        machine.kill(pid)
    sample = await machine.cycle()
    assert sample.readings == {"oom_kills": 7, "oom_kills_total": 7}
    assert sample.reason.startswith("the kernel killed 7 processes for lack of memory: postgres (pid 1, ")
    assert sample.reason.endswith(", 3 more")


SEEN = st.lists(
    st.tuples(st.integers(0, 2), st.permutations(["kmsg", "cgroups", "vmstat"]), st.integers(1, 3)), max_size=8
)


@settings(max_examples=40)
@given(SEEN)
async def test_sources_that_show_a_kill_one_cycle_later_than_another_do_not_double_it(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, list[str], int]]
) -> None:
    """Each cycle some processes are killed; ``early`` of the sources show them at once, the rest in the next cycle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LATE_RECORD_SECONDS", 0.0)
        machine = Machine(tmp_path_factory.mktemp("machine"))
        await machine.cycle()
        told = 0.0
        for kills, order, early in history:
            for _ in range(kills):
                machine.kill(by=" ".join(order[:early]))
            told += await machine.kills()
            for _ in range(kills):
                machine.kill(by=" ".join(order[early:]))
            told += await machine.kills()
            machine.restart()
        assert told == sum(kills for kills, _, _ in history)


async def test_only_the_cgroup_knows_where_and_only_vmstat_knows_nothing(machine: Machine) -> None:
    machine.kmsg.unlink()
    quiet = await machine.cycle()
    assert quiet.reason == f"cannot read {machine.kmsg}: No such file or directory"
    machine.kill(by="cgroups vmstat")
    assert (await machine.cycle()).reason == (
        f"the kernel killed 1 process for lack of memory in {machine.place}/cgroups/pg; its name is not "
        f"known (cannot read {machine.kmsg}: No such file or directory)"
    )
    machine.kill(by="vmstat")
    assert (await machine.cycle()).reason == (
        "the kernel killed 1 process for lack of memory; its name is not known, it can have been anything on this host "
        f"(cannot read {machine.kmsg}: No such file or directory)"
    )


# --- baselines outlive the daemon


async def test_a_kill_while_the_daemon_was_down_is_told_once_by_name_and_as_late(machine: Machine) -> None:
    await machine.cycle()
    machine.restart()
    machine.kill(pid=77)
    late = await machine.cycle()
    assert late.readings == {"oom_kills": 1, "oom_kills_total": 1}
    assert late.reason.startswith(
        "noticed late (it happened while probed was not looking): the kernel killed postgres (pid 77, "
    )
    machine.restart()
    assert await machine.kills() == 0
    machine.kill(pid=78)
    assert (await machine.cycle()).reason.startswith("the kernel killed postgres (pid 78, ")


async def test_kills_in_a_time_without_any_source_are_told_late_when_one_is_back(machine: Machine) -> None:
    del machine.counts["pg"]
    machine.context = Context(TARGET, 5.0, paths={"vmstat": (machine.place / "vmstat",)})
    await machine.cycle()
    (machine.place / "vmstat").unlink()
    blind = await machine.cycle()
    assert (blind.outcome, blind.kind) == (Outcome.BLIND, "config")
    machine.vmstat = 2
    machine.write()
    late = await machine.cycle()
    assert late.readings["oom_kills"] == 2
    assert late.reason.startswith("noticed late")


async def test_another_boot_is_a_new_baseline_and_the_total_goes_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.cycle()
    machine.kill()
    assert await machine.kills() == 1
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    machine.kill()
    machine.restart()
    assert (await machine.cycle()).readings == {"oom_kills": 0, "oom_kills_total": 1}
    machine.kill()
    assert (await machine.cycle()).readings == {"oom_kills": 1, "oom_kills_total": 2}


async def test_lower_counts_are_a_new_baseline(machine: Machine) -> None:
    for _ in range(5):
        machine.kill(by="cgroups vmstat")
    await machine.cycle()
    machine.vmstat, machine.counts["pg"] = 1, 2
    machine.write()
    assert await machine.kills() == 0
    machine.kill(by="cgroups vmstat")
    assert await machine.kills() == 1


@pytest.mark.parametrize("by", ["kmsg", "cgroups", "vmstat", "kmsg cgroups vmstat"])
async def test_a_sample_that_was_never_judged_takes_no_kill_with_it(by: str, machine: Machine) -> None:
    await machine.cycle()
    kept = machine.context.kept
    machine.kill(pid=5, by=by)
    for _ in range(2):  # a round that is cancelled by a reload leaves no trace in what is kept
        sample = await machine.cycle()
        assert sample.readings["oom_kills"] == 1
        assert ("pid 5" in sample.reason) == ("kmsg" in by)
        machine.context.kept = kept


async def test_quiet_cycles_keep_what_was_kept_so_that_nothing_is_written(machine: Machine) -> None:
    kept = (await machine.cycle()).keep
    machine.log("usb 1-1: new high-speed USB device number 2 using xhci_hcd")
    assert (await machine.cycle()).keep == kept


# --- what cannot be read


async def test_without_any_source_the_probe_is_blind_and_says_what_mends_it(tmp_path: Path) -> None:
    paths = {"kmsg": (tmp_path / "kmsg",), "cgroups": (tmp_path / "pg",), "vmstat": (tmp_path / "vmstat",)}
    sample = await take_sample(probe(), Context(TARGET, 5.0, paths=paths), 5.0, SystemClock())
    assert (sample.outcome, sample.kind) == (Outcome.BLIND, "config")
    for path in (path for some in paths.values() for path in some):
        assert f"{path}: " in sample.reason
    assert "systemd/probed-host.conf" in sample.reason


async def test_found_sources_complain_only_of_the_loss_of_names(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = machine.place / "none"
    monkeypatch.setattr(
        module, "FOUND", {"kmsg": (none,), "cgroups": (machine.place,), "vmstat": (machine.place / "vmstat",)}
    )
    machine.context = Context(TARGET, 5.0)
    sample = await machine.cycle()
    assert sample.outcome is Outcome.OBSERVED
    assert sample.reason == f"victims cannot be named: cannot read {none}: No such file or directory"


async def test_a_kernel_that_counts_no_kills_is_told(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("pgfault 12\n")
    context = Context(TARGET, 5.0, paths={"vmstat": (tmp_path / "vmstat",)})
    sample = await take_sample(probe(), context, 5.0, SystemClock())
    assert "counts no oom_kill (Linux before 4.13)" in sample.reason


async def test_sources_that_change_by_a_reload_leave_no_descriptor_open(machine: Machine) -> None:
    before = descriptors()
    await machine.cycle()
    assert descriptors() == before + 1
    machine.context.paths = {"vmstat": (machine.place / "vmstat",)}
    await machine.cycle()
    assert descriptors() == before


# --- settings and event


@pytest.mark.parametrize("local", [True, False])
def test_oom_is_probed_only_on_the_node_where_probed_runs(local: bool) -> None:
    node = {"name": "a", "local": local, "postgres": {}, "oom": {"cgroups": ["/sys/fs/cgroup/pg"]}}
    policies = load(None, {name: frozenset(p.readings) for name, p in catalogue().items()}, Defaults())
    instance = Instance.model_validate({"name": "orders", "nodes": [node]})
    found = plan(instance, (), policies, catalogue(), Defaults())
    assert [reach.paths for reach in found.reaches if reach.target.kind == "oom"] == (
        [{"cgroups": (Path("/sys/fs/cgroup/pg"),)}] if local else []
    )
    assert [target.key for policy, target in found.watches if policy.id == "oom_killed"] == ["orders/a/host"][
        : int(local)
    ]


def test_sources_are_found_when_none_is_named_and_else_only_the_named_are_read() -> None:
    assert Oom().places == {}
    named = Oom.model_validate({"kmsg": "/dev/kmsg"})
    assert named.places == {"kmsg": (Path("/dev/kmsg"),)}


async def test_event_and_baseline_are_one_commit_so_that_a_restart_neither_repeats_nor_loses(machine: Machine) -> None:
    policy = load(None, {name: frozenset(p.readings) for name, p in catalogue().items()}, Defaults())["oom_killed"]
    messages = []
    for pid in (1, 2, 3):
        store, clock = SqliteStore(machine.place / "store", clock=FakeClock()), FakeClock()
        recovered = await store.open()
        bench = Bench(policies={"oom_killed": policy})
        pipeline = Pipeline(store, bench.pipeline.board, clock, observer="o", switchover_grace=60.0)
        pipeline.recover(recovered)
        bench.pipeline.board.expect("oom", TARGET, 5.0)
        pipeline.bind("orders", {}, ["node-a"], [(policy, TARGET)], all_policies={policy.id: policy})
        pipeline.on_announce(lambda change: messages.append((change.event.count, change.event.message)))
        machine.context = machine.daemon()
        for _ in range(3):
            machine.context.kept = pipeline.kept("oom", TARGET)
            pipeline.accept("orders", [await machine.cycle()])
        await store.close()
        machine.kill(pid)
    assert [count for count, _ in messages] == [1, 1]
    assert all(message.startswith("noticed late") for _, message in messages)
    assert ["pid 1," in messages[0][1], "pid 2," in messages[1][1]] == [True, True]
