"""How the file of the embedded store is opened, and by whom it may be."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from probed.errors import StoreError

FILE, LOCK = "probed.db", "probed.lock"
LOG_PAGES = 256
"""Of the write-ahead log, before it is begun anew: to write over what is there costs less than to let it grow."""
CACHE_KIB = 1024
"""Pages that each connection keeps in memory once the history is long. SQLite's own 2 MiB save no CPU, be it of
commits, storms, lists or purges; with 512 KiB a storm costs a seventh more."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection of the writer's, durable at each commit; or one that only reads. Made when it is missing."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
        return connection
    # Takes effect in a new file only, and only before anything else: what is purged can be given back, page by page.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    # Read back: a file system that cannot do WAL would silently weaken what a commit promises.
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal" or connection.execute("PRAGMA synchronous").fetchone()[0] != 2:
        raise StoreError(f"{path}: this file system does not support SQLite's WAL mode; choose a local directory")
    return connection


def lock(directory: Path) -> int:
    """Own a store's directory until the handle is closed. StoreError when another process does."""
    handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StoreError(
            f"{directory} is in use by another probed; stop it, or choose another --storage.path"
        ) from None
    return handle
