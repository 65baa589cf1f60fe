"""The daemon's own life beside a real cluster: reloads, restarts, switchovers missed, members, signals."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from probed.demo.lab import Lab
from tests.acceptance.watching import Watcher, configure, names, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


@pytest_asyncio.fixture(loop_scope="session")
async def own(place: Path, lab: Lab) -> AsyncIterator[Watcher]:
    """A daemon of the test's own, with an empty store."""
    directory = place / "own"
    shutil.rmtree(directory, ignore_errors=True)
    watcher = Watcher(configure(directory, lab))
    await watcher.start()
    await until(watcher.healthy, 60, "a healthy cluster")
    yield watcher
    await watcher.stop()


async def test_a_full_scrape_is_clean_by_promtool(own: Watcher) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    text = await own.get("/metrics")
    done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    series = {line.split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    for name in ("probed_has_leader", "probed_replication_lag_seconds", "probed_connections_used_ratio"):
        assert any(line.startswith(f"{name}{{") and 'db_instance="orders"' in line for line in series), name
    active = [line for line in series if line.startswith("probed_event_active{")]
    assert any('event="no_leader"' in line for line in active), "born at zero"


async def test_sigterm_ends_cleanly_within_five_seconds(own: Watcher) -> None:
    begin = time.monotonic()
    assert await own.stop() == 0
    assert time.monotonic() - begin < 5
    assert "Traceback" not in own.log.read_text()


async def test_a_bad_file_at_reload_keeps_the_last_good_one(own: Watcher) -> None:
    good = own.config.read_text()
    overrides = own.config.parent / "policies.d" / "overrides.yaml"
    try:
        overrides.write_text("{id: no_leader, params: {no_leader_cuont: 3}, enabeld: false}\n")
        own.process.send_signal(signal.SIGHUP)

        async def refused() -> bool:
            return "probed_config_last_reload_successful 0" in await own.get("/metrics")

        await until(refused, 10, "the reload to be refused")
        assert f"{overrides}:1:" in own.log.read_text()
        assert await own.healthy()
    finally:
        overrides.unlink()
        own.config.write_text(good)
    own.process.send_signal(signal.SIGHUP)

    async def accepted() -> bool:
        return "probed_config_last_reload_successful 1" in await own.get("/metrics")

    await until(accepted, 10, "the mended files to be taken")
    assert await own.healthy()


async def test_a_reload_keeps_open_events(own: Watcher, lab: Lab) -> None:
    leader = await lab.leader()
    [replica] = [name for name in lab.nodes if name != leader]
    begin = time.time()
    await lab.freeze_patroni(replica)
    try:

        async def opened() -> bool:
            return names(await own.announced(begin)) == ["patroni_node_abnormal"]

        await until(opened, 40, "the event")
        [before] = await own.announced(begin)
        own.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(6)  # longer than an interval: a lost streak would have shown
        [after] = await own.announced(begin)
        assert (after["id"], after["state"]) == (before["id"], "open")
    finally:
        await lab.thaw_patroni(replica)
    await until(own.healthy, 60, "the end of the event")


async def test_a_switchover_while_the_daemon_was_down_is_reported_once(own: Watcher, lab: Lab) -> None:
    begin = time.time()
    assert await own.stop() == 0
    await lab.switchover()
    await own.start()

    async def told() -> bool:
        return names(await own.announced(begin)) == ["ha_switchover"]

    await until(told, 20, "the switchover to be reported")
    assert await own.stop() == 0
    await own.start()
    await until(own.healthy, 60, "a healthy cluster")
    assert names(await own.announced(begin)) == ["ha_switchover"]


async def test_a_wrong_password_is_blind_with_the_remedy_and_no_outage(own: Watcher, lab: Lab) -> None:
    begin = time.time()
    password = own.config.parent / "password"
    right = password.read_text()
    assert await own.stop() == 0
    password.write_text("wrong")
    await own.start()
    try:

        async def blind() -> bool:
            instance = await own.instance()
            targets = [target for node in instance["nodes"] for target in node["targets"]]
            logins = [target for target in targets if target["probe"] == "postgres_liveness"]
            return len(logins) == 2 and all(target["outcome"] == "blind" for target in logins)

        await until(blind, 15, "both databases to be blind")
        instance = await own.instance()
        reasons = {t["reason"] for node in instance["nodes"] for t in node["targets"] if t["outcome"] == "blind"}
        assert any("password_file" in reason for reason in reasons), reasons
        assert instance["state"] == "blind"
        await asyncio.sleep(20)  # three intervals and a timeout: an outage would have been called by now
        assert await own.events(begin) == []
    finally:
        password.write_text(right)
    await until(own.healthy, 60, "the right password to be taken up by itself")
