"""``probed demo`` as a newcomer meets it: one command, a fault from a second terminal, Ctrl-C, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from probed.demo.ports import free_port
from tests.acceptance.watching import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]


class Demo:
    def __init__(self, directory: Path, process: asyncio.subprocess.Process, log: Path) -> None:
        self.directory, self.process, self.log = directory, process, log

    def text(self) -> str:
        return self.log.read_text()

    async def says(self, words: str, seconds: float) -> None:
        async def said() -> bool:
            assert self.process.returncode is None, self.text()
            return words in self.text()

        try:
            await until(said, seconds, f'the demo to say "{words}"')
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from None

    async def do(self, *words: str) -> tuple[int, str]:
        """``probed demo WORDS``, from a second terminal: (exit code, what it said)."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "probed", "demo", "--directory", str(self.directory), *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode is not None
        return process.returncode, out.decode()


@pytest_asyncio.fixture(loop_scope="session")
async def demo(place: Path) -> AsyncIterator[Demo]:
    directory, log = place / "demo", place / "demo.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "probed", "demo", "--directory", str(directory)),
            *("--web.listen-address", f"127.0.0.1:{free_port()}"),
            stdout=out,
            stderr=out,
        )
    yield Demo(directory, process, log)
    if process.returncode is None:
        process.terminate()
    await asyncio.wait_for(process.wait(), 30)


async def test_the_demo_shows_a_healthy_instance_a_fault_and_its_event_and_leaves_nothing(demo: Demo) -> None:
    await demo.says("demo: ok, leader node", 90)
    assert "node2" in demo.text()

    code, said = await demo.do("break", "swichover")
    assert code == 1
    assert "did you mean switchover" in said

    code, said = await demo.do("break", "switchover")
    assert code == 0, said
    assert "expect: ha_switchover" in said
    await demo.says("CRITICAL ha_switchover on demo (occurred)", 30)
    assert demo.text().count(" ha_switchover ") == 1

    demo.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(demo.process.wait(), 30) == 0
    left = [entry for entry in os.listdir("/proc") if entry.isdigit() and _mentions(entry, str(demo.directory))]
    assert left == [], "processes of the demo outlived it"

    code, said = await demo.do("heal", "primary-kill")
    assert code == 1
    assert "no lab" in said.lower() or "not running" in said.lower(), said


def _mentions(pid: str, words: str) -> bool:
    try:
        return words.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
