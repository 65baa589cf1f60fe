"""Reports of inspections in the embedded store: rows of a commit, and rows to values."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from probed.store.reports import Earlier, InspectedRecord, InspectionQuery, InspectionRecord
from probed.store.rows import Row

MAX_KEPT = 200
"""Reports of one series; beyond them the oldest go early."""

_UPSERT = """
INSERT OR REPLACE INTO inspection (id, series, name, state, author, began_at, ended_at, head)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_PART = """
INSERT OR REPLACE INTO inspected (inspection, instance, place, grade, fails, warns, body) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_BEYOND = "SELECT id FROM inspection WHERE series = ? ORDER BY id DESC LIMIT -1 OFFSET ?"
_PARTS_OF = "DELETE FROM inspected WHERE inspection = ?"
OLD = "SELECT id FROM inspection WHERE began_at < ? LIMIT 20"
LIST = """
SELECT * FROM inspection WHERE (?1 IS NULL OR id < ?1) AND (?2 IS NULL OR name = ?2) AND (?3 IS NULL OR state = ?3)
  AND (?4 IS NULL OR EXISTS (SELECT 1 FROM inspected WHERE inspection = inspection.id AND instance = ?4))
ORDER BY id DESC LIMIT ?5
"""
ONE = "SELECT * FROM inspection WHERE id = ?"
PARTS = """
SELECT inspection, instance, grade, fails, warns, body FROM inspected WHERE inspection = ? ORDER BY place
"""
HEADS = """
SELECT inspection, instance, grade, fails, warns, x'' AS body FROM inspected WHERE inspection IN ({}) ORDER BY place
"""
BEFORE = """
SELECT inspection.id, inspection.began_at, inspected.body
FROM inspected JOIN inspection ON inspection.id = inspected.inspection
WHERE inspected.instance = ? AND inspected.inspection < ? AND inspection.state = 'done'
ORDER BY inspected.inspection DESC LIMIT 1
"""


def apply(connection: sqlite3.Connection, records: Sequence[InspectionRecord]) -> None:
    for record in records:
        row = (
            record.id, record.series, record.name, record.state, record.author, record.began_at, record.ended_at,
            json.dumps(dict(record.head)),
        )  # fmt: skip
        connection.execute(_UPSERT, row)
        connection.execute(_PARTS_OF, (record.id,))
        rows = [
            (record.id, part.instance, place, part.grade, part.fails, part.warns, part.body)
            for place, part in enumerate(record.parts)
        ]
        connection.executemany(_PART, rows)
        beyond = connection.execute(_BEYOND, (record.series, MAX_KEPT)).fetchall()
        forget(connection, [found["id"] for found in beyond])


def forget(connection: sqlite3.Connection, ids: Sequence[str]) -> None:
    for inspection in ids:
        connection.execute(_PARTS_OF, (inspection,))
        connection.execute("DELETE FROM inspection WHERE id = ?", (inspection,))


def listed(connection: sqlite3.Connection, query: InspectionQuery) -> list[InspectionRecord]:
    """Without bodies."""
    values = (query.before_id, query.name, query.state, query.instance, query.limit)
    rows = connection.execute(LIST, values).fetchall()
    marks = ", ".join("?" * len(rows))
    parts: dict[str, list[Row]] = {}
    for part in connection.execute(HEADS.format(marks), [row["id"] for row in rows]):
        parts.setdefault(part["inspection"], []).append(part)
    return [record_of(row, parts.get(row["id"], ())) for row in rows]


def one(connection: sqlite3.Connection, inspection_id: str) -> InspectionRecord | None:
    """With bodies."""
    row = connection.execute(ONE, (inspection_id,)).fetchone()
    return None if row is None else record_of(row, connection.execute(PARTS, (inspection_id,)).fetchall())


def before(connection: sqlite3.Connection, instance: str, inspection_id: str) -> Earlier | None:
    row = connection.execute(BEFORE, (instance, inspection_id)).fetchone()
    return None if row is None else Earlier(row["id"], row["began_at"], row["body"])


def record_of(row: Row, parts: Sequence[Row]) -> InspectionRecord:
    return InspectionRecord(
        row["id"], row["series"], row["name"], row["state"], row["author"], row["began_at"], row["ended_at"],
        json.loads(row["head"]),
        tuple(
            InspectedRecord(part["instance"], part["grade"], part["fails"], part["warns"], part["body"])
            for part in parts
        ),
    )  # fmt: skip
