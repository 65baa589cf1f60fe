"""Strict YAML: what PyYAML silently forgives is an error here, and every error names file, line and column.

Duplicate keys, aliases, tags, deep nesting and oversized files are refused; scalars follow the YAML 1.2 core schema
(``on`` is a word, ``010`` is ten); ``${VAR}`` and ``${VAR:-default}`` expand in values only. All problems of a file
are reported at once, and a pydantic model's complaints are mapped back to their place in the file.
"""

from __future__ import annotations

import math
import os
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from msgspec import Struct, field

# pydantic looks for plugins in everything that is installed. None is wanted: what a setting may be is not for others to
# change. Its switch spares the search, but not the 32 modules that it would be made with, a thirtieth of a start and
# 0.7 MiB of every daemon: those are spared by a loader that knows of no plugin.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
_loader = types.ModuleType("pydantic.plugin._loader")
vars(_loader)["get_plugins"] = tuple
sys.modules.setdefault(_loader.__name__, _loader)

from pydantic import BaseModel, ConfigDict, ValidationError  # noqa: E402

from probed.errors import ConfigError, Problem  # noqa: E402

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_PROBLEMS = 100

Path_ = tuple[str | int, ...]
Place = tuple[int, int]
_M = TypeVar("_M", bound=BaseModel)


class Misplaced(ValueError):
    """Raised by a model's own validator for what only the whole shows: (path below the model, message) of each."""

    def __init__(self, *found: tuple[Path_, str]) -> None:
        self.found = found
        super().__init__("; ".join(message for _, message in found))


class Strict(BaseModel):
    """Base of everything read from a file: unknown keys and loose types are errors, values are frozen."""

    model_config = ConfigDict(defer_build=True, extra="forbid", strict=True, frozen=True)


def no_items() -> list[Any]:
    """``list``, as a default of models: pydantic looks at its signature, which Python finds out with a tokenizer."""
    return []


class Document(Struct):
    """A parsed file: plain data, and where each value (``places``) and each key (``keys``) stands."""

    where: str
    data: Any
    places: dict[Path_, Place] = field(default_factory=dict)
    keys: dict[Path_, Place] = field(default_factory=dict)
    files: dict[Path_, str] = field(default_factory=dict)
    """Where a value came from when this document was laid over another."""

    def at(self, path: Path_) -> Any:
        """The value at a path; ``None`` where there is none."""
        value = self.data
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def problem(self, path: Path_, message: str, *, at_key: bool = False) -> Problem:
        """A problem at ``path``, or at its nearest ancestor that stands in the file."""
        shown = dotted(path)
        for length in range(len(path), -1, -1):
            prefix = path[:length]
            place = (self.keys if at_key and length == len(path) else self.places).get(prefix)
            if place is not None:
                return Problem(self.files.get(prefix, self.where), message, *place, path=shown)
        return Problem(self.where, message, path=shown)


def read(path: Path, *, environ: Mapping[str, str] | None = None) -> Document:
    """Read and parse one file. ConfigError when it cannot be read or is not strict YAML."""
    try:
        # A FIFO or a device would block or never end: only regular files are configuration.
        if path.exists() and not path.is_file():
            raise ConfigError([Problem(str(path), "expected a regular file")])
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read: {error.strerror or error}")]) from None
    except ValueError as error:  # a NUL inside the name
        raise ConfigError([Problem(repr(str(path)), f"is not the name of a file: {error}")]) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError([Problem(str(path), f"is larger than {MAX_BYTES} bytes")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(str(path), "is not UTF-8 text", line, 1)]) from None
    return parse(text, str(path), environ=environ)


def parse(text: str, where: str, *, environ: Mapping[str, str] | None = None, expand: bool = True) -> Document:
    """Parse YAML text. ConfigError carries every problem found. ``expand=False``: ``${VAR}`` is text like any other."""
    document = Document(where, None)
    document.places[()] = (1, 1)
    variables = (os.environ if environ is None else environ) if expand else None
    try:
        document.data, problems = _Reader(text, document, variables).read()
    except yaml.YAMLError as error:
        raise ConfigError([_syntax_problem(error, text, where)]) from None
    except UnicodeEncodeError as error:  # half a surrogate pair: no file holds one, an argument can
        line = text.count("\n", 0, error.start) + 1
        raise ConfigError([Problem(where, f"not valid YAML: {error.reason}", line, 1)]) from None
    if problems:
        raise ConfigError(problems[:MAX_PROBLEMS])
    return document


def unplaced(data: Any, where: str) -> Document:
    """Plain data that stands in no file as a document: its problems name a path, and no line."""
    document = Document(where, data)
    waiting: list[tuple[Path_, Any]] = [((), data)]
    while waiting:
        path, value = waiting.pop()
        document.places[path] = document.keys[path] = (0, 0)
        below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += [((*path, part), inner) for part, inner in below]
    return document


def overlay(base: Document, top: Document) -> Document:
    """``top`` laid over ``base``: maps merge, scalars and lists replace; every value keeps its place and file."""
    merged = Document(base.where, base.data, dict(base.places), dict(base.keys), dict(base.files))
    merged.data = _overlay(merged, top, base.data, top.data, ())
    return merged


