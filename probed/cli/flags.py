"""Flags that several commands share. Every flag has an environment variable: ``--web.listen-address`` is read from
``PROBED_WEB_LISTEN_ADDRESS`` too, several values parted by blanks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

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


def _all(*decorators: Callable[[Any], Any]) -> Callable[[_F], _F]:
    def decorate(function: _F) -> _F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


file_path = click.Path(path_type=Path, dir_okay=False)
directory_path = click.Path(path_type=Path, file_okay=False)

source_flags = _all(
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

log_flags = _all(
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

client_flags = _all(
    flag("--url", metavar="URL", help="Address of the daemon, such as http://127.0.0.1:7432."),
    flag("--socket", metavar="FILE", type=file_path, help="UNIX socket of the daemon."),
)

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
