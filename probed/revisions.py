"""What people change of policies at run time: numbered revisions, and the patches that they leave. Records only."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

FILES = 1
"""The version that is as the files say: of a policy that was never changed at run time, and of the state before the
first revision. Revisions are numbered from 2, over all policies together."""

MergePatch = Mapping[str, Any]
"""RFC 7396, of a policy's own keys: maps merge, ``None`` takes a key away, anything else replaces."""


class RevisionKind(StrEnum):
    EDIT = "edit"
    ENABLE = "enable"
    DISABLE = "disable"
    RESTORE = "restore"
    ROLLBACK = "rollback"
    IMPORT = "import"


class Mark(Struct, frozen=True):
    """Which revision gave a value, and who made it."""

    version: int
    author: str


class Patch(Struct, frozen=True):
    """What lies over the files of one policy."""

    version: int = FILES
    """Of the newest revision that touched the policy, also when that took everything back."""
    author: str = ""
    values: MergePatch = field(default_factory=dict)
    """Empty: as the files say."""
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """Dotted path of each single value of the patch -> the revision that gave it."""


class Difference(Struct, frozen=True):
    """One value of an effective policy that a revision changed, as it is written; ``None``: it is not written."""

    path: str
    before: Any
    after: Any


class Touched(Struct, frozen=True):
    """What one revision made of one policy."""

    policy: str
    before: MergePatch
    after: MergePatch
    differences: tuple[Difference, ...] = ()
    marks: Mapping[str, Mark] = field(default_factory=dict)


class Revision(Struct, frozen=True):
    """One change of one policy or of several; it applies whole."""

    version: int
    at: float
    """Unix seconds."""
    author: str
    via: str
    """How the author was known; see ``store.AuditRecord``."""
    kind: RevisionKind
    reason: str
    touched: tuple[Touched, ...]

    def patches(self) -> Mapping[str, Patch]:
        """What then lies over the files, by policy id."""
        return {item.policy: Patch(self.version, self.author, item.after, item.marks) for item in self.touched}
