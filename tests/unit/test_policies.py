"""Policies: the shipped ones are the contract's, examples prove them, and overrides keep the rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from probed import evidence
from probed.config.settings import Defaults
from probed.errors import ConfigError
from probed.model import Change, Comparison, Condition, Increase, Occurrence, Policy, Severity, Threshold
from probed.policy import examples
from probed.policy.layers import shipped_files
from probed.policy.load import Catalogue, load
from probed.policy.parameters import PARAMETERS, parse
from probed.probes import catalogue

CATALOGUE: Catalogue = {name: frozenset(probe.readings) for name, probe in catalogue().items()}
SHIPPED = load(None, CATALOGUE, Defaults())

BEYOND = {path.stem for path in shipped_files() if path.parent.name == "beyond"}
"""Not of the contract: about the observer itself, and two primaries."""

_LIVENESS: dict[str, float] = {"failure_count": 3}
CONTRACT: dict[str, tuple[str, str, str, dict[str, float] | str, bool, bool]] = {
    "oom_killed": ("Process killed by OOMKiller", "Instance", "critical", "fixed", True, True),
    "database_unavailable": ("Database access unavailable", "Instance", "fatal", _LIVENESS, True, True),
    "api_gateway_unavailable": ("API Gateway access unavailable", "Instance", "fatal", _LIVENESS, True, True),
    "ha_switchover": ("Database HA primary/replica switchover", "Instance", "critical", "fixed", True, True),
    "no_leader": ("HA cluster having no Leader", "Instance", "fatal", {"no_leader_count": 2}, True, True),
    "replication_lag_high": ("Primary/replica replication delay too high", "Instance", "critical",
                             {"lag_threshold_sec": 30, "sample_count": 2}, True, True),
    "wal_receiver_interrupted": ("WAL Receiver stream interruption", "Instance", "critical", {"sample_count": 2}, True, True),
    "patroni_node_abnormal": ("Abnormal Patroni node status", "Instance", "critical", {"sample_count": 2}, True, True),
    "etcd_unavailable": ("etcd unavailable", "Instance", "fatal", _LIVENESS, True, True),
    "connections_high": ("Number of database connections too high", "Instance", "critical",
                         {"usage_pct": 80, "sample_count": 2}, True, True),
    "deadlocks_frequent": ("Frequent deadlocks", "Instance", "normal", {"deadlock_count": 5}, True, False),
    "cache_hit_ratio_low": ("Cache hit ratio too low", "Instance", "normal",
                            {"hit_ratio_threshold": 90, "sample_count": 2, "min_blocks": 10_000, "warmup_sec": 600},
                            True, False),
    "auth_unavailable": ("Authentication service unavailable", "TCBase", "critical", _LIVENESS, True, True),
    "rest_unavailable": ("REST API service unavailable", "TCBase", "critical", _LIVENESS, True, True),
    "realtime_unavailable": ("Realtime service unavailable", "TCBase", "critical", _LIVENESS, True, True),
    "storage_unavailable": ("Storage service unavailable", "TCBase", "critical", _LIVENESS, True, True),
    "component_abnormal": ("Abnormal component running status", "TCBase", "normal", _LIVENESS, True, True),
    "ping_latency_high": ("Database ping latency too high", "TCBase", "normal",
                          {"latency_threshold": 0.1, "sample_count": 2}, True, False),
    "capacity_high": ("Database capacity alert", "TCBase", "normal", {"size_threshold": 10_737_418_240}, True, False),
    "haproxy_unavailable": ("HAProxy unavailable", "TCBase", "fatal", _LIVENESS, True, True),
    "studio_unavailable": ("Studio management panel unavailable", "TCBase", "normal", _LIVENESS, True, True),
}  # fmt: skip
"""events.md, word for word: event name, group, severity, parameters, can_disable, enabled."""


@pytest.mark.parametrize("identity", [identity for identity in SHIPPED if identity not in BEYOND])
def test_a_shipped_policy_is_that_of_the_contract(identity: str) -> None:
    name, group, severity, params, can_disable, enabled = CONTRACT[identity]
    policy = SHIPPED[identity]
    assert (policy.name, policy.group, policy.severity.value) == (name, group, severity)
    assert policy.params == ({} if params == "fixed" else params)
    assert policy.fixed == (params == "fixed")
    assert (policy.can_disable, policy.enabled) == (can_disable, enabled)


def test_every_shipped_file_is_named_by_its_id() -> None:
    assert {path.stem for path in shipped_files()} == set(SHIPPED)


def test_the_21_events_of_the_contract_stand_apart_from_those_beyond_it() -> None:
    assert {
        "canary", "dns_failing", "inspection_done", "monitoring_gap", "notification_failed", "observer_isolated",
        "pipeline_broken", "probe_blind", "self_fd_exhausted", "self_lag", "split_brain", "store_degraded",
    } == BEYOND  # fmt: skip
    assert not BEYOND & set(CONTRACT)


@pytest.mark.parametrize("identity", SHIPPED)
def test_a_shipped_policy_says_what_it_means_what_to_do_and_shows_itself_working(identity: str) -> None:
    policy = SHIPPED[identity]
    assert len(policy.description) > 40
    assert len(policy.suggestion) > 40
    assert policy.examples


def test_intervals_are_those_of_the_contract() -> None:
    slow = {"deadlocks_frequent", "cache_hit_ratio_low", "capacity_high"}
    assert {p.id: p.interval for p in SHIPPED.values()} == {
        identity: 60.0 if identity in slow else 5.0 for identity in SHIPPED
    }


def test_a_replica_alone_is_critical_and_everything_else_has_one_severity() -> None:
    assert {p.id: p.replica_severity for p in SHIPPED.values() if p.replica_severity} == {
        "database_unavailable": Severity.CRITICAL
    }


def test_the_grace_after_a_switchover_is_that_of_the_contract() -> None:
    assert {p.id for p in SHIPPED.values() if p.switchover_grace} == {
        "wal_receiver_interrupted", "replication_lag_high", "patroni_node_abnormal", "ping_latency_high",
        "cache_hit_ratio_low", "connections_high",
    }  # fmt: skip


def test_every_parameter_of_a_shipped_policy_is_documented_and_used() -> None:
    for policy in SHIPPED.values():
        text = Path(policy.source).read_text()
        detect = text[text.index("detect:") : text.index("examples:")]
        for name in policy.params:
            assert name in PARAMETERS
            assert name in detect


# --- examples


@pytest.mark.parametrize("identity", SHIPPED)
def test_the_examples_of_a_shipped_policy_come_out_as_written(identity: str) -> None:
    assert [str(mismatch) for mismatch in examples.run(SHIPPED[identity])] == []


_OTHER_OPS = {">=": (">", "<"), ">": (">=", "<"), "<": ("<=", ">="), "==": ("!=",)}


def mutants(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """The policy with one thing wrong in its rule, in every way that an example can tell."""
    rule = policy.detect
    if isinstance(rule, Threshold | Increase):
        for count in {rule.resolve_count - 1, rule.resolve_count + 1} - {0}:
            yield f"resolve_count {count}", replace(policy, detect=replace(rule, resolve_count=count))
    if isinstance(rule, Threshold):
        for count in {rule.count - 1, rule.count + 1} - {0}:
            yield f"count {count}", replace(policy, detect=replace(rule, count=count))
        for first in rule.when.comparisons[:1]:
            for op in _OTHER_OPS[first.op]:
                when = Condition((replace(first, op=op), *rule.when.comparisons[1:]))
                yield f"{first.reading} {op}", replace(policy, detect=replace(rule, when=when))
    if isinstance(rule, Increase):
        yield "at_least + 1", replace(policy, detect=replace(rule, at_least=rule.at_least + 1))
        yield "window * 2", replace(policy, detect=replace(rule, window=rule.window * 2))
    if isinstance(rule, Change):
        yield "every sample with an identity", replace(policy, detect=Occurrence(rule.reading))


MUTANTS = [
    pytest.param(mutant, id=f"{policy.id}: {what}") for policy in SHIPPED.values() for what, mutant in mutants(policy)
]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_rule_that_was_changed_breaks_one_of_its_examples(mutant: Policy) -> None:
    try:
        mismatches = examples.run(mutant)
    except ValueError:
        return
    assert mismatches


def test_a_mismatch_shows_what_was_expected_and_what_came() -> None:
    policy = SHIPPED["database_unavailable"]
    assert isinstance(policy.detect, Threshold)
    (first, *_) = examples.run(replace(policy, detect=replace(policy.detect, count=2)))
    assert str(first) == (
        "database_unavailable: two failures are not an outage: expected . . . . . O . R, got . O . . . . . R"
    )


def test_a_token_that_means_nothing_is_told() -> None:
    policy = SHIPPED["replication_lag_high"]
    wrong = replace(policy, examples=(replace(policy.examples[0], samples=("soon",), events=(".",)),))
    with pytest.raises(ValueError, match='token "soon": expected ok, F, B, or a number or quantity'):
        examples.run(wrong)


# --- overrides and additions


def laid(tmp_path: Path, **files: str) -> dict[str, Policy]:
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return load(tmp_path, CATALOGUE, Defaults())


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        laid(tmp_path, mine=text)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


OWN = """\
id: my_lag
name: My lag
severity: normal
probe: replication_lag
params: {limit: 5}
detect: {type: threshold, when: "lag_seconds >= limit", count: 1}
"""


def test_an_override_names_only_what_it_changes(tmp_path: Path) -> None:
    policies = laid(tmp_path, x="{id: deadlocks_frequent, enabled: true}")
    assert policies["deadlocks_frequent"] == replace(SHIPPED["deadlocks_frequent"], enabled=True)
    assert {name: p for name, p in policies.items() if name != "deadlocks_frequent"} == {
        name: p for name, p in SHIPPED.items() if name != "deadlocks_frequent"
    }


def test_an_overridden_parameter_reaches_the_rule_in_base_units(tmp_path: Path) -> None:
    policies = laid(
        tmp_path,
        a="{id: replication_lag_high, params: {lag_threshold_sec: 2m}}",
        b="{id: capacity_high, params: {size_threshold: 20GiB}}",
        c="{id: database_unavailable, params: {failure_count: 5}, interval: 10s, severity: critical}",
    )
    lag, capacity, database = (
        policies[name].detect for name in ("replication_lag_high", "capacity_high", "database_unavailable")
    )
    assert isinstance(lag, Threshold)
    assert isinstance(capacity, Threshold)
    assert isinstance(database, Threshold)
    assert lag.when.comparisons[0] == Comparison("lag_seconds", ">=", 120.0, "lag_threshold_sec")
    assert lag.count == 2
    assert capacity.when.comparisons[0].value == 20 * 2**30
    assert database.count == 5
    assert policies["database_unavailable"].interval == 10.0
    assert policies["database_unavailable"].severity is Severity.CRITICAL


def test_a_policy_of_ones_own_is_one_file(tmp_path: Path) -> None:
    policy = laid(tmp_path, mine=OWN)["my_lag"]
    assert policy.detect == Threshold(Condition((Comparison("lag_seconds", ">=", 5, "limit"),)), 1)
    assert (policy.group, policy.enabled, policy.interval, policy.timeout) == ("Custom", True, 5.0, 2.0)


def test_files_that_are_no_yaml_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("{")
    (tmp_path / "x.yaml~").write_text("{")
    assert laid(tmp_path) == SHIPPED


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{id: ha_switchover, detect: {type: change, reading: leader}}",
         'mine.yaml:1:21: detect: the rule of "ha_switchover" is fixed; severity and enabled can be changed'),
        ("{id: ha_switchover, probe: leader}", 'mine.yaml:1:21: probe: the rule of "ha_switchover" is fixed'),
        ("{id: ha_switchover, params: {x: 1}}", 'mine.yaml:1:21: params: the rule of "ha_switchover" is fixed'),
        ("{id: no_leader, fixed: true}", "mine.yaml:1:17: fixed: belongs to the event and cannot be changed"),
        ("{id: no_leader, can_disable: false}", "mine.yaml:1:17: can_disable: belongs to the event and cannot be changed"),
        ("{id: no_leader, enable: false}", 'mine.yaml:1:17: enable: unknown key "enable"; did you mean "enabled"?'),
        ("{id: no_leader, severity: high}", "mine.yaml:1:27: severity: expected 'fatal', 'critical' or 'normal'"),
        ("{id: no_leader, params: {no_leader_count: 0}}",
         "mine.yaml:1:43: params.no_leader_count: expected a whole number from 1 to 1000, got 0"),
        ("{id: no_leader, params: {no_leader_count: 2.5}}", "mine.yaml:1:43: params.no_leader_count: expected a whole"),
        ("{id: no_leader, params: {no_leader_count: two}}",
         'mine.yaml:1:43: params.no_leader_count: expected a whole number from 1 to 1000, got "two"'),
        ("{id: no_leader, params: {no_leader_count: true}}", "mine.yaml:1:43: params.no_leader_count: expected an integer"),
        ("{id: replication_lag_high, params: {lag_threshold_sec: 30 s}}",
         "mine.yaml:1:56: params.lag_threshold_sec: expected seconds (or a duration such as 100ms) from 0.1"),
        ("{id: connections_high, params: {usage_pct: 101}}",
         "mine.yaml:1:44: params.usage_pct: expected a percentage from 1 to 100, got 101"),
        ("{id: no_leader, interval: 1s, timeout: 1s}", "mine.yaml:1:40: timeout: expected a duration below the interval"),
        ("{id: no_leader, interval: 5s, confirm_interval: 6s}",
         "mine.yaml:1:49: confirm_interval: expected at most the interval (5 s)"),
        ("{id: no_leader, probe: leader_}", 'mine.yaml:1:24: probe: no such probe "leader_"; did you mean "leader"?'),
        ("{id: no_leader, evidence: [patroni_cluster, patroni_histroy]}",
         'mine.yaml:1:45: evidence[1]: no such collector "patroni_histroy"; did you mean "patroni_history"?'),
        ("{id: no_leader, evidence: [disk, disk]}", 'mine.yaml:1:34: evidence[1]: "disk" stands here twice'),
        ("{id: no_leader, detect: {when: has_leadr == 0}}",
         'mine.yaml:1:32: detect.when: the probe has no reading "has_leadr"; did you mean "has_leader"?'),
        ("{id: no_leader, detect: {count: no_leader}}",
         'mine.yaml:1:33: detect.count: "no_leader" is not a parameter of this policy; did you mean "no_leader_count"?'),
        ("{id: no_leader, detect: {resolve_count: 0}}",
         "mine.yaml:1:41: detect.resolve_count: expected a whole number of at least 1, got 0"),
        ("{id: deadlocks_frequent, detect: {reading: deadlock}}",
         'mine.yaml:1:44: detect.reading: probe "postgres_stats" has no reading "deadlock"; did you mean "deadlocks"?'),
        ("{id: deadlocks_frequent, detect: {at_least: 0}}",
         "mine.yaml:1:45: detect.at_least: expected a number above 0, got 0"),
        ("{id: no_leader, examples: [{says: x, samples: 0 0, events: .}]}",
         "mine.yaml:1:28: examples[0]: expected one event token per sample, got 2 samples and 1 events"),
        ("id: no_leader\nid: x", 'mine.yaml:2:1: id: duplicate key "id", first at line 1'),
        ("enabled: true", 'mine.yaml:1:1: id: expected a map with an "id" that names the event'),
        ("[]", "mine.yaml:1:1: id: expected a map"),
        ("", "mine.yaml:1:1: id: expected a map"),
        ("id: 5", 'mine.yaml:1:5: id: expected a map with an "id" that names the event'),
        (OWN.replace("my_lag", "My-Lag"), "mine.yaml:1:5: id: expected text that matches"),
        (OWN + "enabled: false\ncan_disable: false",
         'mine.yaml:7:10: enabled: "my_lag" is mandatory (can_disable: false) and cannot be switched off'),
        (OWN.replace("5}", "'1e999'}"), "mine.yaml:5:17: params.limit: expected a number that can be reckoned with"),
        (OWN.replace("count: 1", "count: limits"), 'mine.yaml:6:64: detect.count: "limits" is not a parameter'),
        (OWN.replace("threshold,", "treshold,"),
         'mine.yaml:6:16: detect.type: expected one of threshold, increase, change, occurrence, got "treshold"; did you'),
        ("{id: no_leader, detect: {type: treshold}}", "mine.yaml:1:32: detect.type: expected one of threshold, "),
        ("{id: no_leder, params: {no_leader_count: 3}}",
         'mine.yaml:1:6: id: there is no policy "no_leder" to change; did you mean "no_leader"? (one of your own names '),
        (OWN.replace("name: My lag\n", ""), 'mine.yaml:1:1: name: required key "name" is missing'),
    ],
)  # fmt: skip
def test_a_mistake_in_a_policy_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text)[0].startswith(expected), problems(tmp_path, text)


def test_a_fixed_event_can_be_switched_off_and_graded_anew(tmp_path: Path) -> None:
    policy = laid(tmp_path, x="{id: ha_switchover, enabled: false, severity: normal}")["ha_switchover"]
    assert (policy.enabled, policy.severity) == (False, Severity.NORMAL)


def test_a_mandatory_policy_of_ones_own_can_be_kept_on(tmp_path: Path) -> None:
    assert laid(tmp_path, mine=OWN + "can_disable: false")["my_lag"].enabled


def test_two_new_policies_of_one_id_are_refused_at_the_second(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        laid(tmp_path, a=OWN, b=OWN)
    (problem,) = caught.value.problems
    assert problem.where.endswith("b.yaml")
    assert 'policy "my_lag" stands in' in problem.message


def test_the_problems_of_every_file_are_told_at_once_and_nothing_is_half_applied(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        laid(
            tmp_path,
            a="{id: no_leader, params: {no_leader_count: 0}, detect: {when: x == 0}, interval: 1s, timeout: 2s}",
            b="{",
            c="{id: ha_switchover, detect: {type: change, reading: leader}}",
            d=OWN + "nope: 1",
        )
    places = [Path(problem.where).stem for problem in caught.value.problems]
    assert sorted(places) == ["a", "a", "a", "b", "c", "d"]


def test_a_directory_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policies\.directory: expected a directory"):
        load(tmp_path / "none", CATALOGUE, Defaults())


def test_policies_that_name_no_interval_follow_the_defaults() -> None:
    defaults = Defaults.model_construct(interval=10.0, timeout=4.0, switchover_grace=60.0)
    policies = load(None, CATALOGUE, defaults)
    assert (policies["no_leader"].interval, policies["no_leader"].timeout) == (10.0, 4.0)
    assert (policies["capacity_high"].interval, policies["capacity_high"].timeout) == (60.0, 4.0)


def test_a_deadline_is_never_longer_than_four_fifths_of_the_interval(tmp_path: Path) -> None:
    assert laid(tmp_path, x="{id: no_leader, interval: 1s}")["no_leader"].timeout == 0.8


# --- parameters


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_bounds_of_a_parameter_are_themselves_allowed(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter.parse(parameter.low) == parameter.low
    assert parameter.parse(parameter.high) == parameter.high
    for outside in (parameter.low - 1, parameter.high * 2 + 1):
        with pytest.raises(ValueError, match="expected"):
            parameter.parse(outside)


def test_a_parameter_of_ones_own_takes_any_quantity() -> None:
    assert [parse("mine", value) for value in (5, 1.5, "2m", "1KiB", "-3")] == [5, 1.5, 120, 1024, -3]


@pytest.mark.parametrize("value", [None, True, [], "soon", float("inf"), float("nan")])
def test_a_parameter_of_ones_own_that_is_no_quantity_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse("mine", value)


def test_a_parameter_that_no_part_of_the_rule_uses_is_a_mistake_and_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{id: no_leader, params: {no_leader_cont: 3}}\n")
    with pytest.raises(ConfigError, match=r'1:26.*"no_leader_cont"; did you mean "no_leader_count"\?'):
        load(tmp_path, CATALOGUE, Defaults())


def test_a_rule_of_ones_own_may_leave_a_built_in_parameter_unused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text('{id: capacity_high, detect: {when: "used_pct >= 90"}}\n')
    assert load(tmp_path, CATALOGUE, Defaults())["capacity_high"].params["size_threshold"] == 10 * 2**30


def test_values_out_of_bounds_are_told_together_with_unknown_keys(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{id: no_leader, params: {no_leader_count: 0}, enabeld: false}\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, CATALOGUE, Defaults())
    assert ["no_leader_count" in str(problem) for problem in caught.value.problems] == [True, False]


def test_a_forbidden_change_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{id: ha_switchover, detect: {type: threshold, when: failed, count: 2}}\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, CATALOGUE, Defaults())
    assert len(caught.value.problems) == 1


def test_every_shipped_policy_names_evidence_and_every_collector_is_named_by_one() -> None:
    policies = load(None, CATALOGUE, Defaults())
    assert all(policy.evidence for policy in policies.values() if policy.group != "Observer" and policy.enabled)
    assert {name for policy in policies.values() for name in policy.evidence} == evidence.names()
