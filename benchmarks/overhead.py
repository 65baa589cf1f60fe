"""What a cycle costs, beside others who watch the same: CPU, memory, what is asked of PostgreSQL (P1-P7, P20, P21).

Each contender has a window of some cycles in each round, paced as in real use: back to back flatters Python twice over.
A ratio is taken within a round; told are the median over the rounds and their spread.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import contenders, peers, questions, startup
from benchmarks.contenders import Contender, Cost, Resident, Servers, default_loop
from benchmarks.figures import proportional, resident
from benchmarks.goals import Goal, tell, versions
from benchmarks.up import NODES, Stack, up

ROUNDS, CYCLES, PACE = 3, 12, 1.0
COUNTED = 65.0
"""Seconds for which statements are counted, at four cycles a second: two logins of each node are in them."""
UNSTEADY = 0.25
"""Spread of the floor, as a share of its median, beyond which everything is measured once more."""
IDLE_CLIENTS = 150
"""On each node, for what other people's connections cost."""
CLIENTS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
CROWD = 10
"""Instances more, for what one more costs."""
Costs = Mapping[str, Sequence[Cost]]


async def run(
    seconds: float | None = None, *, rounds: int | None = None, cycles: int | None = None, pace: float | None = None,
    loop: str | None = None, markdown: bool = False, alone: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    loop = loop or default_loop()
    with tempfile.TemporaryDirectory(prefix="po-") as name:
        goals, more = measure(Path(name), rounds or ROUNDS, cycles or CYCLES, pace or PACE, loop)
    return tell(goals, versions(loop=loop, **more), markdown=markdown)


def measure(place: Path, rounds: int, cycles: int, pace: float, loop: str) -> tuple[list[Goal], dict[str, str]]:
    """All goals of this benchmark, and the versions of what took part."""
    found = peers.installed()
    with up(place) as stack, _contenders(stack, place, loop, pace, found) as (everybody, exporters):
        server = Servers(stack)
        costs = _rounds(stack, everybody, server, rounds, cycles, pace)
        spread = _unsteady(costs["floor"])
        if spread > UNSTEADY:
            _say(f"the floor itself moved by {spread:.0%}: measured once more")
            costs = _rounds(stack, everybody, server, rounds, cycles, pace)
        goals = _cpu_goals(costs)
        goals += _server_goals(costs)
        goals += _count_goals(questions.count(stack, place / "counted", loop, interval="250ms", seconds=COUNTED))
        goals += _start_goals(stack, place, loop, rounds)
        goals += _memory_goals(stack, place, loop, everybody[0], exporters)
        told = {"postgresql": stack.version}
    told |= {name: peers.version(program) for name, program in found.items() if name in (peers.BLACKBOX, "monit")}
    if peers.POSTGRES_EXPORTER in found:
        told["postgres_exporter"] = peers.version(found[peers.POSTGRES_EXPORTER])
    return goals, told


@contextlib.contextmanager
def _contenders(
    stack: Stack, place: Path, loop: str, pace: float, found: Mapping[str, str]
) -> Iterator[tuple[list[Contender], peers.Exporters | None]]:
    """The daemon, the floor, and whatever peers there are: started, warmed up and paused."""
    with contextlib.ExitStack() as running:
        daemon = Resident("daemon", running.enter_context(
            contenders.daemon(stack, place / "daemon", loop, interval=f"{pace * 1000:.0f}ms")), stack)  # fmt: skip
        time.sleep(contenders.SETTLED)
        daemon.pause()
        floor = Resident("floor", running.enter_context(contenders.floor(stack, place, loop, interval=pace)), stack)
        time.sleep(3)
        floor.pause()
        everybody: list[Contender] = [daemon, floor]
        exporters = None
        if {peers.POSTGRES_EXPORTER, peers.BLACKBOX} <= found.keys():
            exporters = running.enter_context(peers.exporters(stack, place, found))
            everybody += [exporters.one_scrape(), exporters.stack()]
        else:
            _say("SKIP postgres_exporter and blackbox_exporter: not installed (make peers)")
        if "monit" in found:
            watcher = running.enter_context(peers.monit(stack, place, found))
            time.sleep(3)
            watcher.pause()
            everybody.append(watcher)
        else:
            _say("SKIP monit: not installed (make peers)")
        if found.keys() >= set(peers.PLUGINS):
            everybody.append(peers.plugins(stack, found))
        else:
            _say("SKIP the plugins: not installed (make peers)")
        yield everybody, exporters


def _rounds(
    stack: Stack, everybody: Sequence[Contender], server: Servers, rounds: int, cycles: int, pace: float
) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {one.name: [] for one in everybody}
    costs[CROWDED] = []
    for number in range(rounds):
        for one in everybody:
            costs[one.name].append(one.window(cycles, pace, server))
        with _idle_clients(stack):
            costs[CROWDED].append(everybody[0].window(cycles, pace, server))
        _say(f"round {number + 1}: " + ", ".join(f"{name} {told[-1].cpu:.2f}" for name, told in costs.items()) + " ms")
    return costs


@contextlib.contextmanager
def _idle_clients(stack: Stack) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.clients", str(IDLE_CLIENTS)]
    command += [stack.dsn(node, user="postgres") for node in NODES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
        try:
            assert clients.stdout is not None
            assert clients.stdout.readline() == "ready\n"
            yield
        finally:
            clients.terminate()
            clients.wait()
            ends = time.monotonic() + contenders.STARTED_WITHIN
            # The end of a backend costs CPU, too, which is nobody's who has the next turn.
            while sum(int(server.sql(CLIENTS)) for server in stack.servers.values()) > IDLE_CLIENTS:
                if time.monotonic() > ends:
                    raise TimeoutError("the idle clients' sessions do not end")
                time.sleep(0.2)
            time.sleep(1.0)


def _unsteady(costs: Sequence[Cost]) -> float:
    spent = sorted(cost.cpu for cost in costs)
    return (spent[-1] - spent[0]) / spent[len(spent) // 2]


def _ratio(costs: Costs, one: str, other: str, what: str = "cpu") -> list[float]:
    """Round by round; nothing when one of them did not take part."""
    if one not in costs or other not in costs:
        return []
    return [getattr(a, what) / getattr(b, what) for a, b in zip(costs[one], costs[other], strict=True)]


CROWDED = "daemon, idle clients"
_MISSING = "not installed: make peers"


def _cpu_goals(costs: Costs) -> list[Goal]:
    def goal(number: str, what: str, other: str, must: float, aim: float) -> Goal:
        return Goal(number, what, _ratio(costs, "daemon", other), must, aim, skipped=_MISSING)

    told = [
        Goal(f"ms:{name}", f"CPU of a cycle, {name}", [cost.cpu for cost in spent], unit="ms")
        for name, spent in costs.items()
    ]
    return [
        *told,
        goal("P1", "CPU of a cycle / one postgres_exporter scrape of one node", "postgres_exporter", 0.75, 0.45),
        goal("P2", "CPU of a cycle / 2 postgres_exporter + 12 blackbox probes", "exporters", 0.20, 0.125),
        goal(
            "P3", "CPU of a cycle / the plugins that Icinga or Nagios start for the same", "plugins", 1 / 150, 1 / 250
        ),
        goal("P4", "CPU of a cycle / monit's 15 checks, which know no statistics", "monit", 0.6, 0.4),
        goal("P5", "CPU of a cycle / the bare floor", "floor", 1.8, 1.35),
    ]


def _server_goals(costs: Costs) -> list[Goal]:
    told = [
        Goal(f"pg-ms:{name}", f"CPU of both servers in a cycle, {name}", [cost.server for cost in spent], unit="ms")
        for name, spent in costs.items()
    ]
    values = _ratio(costs, "daemon", "postgres_exporter", "server")
    what = "server CPU of a cycle, both nodes / one postgres_exporter scrape"
    crowded = _ratio(costs, CROWDED, "daemon", "server")
    return [
        *told,
        Goal("P6", what, values, 0.20, 0.12, skipped=_MISSING),
        Goal(
            "P7", f"server CPU of a cycle with {IDLE_CLIENTS} idle clients on each node / without", crowded, 1.5, 1.15
        ),
    ]


def _count_goals(asked: questions.Asked) -> list[Goal]:
    cycles = f"in {asked.cycles:.0f} healthy cycles"
    return [
        Goal("P6a", "statements per node and cycle", [asked.statements_per_cycle], 2.0, also={"asked": asked.texts}),
        Goal("P6b", "connections per node", [asked.connections / asked.nodes], 1.0),
        Goal(
            "P6c", f"backends beyond the login each 30 s, {cycles}", [asked.surplus], 0, also={"logins": asked.logins}
        ),
    ]


def _start_goals(stack: Stack, place: Path, loop: str, rounds: int) -> list[Goal]:
    ratios, spent = [], []
    for number in range(rounds):
        spent.append(startup.first_cycle(stack, place / f"start{number}", loop))
        ratios.append(spent[-1] / startup.imports())
    one, many = (startup.config(stack, place / f"config{count}", count) for count in (1, 101))
    libraries = ", ".join(startup.LIBRARIES)
    return [
        Goal("ms:start", "CPU until everything was asked once", [1000 * one for one in spent], unit="ms"),
        Goal("P20", f"CPU until everything was asked once / import of {libraries}", ratios, 1.6, 1.25),
        Goal("P20b", "CPU for a hundred instances more in the file", [1000 * (many - one)], 100, 60, unit="ms"),
    ]


def _memory_goals(
    stack: Stack, place: Path, loop: str, daemon: Contender, exporters: peers.Exporters | None
) -> list[Goal]:
    assert isinstance(daemon, Resident)
    own = resident(daemon.pid)
    told = [Goal("P21:rss", "resident memory, one two-node instance", [own], unit="MiB")]
    if exporters is not None:
        theirs = sum(proportional(pid) for pid in exporters.pids)
        what = "resident memory / PSS of 2 postgres_exporter + blackbox_exporter"
        told.append(Goal("P21", what, [own / theirs], 1.0, 0.85, also={"exporters_mib": round(theirs, 1)}))
    else:
        told.append(Goal("P21", "resident memory / PSS of the exporters", [], skipped=_MISSING))
    with contenders.daemon(stack, place / "crowd", loop, instances=1 + CROWD) as pid:
        time.sleep(contenders.SETTLED)
        each = (resident(pid) - own) / CROWD
    return [*told, Goal("P21b", "memory of one instance more", [each], 0.7, 0.45, unit="MiB")]


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
