"""HAProxy's statistics as values: the CSV by its header names, and what they say of routing. No I/O, no judging."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from probed.errors import TargetFailed
from probed.probes._patroni import text_of

HEADER = "# pxname,"
FRONTEND, BACKEND, SERVER = "0", "1", "2"
WRITING = ("primary", "master", "leader")
READING = ("replica", "standby", "slave", "read", "follower")
_WRITES = re.compile(r"write|(^|[^a-z])rw($|[^a-z])")


class Row(NamedTuple):
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
    header, *lines = text.split("\n")
    if truncated:
        lines = lines[:-1]
    try:
        width, wanted = _columns(header[2:])
        # What is not quoted is split at once, and only as far as there is anything wanted.
        quoted = '"' in text or "\r" in text
        table = csv.reader(lines) if quoted else (line.split(",", width) for line in lines if line)
        clean = _short if text.replace("\n", "").replace("\r", "").isprintable() else _clean
        found = [_row(clean(wanted(fields + [""] * max(1, width - len(fields))))) for fields in table if fields]
    except csv.Error as error:
        raise TargetFailed("body", f"{where}: the statistics are not CSV: {text_of(str(error))}") from None
    kept = tuple(row for row in found if row.proxy and row.type)
    if not kept:
        raise TargetFailed("body", f"{where}: statistics without a single proxy")
    return kept


_TEXTS = ("pxname", "svname", "type", "status", "check_status", "last_chk", "addr")
_WANTED = (*_TEXTS, "scur", "slim", "qcur", "econ", "lastchg")
_Cells = Sequence[str]


@lru_cache(maxsize=16)
def _columns(header: str) -> tuple[int, Callable[[_Cells], tuple[str, ...]]]:
    """(how many cells of a row there are up to the last one wanted, what takes those wanted out of a row).

    A row has a hundred cells, of which a dozen are wanted. A column that is missing is the last cell of all.
    """
    places = {name: index for index, name in enumerate(next(csv.reader([header]), ()))}
    wanted = [places.get(name, -1) for name in _WANTED]
    return max(wanted) + 1, itemgetter(*wanted)


def _row(cells: _Cells) -> Row:
    proxy, name, type_, status, check, said, address, *numbers = cells
    sessions, limit, queued, errors, since = map(_number, numbers)
    return Row(
        proxy, name, type_, status, check.removeprefix("* "), sessions, limit, queued, errors, since, said, address
    )


@lru_cache(maxsize=1024)  # most cells are 0, and the others seldom change
def _number(text: str) -> float:
    """Of a whole number; empty where it does not apply."""
    return float(text) if text.isdecimal() and len(text) <= 15 else 0.0


def _clean(cells: _Cells) -> _Cells:
    return [text_of(cell) for cell in cells]


def _short(cells: _Cells) -> _Cells:
    """The same of text that is printable."""
    return [cell[:200] for cell in cells]


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


def remarks(found: Sequence[Row], backend: str) -> list[str]:
    """What an operator should know of a HAProxy that is up; nothing for replicas that are DOWN by design.

    ``backend``: the one that leads to the primary, where it is known.
    """
    said = []
    for row in found:
        if row.type == FRONTEND and row.status == "FULL":
            said.append(f"frontend {row.proxy} is full ({row.sessions:g} of {row.limit:g} sessions)")
        elif row.type == FRONTEND and row.status not in ("OPEN", ""):
            said.append(f"frontend {row.proxy} is {row.status}")
    if backend:
        up = [row.name for row in found if row.proxy == backend and row.type == SERVER and row.up]
        if not up:
            said.append(f"no server of {backend} is up: nothing leads to a primary")
        elif len(up) > 1:
            said.append(f"{len(up)} servers of {backend} are up ({', '.join(up[:3])}): writes may go to either")
    return said
