"""A thousand healthy targets each second, scraped meanwhile: how late, how dear, how true its readings (P10 to P12).

``python -m benchmarks.punctual FILE SECONDS EVERY [spread]`` is the daemon of a file, in this process, and prints one
JSON object; ``python -m benchmarks.punctual ping DSN SECONDS`` is somebody who does nothing but ping a server.

``spread``: the same daemon, but every cycle starts at a moment of its own: none shares its slot with another (but for
a node's, which take turns on one connection anyway), and the slots of two instances hardly ever fall together.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import structlog

from benchmarks.contenders import default_loop, loop_factory
from benchmarks.figures import percentile
from benchmarks.goals import Goal, tell, versions
from benchmarks.up import NODES, Stack, up
from probed import cadence
from probed.api.app import serve
from probed.config import load
from probed.daemon import Daemon
from probed.demo.ports import free_port
from probed.model import OBSERVER
from probed.store import EventQuery
from probed.tidying import settle

TARGETS, INTERVAL, SCRAPED_EACH, SECONDS = 1_000, 1.0, 5.0, 30.0
PER_INSTANCE = 20
WARM_UP = 5.0
PING, SPREAD = "ping", "spread"
AFTER_SETTLING = 1.0
"""Seconds after the collector's walk over everything, which is once in a daemon's life; what it made late is over."""


async def run(
    seconds: float | None = None, *, targets: int | None = None, interval: float | None = None,
    scrape: float | None = None, markdown: bool = False, alone: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    goals = measure(targets or TARGETS, interval or INTERVAL, scrape or SCRAPED_EACH, seconds or SECONDS)
    return tell(goals, versions(loop=default_loop()), markdown=markdown)


def measure(targets: int, interval: float, scrape: float, seconds: float) -> list[Goal]:
    """The daemon as it is, beside somebody who only pings and one who sleeps; then it and one with its cycles spread.

    These two at once: what else the machine does, which moves the cost of a probe by more than this, befalls both.
    """
    with tempfile.TemporaryDirectory(prefix="pu-") as name:
        place = Path(name)
        with up(place) as stack:
            files = [_settings(stack, place / way, targets, interval) for way in ("slots", "spread")]
            own = [sys.executable, "-m", "benchmarks.punctual"]
            pinging = [*own, PING, stack.dsn(NODES[0]), str(seconds)]
            idle = [sys.executable, "-m", "benchmarks.idle", str(seconds)]
            ways = [
                [*own, str(files[0]), str(seconds), str(scrape)],
                [*own, str(files[1]), str(seconds), str(scrape), SPREAD],
            ]
            alone, ping, slept = _together(ways[:1], pinging, idle)
            beside = _together(ways)
    told, bare, (idle_p99, idle_max) = json.loads(alone), json.loads(ping), map(float, slept.split())
    even, uneven = map(json.loads, beside)
    what = f"{targets} targets each {interval:g} s, scraped each {scrape:g} s"
    control = {"idle_p99_ms": round(idle_p99, 1), "idle_max_ms": round(idle_max, 1), "cores": told["cores"]}
    return [
        Goal("P10", f"lateness p99 beyond an idle process', {what}",
             [max(0.0, told["late_p99"] - idle_p99)], 5, 2, unit="ms",
             also={**control, "late_p99_ms": told["late_p99"], "cycles": told["cycles"]}),
        Goal("P10b", "lateness p99.9 beyond the longest of an idle process", [max(0.0, told["late_p999"] - idle_max)],
             20, 10, unit="ms", also={"late_p999_ms": told["late_p999"], "late_max_ms": told["late_max"]}),
        Goal("P11", "CPU per probe / the same, each at a moment of its own", [even["us"] / uneven["us"]], 0.75, 0.55,
             also={"us": even["us"], "spread_us": uneven["us"]}),
        Goal("P12", "reading of database pings, p99, beyond a client's that only pings",
             [max(0.0, told["ping_p99"] - bare["ping_p99"])], 5, 2, unit="ms",
             also={"ping_p99_ms": told["ping_p99"], "bare_ping_p99_ms": bare["ping_p99"]}),
        Goal("P12b", f"false events of healthy targets in {seconds:g} s", [told["events"]], 0,
             also={"which": told["which"]}),
    ]  # fmt: skip


def _together(daemons: Sequence[Sequence[str]], *others: Sequence[str]) -> list[str]:
    """What they print; the daemons are to be through with their start before the others begin."""
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in daemons]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "measuring\n"
    running += [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in others]
    output = [process.communicate()[0] for process in running]
    for process in running:
        if process.returncode:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return output


def _settings(stack: Stack, directory: Path, targets: int, interval: float) -> Path:
    """``probed.yml``: instances of a database and components, all of them on the stack's few ports."""
    directory.mkdir()
    kong = next(site for site in stack.sites if site.name == "kong")
    lines = []
    for number in range(targets // PER_INSTANCE):
        node = NODES[number % len(NODES)]
        port = stack.servers[node].port
        lines.append(f"  - name: i{number}")
        lines.append(f"    nodes: [{{name: a, postgres: {{host: 127.0.0.1, port: {port}, user: probed}}}}]")
        lines.append("    components:")
        url = f"http://127.0.0.1:{kong.port}/plain"
        lines += [f"      c{one}: {{url: {url}}}" for one in range(PER_INSTANCE - 2)]
    policies = directory / "policies.d"
    policies.mkdir()
    (policies / "ping.yaml").write_text("{id: ping_latency_high, enabled: true}\n")
    file = directory / "probed.yml"
    file.write_text(
        f"storage: {{path: {directory}/store}}\ndefaults: {{interval: {interval:g}s, timeout: {interval / 2:g}s}}\n"
        f"policies: {{directory: {policies}}}\ninstances:\n" + "\n".join(lines) + "\n"
    )
    return file


# --- the daemon, in a process of its own


async def _daemon(file: Path, seconds: float, scrape: float) -> dict[str, Any]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    daemon = Daemon(load.load_file(file))
    late = list[float]()
    await daemon.start()
    settle()  # here, as after the start and once the first rounds are over
    port = free_port()
    closer = await serve(daemon, addresses=[f"127.0.0.1:{port}"], socket_path=daemon.settings.socket)
    scraper = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.scraper", str(port), str(scrape), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.sleep(WARM_UP)
        settle()
        await asyncio.sleep(AFTER_SETTLING)
        print("measuring", flush=True)
        daemon.on_late(lambda seconds, cycles: late.extend([seconds] * cycles))
        since, cpu, began = time.monotonic(), time.process_time(), time.time()
        pings = list[float]()
        seen: dict[str, float] = {}
        while time.monotonic() - since < seconds:
            await asyncio.sleep(min(5.0, max(0.01, since + seconds - time.monotonic())))
            pings += await _pings(daemon, seen)
        elapsed, spent = time.monotonic() - since, time.process_time() - cpu
        events = [one for one in await daemon.store.events(EventQuery(since=began)) if one.target.instance != OBSERVER]
    finally:
        scraper.terminate()
        await scraper.wait()
        await closer()
        await daemon.stop()
    late.sort()
    return {
        "late_p99": round(1000 * percentile(late, 99), 2),
        "late_p999": round(1000 * late[min(len(late) - 1, int(0.999 * len(late)))], 2),
        "late_max": round(1000 * late[-1], 2),
        "cycles": len(late),
        "us": round(1e6 * spent / len(late), 1),
        "cores": round(spent / elapsed, 2),
        "ping_p99": round(1000 * percentile(pings, 99), 2),
        "pings": len(pings),
        "events": len(events),
        "which": sorted({one.event for one in events}),
    }


async def _pings(daemon: Daemon, seen: dict[str, float]) -> list[float]:
    """New readings; the board keeps the last 20 of each target. The daemon's own work goes on between two instances."""
    found = []
    for name in daemon.board.instances:
        for entry in daemon.board.entries(name):
            if entry.probe != "postgres_liveness":
                continue
            for sample in entry.ring:
                reading = sample.readings.get("ping_seconds")
                if sample.mono > seen.get(entry.target.key, 0.0) and isinstance(reading, float):
                    found.append(reading)
            if entry.newest is not None:
                seen[entry.target.key] = entry.newest.mono
        await asyncio.sleep(0)
    return found


async def _ping(dsn: str, seconds: float) -> dict[str, float]:
    """Each 20 ms, as often as all nodes together are pinged."""
    connection = await asyncpg.connect(dsn)
    took, ends = list[float](), time.monotonic() + seconds
    while time.monotonic() < ends:
        await asyncio.sleep(0.02)
        before = time.perf_counter()
        await connection.execute("SELECT 1")
        took.append(time.perf_counter() - before)
    connection.terminate()
    return {"ping_p99": round(1000 * percentile(took, 99), 2)}


def _spread() -> None:
    """One cycle to a slot, and the slots of different instances up to 5 ms apart: on a grid of 0.1 ms."""
    of_slot, fine = cadence.phase, 50

    def phase(name: str, interval: float) -> float:
        return of_slot(name, interval) + of_slot(f"{name}, finely", fine * cadence.SLOT) / fine

    cadence.BUNDLE, cadence.phase = 1, phase


def main(first: str, *more: str) -> None:
    if first == PING:
        print(json.dumps(asyncio.run(_ping(more[0], float(more[1])))))
        return
    if more[2:] == (SPREAD,):
        _spread()
    with asyncio.Runner(loop_factory=loop_factory(default_loop())) as runner:
        print(json.dumps(runner.run(_daemon(Path(first), float(more[0]), float(more[1])))))


if __name__ == "__main__":
    main(*sys.argv[1:])
