"""How long a fleet takes to be inspected: 100 instances behind doors of their own, five of which hang."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog

from benchmarks.backtest import lateness
from benchmarks.figures import resident
from probed.config.settings import Settings
from probed.daemon import Daemon
from probed.inspection import Report
from probed.inspection.choosing import Order
from probed.rounds import FIRST_WITHIN
from tests.hostile import crowd
from tests.integration.counting import Door, doors, instance
from tests.integration.postgres import PASSWORD, Server, binaries

INSTANCES, HUNG = 100, 5
MOST_SECONDS = 60.0
SETTLING_SECONDS = 10.0
CONTROL_SECONDS = 5.0


async def run(_: float | None = None, *, alone: bool = False) -> list[dict[str, Any]]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory(prefix="pi-") as place:
        server = await asyncio.to_thread(_server, Path(place))
        try:
            with crowd("accept_and_hang", HUNG) as hung:
                async with doors(server.port, INSTANCES - HUNG) as honest:
                    figures = await _measure(Path(place), honest, hung)
        finally:
            await asyncio.to_thread(server.remove)
    for figure in figures:
        figure["missed"] = figure["value"] > figure["must"]
        print(json.dumps(figure), flush=True)
    return figures


def _server(place: Path) -> Server:
    place.chmod(0o755)
    (place / "password").write_text(PASSWORD)
    server = Server.primary(binaries()[0], place)
    server.set(max_connections=str(2 * INSTANCES + 40))
    server.stop()
    server.start()
    return server


async def _measure(directory: Path, honest: list[Door], hung: list[int]) -> list[dict[str, Any]]:
    password = directory / "password"
    instances = [instance(f"honest{number}", door.port, password) for number, door in enumerate(honest)]
    instances += [instance(f"hung{number}", port, password) for number, port in enumerate(hung)]
    # Rounds an hour apart: after the first, what comes through the doors is the inspection's.
    defaults = {"interval": "1h", "timeout": "2s"}
    given = {"storage": {"path": directory / "store"}, "instances": instances, "defaults": defaults}
    daemon = Daemon(Settings.model_validate({**given, "observer": "bench"}))
    reports: list[Report] = []

    async def inspect() -> None:
        running = await daemon.inspector.start(Order(tuple(one["name"] for one in instances)))
        reports.append(await running.ended)

    await daemon.start()
    try:
        await asyncio.sleep(FIRST_WITHIN + SETTLING_SECONDS)  # the first rounds
        idle = await lateness(asyncio.sleep(CONTROL_SECONDS))
        held = [door.inside for door in honest]
        for door in honest:
            door.most = door.inside
        began = time.monotonic()
        busy = await lateness(inspect())
        elapsed = time.monotonic() - began
        record = await daemon.store.inspection(reports[0].id)
        assert record is not None
    finally:
        await daemon.stop()
    lines = {one.instance: one for one in reports[0].instances}
    waited = {
        kind: [one.seconds for name, one in lines.items() if name.startswith(kind)] for kind in ("honest", "hung")
    }
    return [
        {
            "figure": f"s for an inspection of {len(lines)} instances, {len(hung)} of which hang",
            "value": round(elapsed, 1),
            "must": MOST_SECONDS,
            "items": sum(len(one.items) for one in lines.values()),
            "honest_line_s_max": max(waited["honest"]),
            "hung_line_s_max": max(waited["hung"]),
            "kept_kib": round(sum(len(part.body) for part in record.parts) / 1024),
            "loop_late_p99_ms": busy,
            "idle_p99_ms": idle,
            "rss_mib_of_the_daemon": resident(),
            "error": reports[0].error,
        },
        {
            "figure": "connections to one server beside the daemon's own, at once",
            "value": max(door.most - own for door, own in zip(honest, held, strict=True)),
            "must": 1,
        },
    ]
