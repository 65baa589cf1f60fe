"""One warm PostgreSQL connection per target, and fresh logins beside it. No judging.

The rules that keep this harmless: one connection per target outside any pool; read-only, with statement and lock
timeouts and a fixed search path set at login; a connection that was interrupted is terminated, never awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
from msgspec import Struct

from probed import steps
from probed.errors import Blind, ProbeError, TargetFailed
from probed.probes._dns import Resolver
from probed.probes._driver import Entrance, Server
from probed.probes._sql_errors import LOCK_TIMEOUT_MS, TooManyConnections, grants, translate, translate_os_error
from probed.probes._wire import Wire
from probed.redaction import remember

__all__ = ["Login", "Session", "TooManyConnections", "grants", "translate_os_error"]

LOGIN_EVERY = 30.0
"""Seconds between fresh logins while healthy."""
SAME_ROUND = 0.5
"""A login refused less than this many seconds ago is not tried again by another probe of the same round."""


class Login(Struct, frozen=True):
    """How to log in. The password is read anew at each login, so that a rotated one is taken up."""

    host: str
    port: int = 5432
    user: str = ""
    database: str = "postgres"
    password_file: Path | None = None
    sslmode: str = "prefer"
    sslrootcert: Path | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def role(self) -> str:
        return self.user or os.environ.get("PGUSER") or "probed"

    def password(self) -> str | None:
        """From the file; ``None`` leaves it to PGPASSWORD and .pgpass. Blind when the file cannot be read."""
        if self.password_file is None:
            remember(os.environ.get("PGPASSWORD", ""))
            return None
        try:
            text = self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Blind("config", f'cannot read the password file "{self.password_file}": {error}') from None
        remember(text)
        return text

    def tls(self) -> Any:
        """asyncpg's ``ssl`` argument: a libpq word, or a context where a certificate is to be verified."""
        if self.sslmode not in ("verify-ca", "verify-full"):
            return self.sslmode
        try:
            context = ssl.create_default_context(cafile=str(self.sslrootcert) if self.sslrootcert else None)
        except OSError as error:
            raise Blind("config", f'cannot read the CA file "{self.sslrootcert}": {error}') from None
        context.check_hostname = self.sslmode == "verify-full"
        return context


