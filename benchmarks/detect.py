"""How long a fault stands before its event is durable, in intervals; at random phases, each one counts (P13 to P15).

A component refuses, hangs, or answers what a policy does not want, from a moment that its stub tells. The event's
moment is that of its announcement, which comes after the commit. Bounds are in intervals: n samples in a row are
needed, so it lies between n - 1 and n of them, and after a hang the timeout more.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from benchmarks import peers
from benchmarks.contenders import default_loop, process, wait_for_port
from benchmarks.goals import Goal, tell, versions
from benchmarks.up import Stub, stubs
from probed.demo.ports import free_port

INTERVAL, FAULTS = 0.5, 200
SITES = 21
COUNT = 3
"""Failures in a row that the event needs."""
SLACK = 0.1
EARLY = 0.05
"""Three cycles lie less than two intervals apart by as much as the first of them started late."""
PATIENCE = 12
"""Intervals after which an event that has not come is said to be missing."""
WAYS: Mapping[str, str] = {"refused": "refuse", "hung": "hang", "value": "fail"}
"""What is wrong, and the stub's state that makes it so."""
TIMEOUT_SHARE = 0.4
BESIDE_FAULTS, BESIDE_INTERVAL = 12, 1.0
STORM_INSTANCES, STORM_COMPONENTS, STORM_INTERVAL = 100, 12, 5.0


@dataclass(frozen=True)
class Found:
    """One fault and its detection, in intervals; ``latency`` is infinite when no event came."""

    way: str
    latency: float


