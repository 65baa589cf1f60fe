"""What is not as it was in the inspection before: by verdict, because a number that moved a little is no news. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from probed.inspection import Difference, Item, Section, Verdict


def differences(before: Sequence[Item], now: Sequence[Item]) -> tuple[Difference, ...]:
    """In the order of the items; what is gone comes last. What passes and is only on one side is none.

    Of events only those count that both were about: each has its history in a report that it was chosen for.
    """
    both = _events(before) & _events(now)
    old, new = ({item.key: item for item in items if _counts(item, both)} for items in (before, now))
    found = [_difference(old.get(key), item) for key, item in new.items()]
    found += [_difference(item, None) for key, item in old.items() if key not in new]
    return tuple(one for one in found if one is not None)


def _events(items: Sequence[Item]) -> frozenset[str]:
    return frozenset(item.id for item in items if item.section is Section.HISTORY)


def _counts(item: Item, events: frozenset[str]) -> bool:
    return item.section not in (Section.EVENTS, Section.HISTORY) or item.id in events


def _difference(before: Item | None, now: Item | None) -> Difference | None:
    was, is_ = before.verdict if before else None, now.verdict if now else None
    if was is is_ or {was, is_} == {None, Verdict.PASS}:
        return None
    one = now or before
    assert one is not None
    finding = now.finding if now is not None else "it was not looked at this time"
    return Difference(one.section, one.id, one.title, one.target, was, is_, finding)
