"""Policies edited while a whole daemon runs: what the next event carries, what stays, and what a restart finds again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from probed.api.app import serve
from probed.config import load
from probed.daemon import Daemon
from probed.errors import ConfigError
from probed.model import Event
from probed.store import EventQuery
from tests.leaks import eventually

INTERVAL = 0.4
DOOR = f"""\
id: shop_door
name: The shop's door is shut
severity: critical
probe: tcp
tcp: {{address: "127.0.0.1:PORT"}}
params: {{failure_count: 3}}
detect: {{type: threshold, when: failed, count: failure_count, resolve_count: 1}}
interval: {INTERVAL * 1000:g}ms
timeout: {INTERVAL * 500:g}ms
"""
SETTINGS = """\
observer: here
storage: {path: DIR/store}
policies: {directory: DIR/policies.d}
web: {listen: [], socket: DIR/s}
instances: [{name: shop, components: {web: {url: "http://127.0.0.1:PORT"}}}]
"""


class Shop:
    """A port that is open or shut, and a daemon that looks at it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.daemon: Daemon | None = None
        self._door: asyncio.Server | None = None
        (directory / "policies.d").mkdir()
        self.write(DOOR)
        (directory / "probed.yml").write_text(self._placed(SETTINGS))

    def _placed(self, text: str) -> str:
        return text.replace("DIR", str(self.directory)).replace("PORT", str(self.port))

    def write(self, door: str) -> None:
        """The file of the policy."""
        (self.directory / "policies.d" / "door.yaml").write_text(self._placed(door))

    async def open_door(self) -> None:
        self._door = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", self.port)

    async def shut_door(self) -> None:
        if self._door is not None:
            self._door.close()
            await self._door.wait_closed()
            self._door = None

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[Daemon]:
        file = self.directory / "probed.yml"
        self.daemon = Daemon(load.load_file(file), lambda: load.load_file(file))
        await self.daemon.start()
        close = await serve(self.daemon, addresses=[], socket_path=self.directory / "s")
        try:
            yield self.daemon
        finally:
            await close()
            await self.daemon.stop()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        headers = {"If-Match": "*"} if method == "PATCH" else {}
        connector = aiohttp.UnixConnector(str(self.directory / "s"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://localhost/api/v1/{path}", json=body, headers=headers) as response,
        ):
            answer = json.loads(await response.text())
            assert response.status == 200, answer
            return answer

    async def events(self) -> list[Event]:
        """Oldest first."""
        assert self.daemon is not None
        return list(reversed(await self.daemon.store.events(EventQuery(event="shop_door"))))

    async def until(self, number: int, state: str) -> Event:
        """The event of this number, once it is in this state."""
        async with asyncio.timeout(30):
            while True:
                found = await self.events()
                if len(found) >= number and found[number - 1].state.value == state:
                    return found[number - 1]
                await asyncio.sleep(INTERVAL / 4)

    async def under(self, version: int) -> Event:
        """The newest event, once it goes on under this version: that is written right after the edit."""
        async with asyncio.timeout(30):
            while True:
                newest = (await self.events())[-1]
                if newest.policy_version == version:
                    return newest
                await asyncio.sleep(INTERVAL / 4)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("s"))


async def test_an_edit_holds_from_the_next_event_on_and_a_rollback_takes_it_back(shop: Shop) -> None:
    async with shop.watched() as daemon:
        first = await shop.until(1, "open")
        assert (first.policy_version, first.count) == (1, 3)
        answer = await shop.ask("PATCH", "policies/shop_door", {"params": {"failure_count": 2}, "reason": "earlier"})
        assert answer["version"] == 2
        still = await shop.under(2)
        assert (still.id, still.state.value, still.count) == (first.id, "open", 3), "nothing but its version changed"
        assert (still.policy_version, still.details["opened_under"]) == (2, 1)
        await shop.open_door()
        await shop.until(1, "resolved")
        await shop.shut_door()
        second = await shop.until(2, "open")
        assert (second.policy_version, second.count) == (2, 2)
        await shop.open_door()
        await shop.until(2, "resolved")
        await shop.ask("POST", "policies/rollback", {"version": 1, "reason": "too early"})
        await shop.shut_door()
        third = await shop.until(3, "open")
        assert (third.policy_version, third.count) == (3, 3)
        [entry] = [entry for entry in daemon.board.entries() if entry.target.component == "shop_door"]
        times = [sample.mono for sample in entry.ring if sample.kind != "lag"]
        skipped = [after - before for before, after in pairwise(times) if after - before > 2.5 * INTERVAL]
        assert not skipped, "no edit cost a sample"