async def run(
    seconds: float | None = None, *, interval: float | None = None, faults: int | None = None, markdown: bool = False,
    alone: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    every, number = interval or INTERVAL, faults or FAULTS
    with tempfile.TemporaryDirectory(prefix="pd-") as name:
        place = Path(name)
        found = [*goals(faulty(place / "faults", every, number), every), *beside(place), *storm(place / "storm")]
    return tell(found, versions(loop=default_loop()), markdown=markdown)


class Watcher:
    """The daemon's announcements, by instance, and its lateness."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdin is not None
        self._child, self._in = child, child.stdin
        self.heard: dict[str, Queue[tuple[float, str]]] = {}
        self.all: list[tuple[float, str, str, str, str]] = []
        self._ready: Queue[None] = Queue()
        self._late: Queue[tuple[float, int]] = Queue()
        self._reader = Thread(target=self._listen, daemon=True)
        self._reader.start()
        self._ready.get(timeout=60)

    def late(self) -> tuple[float, int]:
        """p99 of the lateness since it was last asked, ms, and of how many cycles."""
        self._in.write("late\n")
        self._in.flush()
        return self._late.get(timeout=30)

    def await_change(self, instance: str, kind: str, seconds: float) -> float | None:
        """Monotonic time of the next change of that kind in an instance; None when there is none for so long."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            with contextlib.suppress(Empty):
                at, said = self.heard.setdefault(instance, Queue()).get(timeout=left)
                if said == kind:
                    return at
        return None

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            at, kind, event, instance, component = line.split()
            if kind == "ready":
                self._ready.put(None)
            elif kind == "late":
                self._late.put((float(at), int(event)))
            else:
                self.all.append((float(at), kind, event, instance, component))
                self.heard.setdefault(instance, Queue()).put((float(at), kind))


@contextlib.contextmanager
def watching(file: Path) -> Iterator[Watcher]:
    """``benchmarks.detecting`` with a file, past its start."""
    command = [sys.executable, "-m", "benchmarks.detecting", str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Watcher(child)
        finally:
            child.terminate()


@contextlib.contextmanager
def named_stubs(place: Path, names: Sequence[str]) -> Iterator[tuple[Stub, dict[str, int]]]:
    """Plain components by these names, and their ports."""
    file = place / "answers.json"
    file.write_text(json.dumps({name: {"port": 0, "answers": {}} for name in names}))
    with stubs(file) as stub:
        yield stub, dict(zip(names, stub.ports, strict=True))


# --- P13


def faulty(place: Path, interval: float, faults: int, *, sites: int = SITES, seed: int = 1) -> list[Found]:
    """So many faults, at moments that have nothing to do with the daemon's slots; several sites at once."""
    place.mkdir()
    names = [f"s{number}" for number in range(sites)]
    with named_stubs(place, names) as (stub, ports), watching(_settings(place, ports, interval)) as watcher:
        found = list[Found]()
        share = [faults // sites + (number < faults % sites) for number in range(sites)]
        workers = []
        for number, name in enumerate(names):
            given = (stub, watcher, name, interval, share[number], random.Random(seed + number), found)
            workers.append(Thread(target=_break, args=given))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return found


def _break(
    stub: Stub, watcher: Watcher, name: str, interval: float, faults: int, chance: random.Random, found: list[Found]
) -> None:
    way = _way(name)
    for phase in _phases(faults, chance):
        time.sleep((1.5 + phase) * interval)
        watcher.heard[name] = Queue()
        began = stub.order(f"{WAYS[way]} {name}")
        at = watcher.await_change(name, "opened", PATIENCE * interval)
        found.append(Found(way, float("inf") if at is None else (at - began) / interval))
        stub.order(f"serve {name}")
        watcher.await_change(name, "resolved", PATIENCE * interval)


def _phases(number: int, chance: random.Random) -> list[float]:
    """So many moments within an interval, at random, but one in each part of it: else the median of some dozens moves
    by a twentieth of an interval from run to run, and says more of chance than of the daemon."""
    phases = [(part + chance.random()) / number for part in range(number)]
    chance.shuffle(phases)
    return phases


def _way(name: str) -> str:
    """What befalls a site: always the same, so that the sites share all ways among them."""
    return list(WAYS)[int(name[1:]) % len(WAYS)]


def _settings(place: Path, ports: Mapping[str, int], interval: float, *, ways: bool = True) -> Path:
    """An instance for each site: a service that is asked whether it is well, or whose answer a policy looks at."""
    policies = place / "policies.d"
    policies.mkdir()
    instances = []
    for name, port in ports.items():
        if ways and _way(name) == "value":
            # An instance wants a component: one that sees nothing of the fault.
            instances.append(f"  - {{name: {name}, components: {{silent: {{url: tcp://127.0.0.1:{port}}}}}}}")
            (policies / f"{name}.yaml").write_text(
                f"id: value_{name}\nname: A value\nseverity: normal\nprobe: http\ninstances: [{name}]\n"
                f"http: {{url: http://127.0.0.1:{port}/, expect_status: [200, 500]}}\n"
                f'detect: {{type: threshold, when: "http_status >= 500", count: {COUNT}, resolve_count: 2}}\n'
                "description: It answers 500.\nsuggestion: None.\n"
            )
        else:
            instances.append(f"  - {{name: {name}, components: {{service: {{url: http://127.0.0.1:{port}/}}}}}}")
    file = place / "probed.yml"
    timeout = f"{TIMEOUT_SHARE * interval * 1000:.0f}ms"
    file.write_text(
        f"storage: {{path: {place}/store}}\ndefaults: {{interval: {interval * 1000:.0f}ms, timeout: {timeout}}}\n"
        f"policies: {{directory: {policies}}}\ninstances:\n" + "\n".join(instances) + "\n"
    )
    return file


def bound(way: str) -> float:
    """The latest moment of the event, intervals."""
    return COUNT + (TIMEOUT_SHARE if way == "hung" else 0.0) + SLACK


def goals(found: Sequence[Found], interval: float) -> list[Goal]:
    """Each fault within its bound, none too early, and the median."""
    told = []
    for way in WAYS:
        latencies = [one.latency for one in found if one.way == way]
        if not latencies:
            continue
        missed = sum(latency > bound(way) for latency in latencies)
        early = sum(latency < COUNT - 1 - EARLY for latency in latencies)
        also = {"faults": len(latencies), "beyond": missed, "early": early, "median": statistics.median(latencies)}
        what = f"{way}: the longest of {len(latencies)} detections at {interval:g} s, intervals"
        told.append(Goal(f"P13 {way}", what, [max(latencies)], bound(way), bound(way) - SLACK / 2, also=also))
        median = statistics.median(latencies)
        late = COUNT - 0.5 + (TIMEOUT_SHARE if way == "hung" else 0.0) + SLACK
        told.append(Goal(f"P13 {way}, median", f"{way}: median, intervals", [median], late))
        told.append(Goal(f"P13 {way}, early", f"{way}: detections before {COUNT - 1} intervals", [early], 0))
    return told


# --- P14


def beside(place: Path, *, faults: int = BESIDE_FAULTS, interval: float = BESIDE_INTERVAL) -> list[Goal]:
    """The same faults seen by Prometheus with blackbox_exporter: as many evaluations in a row, one each interval."""
    found = peers.installed()
    what = f"median detection / Prometheus with blackbox_exporter, for: {COUNT - 1} intervals"
    if not {peers.BLACKBOX, "prometheus"} <= found.keys():
        return [Goal("P14", what, [], skipped="not installed: make peers")]
    own = place / "beside"
    own.mkdir()
    names = [f"s{number}" for number in range(4)]
    ours, theirs = list[float](), list[float]()
    with (
        named_stubs(own, names) as (stub, ports),
        watching(_settings(own, ports, interval, ways=False)) as watcher,
        _prometheus(own, found, ports, interval) as api,
    ):
        chance = random.Random(14)
        for number, phase in enumerate(_phases(faults, chance)):
            name = names[number % len(names)]
            time.sleep((2.0 + phase) * interval)
            began = stub.order(f"refuse {name}")
            firing = _await_alert(api, name, True, PATIENCE * interval)
            at = watcher.await_change(name, "opened", 1.0)
            ours.append(PATIENCE if at is None else (at - began) / interval)
            theirs.append(PATIENCE if firing is None else (firing - began) / interval)
            stub.order(f"serve {name}")
            _await_alert(api, name, False, PATIENCE * interval)
            watcher.await_change(name, "resolved", PATIENCE * interval)
    also = {"ours": round(statistics.median(ours), 2), "theirs": round(statistics.median(theirs), 2), "faults": faults}
    return [Goal("P14", what, [statistics.median(ours) / statistics.median(theirs)], 0.9, 0.85, also=also)]


_EACH = ("scrape_interval", "scrape_timeout", "evaluation_interval")


@contextlib.contextmanager
def _prometheus(place: Path, found: Mapping[str, str], ports: Mapping[str, int], interval: float) -> Iterator[str]:
    """Prometheus that scrapes a blackbox_exporter for each site, and alerts; the address of its API."""
    blackbox, own = free_port(), free_port()
    (place / "blackbox.yml").write_text(peers.BLACKBOX_YML)
    (place / "rules.yml").write_text(
        f"groups: [{{name: own, interval: {interval:g}s, rules: [{{alert: Down, expr: probe_success == 0, "
        f"for: {(COUNT - 1) * interval:g}s}}]}}]\n"
    )
    jobs = "".join(
        f"  - {{job_name: {name}, metrics_path: /probe, params: {{module: [get], target: ['http://127.0.0.1:{port}/']}},"
        f" static_configs: [{{targets: ['127.0.0.1:{blackbox}']}}]}}\n"
        for name, port in ports.items()
    )
    (place / "prometheus.yml").write_text(
        "global: {" + ", ".join(f"{name}: {interval:g}s" for name in _EACH) + "}\n"
        f"rule_files: [rules.yml]\nscrape_configs:\n{jobs}"
    )
    address = f"--web.listen-address=127.0.0.1:{blackbox}"
    command = [found[peers.BLACKBOX], f"--config.file={place}/blackbox.yml", address]
    with process(command, place / "blackbox.log") as one:
        wait_for_port(blackbox, one, place / "blackbox.log")
        command = [
            found["prometheus"], f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/tsdb",
            f"--web.listen-address=127.0.0.1:{own}", "--log.level=warn",
        ]  # fmt: skip
        with process(command, place / "prometheus.log") as other:
            wait_for_port(own, other, place / "prometheus.log")
            time.sleep(3 * interval)
            yield f"http://127.0.0.1:{own}/api/v1/alerts"


def _await_alert(api: str, job: str, wanted: bool, seconds: float) -> float | None:
    """When the alert of a job was first seen firing, or gone; asked 20 times a second."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with urllib.request.urlopen(api, timeout=5) as answer:
            alerts = json.load(answer)["data"]["alerts"]
        firing = any(one["labels"]["job"] == job and one["state"] == "firing" for one in alerts)
        if firing == wanted:
            return time.monotonic()
        time.sleep(0.05)
    return None


# --- P15


def storm(place: Path, *, instances: int = STORM_INSTANCES, interval: float = STORM_INTERVAL) -> list[Goal]:
    """All components of all instances die within a second."""
    place.mkdir()
    names = [f"s{number}" for number in range(STORM_COMPONENTS)]
    with named_stubs(place, names) as (stub, ports):
        components = ", ".join(f"{name}: {{url: http://127.0.0.1:{port}/}}" for name, port in ports.items())
        lines = [f"  - {{name: i{number}, components: {{{components}}}}}" for number in range(instances)]
        file = place / "probed.yml"
        timeout = f"{TIMEOUT_SHARE * interval * 1000:.0f}ms"
        file.write_text(
            f"storage: {{path: {place}/store}}\ndefaults: {{interval: {interval:g}s, timeout: {timeout}}}\n"
            "instances:\n" + "\n".join(lines) + "\n"
        )
        with watching(file) as watcher:
            time.sleep(2 * interval)
            quiet, _ = watcher.late()
            began = max(stub.order(f"refuse {name}") for name in names)
            ends = began + PATIENCE * interval
            expected = instances * STORM_COMPONENTS
            while time.monotonic() < ends and _opened(watcher) < expected:
                time.sleep(0.1)
            late, cycles = watcher.late()
            times = [at for at, kind, *_ in watcher.all if kind == "opened"]
    last = (max(times) - began) / interval if len(times) >= expected else PATIENCE
    must = COUNT + SLACK + 0.2
    what = f"the last of {expected} events at once is durable, intervals after the last fault"
    also = {"events": len(times), "quiet_p99_ms": quiet, "cycles": cycles}
    return [
        Goal("P15", what, [last], must, also=also),
        Goal("P15b", "lateness p99 meanwhile", [late], 50, 20, unit="ms", also={"quiet_p99_ms": quiet}),
    ]


def _opened(watcher: Watcher) -> int:
    return sum(kind == "opened" for _, kind, *_ in list(watcher.all))
