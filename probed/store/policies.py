"""Reading the history of policies: statements, and rows to revisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from probed.revisions import FILES, Patch, Revision, RevisionKind, Touched
from probed.store.rows import Row, patch_of, touched_of

PATCHES_AT = """
SELECT patch.policy, patch.after, patch.marks, revision.author, revision.version
FROM policy_patch patch JOIN policy_revision revision USING (version)
WHERE patch.version = (SELECT max(version) FROM policy_patch WHERE policy = patch.policy AND version <= ?)
"""
NEWEST = 2**62
"""A version after every other."""

REVISIONS = """
SELECT * FROM policy_revision revision
WHERE (?1 IS NULL OR EXISTS (SELECT 1 FROM policy_patch WHERE policy = ?1 AND version = revision.version))
  AND (?2 IS NULL OR version < ?2)
ORDER BY version DESC LIMIT ?3
"""
TOUCHED = "SELECT * FROM policy_patch WHERE version BETWEEN ? AND ? ORDER BY version, policy"


def patches_of(rows: Iterable[Row]) -> Mapping[str, Patch]:
    """Of ``PATCHES_AT``."""
    return {row["policy"]: patch_of(row) for row in rows}


def newest(patches: Mapping[str, Patch]) -> int:
    """The number of the newest revision; every revision touches a policy."""
    return max((patch.version for patch in patches.values()), default=FILES)


def revisions_of(rows: Sequence[Row], touched: Iterable[Row]) -> Sequence[Revision]:
    """Of ``REVISIONS`` and the ``TOUCHED`` between the first and the last of them."""
    by_version: dict[int, list[Touched]] = {}
    for row in touched:
        by_version.setdefault(row["version"], []).append(touched_of(row))
    return [
        Revision(
            row["version"],
            row["at"],
            row["author"],
            row["via"],
            RevisionKind(row["kind"]),
            row["reason"],
            tuple(by_version.get(row["version"], ())),
        )
        for row in rows
    ]
