"""A daemon's worth of state without a daemon: real store, pipeline, policies and plan; time is an argument."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from probed.access.web_file import WebFile
from probed.backtest.beside import Beside
from probed.board import Board
from probed.config.settings import Instance, Settings
from probed.couriers import Couriers
from probed.editing import Editor
from probed.errors import ConfigError
from probed.inspection.inspecting import Inspector, World
from probed.inspection.timetable import Timetable
from probed.metrics import Metrics
from probed.model import Outcome, Policy, Reading, Sample, Target
from probed.pipeline import Pipeline
from probed.policy.library import Library, Rules
from probed.probes import AnyProbe, catalogue
from probed.recording.archive import Archive
from probed.shadowing import Shadowing
from probed.store import Commit, Member
from probed.store.sqlite import SqliteStore
from probed.testing import FakeClock
from probed.watching import InstancePlan, own_plan, plan

NOON = 1_795_003_200.0
"""2026-11-18T12:00:00Z"""


ORDERS: dict[str, object] = {
    "name": "orders",
    "labels": {"env": "prod"},
    "nodes": [
        {
            "name": name,
            "local": name == "node-a",
            "postgres": {"host": f"10.0.0.{number}"},
            "patroni": f"http://10.0.0.{number}:8008",
            "disk": {"path": "/var/lib/postgresql"},
            "oom": {},
        }
        for number, name in ((1, "node-a"), (2, "node-b"))
    ],
    "haproxy": {"frontends": ["10.0.0.1:5000", "10.0.0.2:5000"]},
}


@dataclass
class Stack:
    """What the API and the metrics see; fulfils ``probed.api.served.Served``."""

    settings: Settings
    policies: Mapping[str, Policy]
    catalogue: Mapping[str, AnyProbe]
    pipeline: Pipeline
    store: SqliteStore
    clock: FakeClock
    metrics: Metrics
    editor: Editor
    couriers: Couriers
    archive: Archive
    beside: Beside
    shadowing: Shadowing
    inspector: Inspector
    timetable: Timetable
    plans: dict[str, InstancePlan]
    web_file: WebFile | None = None
    last_reload_ok: bool = True
    last_reload_at: float = NOON - 60
    bad_files: ConfigError | None = None
    reloads: int = 0
    reasons: list[str] = field(default_factory=list)

    async def reload(self) -> None:
        self.reloads += 1
        if self.bad_files is not None:
            raise self.bad_files

    def unready(self) -> Sequence[str]:
        return self.reasons

    def watch(self, instance: Instance, members: Sequence[Member] = ()) -> None:
        """Plan and bind an instance, as the daemon does."""
        self._follow(plan(instance, members, self.policies, self.catalogue, self.settings.defaults))

    def apply_policies(self) -> None:
        """Work by the policies that are in force now, as the daemon does after an edit."""
        self.policies = self.editor.library.policies
        self.shadowing.follow(self.editor.library)
        for instance in self.settings.instances:
            self.watch(instance)
        self.watch_oneself()

    def watch_oneself(self) -> None:
        self._follow(own_plan("watcher", self.policies, self.catalogue, self.settings.defaults))

    def _follow(self, planned: InstancePlan) -> None:
        self.plans[planned.name] = planned
        for cycle in planned.cycles:
            self.pipeline.board.expect(cycle.probe.name, cycle.reach.target, cycle.interval)
        for combined in planned.combined:
            self.pipeline.board.expect(combined.probe.name, combined.target, combined.interval, computed=True)
        self.pipeline.bind(
            planned.name, planned.labels, planned.nodes, planned.watches, all_policies=self.policies
        )  # fmt: skip

    def target(self, probe: str, node: str = "", instance: str = "orders") -> Target:
        """The first target of that probe on the node."""
        entries = self.pipeline.board.entries(instance)
        return next(entry.target for entry in entries if entry.probe == probe and entry.target.node == node)

    def sample(
        self,
        probe: str,
        node: str = "",
        outcome: Outcome = Outcome.OBSERVED,
        *,
        reason: str = "",
        kind: str = "",
        instance: str = "orders",
        **readings: Reading,
    ) -> Sample:
        """Have one sample judged, now."""
        target = self.target(probe, node, instance)
        at, mono = self.clock.wall(), self.clock.mono()
        sample = Sample(target, probe, outcome, at, mono, 0.004, readings, reason, kind)
        self.pipeline.accept(instance, [sample])
        return sample

    async def outage(self, node: str, reason: str = "connection refused") -> None:
        """Three failed liveness samples, 5 s apart: ``database_unavailable``, durable."""
        for _ in range(3):
            self.clock.step(5)
            self.sample("postgres_liveness", node, Outcome.FAILED, reason=reason, kind="refused")
        await self.settle()

    async def settle(self) -> None:
        """Until everything queued so far is durable and announced."""
        await self.store.append(Commit())
        await asyncio.sleep(0)


async def stack(directory: Path, **instance: object) -> Stack:
    """Two nodes with Patroni, a disk, the kernel's kills and two write ports, nothing sampled yet. Close the store when done."""
    settings = Settings.model_validate({"observer": "watcher", "instances": [{**ORDERS, **instance}]})
    probes = catalogue()
    files = directory / "policies.d"
    files.mkdir(parents=True, exist_ok=True)
    (files / "deadlocks.yaml").write_text("id: deadlocks_frequent\nenabled: true\n")
    rules = Rules({name: frozenset(probe.readings) for name, probe in probes.items()}, settings.defaults)
    library = Library.read(files, rules)
    clock = FakeClock(NOON, 5000.0)
    store = SqliteStore(directory, clock=clock)
    recovered = await store.open()
    archive = Archive(directory, clock, retention=14 * 86400.0, max_bytes=2**30, observer="watcher")
    pipeline = Pipeline(store, Board(), clock, observer="watcher", switchover_grace=60.0)
    pipeline.on_round(archive.observe)

    def apply() -> None:
        made.apply_policies()

    editor = Editor(library, store, apply, asyncio.Lock())
    editor.recover(recovered.patches, recovered.policies_version)
    couriers = Couriers(store, clock, own=_own)

    def record(commit: Commit) -> None:
        _ = store.append(commit)

    shadowing = Shadowing(record, clock, lambda: 60.0)
    shadowing.recover(recovered, library)
    pipeline.on_round(shadowing.observe)
    plans: dict[str, InstancePlan] = {}
    world = World(
        plans=lambda: plans,
        policies=lambda: made.policies,
        instances=lambda: pipeline.instances,
        before=pipeline.board.newest,
        stalled=lambda _: 0.0,
        written=archive.written,
        samples=archive.file.path,
    )
    inspector = Inspector(store, clock, world, observer="watcher", own=_own)
    made = Stack(
        settings,
        editor.library.policies,
        probes,
        pipeline,
        store,
        clock,
        Metrics(),
        editor,
        couriers,
        archive,
        Beside(archive.file.path),
        shadowing,
        inspector,
        Timetable(lambda: inspector, store, clock),
        plans,
    )
    pipeline.on_announce(made.metrics.announced)
    made.watch(settings.instances[0])
    made.watch_oneself()
    return made


