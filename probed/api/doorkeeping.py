"""Knows people by what their request carries: the UNIX socket, a password, a token, a session, a certificate."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web
from msgspec.structs import replace

from probed.access.passwords import Later, Passwords
from probed.access.sessions import Session, Sessions
from probed.access.tls import names_in
from probed.access.tokens import USED_SECONDS, Tokens
from probed.api.access import NOBODY, READER, Principal, of_socket
from probed.api.failures import Failures, passed_over
from probed.api.problems import Refused, unauthorized
from probed.api.served import Served
from probed.config.web_config import WebConfig
from probed.model import Role
from probed.store import Commit, TokenRecord

COOKIE = "probed_session"
METRICS = "/metrics"
WRONG = "the credentials are not right"
_NOTHING = WebConfig()


class KnownPeople:
    """Fulfils ``probed.api.access.Doorkeeper``. Settings and files are read anew at each request."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.tokens = Tokens()
        self.passwords = Passwords(served.clock)
        self.sessions = Sessions(served.clock)
        self._failures = Failures(served)

    async def open(self) -> None:
        """Read the tokens that there are."""
        self.tokens = Tokens(await self._served.store.tokens())

    def close(self) -> None:
        self.passwords.close()

    @property
    def config(self) -> WebConfig:
        """The last good web-config.yml; one that asks for nothing when there is none."""
        file = self._served.web_file
        return file.config if file is not None else _NOTHING

    @property
    def users(self) -> Mapping[str, str]:
        """bcrypt hash by name."""
        return self.config.basic_auth_users

    @property
    def remedy(self) -> str:
        if self.config.knows_people:
            return "log in (basic authentication, or the page), or show a token (Authorization: Bearer …)"
        return (
            "over TCP this daemon only reads while it knows nobody; show a token (probed token add), name users in "
            "web.config_file, or use the UNIX socket: the probed command on this machine, or curl --unix-socket PATH, "
            "where PATH is web.socket, by default probed.sock in storage.path"
        )

    async def identify(self, request: web.Request) -> Principal:
        """Who sent it. Refused when it carries credentials that are wrong; those that it names beat its certificate."""
        local = of_socket(request)
        if local is not None:
            return local
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        if given:
            return await self._by_header(request, given)
        session = self.session_of(request)
        if session is not None:
            return Principal(session.user, self._role(session.user), "session", session.csrf)
        certified = self._by_certificate(request)
        if certified is not None:
            return certified
        return NOBODY if self.config.knows_people else READER

    async def log_in(self, request: web.Request, name: str, password: str) -> Principal:
        """The user. Refused when it is not that user's password, or was tried too often."""
        try:
            right = await self.passwords.right(self.users, name, password, request.remote or "")
        except Later as later:
            seconds = math.ceil(later.seconds)
            detail = f"too many logins failed; the next is looked at in {seconds} s"
            raise Refused("too-many", detail, headers={hdrs.RETRY_AFTER: str(seconds)}) from None
        if not right:
            self._failures.note(request, "password", name if name in self.users else "")
            raise unauthorized(WRONG, request)
        return Principal(name, self._role(name), "password")

    def session_of(self, request: web.Request) -> Session | None:
        cookie = request.cookies.get(COOKIE)
        return self.sessions.of(cookie, self.users) if cookie else None

    def revoke(self, record: TokenRecord) -> None:
        """From now on; before the disk knows, and whether it can or not."""
        self.tokens.put(record)

    async def _by_header(self, request: web.Request, given: list[str]) -> Principal:
        scheme, _, credentials = given[0].strip().partition(" ")
        if len(given) == 1 and scheme.lower() == "bearer":
            return self._by_token(request, credentials.strip())
        if len(given) == 1 and scheme.lower() == "basic":
            name, password = _decoded(credentials.strip())
            return await self.log_in(request, name, password)
        self._failures.note(request, "password", "")
        raise unauthorized("expected one Authorization header: Basic or Bearer", request)

    def _by_token(self, request: web.Request, text: str) -> Principal:
        now = self._served.clock.wall()
        record = self.tokens.of(text, now)
        if record is None:
            self._failures.note(request, "token", "")
            raise unauthorized(WRONG, request)
        scope = "metrics" if request.path == METRICS else "api"
        if scope not in record.scopes:
            raise Refused("forbidden", f"the token {record.name} is for {' and '.join(record.scopes)} only")
        if record.used_at is None or now - record.used_at >= USED_SECONDS:
            used = replace(record, used_at=now)
            self.tokens.put(used)
            self._served.store.append(Commit(tokens=(used,))).add_done_callback(passed_over)
        return Principal(record.name, Role(record.role), "token")

    def _by_certificate(self, request: web.Request) -> Principal | None:
        file = self._served.web_file
        if file is None or not file.config.knows_certificates or request.transport is None:
            return None
        certificate: dict[str, Any] | None = request.transport.get_extra_info("peercert")
        connection = request.transport.get_extra_info("ssl_object")
        if not certificate or connection is None:
            return None
        current = file.context
        if current is None or getattr(connection.context, "trust", None) != current.trust:
            return None  # it was verified by an authority that has been replaced since: connect anew
        names = names_in(certificate)
        if not names:
            return None
        roles = self._served.settings.web.roles
        name = next((name for name in names if name in roles), names[0])
        return Principal(name, self._role(name), "certificate")

    def _role(self, name: str) -> Role:
        return self._served.settings.web.role_of(name)


def _decoded(credentials: str) -> tuple[str, str]:
    """(user, password); what is no valid pair is nobody's."""
    try:
        text = base64.b64decode(credentials, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return "", ""
    name, _, password = text.partition(":")
    return name, password
