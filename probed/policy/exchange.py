"""Policies as one document that leaves the daemon and comes back: exported, read, imported. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NoReturn

import yaml
from pydantic import Field

from probed import strict_yaml
from probed.errors import ConfigError, Problem
from probed.policy import merging, patches, questions
from probed.policy.library import Library, Misfit
from probed.revisions import MergePatch
from probed.strict_yaml import MAX_BYTES, MAX_DEPTH, Document, Path_, Strict, did_you_mean

FORMAT: Literal[1] = 1
WHERE = "import"


class Form(StrEnum):
    JSON = "json"
    YAML = "yaml"


class Exported(Strict):
    """The document: policies in the shape of their files; those of ``modified`` would do in ``policies.directory``."""

    format: Literal[1] = Field(default=1, description="Of this document.")
    exported_at: str | None = Field(default=None, description="RFC 3339.")
    observer: str | None = Field(default=None, description="The daemon that it comes from.")
    version: int | None = Field(default=None, description="The newest revision that is in it.")
    modified: bool = Field(
        default=True, description="true: only what differs from the default, laid over it; false: policies whole."
    )
    policies: list[dict[str, Any]]


def exported(library: Library, *, modified: bool) -> list[dict[str, Any]]:
    """Every policy whole, or of each that differs from its default only what differs (``None``: a key taken away).

    The default is the built-in file; of a policy of the user's own, its file. What is asked of whom (``http``, ``tcp``,
    ``sql``) is left out: it belongs to this place, may hold secrets, and cannot be imported.
    """
    return list(_exported(library, modified))


def _exported(library: Library, modified: bool) -> Iterator[dict[str, Any]]:
    for identity in sorted(library.policies):
        data = library.documents[identity].data
        if modified:
            data = merging.difference(_default(library, identity), data)
        kept = {key: value for key, value in data.items() if key not in questions.GENERIC}
        if kept:
            yield {"id": identity, **kept}


def _default(library: Library, identity: str) -> Mapping[str, Any]:
    filed = library.filed[identity]
    data: Mapping[str, Any] = (filed.base if filed.built_in else filed.document).data
    return data


# --- reading ---------------------------------------------------------------------------------------------------


def read(body: bytes, form: Form, where: str = WHERE) -> Document:
    """A document as it came in. ConfigError: not text, too large, too deep, a key twice, not of its form."""
    if len(body) > MAX_BYTES:
        raise ConfigError([Problem(where, f"is larger than {MAX_BYTES} bytes")])
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(where, "is not UTF-8 text", line, 1)]) from None
    if form is Form.YAML:
        return strict_yaml.parse(text, where, expand=False)
    return strict_yaml.unplaced(read_json(text, where), where)


def read_json(text: str, where: str) -> Any:
    """Strict JSON: no key twice, no NaN, not deeper than a policy can be. ConfigError with line and column."""
    _refuse_deep(text, where)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ConfigError([Problem(where, f'duplicate key "{twice[:80]}"')])
        return found

    def no_number(word: str) -> NoReturn:
        raise ConfigError([Problem(where, f"not valid JSON: {word} is no number of JSON")])

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_number)
    except json.JSONDecodeError as error:
        raise ConfigError([Problem(where, f"not valid JSON: {error.msg}", error.lineno, error.colno)]) from None
    except ValueError:  # a number of thousands of digits
        raise ConfigError([Problem(where, "not valid JSON: a number is too long")]) from None


_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def _refuse_deep(text: str, where: str) -> None:
    """Before the parser recurses."""
    depth = 0
    for match in _BRACKETS.finditer(text):
        token = match.group()
        if token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
        if depth > MAX_DEPTH:
            line = text.count("\n", 0, match.start()) + 1
            column = match.start() - text.rfind("\n", 0, match.start())
            raise ConfigError([Problem(where, f"nested deeper than {MAX_DEPTH} levels", line, column)])


# --- importing -------------------------------------------------------------------------------------------------


def imported(library: Library, document: Document) -> Mapping[str, MergePatch]:
    """What is to lie over the files of the policies that the document names; the others are left alone.

    Each then is as the document says, whatever was changed here before. ConfigError carries every problem.
    """
    file = strict_yaml.validate(document, Exported)
    problems: list[Problem] = []
    wanted: dict[str, MergePatch] = {}
    for index, item in enumerate(file.policies):
        identity = item.get("id")
        place = ("policies", index, "id")
        if not isinstance(identity, str):
            problems.append(document.problem(place, 'expected a map with an "id" that names the event'))
        elif identity not in library.policies:
            hint = did_you_mean(identity[:100], sorted(library.policies))
            message = f"there is no such policy here{hint}; one of your own needs its file in policies.directory"
            problems.append(document.problem(place, message))
        elif identity in wanted:
            problems.append(document.problem(place, f'"{identity[:100]}" stands here twice'))
        elif odd := patches.oddities(item):
            problems += placed(document, index, odd)
        else:
            wanted[identity] = _wanted(library, identity, item, whole=not file.modified)
            refused = patches.refused(identity, library.filed[identity], wanted[identity])
            problems += placed(document, index, refused)
    if problems:
        raise ConfigError(problems)
    return wanted


def _wanted(library: Library, identity: str, item: Mapping[str, Any], *, whole: bool) -> MergePatch:
    here = library.filed[identity].document.data
    result = merging.merged({} if whole else _default(library, identity), item)
    for key in patches.FROM_FILES_ONLY:
        if key not in item and key in here:
            result[key] = here[key]
    return merging.difference(here, result)


def placed(document: Document, index: int, problems: Sequence[Problem]) -> list[Problem]:
    """Problems inside the policy that stands at ``index`` of the document, with their place in it."""
    found = []
    for problem in problems:
        path: Path_ = ("policies", index, *_parts(problem.path))
        # What stands in the file was laid over something that does not: the key itself is where to look.
        found.append(document.problem(path, problem.message, at_key=problem.message.startswith("unknown key")))
    return found


def misfits(document: Document, error: Misfit) -> list[Problem]:
    """What became of an import, with the place of each problem in the document."""
    order = {item.get("id"): index for index, item in enumerate(document.at(("policies",)) or ())}
    return [problem for name, found in error.by_policy.items() for problem in placed(document, order[name], found)]


def _parts(path: str) -> Path_:
    """``examples[0].says`` -> its parts."""
    return tuple(int(index) if index else word for word, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path))


# --- writing ---------------------------------------------------------------------------------------------------


_FastDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_FastDumper):  # type: ignore[misc] # libyaml's where there is one
    """Quotes what our own reader would take for a number."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    plain = strict_yaml.is_plain_text(value)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def as_yaml(data: Mapping[str, Any]) -> str:
    """A document that ``read`` reads as it was, for a terminal too."""
    text = _dumped(data, allow_unicode=True)
    return text if text.replace("\n", "").isprintable() else _dumped(data, allow_unicode=False)


def _dumped(data: Mapping[str, Any], *, allow_unicode: bool) -> str:
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode, width=118)
    return text
