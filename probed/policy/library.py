"""All policies in their layers: built-in file <- ``policies.directory`` <- what was changed at run time. Pure.

A library never changes: an edit is first a ``Revision`` that says what it would do, then, once that is durable, another
library in which it is done. So nothing is half-applied, and whoever holds a library has a consistent view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from probed.config.settings import Defaults
from probed.errors import ConfigError, Problem
from probed.model import Policy
from probed.policy import layers, merging, patches
from probed.policy.layers import Filed
from probed.policy.load import Catalogue, resolve, resolve_all
from probed.policy.site import Site
from probed.revisions import FILES, Difference, Mark, MergePatch, Patch, Revision, RevisionKind, Touched
from probed.strict_yaml import Document, did_you_mean, dotted

Layer = Literal["built-in", "file", "patch"]


class Rules(Struct, frozen=True):
    """What policies are resolved against."""

    catalogue: Catalogue
    defaults: Defaults
    site: Site | None = None


class Origin(Struct, frozen=True):
    """Where one value of an effective policy comes from."""

    layer: Layer
    where: str = ""
    """``file:line:column``; empty for a patch."""
    mark: Mark | None = None
    """Of a patch: the revision that gave the value."""


class Signed(Struct, frozen=True):
    """Who revises, when and why."""

    at: float
    author: str
    via: str
    reason: str = ""


class Misfit(ConfigError):
    """Policies as they would become are not valid. Paths are those inside each policy."""

    def __init__(self, by_policy: Mapping[str, Sequence[Problem]]) -> None:
        self.by_policy = by_policy
        super().__init__([problem for found in by_policy.values() for problem in found])


class Library:
    """Every policy as it is in force (``policies``), and how it came to be so."""

    def __init__(
        self,
        filed: Mapping[str, Filed],
        from_files: Mapping[str, Policy],
        rules: Rules,
        laid: Mapping[str, Patch] | None = None,
        version: int = FILES,
    ) -> None:
        self.filed, self.patches, self.version = filed, dict(laid or {}), version
        self._from_files, self._rules = from_files, rules
        self.policies: dict[str, Policy] = {}
        self.documents: dict[str, Document] = {}
        """The effective policies as they are written: plain data, with the place of each value."""
        self.problems: dict[str, tuple[Problem, ...]] = {}
        """Why a patch does not fit the files any more. Its policy is then in force as the files say, as version 1."""
        for identity, item in filed.items():
            self.policies[identity], self.documents[identity] = from_files[identity], item.document
            self._lay(identity, self.patches.get(identity, Patch()))

    @classmethod
    def read(
        cls, directory: Path | None, rules: Rules, laid: Mapping[str, Patch] | None = None, version: int = FILES
    ) -> Library:
        """The files, with patches laid over them. ConfigError is about the files alone; see ``problems``."""
        filed, problems = layers.read(directory)
        from_files = resolve_all(filed, problems, rules.catalogue, rules.defaults, rules.site)
        return cls(filed, from_files, rules, laid, version)

    def _lay(self, identity: str, patch: Patch) -> None:
        if not patch.values:
            self.policies[identity] = replace(self._from_files[identity], version=patch.version)
            return
        try:
            policy, self.documents[identity] = self._resolved(identity, patch.values)
            self.policies[identity] = replace(policy, version=patch.version)
        except ConfigError as error:
            self.problems[identity] = error.problems

    def with_patches(self, laid: Mapping[str, Patch], version: int) -> Library:
        """The same files under other patches."""
        return Library(self.filed, self._from_files, self._rules, laid, version)

    # --- looking ------------------------------------------------------------------------------------------

    @property
    def strangers(self) -> Mapping[str, Patch]:
        """Patches of policies that no file has any more: kept, and without effect."""
        return {name: patch for name, patch in self.patches.items() if patch.values and name not in self.filed}

    def patch(self, policy_id: str) -> Patch:
        return self.patches.get(policy_id, Patch())

    def in_force(self, policy_id: str) -> MergePatch:
        """What of the patch has effect: all of it, or nothing when it does not fit."""
        return {} if policy_id in self.problems else self.patch(policy_id).values

    def layers(self, policy_id: str) -> tuple[Layer, ...]:
        """Which layers gave something to the policy, lowest first."""
        filed = self.filed[policy_id]
        found: list[Layer] = ["built-in"] if filed.built_in else ["file"]
        if filed.built_in and filed.document.files:
            found.append("file")
        return (*found, "patch") if self.in_force(policy_id) else tuple(found)

    def origins(self, policy_id: str) -> Mapping[str, Origin]:
        """Dotted path of each value that is written, or was taken away by the patch -> where that comes from."""
        document, patch = self.documents[policy_id], self.patch(policy_id)
        origins = {}
        for path, _ in merging.leaves(document.data):
            origins[dotted(path)] = self._origin(policy_id, document, path, patch)
        for path, value in merging.leaves(self.in_force(policy_id)):
            if value is None:
                origins[dotted(path)] = Origin("patch", mark=patch.marks.get(dotted(path)))
        return origins

    def _origin(self, policy_id: str, document: Document, path: tuple[str | int, ...], patch: Patch) -> Origin:
        file = document.files.get(path, document.where)
        if file == patches.WHERE:
            return Origin("patch", mark=patch.marks.get(dotted(path)))
        filed = self.filed[policy_id]
        line, column = document.places[path]
        layer: Layer = "built-in" if filed.built_in and file == filed.base.where else "file"
        return Origin(layer, f"{file}:{line}:{column}")

    # --- trying -------------------------------------------------------------------------------------------

    def tried(self, policy_id: str, patch: MergePatch) -> Policy:
        """The effective policy with a merge patch on top of it, without anything being changed.

        Its version is the one that it would get. ConfigError carries every problem, with its ``path`` in the policy.
        """
        policy, _ = self._resolved(policy_id, self.edited(policy_id, patch))
        return replace(policy, version=self.version + 1)

    def _resolved(self, policy_id: str, values: MergePatch) -> tuple[Policy, Document]:
        filed = self.filed[policy_id]
        refused = [*patches.refused(policy_id, filed, values), *patches.oddities(values)]
        if refused:
            raise ConfigError(refused)
        document = layers.patched(filed.document, values, patches.WHERE)
        return resolve(document, self._rules.catalogue, self._rules.defaults, self._rules.site), document

    # --- what would lie over the files --------------------------------------------------------------------

    def edited(self, policy_id: str, patch: MergePatch) -> MergePatch:
        """What lies over the files of a policy after an edit. Values that come out as the files say are left out.

        ConfigError when the edit names what cannot be edited; what it makes of the policy is not looked at yet.
        """
        filed = self.filed.get(policy_id)
        if filed is None:
            hint = did_you_mean(policy_id[:100], sorted(self.filed))
            raise ConfigError([Problem(patches.WHERE, f"there is no such policy{hint}", path="id")])
        refused = [*patches.oddities(patch), *patches.refused(policy_id, filed, patch)]
        if refused:
            raise ConfigError(refused)
        below = filed.document.data
        return merging.difference(below, merging.merged(merging.merged(below, self.patch(policy_id).values), patch))

    def restored(self, policy_id: str, key: str = "") -> MergePatch:
        """What lies over the files once a value, or everything, is as the files say."""
        if not key:
            return {}
        return merging.without(self.patch(policy_id).values, tuple(key.split(".")))

    # --- revising -----------------------------------------------------------------------------------------

    def revised(self, kind: RevisionKind, wanted: Mapping[str, MergePatch], by: Signed) -> Revision | None:
        """The revision that lays ``wanted`` over the files of the policies named; ``None`` when nothing changes.

        Misfit when any of them would not be valid.
        """
        version = self.version + 1
        touched: list[Touched] = []
        misfits: dict[str, Sequence[Problem]] = {}
        for identity, values in wanted.items():
            before = self.patch(identity)
            if merging.same(before.values, values):
                continue
            differences: tuple[Difference, ...] = ()
            if identity in self.filed:
                try:
                    differences = self._differences(identity, values)
                except ConfigError as error:
                    misfits[identity] = self._explained(identity, error.problems)
            marks = _marks(before, values, Mark(version, by.author))
            touched.append(Touched(identity, before.values, values, differences, marks))
        if misfits:
            raise Misfit(misfits)
        return Revision(version, by.at, by.author, by.via, kind, by.reason, tuple(touched)) if touched else None

    def after(self, revision: Revision) -> Library:
        return self.with_patches({**self.patches, **revision.patches()}, revision.version)

    def _differences(self, policy_id: str, values: MergePatch) -> tuple[Difference, ...]:
        _, document = self._resolved(policy_id, values)
        return differences(self.documents[policy_id].data, document.data)

    def _explained(self, policy_id: str, problems: Sequence[Problem]) -> Sequence[Problem]:
        if policy_id not in self.problems:
            return problems
        version = self.patch(policy_id).version
        message = f"what version {version} changed does not fit the files any more; restore the policy first"
        return [*problems, Problem(patches.WHERE, message)]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Difference, ...]:
    """The single values in which two policies differ, as they are written."""
    old, new = (
        {dotted(path): value for path, value in merging.leaves(data) if value != {}} for data in (before, after)
    )
    return tuple(
        Difference(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if not merging.same(old.get(path), new.get(path))
    )


def _marks(before: Patch, values: MergePatch, mark: Mark) -> Mapping[str, Mark]:
    """A value that stays as it was keeps the mark of the revision that gave it."""
    old = {dotted(path): value for path, value in merging.leaves(before.values)}
    marks = {}
    for path, value in merging.leaves(values):
        name = dotted(path)
        kept = before.marks.get(name) if name in old and merging.same(old[name], value) else None
        marks[name] = kept or mark
    return marks
