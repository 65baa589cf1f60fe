"""What sockets and the PostgreSQL driver raise, as ours, with the remedy where there is one. Every error is mapped."""

from __future__ import annotations

import errno
import re
import socket
import ssl

import asyncpg

from probed.errors import Blind, ProbeError, TargetFailed

LOCK_TIMEOUT_MS = 200


class TooManyConnections(ProbeError):
    """SQLSTATE 53300: the server is alive and full. Neither failed nor blind by itself; the probe decides."""

    def __init__(self, message: str) -> None:
        super().__init__("too_many_connections", message)


_TARGETS = {
    errno.ECONNREFUSED: ("refused", "connection refused"),
    errno.ECONNRESET: ("reset", "connection reset"),
    errno.EPIPE: ("reset", "connection reset"),
    errno.ECONNABORTED: ("closed", "the connection was closed"),
    errno.EHOSTUNREACH: ("no_answer", "no route to the host"),
    errno.ETIMEDOUT: ("timeout", "the connection timed out"),
    errno.ENOENT: ("refused", "the socket does not exist"),
}
_OURS = {
    errno.EMFILE: ("descriptors", "this daemon has no file descriptors left; raise LimitNOFILE"),
    errno.ENFILE: ("descriptors", "this machine has no file descriptors left; raise fs.file-max"),
    errno.ENOBUFS: ("descriptors", "this machine has no buffers left for a connection"),
    errno.ENOMEM: ("descriptors", "this machine has no memory left for a connection"),
    errno.ENETUNREACH: ("network", "this machine has no route there"),
    errno.ENETDOWN: ("network", "the network of this machine is down"),
    errno.EADDRNOTAVAIL: ("config", "this machine has no local address or port left to connect from"),
    errno.EACCES: ("config", "this daemon is not permitted to connect"),
    errno.EPERM: ("config", "this daemon is not permitted to connect"),
}
_BY_TYPE: tuple[tuple[type[OSError], int], ...] = (
    (ConnectionRefusedError, errno.ECONNREFUSED),
    (ConnectionResetError, errno.ECONNRESET),
    (BrokenPipeError, errno.EPIPE),
    (ConnectionAbortedError, errno.ECONNABORTED),
)
_NUMBER = re.compile(r"\[Errno (\d+)\]")


