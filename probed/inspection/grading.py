"""A letter for an instance, by its worst item. Pure.

- **A**: nothing to say.
- **B**: advice on the configuration, or a trend, warns.
- **C**: an event, the history or the switchovers warn.
- **D**: something fails: an event that is critical, a disk that will be full within days.
- **E**: an event that is fatal fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from probed.inspection import Grade, Item, Section, Verdict
from probed.model import Severity

_LESSER = (Section.ADVICE, Section.TRENDS)


def grade_of(item: Item) -> Grade:
    """The best grade that an instance with this item can have."""
    match item.verdict:
        case Verdict.PASS:
            return Grade.A
        case Verdict.FAIL:
            return Grade.E if item.severity == Severity.FATAL.value and item.section is Section.EVENTS else Grade.D
        case _:
            return Grade.B if item.section in _LESSER else Grade.C


def graded(items: Sequence[Item]) -> tuple[Grade, str]:
    """The grade, and why in one sentence."""
    if not items:
        return Grade.A, "nothing was looked at"
    grade = max((grade_of(item) for item in items), key=lambda grade: grade.value)
    if grade is Grade.A:
        return grade, "every item passes"
    deciding = [item for item in items if grade_of(item) is grade]
    first = deciding[0]
    more = f" and {len(deciding) - 1} more" if len(deciding) > 1 else ""
    verb = "fails" if first.verdict is Verdict.FAIL else "warns"
    return grade, f"{first.title} ({first.target}) {verb}{more}"


def in_order(items: Sequence[Item]) -> tuple[Item, ...]:
    """By section; within one the worst first, then by title and target."""
    sections = list(Section)
    return tuple(
        sorted(
            items, key=lambda one: (sections.index(one.section), one.verdict.rank, _rank(one), one.title, one.target)
        )
    )


def _rank(item: Item) -> int:
    return Severity(item.severity).rank if item.severity else 0
