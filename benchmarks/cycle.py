"""How many calls one instance cycle makes, with canned answers: a count, and so the same on any machine.

``python -m benchmarks.cycle`` counts and compares with ``cycle.json``, what was committed; ``--record`` writes it anew.

The cycle is that of ``benchmarks.floor`` (two nodes, twelve components, all events) through the daemon's own rounds,
probes, evaluators, board, recorder and metrics. What is not in it: transports (P5 measures these), the store's file,
the event loop. Counted are functions that begin and C functions that they call, in this thread.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, cast

import structlog
from msgspec.structs import replace

from benchmarks.up import COMPONENTS
from probed import testing
from probed.board import Board
from probed.config.settings import Settings
from probed.metrics import Metrics
from probed.model import Comparison, Condition, Outcome, Threshold
from probed.pipeline import Pipeline
from probed.policy.load import load
from probed.probes import Context, catalogue
from probed.probes._http import Answer, HttpClient
from probed.probes._sql import Login, Session
from probed.reaching import context_for
from probed.recording.recorder import Recorder
from probed.rounds import Contexts, Pulse, Rounds
from probed.vitals import Vitals
from probed.watching import Cycle, plan
from tests.standin import recorded
from tests.unit.bench import Ledger

RECORD = Path(__file__).with_suffix(".json")
WARM_UP, CYCLES = 15, 15
"""So many samples are recorded at one go."""
INTERVAL = 5.0
TOLERANCE = 0.03
TOLD = 8
"""Modules that are named when a cycle got dearer."""

_NOT_OURS = ("asyncio", "selectors.py", "threading.py", "weakref.py", "_weakrefset.py", "contextvars.py", "uvloop")
"""Of the standard library: what runs, and how often, is up to the event loop and to threads."""
_LIBRARY = str(Path(asyncio.__file__).parent.parent)
_ROOT = str(Path(__file__).parent.parent)
_START = 0
"""Argument of the instruction RESUME where a function begins; more where a coroutine goes on."""


class Counting:
    """A profiler of this thread."""

    def __init__(self) -> None:
        self.by_module: Counter[str] = Counter()
        self._modules: dict[str, str] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event == "c_call" or (event == "call" and _begins(frame)):
            file = frame.f_code.co_filename
            module = self._modules.get(file)
            if module is None:
                module = self._modules[file] = _module(file)
            self.by_module[module] += 1


def _begins(frame: FrameType) -> bool:
    """Whether a function begins, not a coroutine goes on: how often that has to wait is up to the event loop."""
    return frame.f_lasti < 0 or frame.f_code.co_code[frame.f_lasti + 1] == _START


def _module(file: str) -> str:
    """Dotted, of what is counted; empty for what is not: this file, the tests' stand-ins, the event loop."""
    if file.startswith(f"{_ROOT}/probed/") and file != testing.__file__:
        return file[len(_ROOT) + 1 :].removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    if file.startswith(_ROOT) and "site-packages" not in file:
        return ""
    name = file.removeprefix(f"{_LIBRARY}/")
    return "" if name.startswith(_NOT_OURS) else f"<{name.removesuffix('.py').rpartition('site-packages/')[2]}>"


class Canned(HttpClient):
    """Answers each question as was recorded."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        super().__init__()
        self._answers = answers

    async def get(self, url: str, **_: Any) -> Answer:
        return self._answers[f"GET {url}"]

    async def head(self, url: str, **_: Any) -> Answer:
        return self._answers[f"HEAD {url}"]


class Connection:
    """To a PostgreSQL of which only the counters go on."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = dict(row)

    def is_closed(self) -> bool:
        return False

    def terminate(self) -> None:
        pass

    def get_server_version(self) -> type[_Fifteen]:
        return _Fifteen

    async def execute(self, _: str) -> str:
        return "SELECT 1"

    async def fetchval(self, _: str) -> Any:
        return 1

    async def fetchrow(self, query: str) -> Any:
        if "pg_control_system" in query:
            return ("7195247349871235110",)
        for counter in ("blocks_hit", "current_lsn", "replay_lsn", "receive_lsn", "latest_end_lsn"):
            if self._row[counter] is not None:
                self._row[counter] += 1000.0
        return self._row


class _Fifteen:
    major = 15


class CannedWire:
    """Over which every answer has just come, a millisecond after its question."""

    @property
    def wrote_at(self) -> float:
        return time.perf_counter() - 0.001

    @property
    def heard_at(self) -> float:
        return time.perf_counter()


class Warm(Session):
    """A session whose logins succeed at once."""

    def __init__(self, login: Login, timeout: float, clock: testing.FakeClock, row: Mapping[str, Any]) -> None:
        super().__init__(login, timeout, clock.mono)
        self._canned = Connection(row)

    async def _connect(self) -> Any:
        return self._canned, CannedWire()


