"""Layers of policies: what lies over what, where a value comes from, what is refused, and what a revision leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probed.config.settings import Defaults
from probed.errors import ConfigError
from probed.model import Severity, Threshold
from probed.policy.library import Library, Misfit, Origin, Rules, Signed
from probed.policy.load import Catalogue
from probed.policy.site import Site
from probed.probes import catalogue
from probed.revisions import Mark, Patch, RevisionKind

CATALOGUE: Catalogue = {name: frozenset(probe.readings) for name, probe in catalogue().items()}
RULES = Rules(CATALOGUE, Defaults(), Site({"orders": frozenset({"node-a"})}))
ANNE = Signed(1000.0, "anne", "socket", "too many false alarms")
BERT = Signed(2000.0, "bert", "password")

OWN = """\
id: shop_front
name: The shop does not sell
severity: critical
can_disable: false
probe: http
http: {url: "https://shop.example/health"}
params: {failure_count: 3}
detect: {type: threshold, when: failed, count: failure_count}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "deadlocks.yaml").write_text("id: deadlocks_frequent\nenabled: true\nparams:\n  deadlock_count: 7\n")
    (tmp_path / "shop.yaml").write_text(OWN)
    return tmp_path


@pytest.fixture
def library(files: Path) -> Library:
    return Library.read(files, RULES)


def edited(library: Library, policy_id: str, by: Signed = ANNE, **patch: Any) -> Library:
    revision = library.revised(RevisionKind.EDIT, {policy_id: library.edited(policy_id, patch)}, by)
    assert revision is not None
    return library.after(revision)


