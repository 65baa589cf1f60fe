"""API tokens in the embedded store."""

from __future__ import annotations

from probed.store import TokenRecord
from probed.store.rows import Row

_COLUMNS = (
    "id", "name", "role", "scopes", "digest", "created_at", "created_by", "expires_at", "revoked_at", "used_at",
)  # fmt: skip
ALL = "SELECT * FROM token ORDER BY created_at, id"
KEEP = f"INSERT OR REPLACE INTO token ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - column names are constants


def row_of(record: TokenRecord) -> tuple[object, ...]:
    return tuple(",".join(record.scopes) if name == "scopes" else getattr(record, name) for name in _COLUMNS)


def token_of(row: Row) -> TokenRecord:
    given = {name: row[name] for name in _COLUMNS}
    return TokenRecord(**{**given, "scopes": tuple(row["scopes"].split(","))})