def _overlay(merged: Document, top: Document, below: Any, above: Any, path: Path_) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        result = dict(below)
        for key, value in above.items():
            here = (*path, key)
            result[key] = _overlay(merged, top, below.get(key), value, here)
        return result
    for known in [known for known in merged.places if known[: len(path)] == path]:
        del merged.places[known]
    for known, place in top.places.items():
        if known[: len(path)] == path:
            merged.places[known] = place
            merged.files[known] = top.files.get(known, top.where)
            if known in top.keys:
                merged.keys[known] = top.keys[known]
    return above


def validate(document: Document, model: type[_M], *, data: Any = None) -> _M:
    """The document as ``model``. ConfigError carries every complaint, each with its place and what was expected."""
    try:
        return model.model_validate(document.data if data is None else data)
    except ValidationError as error:
        raise ConfigError(problems_of(error, document, model)) from None


def problems_of(error: ValidationError, document: Document, model: type[BaseModel]) -> list[Problem]:
    """pydantic's complaints in our words, in the order of the file, at most one per place."""
    found: dict[Path_, Problem] = {}
    alternatives: dict[Path_, list[str]] = {}
    for item in error.errors(include_url=False):
        loc: Path_ = item["loc"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Misplaced):
            for below, message in cause.found:
                path = _real_path((*loc, *below), document)
                found.setdefault(path, document.problem(path, message))
            continue
        path = _real_path(loc, document)
        if item["type"] == "extra_forbidden":
            if path[-1:] != loc[-1:]:
                path = (*path, loc[-1])  # the one part that is no tag, whatever it looks like
            names = _names_at(model, path[:-1])
            message = f'unknown key "{path[-1]}"' + did_you_mean(str(path[-1]), names)
            problem = document.problem(path, message, at_key=True)
        elif item["type"] == "missing":
            problem = document.problem(path, f'required key "{loc[-1]}" is missing')
        else:
            expected = alternatives.setdefault(path, [])
            expected.append(_expectation(item["type"], item["msg"]))
            if len(expected) > 1 and len(loc) == len(path):
                continue
            found.pop(path, None)
            message = " or ".join(
                dict.fromkeys([expected[0], *(text.removeprefix("expected ") for text in expected[1:])])
            )
            problem = document.problem(path, message + _found(item, path))
        found.setdefault(path, problem)
    return sorted(found.values(), key=lambda problem: (problem.line, problem.column))[:MAX_PROBLEMS]


def did_you_mean(word: str, names: Sequence[str]) -> str:
    """``; did you mean "timeout"?``, or the known names when none is close, or nothing when there are too many."""
    import difflib  # for people who made a mistake only: a daemon that started well never needs it

    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known here: {', '.join(sorted(names))}" if 0 < len(names) <= 20 else ""


