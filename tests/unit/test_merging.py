"""JSON merge patches: RFC 7396's own examples, and that applying what was found gives what was wanted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.policy import merging

RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
"""(target, patch, result) of the RFC's appendix A."""

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "1"])
WITHOUT_NULL = SCALARS.filter(lambda value: value is not None)
KEYS = st.sampled_from(["a", "b", "c"])
MAPS = st.dictionaries(
    KEYS,
    st.recursive(
        WITHOUT_NULL | st.lists(SCALARS, max_size=2),
        lambda inner: st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@pytest.mark.parametrize("target, patch, result", RFC_7396)
def test_a_patch_applies_as_in_the_appendix_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merging.merged(target, patch) == result


@given(MAPS, MAPS)
def test_the_difference_of_two_maps_makes_the_one_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merging.same(merging.merged(before, merging.difference(before, after)), after)


@given(MAPS)
def test_nothing_differs_from_itself(data: dict[str, Any]) -> None:
    assert merging.difference(data, data) == {}


@given(MAPS, MAPS)
def test_applying_changes_neither_of_the_two(target: dict[str, Any], patch: dict[str, Any]) -> None:
    before = repr((target, patch))
    merging.merged(target, patch)
    assert repr((target, patch)) == before


def test_true_is_not_one() -> None:
    assert merging.difference({"enabled": 1}, {"enabled": True}) == {"enabled": True}


def test_what_is_taken_out_of_a_patch_leaves_no_empty_maps_behind() -> None:
    patch = {"severity": "fatal", "params": {"failure_count": 5}}
    assert merging.without(patch, ("params", "failure_count")) == {"severity": "fatal"}
    assert merging.without(patch, ("params",)) == {"severity": "fatal"}
    assert merging.without(patch, ("params", "other")) == patch
    assert merging.without(patch, ("severity", "deeper")) == patch