def translate_os_error(error: OSError, address: str) -> ProbeError:
    """A socket error as the target's fault, unless it is ours (DNS, descriptors, permission)."""
    if isinstance(error, socket.gaierror):
        return Blind("dns", f"cannot resolve {address}: {error.strerror or error}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Blind("tls", f"the certificate of {address} does not verify: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return TargetFailed("tls", f"TLS with {address} failed: {error.reason or error}")
    number = _number(error)
    if number in _OURS:
        kind, text = _OURS[number]
        return Blind(kind, f"{address}: {text}")
    if number in _TARGETS:
        kind, text = _TARGETS[number]
        return TargetFailed(kind, f"{address}: {text}")
    if isinstance(error, ConnectionError):
        return TargetFailed("closed", f"{address}: the connection was closed")
    return TargetFailed("no_answer", f"{address}: {' '.join((error.strerror or str(error)).split())[:200]}")


def _number(error: OSError) -> int | None:
    if error.errno is not None:
        return error.errno
    for kind, number in _BY_TYPE:
        if isinstance(error, kind):
            return number
    # Several addresses tried by one connect arrive as one error without a number; its text holds theirs.
    numbers = {int(text) for text in _NUMBER.findall(str(error))}
    return numbers.pop() if len(numbers) == 1 else None


def translate(error: BaseException, address: str, role: str, database: str) -> ProbeError:
    """What the driver raised as ours; every foreign error is mapped, none passes through."""
    text = " ".join(str(error).split())[:300]
    ours = _refusal(error)
    if ours is not None:
        return ours
    match error:
        case asyncpg.TooManyConnectionsError():
            return TooManyConnections(f"{address}: {text}{_limit_remedy(text)}")
        case asyncpg.CannotConnectNowError():
            return TargetFailed("starting", f"{address}: {text}")
        case asyncpg.InvalidPasswordError():
            return Blind(
                "auth",
                f"{address} refuses the password of role {quoted(role)}: correct password_file or PGPASSWORD, or run: "
                f"ALTER ROLE {quoted(role)} PASSWORD '…'; (a missing role is refused alike: {_creation(role)})",
            )
        case asyncpg.InvalidAuthorizationSpecificationError():
            return Blind("auth", f"{address} refuses the login: {text}; {_login_remedy(text, role, database)}")
        case asyncpg.InvalidCatalogNameError():
            return Blind("no_database", f'{address}: {text}; correct "database" (postgres exists everywhere)')
        case asyncpg.InsufficientPrivilegeError():
            return Blind("privilege", f"{address}: {text}; run: {grants(role, database)}")
        case asyncpg.LockNotAvailableError():
            waited = f"a lock that somebody holds kept the probe waiting {LOCK_TIMEOUT_MS} ms"
            return Blind("lock", f"{address}: {waited}: {text}")
        case asyncpg.QueryCanceledError():
            return TargetFailed("timeout", f"{address}: {text}")
        case asyncpg.ProtocolViolationError() if "startup parameter" in text:
            remedy = "it is a pooler; give the address of PostgreSQL itself"
            return Blind("unsupported", f"{address}: {text}: {remedy}")
        case asyncpg.OperatorInterventionError() | asyncpg.PostgresConnectionError():
            return TargetFailed("closed", f"{address}: {text}")
        case asyncpg.PostgresError():
            return TargetFailed("server", f"{address}: {text} (SQLSTATE {error.sqlstate})")
        case TimeoutError():
            return TargetFailed("timeout", f"{address}: no answer")
        case ConnectionError() if "rejected SSL upgrade" in text:
            return TargetFailed("tls", f"{address} answers the request for TLS with neither yes nor no")
        case ConnectionError() if "during SSL exchange" in text:
            return TargetFailed("server", f"{address} answers the request for TLS with an error; its log says more")
        case OSError():
            return translate_os_error(error, address)
        case EOFError():
            return TargetFailed("closed", f"{address}: the connection was closed")
        case asyncpg.ClientConfigurationError():
            return Blind("config", f"{address}: {text}")
        case asyncpg.InterfaceError() if "uthentication" in text:
            return Blind("auth", f"{address}: {text}; allow scram-sha-256 for role {quoted(role)} in pg_hba.conf")
        case asyncpg.InterfaceError() if "clos" in text:
            return TargetFailed("closed", f"{address}: {text}")
        case _:
            # The driver decodes what the network sends: whatever else it raises, the bytes were not PostgreSQL's.
            detail = f"{type(error).__name__}: {text}"
            return TargetFailed("protocol", f"{address} does not speak PostgreSQL's protocol: {detail}")


def _refusal(error: BaseException) -> ProbeError | None:
    """Our own error, which the driver carries as the cause of its."""
    cause: BaseException | None = error
    for _ in range(5):
        if isinstance(cause, ProbeError):
            return cause
        cause = cause.__cause__ if cause is not None else None
    return None


def grants(role: str, database: str = "postgres") -> str:
    """The SQL that gives the monitoring role what it needs."""
    return f"GRANT pg_monitor TO {quoted(role)}; GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(role)};"


def quoted(name: str) -> str:
    """A name as SQL has it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _creation(role: str) -> str:
    return f"CREATE ROLE {quoted(role)} LOGIN PASSWORD '…'; GRANT pg_monitor TO {quoted(role)};"


def _login_remedy(text: str, role: str, database: str) -> str:
    if "does not exist" in text:
        return f"run: {_creation(role)}"
    if "not permitted to log in" in text:
        return f"run: ALTER ROLE {quoted(role)} LOGIN;"
    if "pg_hba.conf" in text:
        host = re.search(r'host "([^"]+)"', text)
        client = host[1] if host else "this machine's address"
        network = f"{client}/128" if ":" in client else f"{client}/32"
        line = f"host {quoted(database)} {quoted(role)} {network} scram-sha-256"
        return f"put this line above the others in pg_hba.conf and run SELECT pg_reload_conf(): {line}"
    return f"check role {quoted(role)}, its password and pg_hba.conf"


def _limit_remedy(text: str) -> str:
    limited = re.search(r'for (role|database) "(.+)"', text)
    if limited is None:
        return ""
    return f"; run: ALTER {limited[1].upper()} {quoted(limited[2])} CONNECTION LIMIT -1;"
