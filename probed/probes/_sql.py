"""One warm PostgreSQL connection per target, and the map from the driver's errors to ours. No judging.

The rules that keep this harmless: one connection per target outside any pool; read-only, with statement and lock
timeouts and a fixed search path set at login; a connection that was interrupted is terminated, never awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from probed.errors import Blind, ProbeError, TargetFailed

LOGIN_EVERY = 30.0
"""Seconds between fresh logins while healthy."""
LOCK_TIMEOUT_MS = 200
SAME_ROUND = 0.5
"""A login refused less than this many seconds ago is not tried again by another probe of the same round."""


@dataclass(frozen=True, slots=True)
class Login:
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
            return None
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Blind("config", f'cannot read the password file "{self.password_file}": {error}') from None

    def tls(self) -> Any:
        """asyncpg's ``ssl`` argument: a libpq word, or a context where a CA file is to be verified against."""
        if self.sslmode not in ("verify-ca", "verify-full"):
            return self.sslmode
        try:
            context = ssl.create_default_context(cafile=str(self.sslrootcert) if self.sslrootcert else None)
        except OSError as error:
            raise Blind("config", f'cannot read the CA file "{self.sslrootcert}": {error}') from None
        context.check_hostname = self.sslmode == "verify-full"
        return context


class TooManyConnections(ProbeError):
    """SQLSTATE 53300: the server is alive and full. Neither failed nor blind by itself; the probe decides."""

    def __init__(self, message: str) -> None:
        super().__init__("too_many_connections", message)


class Session:
    """The one warm connection to a target, and the fresh logins beside it.

    Every method raises ProbeError (TargetFailed, Blind or TooManyConnections), or CancelledError when the caller's
    deadline ends it; after either the connection is gone and the next cycle logs in anew.
    """

    def __init__(self, login: Login, timeout: float) -> None:
        self.login = login
        self._timeout = timeout
        self._warm: asyncpg.Connection[asyncpg.Record] | None = None
        self._turn = asyncio.Lock()
        self._last_login = -1e9
        self._refused: tuple[float, ProbeError] | None = None
        self.system_identifier = ""

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One probe at a time on the connection; whatever interrupts the turn drops the connection."""
        async with self._turn:
            try:
                yield
            except asyncio.CancelledError:
                self.drop()
                raise

    @property
    def warm(self) -> bool:
        return self._warm is not None and not self._warm.is_closed()

    @property
    def login_due(self) -> bool:
        """Whether the fresh login is due: every 30 s while healthy, always while there is no warm connection."""
        return not self.warm or self._refused is not None or time.monotonic() - self._last_login >= LOGIN_EVERY

    async def ping(self, statement: str = "SELECT 1") -> float:
        """Seconds of one round trip on the warm connection (simple protocol: one message each way)."""
        connection = await self._connection()
        started = time.perf_counter()
        async with self._statement():
            await connection.execute(statement)
        return time.perf_counter() - started

    async def value(self, query: str) -> Any:
        """The first column of the only row, on the warm connection (prepared once per connection)."""
        row = await self.row(query)
        return row[0]

    async def row(self, query: str) -> asyncpg.Record:
        """The only row of a query, on the warm connection (prepared once per connection)."""
        connection = await self._connection()
        async with self._statement():
            row = await connection.fetchrow(query)
        if row is None:
            raise TargetFailed("protocol", "the server returned no row")
        return row

    async def fresh_login(self, statement: str = "SELECT 1") -> tuple[float, Any]:
        """A new connection and one statement on it: (seconds it took, first column).

        It becomes the warm connection when there is none, else it is closed again.
        """
        started = time.perf_counter()
        connection = await self._connect()
        try:
            async with self._statement(connection):
                answer = await connection.fetchval(statement)
        except BaseException:
            connection.terminate()
            raise
        took = time.perf_counter() - started
        self._last_login = time.monotonic()
        if self.warm:
            await _say_goodbye(connection)
        else:
            self._warm = connection
        return took, answer

    def drop(self) -> None:
        """Forget the warm connection at once, without waiting for the far side."""
        if self._warm is not None:
            self._warm.terminate()
            self._warm = None

    async def close(self) -> None:
        """End politely at shutdown; the caller bounds it."""
        if self._warm is not None and self.warm:
            await _say_goodbye(self._warm)
        self._warm = None

    @property
    def server_version(self) -> int:
        """Major version of the server on the warm connection, 0 while there is none."""
        return self._warm.get_server_version().major if self._warm is not None and self.warm else 0

    async def _connection(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._warm is None or self._warm.is_closed():
            if self._refused is not None and time.monotonic() - self._refused[0] < SAME_ROUND:
                raise self._refused[1]
            self._warm = await self._connect()
            self._last_login = time.monotonic()
        return self._warm

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        login = self.login
        milliseconds = max(1, int(self._timeout * 1000))
        try:
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                host=login.host,
                port=login.port,
                user=login.role,
                password=login.password(),
                database=login.database,
                ssl=login.tls(),
                # The caller's deadline is the only one; asyncpg's own must never fire before it.
                timeout=self._timeout * 10 + 60,
                server_settings={
                    "application_name": "probed",
                    "default_transaction_read_only": "on",
                    "statement_timeout": str(milliseconds),
                    "lock_timeout": str(min(LOCK_TIMEOUT_MS, milliseconds)),
                    "idle_in_transaction_session_timeout": "5000",
                    "search_path": "pg_catalog",
                    "client_min_messages": "error",
                },
            )
        except ProbeError as error:
            self._refused = (time.monotonic(), error)
            raise
        except Exception as error:  # noqa: BLE001 - translate() maps every one of them
            translated = translate(error, login)
            self._refused = (time.monotonic(), translated)
            raise translated from None
        self._refused = None
        return connection

    @contextlib.asynccontextmanager
    async def _statement(self, connection: asyncpg.Connection[asyncpg.Record] | None = None) -> AsyncIterator[None]:
        """Translate what a statement raises; a connection that broke is dropped."""
        try:
            yield
        except ProbeError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            if connection is None and not _still_usable(error):
                self.drop()
            raise translate(error, self.login) from None


async def _say_goodbye(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Send Terminate; a server that does not take it is left alone (the caller's deadline bounds the wait)."""
    try:
        await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _still_usable(error: Exception) -> bool:
    return isinstance(error, asyncpg.PostgresError) and not isinstance(
        error, asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError | asyncpg.PostgresSystemError
    )


