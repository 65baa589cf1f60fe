"""The observer's own network is cut: one event about the observer, and nothing about what it can no longer see.

The daemon runs in a network namespace of its own. Relays stand for the machines of the cluster: each of its parts has an
address in a second namespace, and is forwarded to the lab on loopback. Needs root and iproute2.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from probed.demo.lab import Lab
from tests.acceptance.watching import GRACE, INTERVAL, TIMEOUT, Json, names, stamp, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

SUBNET = "10.213.77"
"""Exists in the two namespaces of this test only."""
CLONE_NEWNET = 0x40000000
WINDOW = 3 * INTERVAL + TIMEOUT + 1.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def cluster_side() -> Iterator[str]:
    """Name of the namespace in which the cluster's addresses are; the observer's is called the same with ``-eye``."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip (Debian package iproute2)")
    far, near = f"probed-{os.getpid()}", f"probed-{os.getpid()}-eye"
    try:
        ip("netns", "add", far)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine lets nobody make a network namespace: {error.stderr.decode().strip()}")
    try:
        ip("netns", "add", near)
        ip("-n", far, "link", "add", "cluster", "type", "veth", "peer", "name", "eye", "netns", near)
        for number in (1, 2, 3):
            ip("-n", far, "address", "add", f"{SUBNET}.{number}/24", "dev", "cluster")
        ip("-n", near, "address", "add", f"{SUBNET}.100/24", "dev", "eye")
        for space, link in ((far, "cluster"), (near, "eye")):
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "link", "set", link, "up")
        yield far
    finally:
        for space in (far, near):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


def listening_in(namespace: str, address: str, port: int) -> socket.socket:
    """A listening socket that lives in a namespace; made in a thread, which alone enters it."""
    made: list[socket.socket | OSError] = []

    def make() -> None:
        with Path(f"/run/netns/{namespace}").open("rb") as handle:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                made.append(OSError(ctypes.get_errno(), "setns"))
                return
        made.append(socket.create_server((address, port)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either end hangs up; then the receiving end is let go, too."""
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.transport.abort()


class Relays:
    """Ports of the namespace that lead to the lab."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def to(self, number: int, port: int, target: tuple[str, int]) -> str:
        """``host:port`` of a new relay on machine ``number``."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                far_reader, far_writer = await asyncio.open_connection(*target)
            except OSError:
                writer.transport.abort()
                return
            for task in (forward(reader, far_writer), forward(far_reader, writer)):
                running = asyncio.create_task(task)
                self._tasks.add(running)
                running.add_done_callback(self._tasks.discard)

        door = listening_in(self.namespace, f"{SUBNET}.{number}", port)
        self._servers.append(await asyncio.start_server(accept, sock=door))
        return f"{SUBNET}.{number}:{port}"

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the loop lets go of what was aborted


async def configure(directory: Path, lab: Lab, relays: Relays) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "password").write_text(lab.monitor_password)
    nodes = []
    for number, (name, node) in enumerate(lab.nodes.items(), start=1):
        database = await relays.to(number, 5432, ("127.0.0.1", node.postgres_port))
        patroni = await relays.to(number, 8008, ("127.0.0.1", urlsplit(node.patroni_url).port or 0))
        host, port = database.split(":")
        nodes.append(f"      - {{name: {name}, postgres: {{host: {host}, port: {port}}}, patroni: 'http://{patroni}'}}")
    etcd = [
        await relays.to(3, 2379 + index, ("127.0.0.1", urlsplit(url).port or 0))
        for index, url in enumerate(lab.etcd_urls)
    ]
    text = f"""
web: {{listen: ["127.0.0.1:7432"]}}
storage: {{path: {directory}/store}}
defaults: {{switchover_grace: {GRACE:g}s}}
observer: eye
instances:
  - name: orders
    postgres: {{user: {lab.monitor_user}, password_file: {directory}/password}}
    nodes:
{chr(10).join(nodes)}
    etcd: [{", ".join(f"'http://{address}'" for address in etcd)}]
"""
    if lab.haproxy_write_address is not None and lab.haproxy_stats_url is not None:
        host, _, port = lab.haproxy_write_address.rpartition(":")
        write = await relays.to(3, 5000, (host, int(port)))
        stats = urlsplit(lab.haproxy_stats_url)
        page = await relays.to(3, 7000, (stats.hostname or "", stats.port or 0))
        text += f"    haproxy: {{stats: 'http://{page}{stats.path}', frontends: ['{write}']}}\n"
    file = directory / "probed.yml"
    file.write_text(text)
    return file


class Eye:
    """The daemon in its namespace, asked over its UNIX socket, which no network can cut."""

    def __init__(self, config: Path, namespace: str) -> None:
        self.config, self.namespace = config, namespace
        self.log = config.with_suffix(".log")
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *("ip", "netns", "exec", self.namespace, sys.executable, "-m", "probed", "run"),
                *("--config.file", str(self.config)),
                stdout=log,
                stderr=log,
            )

    async def get(self, path: str, **query: Any) -> Any:
        connector = aiohttp.UnixConnector(str(self.config.parent / "store" / "probed.sock"))
        url = f"http://localhost{path}?{urlencode(query)}"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def healthy(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            status = await self.get("/api/v1/status")
            [instance] = status["instances"]
            return bool(instance["state"] == "ok" and status["self"]["state"] == "ok")
        return False

    async def events(self, since: float) -> list[Json]:
        return list((await self.get("/api/v1/events", since=stamp(since), limit=1000))["items"])

    async def stop(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        assert await asyncio.wait_for(self.process.wait(), 10) == 0


@pytest_asyncio.fixture(loop_scope="session")
async def eye(cluster_side: str, place: Path, lab: Lab) -> AsyncIterator[Eye]:
    relays = Relays(cluster_side)
    eye = Eye(await configure(place / "eye", lab, relays), f"{cluster_side}-eye")
    await eye.start()
    try:
        await until(eye.healthy, 60, "the daemon to see a healthy cluster through the relays")
        yield eye
        await eye.stop()
    finally:
        if eye.process is not None and eye.process.returncode is None:
            eye.process.kill()
        await relays.close()


async def test_a_cut_network_is_one_event_about_the_observer_and_what_it_believes_stands_under_it(
    eye: Eye, cluster_side: str
) -> None:
    begin = time.time()
    ip("-n", cluster_side, "link", "set", "cluster", "down")

    async def isolated() -> bool:
        return "observer_isolated" in names(await eye.events(begin))

    await until(isolated, 2 * WINDOW, "the daemon to notice that it is cut off")
    await asyncio.sleep(WINDOW)
    events = await eye.events(begin)
    told = [event for event in events if not event["suppressed"]]
    assert names(told) == ["observer_isolated"], told
    held = [event for event in events if event["suppressed"]]
    assert {event["caused_by"] for event in held} <= {told[0]["id"]}
    assert "database_unavailable" in names(held), "what it believes is recorded"
    assert told[0]["instance"] == "observer"
    assert f"{SUBNET}.1" in told[0]["message"]

    ip("-n", cluster_side, "link", "set", "cluster", "up")
    await until(eye.healthy, 90, "everything to resolve")
    events = await eye.events(begin)
    assert names([event for event in events if not event["suppressed"]]) == ["observer_isolated"]
    assert {event["state"] for event in events} == {"resolved"}
