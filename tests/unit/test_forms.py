"""What a refused form says of its fields."""

from __future__ import annotations

import pytest

from probed.api.problems import Refused
from probed.web.forms import FINE, RECOVERABLE, WHOLE, Wrong, wrong

FIELDS = ("instances", "duration", "comment")


def refused(*problems: tuple[str, str], kind: str = "invalid") -> Refused:
    return Refused(kind, "all of it", [{"path": path, "detail": detail} for path, detail in problems])


def test_the_first_field_of_the_form_has_the_focus_in_whatever_order_the_problems_come() -> None:
    found = wrong(refused(("comment", "too long"), ("instances[1]", "unknown")), FIELDS)
    assert found.first == "instances"
    assert (found.of("instances"), found.of("duration"), found.of("comment")) == (["unknown"], (), ["too long"])


def test_a_field_may_have_several_problems() -> None:
    found = wrong(refused(("instances[0]", "unknown"), ("instances[2]", "unknown, too")), FIELDS)
    assert found.of("instances") == ["unknown", "unknown, too"]


def test_what_has_no_field_is_told_with_its_path_above_all_of_them() -> None:
    found = wrong(refused(("comment", "too long"), ("ends_at", "is past")), FIELDS)
    assert found.first == WHOLE and found.of(WHOLE) == ["ends_at: is past"]


@pytest.mark.parametrize("kind", sorted(RECOVERABLE))
def test_a_refusal_that_names_nothing_is_told_of_the_form_or_of_the_field_that_answers_for_it(kind: str) -> None:
    assert wrong(refused(kind=kind), FIELDS) == Wrong({WHOLE: ["all of it"]})
    assert wrong(refused(kind=kind), FIELDS, otherwise="comment") == Wrong({"comment": ["all of it"]})


def test_what_no_change_of_a_field_could_mend_is_a_page() -> None:
    with pytest.raises(Refused):
        wrong(refused(kind="forbidden"), FIELDS)


def test_a_form_that_was_not_refused_has_nothing_wrong() -> None:
    assert not FINE and FINE.first is None
