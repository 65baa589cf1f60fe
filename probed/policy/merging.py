"""JSON merge patches (RFC 7396) over plain data: applying, finding, and what single values they give. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from probed.strict_yaml import Path_


def merged(target: Any, patch: Any) -> Any:
    """``patch`` applied to ``target``; neither is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest patch that makes ``after`` of ``before``; empty when they are the same."""
    patch: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        below = before.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            inner = difference(below, value)
            if inner:
                patch[key] = inner
        elif key not in before or not same(below, value):
            patch[key] = value
    return {key: patch[key] for key in sorted(patch)}


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: ``true`` is not ``1``."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def leaves(data: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every single value with its path. A list is one value, because it is replaced whole; so is an empty map."""
    if isinstance(data, Mapping) and (data or not path):
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, data


def without(patch: Mapping[str, Any], path: Path_) -> dict[str, Any]:
    """The patch without what it says at ``path`` and below it."""
    rest = dict(patch)
    key, *below = path
    inner = rest.get(str(key))
    if not below:
        rest.pop(str(key), None)
    elif isinstance(inner, Mapping):
        rest[str(key)] = without(inner, tuple(below))
        if not rest[str(key)]:
            del rest[str(key)]
    return rest
