"""The event loop of the extra ``uvloop``: what differs from asyncio's own where we touch its transports."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from probed.api.app import serve
from tests.unit.certificates import Authority
from tests.unit.people import USERS, as_user, know
from tests.unit.serving import free_port, stack


def test_the_listener_takes_tls_connections(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")
    authority = Authority(tmp_path)
    issued = authority.issue("server")

    async def ask() -> set[int]:
        seen = await stack(tmp_path / "store")
        know(seen, tmp_path, f"tls_server_config: {{cert_file: {issued.cert}, key_file: {issued.key}}}\n{USERS}")
        address = f"127.0.0.1:{free_port()}"
        close = await serve(seen, addresses=[address], socket_path=None)
        statuses = set()
        for _ in range(100):  # whatever is read before the handshake is lost, now and then
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session,
                session.get(f"https://{address}/metrics", headers=as_user("vera")) as answer,
            ):
                statuses.add(answer.status)
        await close()
        await seen.store.close()
        return statuses

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == {200}
