"""What the collectors of PostgreSQL share: one statement that answers one JSON value, and its texts made harmless."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from probed.errors import TargetFailed
from probed.probes import Context
from probed.probes._sql import grants
from probed.redaction import without_literals

Row = dict[str, Any]


async def answer(context: Context, query: str) -> Row:
    """The JSON object that a query returns. ProbeError as of ``Session.value``, or TargetFailed when it is none."""
    text = await context.sql.value(query)
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TargetFailed("protocol", f"{context.sql.login.address}: the answer is not the JSON that was asked for")
    return value


def rows(value: object) -> list[Row]:
    """What json_agg made: nothing is null."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def only(row: Mapping[str, Any], columns: Iterable[str]) -> Row:
    """Of a row these columns, as far as this version of PostgreSQL has them and they are not null."""
    return {name: row[name] for name in columns if row.get(name) is not None}


def fingerprinted(found: Iterable[Row]) -> list[Row]:
    """Rows whose ``query`` shows no literal; what is null is left out."""
    shown = []
    for row in found:
        row = {name: value for name, value in row.items() if value is not None}
        if "query" in row:
            row["query"] = without_literals(str(row["query"]))
        shown.append(row)
    return shown


def unseen(context: Context, found: Mapping[str, Any]) -> Row:
    """A note when the role may not see other sessions; empty when it may. Reads the column ``may_read``."""
    if found.get("may_read") is not False:
        return {}
    login = context.sql.login
    return {"note": f"other sessions show no details to this role; run: {grants(login.role, login.database)}"}


def lsn(position: object) -> str | None:
    """A WAL position in bytes as PostgreSQL writes it: ``0/3000148``."""
    if not isinstance(position, float | int) or not 0 <= position < 2**64:
        return None
    return f"{int(position) >> 32:X}/{int(position) & 0xFFFFFFFF:X}"


def instant(at: object) -> str | None:
    """Unix seconds as PostgreSQL writes times in JSON."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat() if isinstance(at, float) else None
    except (ValueError, OverflowError, OSError):
        return None