_PRIMARY: Mapping[str, Any] = {
    "in_recovery": False, "backends": 3, "deadlocks": 0.0, "blocks_hit": 1e6, "blocks_read": 1e3,
    "stats_reset": None, "usable": 97, "may_read": True, "started_at": datetime(2026, 11, 22, tzinfo=UTC),
    "client_backends": None, "current_lsn": 6.7e7, "timeline": "00000001", "replay_lsn": None, "receive_lsn": None,
    "replay_paused": None, "apply_delay": 0.0, "receiver_pid": None, "receiver_status": None, "received_tli": None,
    "latest_end_lsn": None,
}  # fmt: skip
_REPLICA: Mapping[str, Any] = {
    **_PRIMARY, "in_recovery": True, "current_lsn": None, "timeline": None, "replay_lsn": 6.7e7, "receive_lsn": 6.7e7,
    "replay_paused": False, "receiver_pid": 4711, "receiver_status": "streaming", "received_tli": 1,
    "latest_end_lsn": 6.7e7,
}  # fmt: skip
_ROWS = {"node1": _PRIMARY, "node2": _REPLICA}


def settings(instances: int = 1) -> Settings:
    """Of each instance: two nodes under Patroni, etcd, HAProxy and seven services; disk and kills of one node."""
    services = [name for name in COMPONENTS if name not in ("etcd", "haproxy")]
    nodes: list[dict[str, Any]] = [
        {
            "name": node,
            "local": node == "node1",
            "postgres": {"host": "10.0.0.1", "port": 5432 + number, "user": "probed"},
            "patroni": f"http://{node}:8008",
        }
        for number, node in enumerate(_ROWS)
    ]
    nodes[0] |= {"disk": {"path": "/"}, "oom": {"vmstat": "/proc/vmstat"}}
    instance = {
        "patroni": [f"http://{node}:8008" for node in _ROWS],
        "nodes": nodes,
        "etcd": ["http://etcd:2379"],
        "haproxy": {"stats": "http://haproxy:7000/;csv"},
        "components": {name: {"url": f"http://{name}:80"} for name in services},
    }
    many = [{"name": f"bench{number}", **instance} for number in range(instances)]
    return Settings.model_validate({"defaults": {"interval": "5s", "timeout": "2s"}, "instances": many})


def _answers() -> dict[str, Answer]:
    ports = {"etcd": 2379, "haproxy": 7000}
    found = {}
    for name, (component, state, _, _) in COMPONENTS.items():
        for request, answer in recorded(component)[state].answers.items():
            if answer is not None:
                method, _, path = request.partition(" ")
                url = f"http://{name}:{ports.get(name, 80)}{path}"
                found[f"{method} {url}"] = found[f"{method} {url.removesuffix('/')}"] = _answer(url, answer)
    for node, row in _ROWS.items():
        role = "replica" if row["in_recovery"] else "primary"
        own = {"state": "running", "role": role, "timeline": 1, "patroni": {"version": "4.1.4", "name": node}}
        said = {"patroni": own, "cluster": {"members": _MEMBERS, "scope": "bench"}, "history": []}
        for path, body in said.items():
            url = f"http://{node}:8008/{path}"
            found[f"GET {url}"] = Answer(url, 200, {}, json.dumps(body).encode())
    return found


_MEMBERS = [
    {
        "name": node,
        "role": "replica" if row["in_recovery"] else "leader",
        "state": "streaming" if row["in_recovery"] else "running",
        "api_url": f"http://{node}:8008/patroni",
        "host": "10.0.0.1",
        "port": 5432 + number,
        "timeline": 1,
    }
    for number, (node, row) in enumerate(_ROWS.items())
]


