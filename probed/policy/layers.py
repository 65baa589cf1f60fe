"""The files of policies: the built-in ones, what ``policies.directory`` lays over them or adds; a patch over both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from probed import strict_yaml
from probed.errors import ConfigError, Problem
from probed.policy import merging, questions
from probed.revisions import MergePatch
from probed.strict_yaml import Document, Path_

BUILT_IN = next(
    (
        path
        for path in (Path(__file__).parents[1] / "_policies", Path(__file__).parents[2] / "policies")
        if path.is_dir()
    ),
    Path(__file__).parents[1] / "_policies",
)
"""The shipped policies: inside the package in a wheel, at the top level in a checkout."""


def shipped_files() -> list[Path]:
    """The 21 events of the contract, and those beyond it: about the observer itself, and split brain."""
    return [*sorted(BUILT_IN.glob("*.yaml")), *sorted(BUILT_IN.glob("beyond/*.yaml"))]


RULE_KEYS = ("detect", "params", "probe", *questions.GENERIC)


class Filed(Struct, frozen=True):
    """A policy as the files say it."""

    base: Document
    """The shipped file, or that of a policy of the user's own."""
    document: Document
    """The same with the overrides over it."""
    built_in: bool


def read(directory: Path | None, files: Sequence[Path] = ()) -> tuple[dict[str, Filed], list[Problem]]:
    """Every policy by id, and what is wrong with the files so far."""
    problems: list[Problem] = []
    filed = {
        identity: Filed(document, document, built_in=True)
        for identity, document in _read(shipped_files(), problems).items()
    }
    if not filed and not problems:
        problems.append(Problem(str(BUILT_IN), "the built-in policies are missing; reinstall the package"))
        return filed, problems
    overrides = _overrides(directory, problems) if directory is not None else []
    shipped = {path.resolve() for path in shipped_files()}
    overrides += [
        document
        for path in files
        if path.resolve() not in shipped and (document := _document(path, problems)) is not None
    ]
    lay(filed, overrides, problems)
    return filed, problems


_OF_ONES_OWN = " (one of your own names its probe, and its rule under detect)"


def lay(filed: dict[str, Filed], overrides: Sequence[Document], problems: list[Problem]) -> None:
    """Lay files over what is there, in their order; one that may not be is left out and told."""
    for document in overrides:
        identity = document.data["id"]
        known = filed.get(identity)
        if known is None and not document.data.keys() & {"probe", "detect"}:  # meant to change one, not to be one
            close = strict_yaml.did_you_mean(identity, list(filed))
            message = f'there is no policy "{identity}" to change{close}' + _OF_ONES_OWN
            problems.append(document.problem(("id",), message))
        elif known is None:
            filed[identity] = Filed(document, document, built_in=False)
        elif known.built_in:
            refused = forbidden(known.document, document)
            problems += refused
            if not refused:  # else the mixture would be complained of once more
                filed[identity] = Filed(known.base, strict_yaml.overlay(known.document, document), built_in=True)
        else:
            where = known.document.where
            problems.append(document.problem(("id",), f'policy "{identity}" stands in {where} already'))


def _read(paths: Sequence[Path], problems: list[Problem]) -> dict[str, Document]:
    documents: dict[str, Document] = {}
    for path in paths:
        document = _document(path, problems)
        if document is not None:
            documents[document.data["id"]] = document
    return documents


def _document(path: Path, problems: list[Problem]) -> Document | None:
    try:
        document = strict_yaml.read(path)
    except ConfigError as error:
        problems += error.problems
        return None
    if not isinstance(document.data, dict) or not isinstance(document.data.get("id"), str):
        problems.append(document.problem(("id",), 'expected a map with an "id" that names the event'))
        return None
    return document


def _overrides(directory: Path, problems: list[Problem]) -> list[Document]:
    if not directory.is_dir():
        problems.append(Problem(str(directory), "policies.directory: expected a directory"))
        return []
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix in (".yaml", ".yml"))
    except OSError as error:
        problems.append(Problem(str(directory), f"policies.directory: cannot be read: {error.strerror or error}"))
        return []
    return [document for path in paths if (document := _document(path, problems)) is not None]


def forbidden(base: Document, top: Document) -> list[Problem]:
    """What nothing that is laid over a policy may touch."""
    problems = []
    for key in ("fixed", "can_disable"):
        if key in top.data and top.data[key] != base.data.get(key, key == "can_disable"):
            problems.append(top.problem((key,), "belongs to the event and cannot be changed", at_key=True))
    if base.data.get("fixed"):
        for key in RULE_KEYS:
            if key in top.data:
                message = f'the rule of "{base.data["id"]}" is fixed; severity and enabled can be changed'
                problems.append(top.problem((key,), message, at_key=True))
    return problems


def patched(document: Document, patch: MergePatch, where: str) -> Document:
    """A merge patch laid over what the files say; every value keeps its place, those of the patch have ``where``."""
    result = strict_yaml.overlay(document, strict_yaml.unplaced(_given(patch), where))
    for path in _taken_away(patch):
        above = result.at(path[:-1])
        if isinstance(above, dict) and path[-1] in above:
            del above[path[-1]]  # a map of its own: overlay copied everything on the way there
        for known in [known for known in result.places if known[: len(path)] == path]:
            result.places.pop(known)
            result.keys.pop(known, None)
            result.files.pop(known, None)
    return result


def _given(patch: MergePatch) -> dict[str, Any]:
    return {
        key: _given(value) if isinstance(value, Mapping) else value for key, value in patch.items() if value is not None
    }


def _taken_away(patch: MergePatch) -> list[Path_]:
    return [path for path, value in merging.leaves(patch) if value is None]