def _own(work: Callable[[], Awaitable[None]], _: str) -> asyncio.Task[None]:
    async def run() -> None:
        await work()

    return asyncio.create_task(run())


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


HOSTILE = (
    'quote " inside', "back \\ slash", "trailing \\", "line\nfeed", "carriage\rreturn", "crlf\r\nX-Injected: 1",
    "tab\there", "nul \x00 inside", "bell \x07", "escape \x1b[31mred", "delete \x7f", "next line \x85",
    "vertical \x0b", "form \x0c feed", "c1 \x9b31m", "zero width \u200b", "right to left \u202e gnp.exe",
    "line separator \u2028", "paragraph \u2029", "bom \ufeff", "umlaut äöü", "kanji 東京", "emoji 🐘",
    "combining a\u0301", "private \ue000", "astral \U0010fffd", "brace } 1\n# HELP x y", '",severity="none', 'a="b"',
    "{}", "{{template}}", "${HOME}", "%s%n%x", "<script>alert(1)</script>", "' or 1=1 --", "; drop table event",
    "../../etc/passwd", "\\n not a newline", '\\"', "# comment", "# TYPE x counter", "NaN", "+Inf", " leading",
    "trailing ", "", "a" * 500, "=cmd|' /C calc'!A0", "user:secret@host", "\\u0000",
)  # fmt: skip
"""What a peer may put into a text that we show."""
