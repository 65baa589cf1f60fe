"""What may be changed at run time, and what a patch may hold: checked before it is laid over anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from probed.errors import Problem
from probed.policy import questions
from probed.policy.layers import RULE_KEYS, Filed
from probed.revisions import MergePatch
from probed.strict_yaml import MAX_DEPTH, MAX_PROBLEMS, Path_, dotted

WHERE = "patch"
"""In place of a file's name, in problems and as the origin of a value."""

FROM_FILES_ONLY = ("id", "can_disable", "fixed", *questions.GENERIC)
"""Keys that no edit, import or rollback may change."""

MAX_NUMBER = 10**18
_REACHES = (
    "what is asked, and of whom, comes from files only, so that nobody can point this daemon elsewhere at run time; "
    "edit its file and reload"
)


def refused(policy_id: str, filed: Filed, patch: Mapping[str, Any]) -> list[Problem]:
    """The keys of a patch that the policy's rules forbid, whatever their values are."""
    problems = []
    asks = any(key in filed.document.data for key in questions.GENERIC)
    for key in patch:
        if key in questions.GENERIC or (key == "instances" and asks):
            problems.append(Problem(WHERE, _REACHES, path=key))
        elif key in FROM_FILES_ONLY:
            problems.append(Problem(WHERE, "belongs to the event and cannot be changed", path=key))
        elif key in RULE_KEYS and filed.document.data.get("fixed") is True:
            message = f'the rule of "{policy_id}" is fixed; severity and enabled can be changed'
            problems.append(Problem(WHERE, message, path=key))
    return problems


def oddities(data: MergePatch) -> list[Problem]:
    """What JSON allows and no policy can hold: endless nesting and numbers, characters that are none."""
    return list(_oddities(data))[:MAX_PROBLEMS]


def _oddities(data: MergePatch) -> Iterator[Problem]:
    waiting: list[tuple[Path_, Any]] = [((), data)]
    while waiting:
        path, value = waiting.pop()
        if len(path) > MAX_DEPTH:
            yield Problem(WHERE, f"nested deeper than {MAX_DEPTH} levels", path=dotted(path[:2]))
            return
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if isinstance(key, str) and key and key.isprintable():
                    waiting.append(((*path, key), inner))
                    continue
                name = "".join(char if char.isprintable() else "?" for char in str(key)) or '""'
                yield Problem(WHERE, "expected a printable word as key", path=dotted((*path, name)))
        elif isinstance(value, list):
            waiting += [((*path, index), inner) for index, inner in enumerate(value)]
        elif isinstance(value, str) and not all(char.isprintable() or char in "\n\t" for char in value):
            yield Problem(WHERE, "expected printable text, got other characters in it", path=dotted(path))
        elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # so written, NaN is refused too
            yield Problem(WHERE, f"expected a number of at most {MAX_NUMBER:.0e}", path=dotted(path))
