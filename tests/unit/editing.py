"""A served daemon's worth of state, and somebody who edits its policies."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from probed.api.app import serve
from tests.unit.serving import Stack, free_port, stack

Json = dict[str, Any]
BASE = "/api/v1/policies"


class Operator:
    """Talks to a served stack over the UNIX socket (an admin), or over TCP (who only reads)."""

    def __init__(self, seen: Stack, address: str, path: Path) -> None:
        self.seen, self.address, self.path = seen, address, path

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        tcp: bool = False,
    ) -> tuple[int, Mapping[str, str], Any]:
        """(status, headers, the answer: parsed when it is JSON)"""
        given = dict(headers or {})
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        data = None if body is None else io.BytesIO(raw)
        connector = aiohttp.TCPConnector() if tcp else aiohttp.UnixConnector(str(self.path))
        base = f"http://{self.address}" if tcp else "http://localhost"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, base + path, data=data, headers=given) as response,
        ):
            text = await response.read()
            answer = json.loads(text) if "json" in response.headers.get("Content-Type", "") else text.decode()
            return response.status, response.headers, answer

    async def get(self, path: str) -> Json:
        status, _, answer = await self.send("GET", path, tcp=True)
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def tag(self, policy: str) -> str:
        return (await self.send("GET", f"{BASE}/{policy}"))[1]["ETag"]

    async def edit(self, policy: str, **patch: Any) -> Json:
        """An edit that is accepted: its answer."""
        status, _, answer = await self.send("PATCH", f"{BASE}/{policy}", patch, headers={"If-Match": "*"})
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def refused(self, policy: str, **patch: Any) -> dict[str, str]:
        """An edit that a rule refuses: the problems by path."""
        status, _, answer = await self.send("PATCH", f"{BASE}/{policy}", patch, headers={"If-Match": "*"})
        assert (status, answer["type"]) == (422, "urn:probed:refused-by-rule")
        return {item["path"]: item["detail"] for item in answer["errors"]}

    async def post(self, path: str, body: object, **more: Any) -> Json:
        status, _, answer = await self.send("POST", path, body, **more)
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def exported(self, query: str = "") -> Json:
        return await self.get(f"{BASE}/export{query}")


async def served(directory: Path, place: Path) -> AsyncIterator[Operator]:
    made = await stack(directory)
    address, path = f"127.0.0.1:{free_port()}", place / "probed.sock"
    close = await serve(made, addresses=[address], socket_path=path)
    yield Operator(made, address, path)
    await close()
    await made.store.close()
