"""Inspections of the real cluster: healthy, and with three faults at once, of which the report names exactly those."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from probed.demo.faults import FAULTS
from probed.demo.lab import Lab
from tests.acceptance.watching import Json, Watcher, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

BROKEN = {
    "wal-receiver": "wal_receiver_interrupted",
    "connections": "connections_high",
    "auth-exit": "auth_unavailable",
}
"""Faults that have nothing to do with each other, and the event of each."""
OF_THE_LAB = {"failsafe_mode", "slot_wal_limit"}
"""What is advised of a lab, which is a demo and not built to last."""


async def inspect(watcher: Watcher, file: Path, *flags: str) -> tuple[int, Json]:
    """The exit code of ``probed inspect``, and its report."""
    socket = watcher.config.parent / "store" / "probed.sock"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "probed", "inspect", "--socket", str(socket), "--json", str(file), *flags,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(child.communicate(), 120)
    assert child.returncode in (0, 1), output.decode()
    assert file.exists(), output.decode()
    return child.returncode, json.loads(file.read_text())


def items(report: Json, section: str, *verdicts: str) -> list[Json]:
    [orders] = report["instances"]
    return [item for item in orders["items"] if item["section"] == section and item["verdict"] in verdicts]


async def warmed_up(watcher: Watcher) -> bool:
    """Healthy, and every probe with a memory has one."""
    instance = await watcher.instance()
    targets = [target for node in instance["nodes"] for target in node["targets"]]
    ratios = [target["readings"] for target in targets if target["probe"] == "cache_hit_ratio"]
    return await watcher.healthy() and all("hit_ratio" in readings for readings in ratios)


async def test_a_healthy_cluster_passes_and_two_reports_differ_only_in_times(
    lab: Lab, watcher: Watcher, tmp_path: Path
) -> None:
    await until(lambda: warmed_up(watcher), 60, "a healthy cluster")
    code, first = await inspect(watcher, tmp_path / "first.json", "--fail-on", "fail")
    _, second = await inspect(watcher, tmp_path / "second.json")
    assert code == 0, items(first, "events", "fail")
    assert items(first, "events", "warn", "fail") == []
    assert items(first, "advice", "fail") == []
    assert {item["id"] for item in items(first, "advice", "warn")} >= OF_THE_LAB
    assert second["instances"][0]["items"] == first["instances"][0]["items"]
    assert second["instances"][0]["differences"] == []
    nodes = {node["name"]: node["role"] for node in first["instances"][0]["nodes"]}
    assert sorted(nodes.values()) == ["leader", "replica"]
    assert all(node["version"] for node in first["instances"][0]["nodes"])


async def test_of_three_faults_the_report_names_exactly_these(lab: Lab, watcher: Watcher, tmp_path: Path) -> None:
    await until(lambda: warmed_up(watcher), 60, "a healthy cluster")
    _, before = await inspect(watcher, tmp_path / "before.json")
    broken: list[str] = []
    try:
        for name in BROKEN:
            await FAULTS[name].break_(lab)
            broken.append(name)

        async def named() -> Any:
            """At once: no event needs to be open for a report to say what is so."""
            _, report = await inspect(watcher, tmp_path / "faults.json")
            found = sorted({item["id"] for item in items(report, "events", "fail")})
            return report if found == sorted(BROKEN.values()) else []

        report = await until(named, 30, "exactly the three faults")
        causes = tuple(f"a consequence of {event} on " for event in BROKEN.values())
        for item in items(report, "events", "warn"):
            assert any(cause in item["finding"] for cause in causes), item
        [orders] = report["instances"]
        assert orders["grade"] == "D"
        assert all(item["suggestion"] for item in items(report, "events", "fail"))
        # Told apart from the report before, in which nothing of it was so.
        assert before["verdict"] != "fail"
    finally:
        for name in broken:
            await FAULTS[name].heal(lab)
    await until(watcher.healthy, 90, "a healthy cluster again")
