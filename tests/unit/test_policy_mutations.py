"""Policy files and imports with something wrong in them: refused with the place, or rightly accepted; never half.

``PROBED_TEST_MUTATIONS=10000`` is the full count of each of the five ways, which takes minutes; else it is hypothesis's
profile that says how many there are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from probed import strict_yaml
from probed.config.settings import Defaults
from probed.errors import ConfigError, Problem
from probed.model import Increase, Policy, Severity, Threshold
from probed.policy import exchange, layers
from probed.policy.exchange import Form
from probed.policy.library import Library, Misfit, Rules, Signed
from probed.policy.load import Catalogue, resolve
from probed.policy.parameters import PARAMETERS
from probed.probes import catalogue
from probed.revisions import RevisionKind

MUTATIONS = int(os.environ.get("PROBED_TEST_MUTATIONS") or settings().max_examples)
pytestmark = pytest.mark.timeout(120 + MUTATIONS // 4)
MANY = settings(
    max_examples=MUTATIONS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)

CATALOGUE: Catalogue = {name: frozenset(probe.readings) for name, probe in catalogue().items()}
RULES = Rules(CATALOGUE, Defaults())
LIBRARY = Library.read(None, RULES)
BY = Signed(0.0, "tester", "socket")

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 3, 1001, 1e300, -0.5, 10**30, "", "x", "fatal", "5s", "5", "100ms", "10GiB", "-1s", "failed",
    "lag_seconds >= 30", "lag_seconds >> 30", "failure_count", [], {}, [1], {"a": 1}, ["disk"], ["disk", "disk"], "http",
    "postgres_liveness", "leader", "on", "010", "1e5", "~", "${HOME}", "a: b", "- a", "# no comment", "*a", "&a", "!!int 3",
    "\x1b[2J", "\ud800", "\u2028", "ä☃🐘", "x" * 300, {"type": "threshold", "when": "failed", "count": 1},
    {"type": "occurrence", "reading": "oom_kills"}, {"failure_count": 0}, {"lag_threshold_sec": "1h"},
]  # fmt: skip
"""What somebody, or something, might put where a value stands."""
KEYS = [
    "id", "name", "severity", "enabled", "can_disable", "fixed", "probe", "params", "detect", "interval", "timeout",
    "confirm_interval", "evidence", "instances", "http", "tcp", "sql", "examples", "replica_severity", "severty", "",
    "failure_count", "type", "when", "count", "resolve_count", "max_gap", "resolve_when", "reading", "a.b", "group",
    "\x00", "description", "suggestion", "switchover_grace",
]  # fmt: skip
NOISE = ["\n", "  ", "\t", ":", ": ", "- ", "{", "}", "[", "]", '"', "'", "#", "*x", "&x ", "!!str ", "\x00", "\x85", "\ufeff", "0", "%", "---\n", "|", ">", "?", ",", "é", "\ud83d"]  # fmt: skip
CHANCE = st.randoms(use_true_random=False)


def changed_data(data: Any, chance: Random) -> Any:
    """Plain data with one thing in it replaced, added or taken away."""
    if isinstance(data, dict) and data and chance.random() < 0.8:
        result, key = dict(data), chance.choice(list(data))
        kind = chance.random()
        if kind < 0.15:
            del result[key]
        elif kind < 0.3:
            result[chance.choice(KEYS)] = chance.choice(ODD)
        else:
            result[key] = changed_data(data[key], chance)
        return result
    if isinstance(data, list) and data and chance.random() < 0.8:
        result_list, index = list(data), chance.randrange(len(data))
        if chance.random() < 0.2:
            result_list.append(data[index])
        else:
            result_list[index] = changed_data(data[index], chance)
        return result_list
    return chance.choice(ODD)


def changed_text(text: str, chance: Random) -> str:
    """Text with a piece cut out, doubled, or with noise in it."""
    start: int = chance.randrange(len(text) + 1)
    end = min(len(text), start + chance.choice([0, 1, 1, 3, 20, 200]))
    kind = chance.random()
    if kind < 0.4:
        return text[:start] + chance.choice(NOISE) + text[end:]
    if kind < 0.6:
        return text[:start] + text[end:]
    if kind < 0.8:
        return text[:end] + text[start:end] + text[end:]
    lines = text.splitlines(keepends=True)
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "".join(lines)


def several_times(value: Any, change: Callable[[Any, Any], Any], chance: Random) -> Any:
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        value = change(value, chance) if value else value
    return value


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def assert_right(policy: Policy) -> None:
    """What no policy that is in force may break, stated without the code that checks it."""
    assert policy.id and policy.name and policy.probe in CATALOGUE
    assert isinstance(policy.severity, Severity)
    assert policy.enabled or policy.can_disable
    assert 0 < policy.timeout < policy.interval
    for name, value in policy.params.items():
        known = PARAMETERS.get(name)
        if known is not None:
            assert known.low <= float(value) <= known.high
            assert not known.whole or float(value).is_integer()
    rule = policy.detect
    if isinstance(rule, Threshold | Increase):
        assert rule.resolve_count >= 1
    match rule:
        case Threshold():
            assert rule.count >= 1
            for part in (*rule.when.comparisons, *(rule.resolve_when.comparisons if rule.resolve_when else ())):
                assert part.reading in CATALOGUE[policy.probe]
        case Increase():
            assert rule.window > 0 and rule.at_least > 0 and rule.reading in CATALOGUE[policy.probe]
        case _:
            assert rule.reading in CATALOGUE[policy.probe]


def assert_built_in_rules_held(policies: Mapping[str, Policy]) -> None:
    for name, before in LIBRARY.policies.items():
        after = policies[name]
        assert (after.id, after.fixed, after.can_disable) == (before.id, before.fixed, before.can_disable)
        if before.fixed:
            assert (after.detect, after.params, after.probe) == (before.detect, before.params, before.probe)
        assert_right(after)


def assert_placed(problems: tuple[Problem, ...], where: str) -> None:
    """Each problem names where it is: file, line, column."""
    assert problems
    for problem in problems:
        assert problem.message
        assert problem.where.endswith(where) or problem.where.endswith(".yaml"), problem
        assert problem.line >= 1 and problem.column >= 1, problem


# --- files


SHIPPED = [(path.stem, path.read_text(encoding="utf-8")) for path in layers.shipped_files()]


def taken_as_file(text: str) -> None:
    """A file of policies.d with this text: laid over the built-in ones, or refused with its places."""
    filed = dict(LIBRARY.filed)
    problems: list[Problem] = []
    try:
        raw = as_bytes(text).decode("utf-8")
        document = strict_yaml.parse(raw, "mine.yaml", environ={"HOME": "/root"})
    except UnicodeDecodeError:
        return  # `read` refuses it before it is parsed; its line is tested with the reader
    except ConfigError as error:
        assert_placed(error.problems, "mine.yaml")
        return
    if not isinstance(document.data, dict) or not isinstance(document.data.get("id"), str):
        return  # no policy at all: refused by the reader with line 1
    layers.lay(filed, [document], problems)
    if problems:
        assert_placed(tuple(problems), "mine.yaml")
        return
    try:
        policy = resolve(filed[document.data["id"]].document, CATALOGUE, Defaults())
    except ConfigError as error:
        assert_placed(error.problems, "mine.yaml")
    else:
        assert_right(policy)
        before = LIBRARY.policies.get(policy.id)
        assert before is None or (policy.fixed, policy.can_disable) == (before.fixed, before.can_disable)


@MANY
@given(st.sampled_from(SHIPPED), CHANCE)
def test_a_policy_file_with_damaged_text_is_refused_with_its_place_or_is_right(
    shipped: tuple[str, str], chance: Random
) -> None:
    taken_as_file(several_times(shipped[1], changed_text, chance))


@MANY
@given(st.sampled_from(SHIPPED), CHANCE)
def test_a_policy_file_with_other_values_is_refused_with_its_place_or_is_right(
    shipped: tuple[str, str], chance: Random
) -> None:
    data = several_times(LIBRARY.filed[shipped[0]].base.data, changed_data, chance)
    try:
        text = exchange.as_yaml(data)
    except UnicodeEncodeError:
        return
    taken_as_file(text)


# --- imports and patches


EXPORTS = [
    {"format": 1, "modified": modified, "policies": policies}
    for modified, policies in (
        (False, exchange.exported(LIBRARY, modified=False)[:4]),
        (True, [{"id": "no_leader", "params": {"no_leader_count": 4}}, {"id": "ha_switchover", "severity": "normal"}]),
        (True, [{"id": "deadlocks_frequent", "enabled": True, "interval": None, "detect": {"at_least": 3}}]),
    )
]


def taken_as_import(body: bytes, form: Form) -> None:
    """An import of these bytes: all of it, or nothing and the places of what is wrong."""
    before = dict(LIBRARY.policies)
    try:
        document = exchange.read(body, form)
        wanted = exchange.imported(LIBRARY, document)
        try:
            revision = LIBRARY.revised(RevisionKind.IMPORT, wanted, BY)
        except Misfit as error:
            raise ConfigError(exchange.misfits(document, error)) from None
    except ConfigError as error:
        for problem in error.problems:
            assert problem.message
            assert problem.path or problem.line or form is Form.JSON, problem
        if form is Form.YAML:
            assert_placed(error.problems, "import")
    else:
        if revision is not None:
            after = LIBRARY.after(revision)
            assert not after.problems, "what was accepted is in force"
            assert_built_in_rules_held(after.policies)
            again = exchange.exported(after, modified=False)
            whole = {"modified": False, "policies": again}
            same = exchange.imported(after, exchange.read(exchange.as_yaml(whole).encode(), Form.YAML))
            assert after.revised(RevisionKind.IMPORT, same, BY) is None, "it leaves and comes back as it is"
    assert before == LIBRARY.policies and LIBRARY.version == 1, "those that run are untouched"


@MANY
@given(st.sampled_from(EXPORTS), st.sampled_from(list(Form)), CHANCE)
def test_an_import_with_other_values_is_taken_whole_or_refused_with_its_places(
    document: Any, form: Form, chance: Random
) -> None:
    data = several_times(document, changed_data, chance)
    try:
        text = json.dumps(data) if form is Form.JSON else exchange.as_yaml(data)
    except UnicodeEncodeError:
        return
    taken_as_import(as_bytes(text), form)


@MANY
@given(st.sampled_from(EXPORTS), st.sampled_from(list(Form)), CHANCE)
def test_an_import_with_damaged_text_is_taken_whole_or_refused_with_its_places(
    document: Any, form: Form, chance: Random
) -> None:
    text = json.dumps(document, indent=1) if form is Form.JSON else exchange.as_yaml(document)
    taken_as_import(as_bytes(several_times(text, changed_text, chance)), form)


@MANY
@given(st.sampled_from(sorted(LIBRARY.policies)), CHANCE)
def test_a_patch_of_any_shape_is_refused_with_paths_or_what_comes_of_it_is_right(name: str, chance: Random) -> None:
    data = LIBRARY.documents[name].data
    keys = chance.sample(list(data), k=min(len(data), chance.choice([0, 1, 2])))
    patch = several_times({key: data[key] for key in keys} or {"severity": "fatal"}, changed_data, chance)
    if not isinstance(patch, dict):
        return
    try:
        policy = LIBRARY.tried(name, patch)
    except ConfigError as refused:
        pathless = [problem for problem in refused.problems if not problem.path]
    else:
        pathless = []
        assert_right(policy)
        before = LIBRARY.policies[name]
        assert (policy.id, policy.fixed, policy.can_disable) == (before.id, before.fixed, before.can_disable)
        if before.fixed:
            assert policy.detect == before.detect
    assert not pathless


# --- bombs


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize(
    "body",
    [
        b"x" * (strict_yaml.MAX_BYTES + 1),
        b"[" * 3000,
        b'{"a":' * 3000,
        b"a: " * 3000,
        b"- " * 3000 + b"x",
        bytes(range(256)),
        b"\x00",
        b"\xff\xfe\x00",
        b"policies: []\nunknown: 1\n",
    ],
)
def test_what_is_no_document_is_refused(form: Form, body: bytes) -> None:
    with pytest.raises(ConfigError):
        exchange.imported(LIBRARY, exchange.read(body, form))
