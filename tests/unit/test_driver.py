"""What is kept of a PostgreSQL login's preparation, and that asyncpg's private half is still what we take it for."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, cast

import pytest
from asyncpg import connect_utils

from probed.probes._driver import KEPT, Entrance, Server


def entrance(now: list[float]) -> Entrance:
    return Entrance({"application_name": "probed"}, lambda: now[0])


def prepared(door: Entrance, password: str | None = "x", tls: Any = "prefer", host: str = "127.0.0.1") -> Any:
    return door._preparation(Server(host, 5432, "probed", "postgres"), password, tls)


def test_asyncpgs_private_functions_take_what_they_are_given() -> None:
    private = cast(Any, connect_utils)
    assert set(inspect.signature(private._parse_connect_arguments).parameters) == {
        "dsn", "host", "port", "user", "password", "passfile", "database", "command_timeout", "statement_cache_size",
        "max_cached_statement_lifetime", "max_cacheable_statement_size", "ssl", "direct_tls", "server_settings",
        "target_session_attrs", "krbsrvname", "gsslib", "service", "servicefile",
    }  # fmt: skip
    assert set(inspect.signature(private._connect_addr).parameters) == {
        "addr", "loop", "params", "config", "connection_class", "record_class",
    }  # fmt: skip
    assert issubclass(private._NextHostSignal, Exception)


def test_a_login_is_prepared_once_and_anew_after_a_while() -> None:
    now = [100.0]
    door = entrance(now)
    first = prepared(door)
    assert first[0] == [("127.0.0.1", 5432)]
    now[0] += KEPT - 1
    assert prepared(door)[1] is first[1]
    assert prepared(door, host="127.0.0.2")[0] == [("127.0.0.2", 5432)]
    first = prepared(door)
    now[0] += KEPT
    assert prepared(door)[1] is not first[1]


def test_a_rotated_password_is_taken_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(file))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    door = entrance([100.0])
    assert prepared(door, "old")[1].password == "old"
    assert prepared(door, "new")[1].password == "new"
    for number, password in enumerate(("one", "two")):
        file.write_text(f"*:*:*:*:{password}\n")
        file.chmod(0o600)
        os.utime(file, (number, number))
        assert prepared(door, None)[1].password == password


def test_servers_of_one_sslmode_share_a_tls_context() -> None:
    one, other = prepared(entrance([100.0])), prepared(entrance([100.0]), host="127.0.0.2")
    assert one[1].ssl is other[1].ssl
    assert prepared(entrance([100.0]), tls="require")[1].ssl is not one[1].ssl
    assert prepared(entrance([100.0]), tls="disable")[1].ssl is False