def _answer(url: str, answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(url, int(first.split()[1]), headers, body)


class Fleet:
    """Instances with canned answers, their rounds and all that becomes of them; as a scrape looks at it, too."""

    last_reload_ok, last_reload_at, web_file = True, 0.0, None

    def __init__(self, instances: int = 1) -> None:
        self.clock = testing.FakeClock()
        given, probes = settings(instances), catalogue()
        shipped = load(None, {name: frozenset(probe.readings) for name, probe in probes.items()}, given.defaults)
        self.policies = {name: replace(policy, enabled=True, interval=INTERVAL) for name, policy in shipped.items()}
        # This machine's disk may be as full as it likes: what is counted is a cycle in which nothing is the matter.
        never = Threshold(Condition((Comparison("used_bytes", ">=", math.inf),)), count=1)
        self.policies["capacity_high"] = replace(self.policies["capacity_high"], detect=never)
        self.board, self.metrics = Board(), Metrics()
        self._vitals = Vitals(self.clock, 2 * INTERVAL, on_gap=lambda _: None)
        self.pipeline = Pipeline(
            cast(Any, Ledger()), self.board, self.clock, observer="bench", switchover_grace=60.0,
            reachability=self._vitals.reachability,
        )  # fmt: skip
        self.pipeline.on_round(Recorder(lambda _: None).observe)
        self.pipeline.on_announce(self.metrics.announced)
        self._http, self._sessions = Canned(_answers()), dict[str, Session]()
        pulse = Pulse(late=self.metrics.late, skipped=self.metrics.skipped)
        self.rounds: list[Rounds] = []
        for instance in given.instances:
            planned = plan(instance, (), self.policies, probes, given.defaults)
            assert planned.intervals == (INTERVAL,)
            for cycle in planned.cycles:
                self.board.expect(cycle.probe.name, cycle.reach.target, cycle.interval)
            for computed in planned.combined:
                self.board.expect(computed.probe.name, computed.target, computed.interval, computed=True)
            self.pipeline.bind(planned.name, planned.labels, planned.nodes, planned.watches, all_policies=self.policies)
            self.rounds.append(Rounds(planned, INTERVAL, self.pipeline, Contexts(self._context).of, self.clock, pulse))

    def _context(self, cycle: Cycle) -> Context:
        login = cycle.reach.login
        if login is not None and cycle.session not in self._sessions:
            row = _ROWS[cycle.reach.target.node]
            self._sessions[cycle.session] = Warm(login, cycle.timeout, self.clock, row)
        session = self._sessions.get(cycle.session)
        return context_for(cycle.reach, cycle.timeout, self._http, session, self._vitals)

    async def round(self, number: int) -> None:
        """One round of each instance. AssertionError when not all of it was well."""
        self.clock.step(INTERVAL)
        for rounds in self.rounds:
            await rounds.round(self.clock.mono() - 1.0, number)

    def check(self) -> None:
        """AssertionError when the newest samples are not all well: then something else was counted."""
        for entry in self.board.entries():
            sample = entry.newest
            if sample is not None and sample.outcome not in (Outcome.OBSERVED, Outcome.NOT_APPLICABLE):
                raise AssertionError(f"{entry.probe} {entry.target.key}: {sample.outcome.value} {sample.reason}")


async def count() -> Counter[str]:
    """Calls by module, of ``CYCLES`` cycles after ``WARM_UP``."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    fleet = Fleet()
    counting = Counting()
    gc.collect()
    gc.disable()
    try:
        for number in range(WARM_UP + CYCLES):
            if number == WARM_UP:
                sys.setprofile(counting)
            await fleet.round(number)
    finally:
        sys.setprofile(None)
        gc.enable()
    fleet.check()
    del counting.by_module[""]
    return counting.by_module


def per_cycle(counted: Mapping[str, int]) -> dict[str, float]:
    """By module, the dearest first."""
    return {
        name: round(calls / CYCLES, 1) for name, calls in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    }


def interpreter() -> str:
    """Calls differ between versions: each has its own record."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def recorded_calls() -> dict[str, float] | None:
    """What was committed for this interpreter, by module; None when nothing was."""
    known = json.loads(RECORD.read_text(encoding="utf-8"))
    return cast("dict[str, float] | None", known.get(interpreter()))


def compared(now: Mapping[str, float], before: Mapping[str, float]) -> str:
    """What there is to say of a cycle that changed; empty while it is within the tolerance."""
    total, committed = sum(now.values()), sum(before.values())
    share = total / committed - 1
    if abs(share) <= TOLERANCE:
        return ""
    moved = sorted(now.keys() | before.keys(), key=lambda name: -abs(now.get(name, 0) - before.get(name, 0)))
    rows = [f"  {name}: {before.get(name, 0):.0f} -> {now.get(name, 0):.0f}" for name in moved[:TOLD]]
    first = (
        f"one instance cycle makes {total:.0f} calls instead of {committed:.0f}: {share:+.1%}, beyond {TOLERANCE:.0%}"
    )
    return "\n".join(
        [
            first,
            *rows,
            "If that is meant, say why in the commit, and write it down: python -m benchmarks.cycle --record",
        ]
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cycle", description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name} anew")
    parser.add_argument("--json", action="store_true", help="only the calls by module")
    given = parser.parse_args(arguments)
    now = per_cycle(asyncio.run(count()))
    if given.json:
        print(json.dumps(now))
        return 0
    if given.record:
        known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
        RECORD.write_text(json.dumps(known | {interpreter(): now}, indent=2) + "\n", encoding="utf-8")
    before = recorded_calls() or {}
    print(*_lines(now), sep="\n")
    said = compared(now, before) if before else f"nothing was recorded for Python {interpreter()}"
    print(said or f"{sum(now.values()):.0f} calls, as committed ({sum(before.values()):.0f})")
    return 1 if said else 0


def _lines(now: Mapping[str, float]) -> Iterable[str]:
    return (f"{calls:9.1f}  {name}" for name, calls in now.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
