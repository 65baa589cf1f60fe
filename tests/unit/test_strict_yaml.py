"""Strict YAML: every kind of mistake is told with its line, column and path, all at once, and nothing else escapes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field, model_validator

from probed.errors import ConfigError, Problem
from probed.strict_yaml import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_PROBLEMS,
    Misplaced,
    Strict,
    did_you_mean,
    overlay,
    parse,
    read,
    validate,
)


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yml", environ=environ or {})
    return [str(problem) for problem in caught.value.problems]


def data(text: str, environ: dict[str, str] | None = None) -> object:
    return parse(text, "f.yml", environ=environ or {}).data


# --- what is refused


def test_a_duplicate_key_is_refused_and_both_places_are_told() -> None:
    assert problems("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n") == ['f.yml:5:3: b.c: duplicate key "c", first at line 3']


def test_the_same_key_in_two_maps_is_no_duplicate() -> None:
    assert data("- {a: 1}\n- {a: 2}\n") == [{"a": 1}, {"a": 2}]


def test_keys_that_differ_only_in_quotes_are_duplicates() -> None:
    assert problems("a: 1\n'a': 2\n") == ['f.yml:2:1: a: duplicate key "a", first at line 1']


def test_an_alias_is_refused_at_its_place() -> None:
    assert problems("a: &x [1, 2]\nb: *x\n") == [
        "f.yml:2:4: aliases (*name) are not supported; write the value out",
    ]


def test_an_alias_bomb_is_refused_before_it_is_composed() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))
    assert len(problems(bomb)) == MAX_PROBLEMS


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [id]",
        "a: !!python/name:os.system ''",
        "a: !!str 5",
        "a: !secret x",
        "!!map {a: 1}",
        "a: !<tag:yaml.org,2002:int> 5",
    ],
)
def test_every_tag_is_refused(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("f.yml:1:")
    assert "tags" in problem


def test_a_second_document_is_refused() -> None:
    assert problems("a: 1\n---\nb: 2\n") == ["f.yml:2:1: expected one YAML document, found a second one"]


def test_nesting_is_bounded() -> None:
    assert data("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert problems("[" * 100_000) == [f"f.yml:1:{MAX_DEPTH + 1}: nested deeper than {MAX_DEPTH} levels"]


def test_a_key_that_is_no_word_is_refused() -> None:
    assert problems("? [a, b]\n: 1\n") == ["f.yml:1:3: expected a plain word as key"]


def test_a_syntax_error_names_its_place() -> None:
    (problem,) = problems("a: 1\nb: [1, 2\nc: 3\n")
    assert problem.startswith("f.yml:3:2: not valid YAML: ")


def test_a_tab_for_indentation_is_a_syntax_error_with_a_place() -> None:
    (problem,) = problems("a:\n\tb: 1\n")
    assert problem.startswith("f.yml:2:1: not valid YAML: ")


def test_control_characters_are_refused() -> None:
    (problem,) = problems("a: \x00\n")
    assert "not valid YAML" in problem


def test_half_a_surrogate_pair_is_refused_like_any_other_bad_text() -> None:
    (problem,) = problems("a: \ud800\n")
    assert "not valid YAML" in problem


def test_all_problems_of_a_file_are_told_at_once_and_in_its_order() -> None:
    text = "a: 1\na: 2\nb: ${NOT_SET}\nc: {d: 1, d: 2}\n? [x]\n: 1\n"
    assert [problem.split(":")[1] for problem in problems(text)] == ["2", "3", "4", "5"]


# --- files


def test_a_file_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read(tmp_path / "none.yml")


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="expected a regular file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("path", ["/dev/zero", "/proc"])
def test_devices_and_directories_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="expected a regular file"):
        read(Path(path))


def test_a_path_that_no_system_could_have_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        read(Path("a\0b"))


def test_a_file_beyond_the_limit_is_refused_and_one_at_the_limit_is_read(tmp_path: Path) -> None:
    file = tmp_path / "f.yml"
    file.write_text("a: " + "x" * (MAX_BYTES - 3))
    assert len(read(file).data["a"]) == MAX_BYTES - 3
    file.write_text("a: " + "x" * (MAX_BYTES - 2))
    with pytest.raises(ConfigError, match=f"larger than {MAX_BYTES} bytes"):
        read(file)


def test_bytes_that_are_not_utf_8_are_told_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "f.yml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError) as caught:
        read(file)
    assert caught.value.problems == (Problem(str(file), "is not UTF-8 text", 2, 1),)


def test_a_byte_order_mark_is_forgiven(tmp_path: Path) -> None:
    file = tmp_path / "f.yml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(file).data == {"a": 1}


# --- scalars


@pytest.mark.parametrize(
    "text, value",
    [
        ("on", "on"), ("no", "no"), ("yes", "yes"), ("true", True), ("False", False), ("~", None), ("", None),
        ("null", None), ("010", 10), ("0x1F", "0x1F"), ("1_000", "1_000"), ("12:30:45", "12:30:45"),
        ("2026-11-22", "2026-11-22"), ("1e3", 1000.0), ("1.5", 1.5), (".5", 0.5), ("-3", -3), ("+3", 3), (".inf", ".inf"),
        ("'5'", "5"), ('"true"', "true"), ("10GiB", "10GiB"), ("123456789012345678901", "123456789012345678901"),
        ("1e999", "1e999"), ("=", "="), ("<<", "<<"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    assert data(f"a: {text}\n") == {"a": value}
    assert type(data(f"a: {text}\n")["a"]) is type(value)  # type: ignore[index]


def test_a_merge_key_merges_nothing() -> None:
    assert data("a: {<<: {b: 1}}") == {"a": {"<<": {"b": 1}}}


# --- the environment


def test_variables_expand_in_values_only() -> None:
    environ = {"HOST": "db", "PORT": "5432", "KEY": "k"}
    assert data("${KEY}: ${HOST}\nport: ${PORT}\nboth: ${HOST}:${PORT}\n", environ) == {
        "${KEY}": "db",
        "port": 5432,
        "both": "db:5432",
    }


def test_a_quoted_variable_stays_text() -> None:
    assert data('port: "${PORT}"', {"PORT": "5432"}) == {"port": "5432"}


def test_a_default_stands_in_for_a_variable_that_is_not_set() -> None:
    assert data("a: ${X:-5}\nb: ${Y:-}\nc: '${Z:-}'", {"Z": ""}) == {"a": 5, "b": None, "c": ""}


def test_a_variable_that_is_not_set_is_told_with_its_place_and_a_remedy() -> None:
    assert problems("a:\n  - b: x${NOPE}y\n") == [
        "f.yml:2:8: a[0].b: environment variable NOPE is not set; set it, or write ${NOPE:-default}"
    ]


def test_a_value_of_the_environment_is_never_parsed_as_yaml() -> None:
    assert data("a: ${X}", {"X": "{b: *c}\n- !!python/x"}) == {"a": "{b: *c}\n- !!python/x"}


def test_two_dollars_are_one() -> None:
    assert data("a: $${HOME}\nb: $HOME\n") == {"a": "${HOME}", "b": "$HOME"}


# --- models


class Door(Strict):
    host: str
    port: int = Field(ge=1, le=65535)
    timeout: float | None = None
    mode: Literal["read", "write"] = "read"
    counts: int | str = 1


class Cat(Strict):
    type: Literal["cat"]
    lives: int


class Dog(Strict):
    type: Literal["dog"]
    tricks: list[str]


class House(Strict):
    doors: list[Door] = Field(default_factory=list)
    named: dict[Annotated[str, AfterValidator(str.lower)], Door] = Field(default_factory=dict)
    pet: Annotated[Cat | Dog, Field(discriminator="type")] | None = None
    password: str | None = None

    @model_validator(mode="after")
    def _doors_differ(self) -> House:
        ports = [door.port for door in self.doors]
        taken = [(i, port) for i, port in enumerate(ports) if port in ports[:i]]
        if taken:
            raise Misplaced(*((("doors", i, "port"), f"{port} is taken") for i, port in taken))
        return self


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(parse(text, "f.yml", environ={}), House)
    return [str(problem) for problem in caught.value.problems]


def test_an_unknown_key_is_told_at_the_key_with_the_nearest_known_one() -> None:
    assert complaints("doors:\n  - host: a\n    port: 1\n    time_out: 5\n") == [
        'f.yml:4:5: doors[0].time_out: unknown key "time_out"; did you mean "timeout"?'
    ]


def test_an_unknown_key_like_no_other_is_told_with_the_known_ones() -> None:
    (problem,) = complaints("xyzzy: 1\n")
    assert problem.endswith('unknown key "xyzzy"; known here: doors, named, password, pet')


def test_the_nearest_known_key_is_found_inside_a_map_of_free_names_too() -> None:
    assert complaints("named:\n  front: {host: a, port: 1, hots: b}\n") == [
        'f.yml:2:29: named.front.hots: unknown key "hots"; did you mean "host"?'
    ]


def test_the_nearest_known_key_is_found_inside_the_form_that_was_chosen() -> None:
    assert complaints("pet:\n  type: cat\n  lives: 9\n  livs: 9\n") == [
        'f.yml:4:3: pet.livs: unknown key "livs"; did you mean "lives"?'
    ]


def test_a_missing_key_is_told_at_its_map() -> None:
    assert complaints("doors:\n  - port: 1\n") == ['f.yml:2:5: doors[0].host: required key "host" is missing']
    assert complaints("pet: {type: dog}\n") == ['f.yml:1:6: pet.tricks: required key "tricks" is missing']


def test_a_wrong_type_is_told_with_what_was_expected_and_found() -> None:
    assert complaints("doors:\n  - host: 5\n    port: '80'\n") == [
        "f.yml:2:11: doors[0].host: expected a string, got 5",
        'f.yml:3:11: doors[0].port: expected an integer, got "80"',
    ]


def test_numbers_are_never_made_of_words_nor_words_of_numbers() -> None:
    assert complaints("doors: [{host: true, port: 1.0}]\n") == [
        "f.yml:1:16: doors[0].host: expected a string, got true",
        "f.yml:1:28: doors[0].port: expected an integer, got 1.0",
    ]


def test_a_value_out_of_bounds_is_told_once_at_its_place() -> None:
    assert complaints("doors: [{host: a, port: 99999}]\n") == [
        "f.yml:1:25: doors[0].port: expected less than or equal to 65535, got 99999"
    ]


def test_a_value_that_fits_none_of_several_types_is_one_problem() -> None:
    assert complaints("doors: [{host: a, port: 1, counts: [1]}]\n") == [
        "f.yml:1:36: doors[0].counts: expected an integer or a string, got a list"
    ]


def test_an_unknown_form_is_told_at_the_word_that_names_it_with_the_known_forms() -> None:
    assert complaints("pet:\n  type: catt\n") == [
        'f.yml:2:9: pet.type: expected one of cat, dog, got "catt"; did you mean "cat"?'
    ]
    assert complaints("pet:\n  {}\n") == ['f.yml:2:3: pet.type: required key "type" is missing']


def test_a_secret_is_never_shown() -> None:
    (problem,) = complaints("password: [hunter2]\n")
    assert "hunter2" not in problem


def test_what_only_the_whole_shows_is_told_at_the_value_that_contradicts() -> None:
    doors = "doors:\n  - {host: a, port: 1}\n  - {host: b, port: 1}\n  - {host: c, port: 1}\n"
    assert complaints(doors) == ["f.yml:3:21: doors[1].port: 1 is taken", "f.yml:4:21: doors[2].port: 1 is taken"]


def test_every_complaint_is_told_at_once_in_the_order_of_the_file() -> None:
    text = "doors:\n  - {host: 1, port: 0, x: 1}\nnope: 1\npet: {type: cat}\n"
    assert [problem.split(" ")[0].split(":")[1] for problem in complaints(text)] == ["2", "2", "2", "3", "4"]


def test_a_map_where_a_list_was_expected_is_told() -> None:
    assert complaints("doors: {a: 1}\n") == ["f.yml:1:8: doors: expected a list, got a map"]


def test_an_empty_document_is_told_as_nothing() -> None:
    assert complaints("") == ["f.yml:1:1: expected a map, got nothing"]


def test_suggestions_are_made_only_when_they_are_near() -> None:
    assert did_you_mean("intervall", ["interval", "timeout"]) == '; did you mean "interval"?'
    assert did_you_mean("zzz", ["interval", "timeout"]) == "; known here: interval, timeout"
    assert did_you_mean("zzz", [str(n) for n in range(30)]) == ""


# --- layers


def test_in_an_overlay_maps_merge_and_scalars_and_lists_replace() -> None:
    base = parse("a: {b: 1, c: [1, 2]}\nd: 1\n", "base.yml")
    top = parse("a: {c: [3], e: 2}\nd: {f: 1}\n", "top.yml")
    assert overlay(base, top).data == {"a": {"b": 1, "c": [3], "e": 2}, "d": {"f": 1}}
    assert base.data == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_in_an_overlay_a_problem_is_told_in_the_file_that_the_value_came_from() -> None:
    base = parse("doors: [{host: a, port: 1}]\npassword: x\n", "base.yml")
    top = parse("\n\npassword: 5\nnope: 1\n", "top.yml")
    with pytest.raises(ConfigError) as caught:
        validate(overlay(base, top), House)
    assert [str(problem) for problem in caught.value.problems] == [
        "top.yml:3:11: password: expected a string",
        'top.yml:4:1: nope: unknown key "nope"; known here: doors, named, password, pet',
    ]


def test_in_an_overlay_a_replaced_list_leaves_no_places_of_the_old_one_behind() -> None:
    base = parse("doors: [{host: a, port: 1}, {host: b, port: 2}]\n", "base.yml")
    top = parse("doors: [{host: 1, port: 1}]\n", "top.yml")
    with pytest.raises(ConfigError) as caught:
        validate(overlay(base, top), House)
    assert [str(problem) for problem in caught.value.problems] == [
        "top.yml:1:16: doors[0].host: expected a string, got 1"
    ]


# --- any text


TEXTS = st.one_of(
    st.text(max_size=200),
    st.text(st.characters(), max_size=100),
    st.text(st.sampled_from("ab:- \n\t[]{},'\"&*!|>%@`#?~${}1.e\\x"), max_size=120),
    st.lists(st.sampled_from(["a: ", "- ", "\n", "  ", "[", "]", "{", "}", "&x ", "*x", "!!", "|\n", "? ", "---\n",
                              "doors", "host", "port", "pet", "type: cat", "${A}", "1e999", "<<", "'", '"', "\\u0000",
                              "...", "%YAML 1.1\n", "\ufeff", "\x85", "\ud800", "\u2028", "0" * 30]), max_size=30).map("".join),
)  # fmt: skip


@given(TEXTS)
@example('"\\ud800": 1')
@example("a: !<> b")
@example("%TAG ! tag:x,2000:\n---\na: 1")
def test_any_text_is_parsed_or_refused_with_a_config_error_and_nothing_else(text: str) -> None:
    found: tuple[Problem, ...] | None = None
    try:
        validate(parse(text, "f.yml", environ={"A": text}), House)
    except ConfigError as error:
        found = error.problems
    assert found != ()
    assert all(problem.message and problem.where == "f.yml" for problem in found or ())


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_config_error_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yml"
    file.write_bytes(content)
    found: tuple[Problem, ...] | None = None
    try:
        read(file, environ={})
    except ConfigError as error:
        found = error.problems
    assert found != ()
