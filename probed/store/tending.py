"""Looking after a store from outside the daemon: its state, its schema, a copy of it. The daemon may run meanwhile,
except where the schema is changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from probed.errors import StoreError
from probed.store.migrating import SCHEMA, migrate, version_of
from probed.store.opening import FILE, LOCK, connect, lock
from probed.store.purging import pages_of

LEDGER = 6
"""The schema from which on events are counted as they come."""
SHELVING = 14
"""The schema from which on the newest ones are counted a little later."""

_EVENTS = """
SELECT ifnull(sum(number), 0) AS events, ifnull(sum(CASE WHEN state = 'open' THEN number END), 0) AS open FROM labelled
"""
_UNSHELVED = "SELECT count(*), ifnull(sum(state = 'open'), 0) FROM unshelved"
_ENDS = (
    "SELECT (SELECT opened_at FROM event ORDER BY id LIMIT 1), (SELECT opened_at FROM event ORDER BY id DESC LIMIT 1)"
)
_TRANSITIONS = "SELECT seq, (SELECT ifnull(max(seq), 0) FROM transition) FROM purged"


class State(Struct, frozen=True):
    """What there is to know of a store. Numbers of events are ``None`` while its schema is too old to tell."""

    path: Path
    schema: int
    newest_schema: int
    """What this program would make of it."""
    in_use: bool
    """Whether a daemon owns it."""
    bytes: int
    """Of the database file."""
    log_bytes: int
    """Of the write-ahead log beside it."""
    used_bytes: int
    """Of the file, without pages that are free for what comes next."""
    shrinks: bool
    """Whether space that purging frees is given back to the file system."""
    last_sign_of_life: float | None
    events: int | None = None
    open_events: int | None = None
    oldest: float | None = None
    """When the oldest event that is kept began, Unix seconds; as the newest."""
    newest: float | None = None
    transitions: int | None = None
    """Number of the newest transition, that is how many there ever were."""
    purged: int | None = None
    """Of the transitions up to this one some are gone."""


def state_of(directory: Path) -> State:
    """The state of the store in a directory, read while a daemon may be writing. StoreError when there is none."""
    path = directory / FILE
    with _reading(path) as connection:
        connection.execute("BEGIN")  # all of it of one moment
        schema = version_of(connection)
        pages, free = pages_of(connection)
        page = int(connection.execute("PRAGMA page_size").fetchone()[0])
        beat = connection.execute("SELECT at FROM heartbeat").fetchone() if schema else None
        known: dict[str, int | float | None] = {}
        if LEDGER <= schema <= len(SCHEMA):
            known["events"], known["open_events"] = _numbers_of_events(connection, schema)
            known["oldest"], known["newest"] = connection.execute(_ENDS).fetchone()
            known["purged"], newest = connection.execute(_TRANSITIONS).fetchone()
            known["transitions"] = max(newest, known["purged"] or 0)
        return State(
            path=path,
            schema=schema,
            newest_schema=len(SCHEMA),
            in_use=_owned(directory),
            bytes=path.stat().st_size,
            log_bytes=_size(path.with_name(f"{FILE}-wal")),
            used_bytes=(pages - free) * page,
            shrinks=connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 2,
            last_sign_of_life=beat["at"] if beat is not None else None,
            **known,  # type: ignore[arg-type]  # each as its column is
        )


def _numbers_of_events(connection: sqlite3.Connection, schema: int) -> tuple[int, int]:
    """(all, open ones)"""
    number, opened = connection.execute(_EVENTS).fetchone()
    if schema < SHELVING:
        return number, opened
    more, more_open = connection.execute(_UNSHELVED).fetchone()
    return number + more, opened + more_open


def bring_up_to_date(directory: Path) -> tuple[int, int]:
    """(schema before, schema now). StoreError while a daemon owns it, or when a newer program made it."""
    path = directory / FILE
    _must_exist(path)
    owned = lock(directory)
    try:
        with contextlib.closing(connect(path)) as connection:
            before = version_of(connection)
            migrate(connection, str(path))
            return before, version_of(connection)
    except sqlite3.Error as error:
        raise StoreError(f"cannot migrate {path}: {error}") from None
    finally:
        os.close(owned)


def back_up(directory: Path, target: Path) -> int:
    """Copy the store as it is at this moment to a new file that only its owner can read; its size in bytes.

    The daemon writes on meanwhile. The copy is whole or not there at all. StoreError when it cannot be made.
    """
    unfinished = target.with_name(f"{target.name}.unfinished")
    if target.exists():
        raise StoreError(f"{target} exists already; choose another name, or move it away")
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise StoreError(f"{unfinished} is left of a copy that was not finished; remove it") from None
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}") from None
    try:
        with _reading(directory / FILE) as connection:
            with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as copy:
                connection.backup(copy)  # in one step, so of one moment: whoever writes is not in its way
                # One file that needs no other, until a daemon opens it.
                copy.execute("PRAGMA journal_mode = DELETE")
                (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise StoreError(f"the copy of {directory / FILE} is damaged: {found}")
        _settle(unfinished)
        unfinished.rename(target)
        _settle(target.parent)
        return target.stat().st_size
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot copy {directory / FILE} to {target}: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    _must_exist(path)
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
        with contextlib.closing(connection):
            connection.row_factory = sqlite3.Row
            yield connection
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from None


def _must_exist(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        raise StoreError(f"there is no store at {path}; name its directory with --storage.path") from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}; try as the daemon's user, or root") from None


def _owned(directory: Path) -> bool:
    try:
        handle = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _settle(path: Path) -> None:
    """Until the file system says that it is on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
