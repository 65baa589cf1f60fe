"""The shape of answers about policies as they are changed at run time; see ``schemas``."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from probed.api.schemas import Instant, Page, Policy, ViaWord

LayerWord = Literal["built-in", "file", "patch"]


class Origin(TypedDict):
    """Where one value comes from: a place in a file, or the revision that gave it."""

    layer: LayerWord
    where: NotRequired[str]
    version: NotRequired[int]
    author: NotRequired[str]


class PolicyProblem(TypedDict):
    path: str
    detail: str


class ListedPolicy(Policy):
    layers: list[LayerWord]
    """Which layers gave something to it, lowest first."""
    problems: list[PolicyProblem]
    """Why what was changed at run time does not fit the files any more, and has no effect."""


class PolicyDetail(ListedPolicy):
    patch: dict[str, Any]
    """What was changed at run time, as a merge patch over the files."""
    origin: dict[str, Origin]
    """By the path of each value that is written somewhere; what is not in it is a default."""


class StrangerPatch(TypedDict):
    """What was changed of a policy that no file has any more: kept, and without effect."""

    id: str
    version: int
    patch: dict[str, Any]


class Policies(Page[ListedPolicy]):
    strangers: list[StrangerPatch]
    version: int
    """Of the newest revision of all policies."""


class Difference(TypedDict):
    """One value as it is written; null: it is not written."""

    path: str
    before: Any
    after: Any


class TouchedPolicy(TypedDict):
    id: str
    before: dict[str, Any]
    after: dict[str, Any]
    differences: list[Difference]


class Revision(TypedDict):
    version: int
    at: Instant
    author: str
    via: ViaWord
    kind: Literal["edit", "enable", "disable", "restore", "rollback", "import"]
    reason: str
    policies: list[TouchedPolicy]


class EditedPolicy(PolicyDetail):
    revision: Revision | None
    """What was changed; null: it was so already."""


class Revised(TypedDict):
    dry_run: bool
    """true: nothing was changed; ``revision`` is what would be."""
    revision: Revision | None
    """null: everything is so already."""


class ExportedPolicies(TypedDict):
    format: Literal[1]
    exported_at: Instant
    observer: str
    version: int
    modified: bool
    policies: list[dict[str, Any]]
