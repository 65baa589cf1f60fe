"""The schema, one numbered file per step, and how an older store is brought up to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from probed.errors import StoreError

SCHEMA = sorted((Path(__file__).parent / "schema").glob("[0-9]*.sql"))


def migrate(connection: sqlite3.Connection, where: str) -> None:
    """Bring the schema up to date, each step in a transaction, a new store in one. StoreError on a schema newer than
    this program."""
    version = version_of(connection)
    if version > len(SCHEMA):
        raise StoreError(
            f"{where} was made by a newer probed (schema {version}, known here {len(SCHEMA)}); upgrade probed"
        )
    steps = [[file] for file in SCHEMA[version:]] if version else [SCHEMA]
    for files in steps:
        version += len(files)
        script = "\n".join(file.read_text(encoding="utf-8") for file in files)
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {version};\nCOMMIT;")


def version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
