"""The small language of ``when``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.model import Comparison, Condition
from probed.policy.conditions import parse

READINGS = {"lag_seconds", "lag_bytes", "x"}
PARAMS: dict[str, float | str] = {"lag_threshold_sec": 30.0, "word": "streaming"}


def refusal(text: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is looked at
        parse(text, PARAMS, READINGS)
    return str(caught.value)


def test_failed_is_the_condition_without_comparisons() -> None:
    assert parse("failed", {}, set()) == Condition()
    assert parse("  failed ", {}, set()).on_failure


def test_a_parameter_is_resolved_and_remembered_by_name() -> None:
    assert parse("lag_seconds >= lag_threshold_sec", PARAMS, READINGS) == Condition(
        (Comparison("lag_seconds", ">=", 30.0, "lag_threshold_sec"),)
    )


@pytest.mark.parametrize(
    "right, value", [("30", 30), ("-1.5", -1.5), ("100ms", 0.1), ("1h30m", 5400), ("10GiB", 10 * 2**30), ("1e3", 1000)]
)
def test_a_literal_is_a_number_or_a_quantity(right: str, value: float) -> None:
    assert parse(f"x < {right}", PARAMS, READINGS).comparisons == (Comparison("x", "<", value),)


@pytest.mark.parametrize("op", [">=", ">", "<=", "<", "==", "!="])
def test_every_operator_needs_no_blanks(op: str) -> None:
    assert parse(f"x{op}5", PARAMS, READINGS) == parse(f" x  {op}  5 ", PARAMS, READINGS)


def test_comparisons_are_joined_by_and_over_any_blanks() -> None:
    parsed = parse("x >= 1 and\n lag_bytes<5\tand  lag_seconds != 0", PARAMS, READINGS)
    assert [(c.reading, c.op, c.value) for c in parsed.comparisons] == [
        ("x", ">=", 1), ("lag_bytes", "<", 5), ("lag_seconds", "!=", 0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text, message",
    [
        ("", 'expected "failed" or a comparison such as "lag_seconds >= 30", got ""'),
        ("x", 'expected "failed" or a comparison'),
        ("x = 5", 'expected "failed" or a comparison'),
        ("x >= 1 or x >= 2", 'expected "failed" or a comparison'),
        ("x >= 1 and", 'expected "failed" or a comparison'),
        ("failed and x >= 1", 'expected "failed" or a comparison'),
        ("x >= 10 GiB", 'expected "failed" or a comparison'),
        ("5 <= x", 'expected "failed" or a comparison'),
        ("lag_secs >= 5", 'the probe has no reading "lag_secs"; did you mean "lag_seconds"?'),
        ("x >= lag_threshold", '"lag_threshold" is neither a parameter of this policy nor a quantity; did you mean "lag'),
        ("x == word", 'parameter "word" is not a number'),
        ("x >= 1e999", '"1e999" is neither a parameter of this policy nor a quantity'),
    ],
)  # fmt: skip
def test_what_is_no_condition_is_told_with_what_would_be(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


@given(st.text(st.sampled_from("xlag_seconds <>=!andfiled0123456789.eGMB\n\t-"), max_size=60))
def test_any_text_is_a_condition_or_a_value_error(text: str) -> None:
    try:
        condition = parse(text, PARAMS, READINGS)
    except ValueError:
        return
    assert condition.on_failure or all(c.reading in READINGS for c in condition.comparisons)