def dotted(path: Path_) -> str:
    """``("instances", 0, "name")`` -> ``instances[0].name``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _syntax_problem(error: yaml.YAMLError, text: str, where: str) -> Problem:
    if isinstance(error, yaml.reader.ReaderError):  # it knows the character, and no line
        found: Any = error.character
        at = max(0, text.find(found if isinstance(found, str) else chr(found)))
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        return Problem(where, f"not valid YAML: U+{ord(text[at]):04X} is not allowed", line, column)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    message = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    text = f"not valid YAML: {message}" + (f" ({context})" if context else "")
    return Problem(where, text, mark.line + 1, mark.column + 1) if mark else Problem(where, text)


_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


_MAYBE_NUMBER = frozenset("+-.0123456789")


class _Reader:
    """Reads the flat stream of a parser's events in one go. What they may be is checked before anything nests."""

    def __init__(self, text: str, document: Document, environ: Mapping[str, str] | None) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self.document, self.environ = document, environ
        self.refused: list[Problem] = []
        """What is no strict YAML; then what it says does not matter."""
        self.problems: list[Problem] = []
        self.depth = 0

    def read(self) -> tuple[Any, list[Problem]]:
        """(the data, every problem)"""
        data, documents = None, 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents == 2:
                    self.refuse(event, "expected one YAML document, found a second one")
            elif isinstance(event, yaml.NodeEvent):
                data = self.value(event, ())
        return data, self.refused or self.problems

    def value(self, event: Any, path: Path_) -> Any:
        self.document.places[path] = _place(event)
        kind = type(event)
        if kind is yaml.ScalarEvent:
            if event.tag is not None:
                self.check_tag(event)
            return self.scalar(event, path)
        if kind is yaml.AliasEvent:
            self.refuse(event, "aliases (*name) are not supported; write the value out")
            return None
        self.check_tag(event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.refuse(event, f"nested deeper than {MAX_DEPTH} levels")
            raise ConfigError(self.refused)
        found = self.mapping(path) if kind is yaml.MappingStartEvent else self.sequence(path)
        self.depth -= 1
        return found

    def sequence(self, path: Path_) -> list[Any]:
        found: list[Any] = []
        for event in self.events:
            if type(event) is yaml.SequenceEndEvent:
                break
            found.append(self.value(event, (*path, len(found))))
        return found

    def mapping(self, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        keys = self.document.keys
        for event in self.events:
            kind = type(event)
            if kind is yaml.MappingEndEvent:
                break
            if kind is not yaml.ScalarEvent:
                self.complain(event, path, "expected a plain word as key")
                self.skip(event)
                self.skip(next(self.events))
                continue
            if event.tag is not None:
                self.check_tag(event)
            key = event.value
            here = (*path, key)
            if key in result:
                self.complain(event, here, f'duplicate key "{key}", first at line {keys[here][0]}')
                self.skip(next(self.events))
                continue
            keys[here] = _place(event)
            result[key] = self.value(next(self.events), here)
        return result

    def skip(self, event: Any) -> None:
        """Read past a value that is told already; it must be strict YAML all the same."""
        document, problems = self.document, self.problems
        self.document, self.problems = Document(document.where, None), []
        self.value(event, ())
        self.document, self.problems = document, problems

    def scalar(self, event: Any, path: Path_) -> Any:
        text = event.value
        if self.environ is not None and "$" in text:
            text = _VARIABLE.sub(lambda match: self.expand(match, event, path), text)
        return text if event.style else _plain(text)

    def expand(self, match: re.Match[str], event: Any, path: Path_) -> str:
        assert self.environ is not None
        name, default = match[1], match[2]
        if name is None:
            return "$"
        value = self.environ.get(name)
        if value is None and default is None:
            self.complain(event, path, f"environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return value if value is not None else default or ""

    def check_tag(self, event: Any) -> None:
        if event.tag not in (None, "!"):
            self.refuse(event, f"tags ({event.tag}) are not supported")

    def refuse(self, event: Any, message: str) -> None:
        self.refused.append(Problem(self.document.where, message, *_place(event)))
        if len(self.refused) >= MAX_PROBLEMS:
            raise ConfigError(self.refused)

    def complain(self, event: Any, path: Path_, message: str) -> None:
        self.problems.append(Problem(self.document.where, message, *_place(event), path=dotted(path)))


def _place(event: Any) -> Place:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def is_plain_text(text: str) -> bool:
    """Whether a plain scalar of these characters is read as text, and not as a number, a truth or nothing."""
    return isinstance(_plain(text), str)


def _plain(text: str) -> Any:
    """A plain scalar by the YAML 1.2 core schema."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if text[0] not in _MAYBE_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text) if len(text) <= 20 else text
    if _FLOAT.fullmatch(text) and len(text) <= 40:
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def _real_path(loc: Path_, document: Document) -> Path_:
    """pydantic's loc without the tags of unions and validators that do not stand in the file."""
    path: list[str | int] = []
    last = len(loc) - 1
    for index, part in enumerate(loc):
        candidate = (*path, part)
        nowhere = not document.places or index == last
        if candidate in document.places or (nowhere and not _is_tag(part)):
            path.append(part)
    return tuple(path)


def _is_tag(part: Any) -> bool:
    return isinstance(part, str) and (not part.isidentifier() or part in ("str", "int", "float", "bool"))


def _expectation(kind: str, message: str) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "model_type":  # its own words name the class
        return "expected a map"
    message = re.sub(r"^\w+ should have (.*?)(?: after validation.*)?$", r"expected \1", message)
    message = message.replace("String should match pattern", "expected text that matches")
    return message.replace("Input should be", "expected").replace("valid ", "").replace("a integer", "an integer")


def _found(item: Any, path: Path_) -> str:
    """``, got "10"``, unless the message says so itself or the value is a secret."""
    secret = any(word in str(part).lower() for part in path for word in ("pass", "secret", "token", "dsn", "fleet"))
    return "" if secret or item["type"] == "value_error" else f", got {_shown(item['input'])}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _names_at(model: type[BaseModel], path: Path_) -> list[str]:
    """The keys a map at ``path`` may have, by walking the model's annotations."""
    candidates: list[Any] = [model]
    for part in path:
        candidates = [inner for candidate in candidates for inner in _step_into(candidate, part)]
    models = [member for candidate in candidates for member in _members(candidate) if _is_model(member)]
    return [info.alias or name for found in models for name, info in found.model_fields.items()]


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def _step_into(annotation: Any, part: str | int) -> list[Any]:
    """What may stand under a key or index of something so annotated."""
    inner: list[Any] = []
    for member in _members(annotation):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if origin in (list, tuple) and isinstance(part, int):
            inner.append(arguments[0])
        elif origin is dict and isinstance(part, str):
            inner.append(arguments[1])
        elif _is_model(member):
            inner += [info.annotation for name, info in member.model_fields.items() if (info.alias or name) == part]
    return inner


def _members(annotation: Any) -> list[Any]:
    """The alternatives of Optional, unions and annotated types."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [member for argument in typing.get_args(annotation) for member in _members(argument)]
    return [annotation]