async def test_disabling_closes_the_event_and_enabling_watches_again(shop: Shop) -> None:
    async with shop.watched():
        await shop.until(1, "open")
        await shop.ask("PATCH", "policies/shop_door", {"enabled": False})
        assert (await shop.until(1, "resolved")).resolve_reason == "disabled"
        await shop.ask("PATCH", "policies/shop_door", {"enabled": True})
        assert (await shop.until(2, "open")).policy_version == 3


async def test_another_interval_holds_at_once_and_keeps_the_open_event(shop: Shop) -> None:
    async with shop.watched() as daemon:
        first = await shop.until(1, "open")
        await shop.ask("PATCH", "policies/shop_door", {"interval": "200ms", "timeout": "100ms"})
        assert {entry.interval for entry in daemon.board.entries() if entry.target.component == "shop_door"} == {0.2}
        await shop.open_door()
        assert (await shop.until(1, "resolved")).id == first.id
        await shop.shut_door()


async def test_a_restart_finds_the_edit_again_and_a_reload_lays_it_over_the_files_anew(shop: Shop) -> None:
    async with shop.watched():
        await shop.ask("PATCH", "policies/shop_door", {"params": {"failure_count": 2}})
    async with shop.watched() as daemon:
        event = await shop.until(1, "open")
        assert (event.policy_version, event.count) == (2, 2)
        shop.write(DOOR.replace("critical", "fatal"))
        await daemon.reload()
        policy = daemon.policies["shop_door"]
        assert (policy.severity.value, policy.params, policy.version) == ("fatal", {"failure_count": 2}, 2)
        assert [item.id for item in await shop.events()] == [event.id]


async def test_a_patch_that_does_not_fit_changed_files_stops_neither_reload_nor_start_and_is_told(shop: Shop) -> None:
    without = DOOR.replace("params: {failure_count: 3}\n", "").replace("count: failure_count", "count: 4")
    async with shop.watched() as daemon:
        await shop.ask("PATCH", "policies/shop_door", {"params": {"failure_count": 2}})
        shop.write(without)
        await daemon.reload()
    async with shop.watched() as daemon:
        answer = await shop.ask("GET", "policies/shop_door")
        assert (answer["version"], answer["layers"], answer["detect"]["count"]) == (1, ["file"], 4)
        assert answer["problems"][0]["path"] == "params.failure_count"
        assert answer["patch"] == {"params": {"failure_count": 2}}
        await shop.ask("POST", "policies/shop_door/restore", {})
        assert (await shop.ask("GET", "policies/shop_door"))["problems"] == []
        (shop.directory / "policies.d" / "door.yaml").unlink()
        await daemon.reload()
        assert (await shop.ask("GET", "policies"))["strangers"] == []


async def test_bad_files_at_a_reload_leave_files_and_edits_as_they_are(shop: Shop) -> None:
    async with shop.watched() as daemon:
        await shop.ask("PATCH", "policies/shop_door", {"name": "Shut"})
        shop.write("id: shop_door\n")
        with pytest.raises(ConfigError):
            await daemon.reload()
        assert (daemon.policies["shop_door"].name, daemon.policies["shop_door"].version) == ("Shut", 2)
        await eventually(lambda: bool(daemon.pipeline.instances["shop"].watches))
