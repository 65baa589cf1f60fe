"""A served stack that knows people: users of each role, tokens of each kind, and clients that show them."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
from msgspec.structs import replace

from probed.access.tokens import mint
from probed.access.web_file import WebFile
from probed.config.load import web_misfits
from probed.config.web import Web
from probed.store import Commit, TokenRecord
from tests.unit.serving import NOON, Stack

PASSWORDS = {"vera": "sees all", "olga": "turns the valves", "anna": "holds the keys"}
ROLES = {"olga": "operator", "anna": "admin"}
HASHES = {name: bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode() for name, password in PASSWORDS.items()}
USERS = "basic_auth_users:\n" + "".join(f"  {name}: {hashed}\n" for name, hashed in HASHES.items())


def know(seen: Stack, directory: Path, text: str = USERS, **settings: object) -> Path:
    """Have the stack know the people of a web-config.yml of this text."""
    file = directory / "web-config.yml"
    file.write_text(text)
    made = Web.model_validate({"config_file": file, "roles": ROLES if text == USERS else {}, **settings})
    seen.settings = seen.settings.model_copy(update={"web": made})
    seen.web_file = WebFile(file, lambda config: web_misfits(seen.settings.web, config), seen.clock)
    return file


async def give_token(seen: Stack, name: str, role: str, **values: Any) -> str:
    """A token in the store, as an earlier run of the daemon left it."""
    token_id, text, digest = mint()
    record = TokenRecord(token_id, name, role, ("metrics", "api"), digest, NOON, "test")
    await seen.store.append(Commit(tokens=(replace(record, **values),)))
    return text


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def as_user(name: str) -> dict[str, str]:
    return basic(name, PASSWORDS[name])


class Visitor:
    """Asks, and never keeps a cookie unless told."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self._url, self._tls = url, tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Visitor:
        connector = aiohttp.TCPConnector(ssl=self._tls or True, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    def open(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, **more: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The answer, its body not yet read."""
        assert self._session is not None
        return self._session.request(method, self._url + path, headers=headers, allow_redirects=False, **more)

    async def status(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, **more: Any
    ) -> int:
        async with self.open(path, method, headers, **more) as answer:
            return answer.status

    async def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, **more: Any
    ) -> tuple[int, Mapping[str, str], Any]:
        """(status, headers, body as JSON where it is some, else text)"""
        async with self.open(path, method, headers, **more) as answer:
            text = await answer.text()
            try:
                return answer.status, answer.headers, json.loads(text)
            except ValueError:
                return answer.status, answer.headers, text
