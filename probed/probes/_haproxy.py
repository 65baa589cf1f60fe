"""HAProxy's statistics as values: the CSV by its header names, and what they say of routing. No I/O, no judging."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from probed.errors import TargetFailed
from probed.probes._patroni import text_of

HEADER = "# pxname,"
FRONTEND, BACKEND, SERVER = "0", "1", "2"
WRITING = ("primary", "master", "leader")
READING = ("replica", "standby", "slave", "read", "follower")
_WRITES = re.compile(r"write|(^|[^a-z])rw($|[^a-z])")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of ``show stat``."""

    proxy: str
    name: str
    """``FRONTEND``, ``BACKEND`` or the server's name."""
    type: str
    status: str
    check: str
    """What the last health check came to: L7OK, L7STS, L4CON …; without the mark of one that is running."""
    sessions: float
    limit: float
    queued: float = 0.0
    connection_errors: float = 0.0
    seconds_since_change: float = 0.0
    said: str = ""
    """What the last health check was told."""
    address: str = ""
    """``host:port`` where HAProxy says it: a socket of level operator, or the page with ``stats show-legends``."""

    @property
    def up(self) -> bool:
        """Whether traffic may go there: ``UP 1/3`` is up still, ``DOWN 1/2`` is not yet."""
        return self.status.startswith("UP") or self.status == "no check"


def is_csv(text: str) -> bool:
    return text.startswith(HEADER)


def rows(text: str, where: str, *, truncated: bool = False) -> tuple[Row, ...]:
    """The rows of a CSV that begins with HAProxy's header; a last line that was cut off is left out."""
    lines = text.split("\n")
    if truncated:
        lines = lines[:-1]
    try:
        table = csv.reader([lines[0][2:], *lines[1:]])
        places = {name: index for index, name in enumerate(next(table))}
        # A row has a hundred cells, of which a dozen are wanted.
        wanted = [(name, places[name]) for name in _WANTED if name in places]
        clean = _short if text.replace("\n", "").replace("\r", "").isprintable() else text_of
        found = [
            _row({name: fields[index] for name, index in wanted if index < len(fields)}, clean)
            for fields in table
            if fields
        ]
    except csv.Error as error:
        raise TargetFailed("body", f"{where}: the statistics are not CSV: {text_of(str(error))}") from None
    kept = tuple(row for row in found if row.proxy and row.type)
    if not kept:
        raise TargetFailed("body", f"{where}: statistics without a single proxy")
    return kept


_TEXTS = ("pxname", "svname", "type", "status", "check_status", "last_chk", "addr")
_WANTED = (*_TEXTS, "scur", "slim", "qcur", "econ", "lastchg")


def _row(fields: Mapping[str, str], clean: Callable[[str], str]) -> Row:
    text = {name: clean(fields.get(name, "")) for name in _TEXTS}
    return Row(
        proxy=text["pxname"],
        name=text["svname"],
        type=text["type"],
        status=text["status"],
        check=text["check_status"].removeprefix("* "),
        sessions=_number(fields.get("scur")),
        limit=_number(fields.get("slim")),
        queued=_number(fields.get("qcur")),
        connection_errors=_number(fields.get("econ")),
        seconds_since_change=_number(fields.get("lastchg")),
        said=text["last_chk"],
        address=text["addr"],
    )


def _short(cell: str) -> str:
    """What ``text_of`` makes of text that is printable."""
    return cell[:200]


def _number(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) <= 15 else 0.0


def write_backend(found: Sequence[Row]) -> str:
    """The proxy that leads to the primary: the only one with servers, or whose name says so; else empty."""
    backends = list(dict.fromkeys(row.proxy for row in found if row.type == SERVER))
    if len(backends) == 1:
        return backends[0]
    writing = [name for name in backends if _writes(name.lower())]
    return writing[0] if len(writing) == 1 else ""


def _writes(name: str) -> bool:
    if _WRITES.search(name):  # also read-write
        return True
    return any(word in name for word in WRITING) and not any(word in name for word in READING)


def remarks(found: Sequence[Row]) -> list[str]:
    """What an operator should know of a HAProxy that is up; nothing for replicas that are DOWN by design."""
    said = []
    for row in found:
        if row.type == FRONTEND and row.status == "FULL":
            said.append(f"frontend {row.proxy} is full ({row.sessions:g} of {row.limit:g} sessions)")
        elif row.type == FRONTEND and row.status not in ("OPEN", ""):
            said.append(f"frontend {row.proxy} is {row.status}")
    backend = write_backend(found)
    if backend:
        up = [row.name for row in found if row.proxy == backend and row.type == SERVER and row.up]
        if not up:
            said.append(f"no server of {backend} is up: nothing leads to a primary")
        elif len(up) > 1:
            said.append(f"{len(up)} servers of {backend} are up ({', '.join(up[:3])}): writes may go to either")
    return said
