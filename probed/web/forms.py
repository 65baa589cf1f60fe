"""A form that was refused: what is wrong with which of its fields, and where whoever sent it is to look first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from probed.api.problems import Refused

RECOVERABLE = frozenset({"invalid", "refused-by-rule", "stale", "bad-body", "bad-query", "conflict", "too-many"})
"""Refusals that are told in the form; others are a page."""
WHOLE = ""
"""In the place of a field: what is wrong with none of them alone."""


class Wrong(Struct, frozen=True):
    """What is wrong with a form; false when nothing is. ``parts.html`` has the macros that show it."""

    found: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By field, in the order in which the page has them: ``WHOLE`` stands above all."""

    def __bool__(self) -> bool:
        return bool(self.found)

    def of(self, name: str) -> Sequence[str]:
        return self.found.get(name, ())

    @property
    def first(self) -> str | None:
        """The field, or ``WHOLE``, that has the focus: a page may give it to one element."""
        return next(iter(self.found), None)


FINE = Wrong()
"""Of a form that was not refused."""


def wrong(refused: Refused, fields: Sequence[str], *, otherwise: str = WHOLE) -> Wrong:
    """What a refusal says of a form with these fields, in their order. The refusal itself, where that is a page.

    ``otherwise``: the field that answers for a refusal which names none.
    """
    if refused.kind not in RECOVERABLE:
        raise refused
    found: dict[str, list[str]] = {name: [] for name in (WHOLE, *fields)}
    for problem in refused.errors or [{"path": otherwise, "detail": refused.detail}]:
        path, detail = str(problem["path"]), str(problem["detail"])
        name = path if path in found else path.partition("[")[0]
        if name in found:
            found[name].append(detail)
        else:
            found[WHOLE].append(f"{path}: {detail}")
    return Wrong({name: said for name, said in found.items() if said})
