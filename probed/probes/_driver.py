"""asyncpg's ``connect``, without preparing at each login anew what hardly ever changes.

``asyncpg.connect`` looks for password and certificate files and builds a TLS context at every call: 1.4 ms, more than
the rest of a login. With 180 hung servers asked each second that alone makes every other target late. asyncpg has no
public way to keep what it prepared, hence three of its private names; a unit test holds that they are what they were.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, cast

import asyncpg
from asyncpg import connect_utils
from asyncpg.connect_utils import SessionAttribute

_private = cast(Any, connect_utils)
KEPT = 25.0
"""Seconds for which a preparation is used: less than between two logins of a healthy target, which always look anew."""


class Server(NamedTuple):
    """Whom to ask, and as whom."""

    host: str
    port: int
    user: str
    database: str


class Entrance:
    """The way into one server, prepared. A new password, also in .pgpass, is taken up at once."""

    _contexts: ClassVar[dict[str, tuple[float, Any]]] = {}
    """sslmode -> (since when, TLS context) as asyncpg builds it: one for all servers, since each takes 100 KiB."""

    def __init__(self, settings: Mapping[str, str], now: Callable[[], float]) -> None:
        self._settings, self._now = dict(settings), now
        self._pgpass = os.environ.get("PGPASSFILE") or os.path.expanduser("~/.pgpass")
        self._prepared: tuple[tuple[object, ...], float, tuple[Any, Any, Any]] | None = None

    async def connect(
        self, wire: object, server: Server, password: str | None, tls: Any
    ) -> asyncpg.Connection[asyncpg.Record]:
        """A new connection over ``wire``; raises what ``asyncpg.connect`` does. ``tls`` is its argument ``ssl``."""
        addresses, parameters, config = self._preparation(server, password, tls)
        last: BaseException | None = None
        for address in addresses:  # several only where no host is given
            try:
                connection: asyncpg.Connection[asyncpg.Record] = await _private._connect_addr(
                    addr=address,
                    loop=wire,
                    params=parameters,
                    config=config,
                    connection_class=asyncpg.Connection,
                    record_class=asyncpg.Record,
                )
                return connection
            except OSError as error:
                last = error
            except _private._NextHostSignal as signal:
                last = signal.__cause__
        assert last is not None
        try:
            raise last
        finally:
            last = None  # as in Wire: no cycle of frame and traceback

    def _preparation(self, server: Server, password: str | None, tls: Any) -> tuple[Any, Any, Any]:
        key = (server, password, tls, self._pgpass_since() if password is None else 0.0)
        if self._prepared is not None and self._prepared[0] == key and self._now() - self._prepared[1] < KEPT:
            return self._prepared[2]
        addresses, parameters, config = _private._parse_connect_arguments(
            **server._asdict(),
            password=password,
            ssl=tls,
            server_settings=self._settings,
            target_session_attrs=SessionAttribute.any,  # whatever PGTARGETSESSIONATTRS says
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=15 * 1024,
            statement_cache_size=100,
            **dict.fromkeys(("dsn", "passfile", "service", "servicefile", "command_timeout", "direct_tls")),
            **dict.fromkeys(("krbsrvname", "gsslib")),
        )
        if isinstance(tls, str):
            parameters = parameters._replace(ssl=self._shared(tls, parameters.ssl))
        self._prepared = (key, self._now(), (addresses, parameters, config))
        return addresses, parameters, config

    def _shared(self, mode: str, built: Any) -> Any:
        since, context = self._contexts.get(mode, (0.0, built))
        if context is built or time.monotonic() - since >= KEPT:
            since, context = time.monotonic(), built
            self._contexts[mode] = (since, context)
        return context

    def _pgpass_since(self) -> float:
        try:
            return os.stat(self._pgpass).st_mtime
        except OSError:
            return 0.0
