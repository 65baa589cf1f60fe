"""The whole daemon as a process beside a real cluster, seen only from outside: its API, its exit code, its log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp

from probed.demo import configuration
from probed.demo.lab import Lab
from probed.demo.ports import free_port

T = TypeVar("T")
Json = dict[str, Any]

INTERVAL, TIMEOUT, GRACE = 5.0, 2.0, 15.0
"""The defaults of the product, but for the grace after a switchover, which would only make the tests wait."""


def configure(directory: Path, lab: Lab, *, web: str = "", extra: str = "", declared: bool = False) -> Path:
    """``probed.yml`` for a lab, as an operator would write it, with the demo's policies.

    Nodes are found through Patroni, or ``declared`` ones on which the daemon runs. ``web`` is more of that section.
    """
    directory.mkdir(exist_ok=True)
    password = directory / "password"
    password.write_text(lab.monitor_password)
    overrides = directory / "policies.d"
    overrides.mkdir(exist_ok=True)
    for name, policy in configuration.POLICIES.items():
        (overrides / f"{name}.yaml").write_text(policy)
    text = f"""
web: {{listen: ["127.0.0.1:{free_port()}"]{web and ", "}{web}}}
storage: {{path: {directory}/store}}
policies: {{directory: {overrides}}}
defaults: {{interval: {INTERVAL:g}s, timeout: {TIMEOUT:g}s, switchover_grace: {GRACE:g}s}}
observer: acceptance
instances:
"""
    text += configuration.instance(lab, "orders", password, env="test", declared=declared)
    file = directory / "probed.yml"
    file.write_text(text + extra)
    return file


class Watcher:
    """A ``probed run`` of our own."""

    def __init__(self, config: Path, headers: Mapping[str, str] | None = None) -> None:
        """``headers`` show who asks, where the daemon wants to know."""
        self.config = config
        self.headers = headers or {}
        text = config.read_text()
        self.url = "http://" + text.split('listen: ["')[1].split('"')[0]
        self.log = config.with_suffix(".log")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Until the daemon says it is ready; its log is shown when it never does."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "probed", "run", "--config.file", str(self.config), stdout=log, stderr=log
            )
        try:
            await until(self.ready, 20, "the daemon to be ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-4000:]}") from None

    async def ready(self) -> bool:
        if self.process.returncode is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}")
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "start() first"
        return self._process

    async def get(self, path: str, **query: Any) -> Any:
        suffix = f"?{urlencode(query)}" if query else ""
        async with (
            aiohttp.ClientSession(headers=self.headers) as session,
            session.get(f"{self.url}{path}{suffix}") as response,
        ):
            body = await response.text()
            assert response.status == 200, f"{path}{suffix}: HTTP {response.status}: {body}"
            return json.loads(body) if "json" in response.content_type else body

    async def events(self, since: float, **query: Any) -> list[Json]:
        """Events that opened after ``since``, oldest first."""
        page = await self.get("/api/v1/events", since=stamp(since), limit=1000, **query)
        assert page["next_cursor"] is None
        return list(reversed(page["items"]))

    async def announced(self, since: float) -> list[Json]:
        """What operators are told of."""
        return await self.events(since, suppressed="false")

    async def instance(self) -> Json:
        status = await self.get("/api/v1/status")
        [instance] = status["instances"]
        return dict(instance)

    async def healthy(self) -> bool:
        """Every target of both nodes sampled, nothing open, nothing failing."""
        instance = await self.instance()
        targets = instance["targets"] + [target for node in instance["nodes"] for target in node["targets"]]
        sampled = [target for target in targets if target["probe"] != "cache_hit_ratio"]
        well = all(target["outcome"] in ("observed", "not_applicable") for target in sampled)
        return well and instance["state"] == "ok" and len(instance["nodes"]) == 2 and not instance["open_events"]

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 10)

    async def kill(self) -> None:
        if self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def until(condition: Callable[[], Awaitable[T]], seconds: float, what: str) -> T:
    """Ask until the answer is truthy; AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}, last answer: {answer}")
        await asyncio.sleep(0.2)


def names(events: Sequence[Json]) -> list[str]:
    return sorted(event["event"] for event in events)