def complaints(library: Library, policy_id: str, patch: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as refused:
        library.tried(policy_id, patch)
    return {problem.path: problem.message for problem in refused.value.problems}


# --- layers


def test_the_effective_policy_is_built_in_file_then_directory_then_patch(library: Library) -> None:
    changed = edited(library, "deadlocks_frequent", severity="critical", params={"deadlock_count": 9})
    policy = changed.policies["deadlocks_frequent"]
    assert (policy.severity, policy.enabled, policy.params) == (Severity.CRITICAL, True, {"deadlock_count": 9})
    assert changed.layers("deadlocks_frequent") == ("built-in", "file", "patch")
    assert library.policies["deadlocks_frequent"].params == {"deadlock_count": 7}, "a library never changes"


def test_a_policy_that_was_never_changed_is_version_1_and_revisions_count_from_2_over_all_policies(
    library: Library,
) -> None:
    once = edited(library, "no_leader", params={"no_leader_count": 4})
    twice = edited(once, "deadlocks_frequent", severity="fatal")
    versions = {name: twice.policies[name].version for name in ("no_leader", "deadlocks_frequent", "etcd_unavailable")}
    assert versions == {"no_leader": 2, "deadlocks_frequent": 3, "etcd_unavailable": 1}


def test_edits_add_up_and_each_value_names_the_revision_that_gave_it(library: Library) -> None:
    changed = edited(library, "deadlocks_frequent", severity="fatal")
    changed = edited(changed, "deadlocks_frequent", BERT, params={"deadlock_count": 9})
    origins = changed.origins("deadlocks_frequent")
    assert origins["severity"] == Origin("patch", mark=Mark(2, "anne"))
    assert origins["params.deadlock_count"] == Origin("patch", mark=Mark(3, "bert"))


def test_a_value_from_a_file_names_file_line_and_column(library: Library, files: Path) -> None:
    origins = library.origins("deadlocks_frequent")
    assert origins["params.deadlock_count"] == Origin("file", f"{files}/deadlocks.yaml:4:19")
    assert origins["severity"].layer == "built-in"
    assert origins["severity"].where.endswith("deadlocks_frequent.yaml:4:11")
    assert library.origins("shop_front")["severity"] == Origin("file", f"{files}/shop.yaml:3:11")


def test_null_takes_a_key_away_so_that_the_default_holds(library: Library) -> None:
    changed = edited(library, "deadlocks_frequent", interval=None)
    assert changed.policies["deadlocks_frequent"].interval == Defaults().interval
    assert changed.origins("deadlocks_frequent")["interval"] == Origin("patch", mark=Mark(2, "anne"))


def test_an_edit_back_to_what_the_files_say_leaves_no_patch(library: Library) -> None:
    there = edited(library, "no_leader", severity="normal")
    back = edited(there, "no_leader", severity="fatal")
    assert back.patch("no_leader").values == {}
    assert back.layers("no_leader") == ("built-in",)
    assert back.policies["no_leader"].version == 3, "it was touched all the same"


def test_an_edit_that_changes_nothing_is_no_revision(library: Library) -> None:
    wanted = {"no_leader": library.edited("no_leader", {"severity": "fatal"})}
    assert library.revised(RevisionKind.EDIT, wanted, ANNE) is None


def test_a_rule_can_be_replaced_whole(library: Library) -> None:
    changed = edited(library, "no_leader", detect={"count": 6}, params=None)
    rule = changed.policies["no_leader"].detect
    assert isinstance(rule, Threshold)
    assert rule.count == 6


def test_one_value_can_be_restored_and_so_can_all(library: Library) -> None:
    changed = edited(library, "deadlocks_frequent", severity="fatal", params={"deadlock_count": 9})
    assert changed.restored("deadlocks_frequent", "params.deadlock_count") == {"severity": "fatal"}
    assert changed.restored("deadlocks_frequent") == {}


def test_a_revision_tells_what_it_changes_as_it_is_written(library: Library) -> None:
    wanted = library.edited("deadlocks_frequent", {"interval": "30s", "params": {"deadlock_count": 9}})
    revision = library.revised(RevisionKind.EDIT, {"deadlocks_frequent": wanted}, ANNE)
    assert revision is not None
    told = [(item.path, item.before, item.after) for item in revision.touched[0].differences]
    assert told == [("interval", "60s", "30s"), ("params.deadlock_count", 7, 9)]
    assert (revision.author, revision.via, revision.reason) == ("anne", "socket", "too many false alarms")


# --- files that change under a patch


def test_files_read_anew_are_under_the_same_patches(library: Library, files: Path) -> None:
    changed = edited(library, "deadlocks_frequent", severity="fatal")
    (files / "deadlocks.yaml").write_text("id: deadlocks_frequent\nparams: {deadlock_count: 8}\n")
    again = Library.read(files, RULES, changed.patches, changed.version)
    policy = again.policies["deadlocks_frequent"]
    assert (policy.params["deadlock_count"], policy.severity, policy.version) == (8, Severity.FATAL, 2)


def test_a_patch_that_no_longer_fits_is_told_and_kept_and_the_files_hold(library: Library, files: Path) -> None:
    changed = edited(library, "shop_front", params={"failure_count": 5})
    (files / "shop.yaml").write_text(OWN.replace("params: {failure_count: 3}\n", "").replace("failure_count}", "4}"))
    again = Library.read(files, RULES, changed.patches, changed.version)
    assert [problem.path for problem in again.problems["shop_front"]] == ["params.failure_count"]
    policy = again.policies["shop_front"]
    assert (policy.detect, policy.version) == (Threshold(policy.detect.when, 4), 1)  # type: ignore[union-attr] # a threshold
    assert again.patch("shop_front").values == {"params": {"failure_count": 5}}
    assert again.layers("shop_front") == ("file",)


def test_a_policy_whose_patch_does_not_fit_is_mended_by_restoring_it(library: Library) -> None:
    broken = library.with_patches({"no_leader": Patch(2, "anne", {"params": {"gone": 1}})}, 2)
    with pytest.raises(Misfit, match="restore the policy first"):
        broken.revised(RevisionKind.EDIT, {"no_leader": broken.edited("no_leader", {"severity": "normal"})}, ANNE)
    revision = broken.revised(RevisionKind.RESTORE, {"no_leader": broken.restored("no_leader")}, ANNE)
    assert revision is not None
    assert broken.after(revision).problems == {}


def test_the_patch_of_a_policy_that_no_file_has_any_more_is_kept_without_effect(library: Library) -> None:
    changed = edited(library, "shop_front", severity="fatal")
    again = Library.read(None, RULES, changed.patches, changed.version)
    assert set(again.strangers) == {"shop_front"}
    assert "shop_front" not in again.policies


# --- refusals


@pytest.mark.parametrize(
    "patch, path, message",
    [
        ({"params": {"failure_count": 0}}, "params.failure_count", "expected a whole number from 1 to 1000, got 0"),
        ({"params": {"failure_cont": 3}}, "params.failure_cont", 'did you mean "failure_count"?'),
        ({"severty": "fatal"}, "severty", 'unknown key "severty"; did you mean "severity"?'),
        ({"severity": "grave"}, "severity", "expected 'fatal', 'critical' or 'normal', got \"grave\""),
        ({"interval": 5}, "interval", "expected a duration with its unit"),
        ({"interval": "1ms"}, "interval", "expected a duration from 100ms to 7d, got 0.001 s"),
        ({"interval": "9999d"}, "interval", "expected a duration from 100ms to 7d"),
        ({"confirm_interval": "1ms"}, "confirm_interval", "expected a duration from 100ms to 7d"),
        ({"interval": "1s", "timeout": "2s"}, "timeout", "below the interval"),
        ({"detect": {"when": "lag >= 3"}}, "detect.when", 'no reading "lag"'),
        ({"detect": None}, "detect", "missing"),
        ({"id": "other"}, "id", "cannot be changed"),
        ({"can_disable": True}, "can_disable", "cannot be changed"),
        ({"fixed": True}, "fixed", "cannot be changed"),
        ({"http": {"url": "http://169.254.169.254/"}}, "http", "comes from files only"),
        ({"sql": {"statement": "SELECT 1"}, "probe": "sql"}, "sql", "comes from files only"),
        ({"probe": "http"}, "probe", 'the key "http" is missing'),
        ({"evidence": ["patroni_clutser"]}, "evidence[0]", 'did you mean "patroni_cluster"?'),
        ({"instances": ["order"]}, "instances[0]", 'did you mean "orders"?'),
        ({"params": {"failure_count": 1e400}}, "params.failure_count", "expected a number of at most 1e+18"),
        ({"params": {"failure_count": 10**400}}, "params.failure_count", "expected a number of at most 1e+18"),
        ({"name": "a\x1b[2Jb"}, "name", "printable"),
        ({"name": "\ud800"}, "name", "printable"),
        ({"": "x"}, '""', "expected a printable word as key"),
        ({"params": {"a\x00": 1}}, "params.a?", "expected a printable word as key"),
        ({"name": ""}, "name", "at least 1 character"),
    ],
)
def test_a_patch_is_refused_with_the_path_what_was_expected_and_what_was_found(
    library: Library, patch: dict[str, Any], path: str, message: str
) -> None:
    assert message in complaints(library, "database_unavailable", patch)[path]


def test_all_problems_of_a_patch_are_told_at_once(library: Library) -> None:
    patch = {"severity": "grave", "params": {"failure_count": 0}, "intervall": "3s"}
    assert set(complaints(library, "database_unavailable", patch)) == {"severity", "params.failure_count", "intervall"}


@pytest.mark.parametrize("key", ["detect", "params", "probe"])
def test_the_rule_of_a_fixed_policy_is_refused_but_severity_and_switch_change(library: Library, key: str) -> None:
    assert "fixed; severity and enabled can be changed" in complaints(library, "ha_switchover", {key: {}})[key]
    policy = library.tried("ha_switchover", {"severity": "normal", "enabled": False})
    assert (policy.severity, policy.enabled) == (Severity.NORMAL, False)


def test_a_mandatory_policy_cannot_be_switched_off(library: Library) -> None:
    assert "mandatory" in complaints(library, "shop_front", {"enabled": False})["enabled"]


def test_where_a_question_is_asked_comes_from_files_too(library: Library) -> None:
    assert "comes from files only" in complaints(library, "shop_front", {"instances": ["orders"]})["instances"]
    assert library.tried("no_leader", {"instances": ["orders"]}).instances == ("orders",)


def test_a_policy_cannot_be_called_like_a_path_of_the_api(files: Path) -> None:
    (files / "shop.yaml").write_text(OWN.replace("id: shop_front", "id: history"))
    with pytest.raises(ConfigError, match=r"shop.yaml:1:5: id: the API has /policies/history for something else"):
        Library.read(files, RULES)


def test_a_patch_3000_levels_deep_is_refused_without_recursion(library: Library) -> None:
    patch: dict[str, Any] = {}
    inner = patch
    for _ in range(3000):
        inner["params"] = {}
        inner = inner["params"]
    assert "nested deeper than 32 levels" in next(iter(complaints(library, "no_leader", patch).values()))


def test_trying_a_patch_changes_nothing_and_names_the_version_that_it_would_get(library: Library) -> None:
    tried = library.tried("no_leader", {"params": {"no_leader_count": 5}})
    assert (tried.params, tried.version) == ({"no_leader_count": 5}, 2)
    assert library.policies["no_leader"].params == {"no_leader_count": 2}
    assert library.patches == {}


def test_an_unknown_policy_is_named_with_the_one_that_was_meant(library: Library) -> None:
    assert 'did you mean "no_leader"?' in complaints(library, "no_leadr", {})["id"]