class Session:
    """The one warm connection to a target, and the fresh logins beside it.

    Every method raises ProbeError (TargetFailed, Blind or TooManyConnections), or CancelledError when the caller's
    deadline ends it. A warm connection that was interrupted in a statement is gone then, and the next cycle logs in
    anew; a login that was interrupted leaves the warm connection alone, which may be all that is left to see by.
    """

    def __init__(self, login: Login, timeout: float, now: Callable[[], float] = time.monotonic) -> None:
        self.login = login
        self._timeout = timeout
        self._now = now
        self._resolver = Resolver()
        self._entrance = Entrance(_settings(timeout), now)
        self._warm: asyncpg.Connection[asyncpg.Record] | None = None
        self._wire: Wire
        """Of the warm connection, once there was one, or of the last that was to become it."""
        self._turn = asyncio.Lock()
        self._guests = asyncio.Lock()
        self._door = asyncio.Lock()
        self._last_login = -1e9
        self._login_failing = False
        self._dropped = False
        self._refused: tuple[float, ProbeError] | None = None
        self._tls: tuple[float, Any] | None = None
        self.system_identifier = ""
        """Of the server behind the warm connection, once a probe has asked; empty again with the next connection."""
        self.outlives_cancels = False
        """Whether a statement that the server ended by itself (its timeout) leaves the connection in use. To a probe
        it is a reason to log in anew; who asks several questions goes on to the next."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """One probe at a time on the warm connection. A fresh login needs no turn."""
        return self._turn

    @contextlib.asynccontextmanager
    async def guest(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """The warm connection for somebody else's statement. Of all guests, one at most stands before our own probes.

        What is raised within is translated; an interruption or a broken line costs the connection.
        """
        async with self._guests, self._turn:
            connection = await self._connection()
            async with self._statement(connection, "transaction"):
                yield connection

    @property
    def warm(self) -> bool:
        return self._warm is not None and not self._warm.is_closed()

    @property
    def idle(self) -> bool:
        """Whether the warm connection is there, and nobody has a turn on it."""
        return self.warm and not self._turn.locked()

    @property
    def login_due(self) -> bool:
        """Whether the fresh login is due: every 30 s while healthy, always while logins fail or nothing is warm."""
        return not self.warm or self._login_failing or self._now() - self._last_login >= LOGIN_EVERY

    async def ping(self, statement: str = "SELECT 1") -> float:
        """Seconds of one round trip on the warm connection (simple protocol: one message each way).

        From the moment the message is written to the one at which the end of the answer is read: not when the loop,
        which may have other work just then, comes to write the one or to tell us of the other.
        """
        connection = await self._connection()
        wire = self._wire
        async with self._statement(connection):
            await connection.execute(statement)
        return wire.heard_at - wire.wrote_at

    async def value(self, query: str) -> Any:
        """The first column of the only row, on the warm connection (prepared once per connection)."""
        row = await self.row(query)
        return row[0]

    async def row(self, query: str) -> asyncpg.Record:
        """The only row of a query, on the warm connection (prepared once per connection)."""
        connection = await self._connection()
        async with self._statement(connection):
            row = await connection.fetchrow(query)
        if row is None:
            raise TargetFailed("protocol", "the server returned no row")
        return row

    async def fresh_login(self, statement: str = "SELECT 1") -> tuple[float, Any]:
        """A new connection and one statement on it: (seconds it took, first column).

        It becomes the warm connection when there is none, else it is closed again.
        """
        async with self._door:
            started = time.perf_counter()
            connection, wire = await self._connect()
            kept = False
            try:
                async with self._statement(connection):
                    answer = await connection.fetchval(statement)
                took = wire.heard_at - started
                self._logged_in()
                kept = not self.warm and self._keep(connection, wire)
            finally:
                if not kept:
                    # It tells the server good-bye and does not wait for the answer, which could hang.
                    connection.terminate()
        return took, answer

    def forget(self) -> None:
        """Leave the warm connection at once, without waiting for the far side; what comes next logs in anew."""
        if self._warm is not None:
            self._warm.terminate()
            self._warm = None
            self.system_identifier = ""

    def drop(self) -> None:
        """The end of the session: nothing stays open, not even what a login under way may still yield."""
        self._dropped = True
        self.forget()

    async def close(self) -> None:
        """End at shutdown: the server is told, its answer is not waited for."""
        self.drop()

    @property
    def server_version(self) -> int:
        """Major version of the server on the warm connection, 0 while there is none."""
        return self._warm.get_server_version().major if self._warm is not None and self.warm else 0

    async def _connection(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._warm is not None and self.warm:
            return self._warm
        async with self._door:
            if self._warm is not None and self.warm:
                return self._warm
            if self._refused is not None and self._now() - self._refused[0] < SAME_ROUND:
                raise self._refused[1].with_traceback(None)
            connection, wire = await self._connect()
            self._logged_in()
            if not self._keep(connection, wire):
                connection.terminate()
        return connection

    def _keep(self, connection: asyncpg.Connection[asyncpg.Record], wire: Wire) -> bool:
        """Make it the warm connection; False when the session has ended meanwhile."""
        self._wire = wire
        if not self._dropped:
            self._warm = connection
            self.system_identifier = ""
        return not self._dropped

    def _logged_in(self) -> None:
        self._last_login = self._now()
        self._login_failing = False

    async def _connect(self) -> tuple[asyncpg.Connection[asyncpg.Record], Wire]:
        login = self.login
        wire = Wire(login.address, self._resolver)
        self._login_failing = True
        try:
            server = Server(login.host, login.port, login.role, login.database)
            connection = await self._entrance.connect(wire, server, login.password(), self._tls_of(login))
        except asyncio.CancelledError:
            wire.abort()
            raise
        except Exception as error:  # noqa: BLE001 - what a hostile server makes the driver raise has no common name
            wire.abort()
            await asyncio.sleep(0)  # the driver learns of it then; a half-made connection that goes before complains
            raise self._noted(error) from None
        steps.end("login")
        self._refused = None
        return connection, wire

    def _noted(self, error: Exception) -> ProbeError:
        """As ours, noted for the next probe of the same round. The frame that raises it must not hold it: a cycle."""
        ours = self._translated(error)
        self._refused = (self._now(), ours)
        return ours

    def _tls_of(self, login: Login) -> Any:
        """``login.tls()``, kept while the CA file is the same: reading the system's store stops the loop for 20 ms."""
        if login.sslmode not in ("verify-ca", "verify-full"):
            return login.tls()
        file = login.sslrootcert
        changed = file.stat().st_mtime if file is not None and file.exists() else 0.0
        if self._tls is None or self._tls[0] != changed:
            self._tls = (changed, login.tls())
        return self._tls[1]

    @contextlib.asynccontextmanager
    async def _statement(
        self, connection: asyncpg.Connection[asyncpg.Record], step: str = "statement"
    ) -> AsyncIterator[None]:
        """Translate what a statement raises; a connection that broke or was interrupted is terminated."""
        try:
            with steps.step(step):
                yield
        except asyncio.CancelledError:
            self._terminate(connection)
            raise
        except Exception as error:  # noqa: BLE001 - as above
            spared = self.outlives_cancels and isinstance(error, asyncpg.QueryCanceledError)
            if not spared and not _still_usable(error):
                self._terminate(connection)
            raise self._translated(error) from None

    def _terminate(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        if connection is self._warm:
            self.forget()
        connection.terminate()

    def _translated(self, error: Exception) -> ProbeError:
        """As ours. The driver's is taken apart: what it knows, its frames and our refusals, knows it again."""
        ours = self._meant(error)
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return ours

    def _meant(self, error: Exception) -> ProbeError:
        login = self.login
        if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
            if login.sslmode in ("require", "verify-ca", "verify-full"):
                text = f'{login.address} does not offer TLS, which sslmode "{login.sslmode}" demands'
                return Blind("tls", f"{text}; set sslmode: prefer, or ssl = on at the server")
            if isinstance(error.__cause__, Exception):  # sslmode allow: why it was not let in without TLS says more
                return self._meant(error.__cause__)
        return translate(error, login.address, login.role, login.database)


def _settings(timeout: float) -> dict[str, str]:
    milliseconds = max(1, int(timeout * 1000))
    return {
        "application_name": "probed",
        "default_transaction_read_only": "on",
        "statement_timeout": str(milliseconds),
        "lock_timeout": str(min(LOCK_TIMEOUT_MS, milliseconds)),
        "idle_in_transaction_session_timeout": "5000",
        "search_path": "pg_catalog",
        "client_min_messages": "error",
    }


def _still_usable(error: Exception) -> bool:
    return isinstance(error, asyncpg.PostgresError) and not isinstance(
        error, asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError | asyncpg.PostgresSystemError
    )
