"""Flags that several commands share. Every flag has an environment variable: ``--web.listen-address`` is read from
``PROBED_WEB_LISTEN_ADDRESS`` too, several values parted by blanks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct

if TYPE_CHECKING:
    from probed.cli.client import Client

_F = TypeVar("_F", bound=Callable[..., Any])
Decorator = Callable[[_F], _F]


def variable(name: str) -> str:
    """``--config.file`` -> ``PROBED_CONFIG_FILE``."""
    return "PROBED_" + re.sub(r"[^A-Z0-9]", "_", name.lstrip("-").upper())


def flag(*names: str, **attributes: Any) -> Callable[[_F], _F]:
    """``click.option`` with the environment variable of its long name."""
    declared = [part for name in names for part in name.split("/")]
    longest = next(name for name in declared if name.startswith("--"))
    parameter = [name for name in names if name.isidentifier()]
    if not parameter:
        names = (*names, re.sub(r"\W", "_", longest.lstrip("-")))
    return click.option(*names, envvar=variable(longest), **attributes)


def together(*decorators: Callable[[Any], Any]) -> Callable[[_F], _F]:
    """Several flags as one decorator."""

    def decorate(function: _F) -> _F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


file_path = click.Path(path_type=Path, dir_okay=False)
directory_path = click.Path(path_type=Path, file_okay=False)

source_flags = together(
    flag("--config.file", metavar="FILE", type=file_path, help="Settings; default /etc/probed/probed.yml."),
    flag(
        "--patroni",
        metavar="URL",
        multiple=True,
        help="Watch the cluster of this Patroni, without a file. The database login comes from PGUSER, PGPASSWORD, "
        ".pgpass. Repeatable: further members of the same cluster.",
    ),
    flag(
        "--postgres",
        metavar="DSN",
        help="Watch this standalone server, without a file. The password comes from PGPASSWORD or .pgpass.",
    ),
)
"""What to probe: ``config_file``, ``patroni``, ``postgres``."""

log_flags = together(
    flag(
        "--log.level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="Nothing below it is logged.",
    ),
    flag(
        "--log.format",
        type=click.Choice(["auto", "console", "json"]),
        default="auto",
        show_default=True,
        help="auto: console on a terminal, JSON elsewhere.",
    ),
)


class Where(Struct, frozen=True):
    """Which daemon is to be asked, and as whom."""

    url: str | None = None
    socket: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = None

    def client(self) -> Client:
        from probed.cli.client import Client

        return Client(self.url, self.socket, token_file=self.token_file, ca_file=self.ca_file)


_where_flags = together(
    flag("--url", metavar="URL", help="Address of the daemon, such as http://127.0.0.1:7432."),
    flag("--socket", metavar="FILE", type=file_path, help="UNIX socket of the daemon."),
    flag("--token-file", metavar="FILE", type=file_path, help="File with an API token, for --url."),
    flag("--ca-file", metavar="FILE", type=file_path, help="CA that signed the daemon's certificate, for --url."),
)


def client_flags(function: _F) -> _F:
    """Which daemon to ask: the command gets ``where``."""

    @functools.wraps(function)
    def with_where(
        *arguments: Any,
        url: str | None,
        socket: Path | None,
        token_file: Path | None,
        ca_file: Path | None,
        **named: Any,
    ) -> Any:
        return function(*arguments, where=Where(url, socket, token_file, ca_file), **named)

    return _where_flags(with_where)  # type: ignore[return-value]  # click keeps the signature that it was given


output_flag = flag(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "tsv"]),
    default="table",
    show_default=True,
    help="table is for people; the others are for programs.",
)
watch_flag = flag(
    "-w", "--watch", metavar="SECONDS", type=click.FloatRange(min=0.2), help="Ask again every so many seconds."
)

list_flags = together(
    flag("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many."),
    client_flags,
    output_flag,
    watch_flag,
)
"""Of a list that goes on, newest first: what ``listing.show`` takes."""
span_flags = together(
    flag("--since", metavar="TIME", help="RFC 3339, or relative such as -24h."),
    flag("--until", metavar="TIME", help="RFC 3339, or relative such as -1h."),
)