_REFUSED = {
    errno.ECONNREFUSED: ("refused", "connection refused"),
    errno.ECONNRESET: ("reset", "connection reset"),
    errno.EPIPE: ("reset", "connection reset"),
    errno.EHOSTUNREACH: ("no_answer", "no route to the host"),
    errno.ENETUNREACH: ("no_answer", "the network is unreachable"),
    errno.ETIMEDOUT: ("timeout", "the connection timed out"),
    errno.ENOENT: ("refused", "the socket does not exist"),
}


def translate_os_error(error: OSError, address: str) -> ProbeError:
    """A socket error as the target's fault, unless it is ours (DNS, descriptors, permission)."""
    if isinstance(error, socket.gaierror):
        return Blind("dns", f"cannot resolve {address}: {error.strerror or error}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Blind("tls", f"the certificate of {address} does not verify: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return TargetFailed("tls", f"TLS with {address} failed: {error.reason or error}")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Blind("descriptors", "this daemon has no file descriptors left; raise LimitNOFILE")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Blind("config", f"not permitted to connect to {address}: {error.strerror}")
    if error.errno in _REFUSED:
        kind, text = _REFUSED[error.errno]
        return TargetFailed(kind, f"{address}: {text}")
    # Several addresses tried by one connect arrive as one error without a number; its text names them.
    if "refused" in str(error).lower() or "Connect call failed" in str(error):
        return TargetFailed("refused", f"{address}: connection refused")
    return TargetFailed("no_answer", f"{address}: {error.strerror or error}")


def translate(error: Exception, login: Login) -> ProbeError:
    """What the driver raised as ours; every foreign error is mapped, none passes through."""
    where, role = login.address, login.role
    text = " ".join(str(error).split())[:300]
    match error:
        case asyncpg.TooManyConnectionsError():
            return TooManyConnections(f"{where}: {text}")
        case asyncpg.CannotConnectNowError():
            return TargetFailed("starting", f"{where}: {text}")
        case asyncpg.InvalidPasswordError():
            return Blind("auth", f'{where} refuses the password of role "{role}": correct password_file or PGPASSWORD')
        case asyncpg.InvalidAuthorizationSpecificationError():
            return Blind("auth", f"{where} refuses the login: {text}; {_login_remedy(text, role)}")
        case asyncpg.InvalidCatalogNameError():
            return Blind("no_database", f'{where}: {text}; correct "database" (postgres exists everywhere)')
        case asyncpg.InsufficientPrivilegeError():
            return Blind("privilege", f"{where}: {text}; run: {grants(role, login.database)}")
        case asyncpg.LockNotAvailableError():
            return Blind(
                "lock", f"{where}: a lock that somebody holds kept the probe waiting {LOCK_TIMEOUT_MS} ms: {text}"
            )
        case asyncpg.QueryCanceledError():
            return TargetFailed("timeout", f"{where}: {text}")
        case asyncpg.OperatorInterventionError() | asyncpg.PostgresConnectionError():
            return TargetFailed("closed", f"{where}: {text}")
        case asyncpg.PostgresError():
            return TargetFailed("server", f"{where}: {text} (SQLSTATE {error.sqlstate})")
        case TimeoutError():
            return TargetFailed("timeout", f"{where}: no answer")
        case OSError():
            return translate_os_error(error, where)
        case EOFError():
            return TargetFailed("closed", f"{where}: the connection was closed")
        case asyncpg.ClientConfigurationError():
            return Blind("config", f"{where}: {text}")
        case asyncpg.InterfaceError() if "clos" in text:
            return TargetFailed("closed", f"{where}: {text}")
        case _:
            # The driver decodes what the network sends: whatever else it raises, the bytes were not PostgreSQL's.
            return TargetFailed(
                "protocol", f"{where} does not speak PostgreSQL's protocol: {type(error).__name__}: {text}"
            )


def grants(role: str, database: str = "postgres") -> str:
    """The SQL that gives the monitoring role what it needs."""
    return f'GRANT pg_monitor TO "{role}"; GRANT CONNECT ON DATABASE "{database}" TO "{role}";'


def _login_remedy(text: str, role: str) -> str:
    if "does not exist" in text:
        return f'run: CREATE ROLE "{role}" LOGIN PASSWORD \'…\'; GRANT pg_monitor TO "{role}";'
    if "not permitted to log in" in text:
        return f'run: ALTER ROLE "{role}" LOGIN;'
    if "pg_hba.conf" in text:
        return f'add a line for role "{role}" from this address to pg_hba.conf and reload the server'
    return f'check role "{role}", its password and pg_hba.conf'
