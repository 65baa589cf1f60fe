"""One inspection of several instances on a real server: how many connections each gets, and whom a hung one delays."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from probed.config.settings import Settings
from probed.daemon import Daemon
from probed.inspection import Report, Verdict, packing
from probed.inspection.choosing import Order
from tests.hostile import accept_and_hang, listening
from tests.integration.counting import doors, instance
from tests.integration.postgres import NONE_FOUND, PASSWORD, Server, binaries, until

FOLDERS = binaries()
if not FOLDERS:
    pytest.skip(NONE_FOUND, allow_module_level=True)

HONEST = 4


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="pg-") as place:
        Path(place).chmod(0o755)
        server = Server.primary(FOLDERS[0], Path(place))
        yield server
        server.remove()


async def inspected(daemon: Daemon, *instances: str) -> Report:
    """The report of one inspection of these, while the daemon itself looks at nothing."""
    running = await daemon.inspector.start(Order(instances))
    await asyncio.wait_for(asyncio.shield(running.ended), 60)
    record = await daemon.store.inspection(running.report.id)
    assert record is not None
    return packing.report_of(record)


async def test_each_server_is_asked_over_one_connection_and_a_hung_one_delays_its_own_line_alone(
    server: Server, tmp_path: Path
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    async with doors(server.port, HONEST) as honest, listening(accept_and_hang) as hung:
        instances = [instance(f"honest{number}", door.port, password) for number, door in enumerate(honest)]
        instances.append(instance("hung", hung.port, password))
        given = {"storage": {"path": tmp_path / "store"}, "instances": instances, "observer": "here"}
        # Rounds an hour apart: after the first, what comes through the doors is the inspection's.
        daemon = Daemon(Settings.model_validate({**given, "defaults": {"interval": "1h", "timeout": "2s"}}))
        await daemon.start()
        try:
            await until(lambda: all(door.inside == 1 for door in honest))  # the daemon's own, which it keeps
            before = [door.ever for door in honest]
            report = await inspected(daemon, *(one["name"] for one in instances))
        finally:
            await daemon.stop()
    structlog.reset_defaults()
    lines = {one.instance: one for one in report.instances}
    assert next(iter(lines)) == "hung"
    assert [item.id for item in lines["hung"].items if item.verdict is Verdict.FAIL] == ["database_unavailable"]
    for number, door in enumerate(honest):
        found = lines[f"honest{number}"]
        assert [item for item in found.items if item.verdict is Verdict.FAIL and item.section == "events"] == []
        assert found.nodes[0].version
        assert (door.ever - before[number], door.most) == (1, 2)
    slowest = max(found.seconds for name, found in lines.items() if name != "hung")
    assert slowest < lines["hung"].seconds
