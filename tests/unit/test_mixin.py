"""The rules and the dashboard speak of metrics that are really exported, with labels that these really have."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixin import dashboard
from probed.config.settings import Defaults
from probed.metrics import CATALOGUE
from probed.model import Change, Occurrence
from probed.policy.library import Library, Rules
from probed.probes import catalogue

ROOT = Path(__file__).parents[2]
MIXIN = ROOT / "mixin"
RULES = ("rules.yaml", "alerts.yaml", "event-alerts.yaml")
PROMTOOL = shutil.which("promtool")
_ENDINGS = {"histogram": ("_bucket", "_sum", "_count"), "info": ("",), "gauge": ("",), "counter": ("",)}
EXPORTED = {
    series.name + ending: {*series.labels, *(["le"] if ending == "_bucket" else [])}
    for series in CATALOGUE
    for ending in _ENDINGS[series.type]
}
"""Name of a series -> its labels."""


def rules() -> Iterator[dict[str, Any]]:
    for name in RULES:
        for group in yaml.safe_load((MIXIN / name).read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


RECORDED = {rule["record"] for rule in rules() if "record" in rule}
QUERIES = [*(rule["expr"] for rule in rules()), *dashboard.queries()]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_what_is_exported(query: str) -> None:
    words = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.sub(r'"[^"]*"', '""', query))
    names = [word for word in words if "probed_" in word or word.startswith("probed:")]
    names = [name for name in names if name != "probed_severity"]
    assert names or query.startswith("label_replace")
    assert set(names) <= EXPORTED.keys() | RECORDED
    allowed = set().union(*(EXPORTED.get(name, {"db_instance", "node", "severity"}) for name in names))
    used = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=(?!=))", re.sub(r"==", "", query)))
    for group in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", query):
        used |= {label.strip() for label in group.split(",")}
    assert used <= allowed, f"{used - allowed}: no label of {names}"


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert rule["annotations"].keys() >= {"summary", "description"}


def test_what_annotations_name_is_a_label_of_the_alert() -> None:
    for rule in rules():
        told = " ".join(rule.get("annotations", {}).values())
        for label in re.findall(r"\$labels\.([a-z_]+)", told):
            labels = set().union(*(EXPORTED[name] for name in EXPORTED if name in rule["expr"]))
            assert label in labels, f"{rule['alert']}: {label}"


def test_the_dashboard_in_the_repository_is_the_one_of_its_source() -> None:
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.text(), "run: python -m mixin.dashboard"


def test_occurrences_are_those_of_the_policies() -> None:
    """They would be missing from the dashboard without a word."""
    rules = Rules({name: frozenset(probe.readings) for name, probe in catalogue().items()}, Defaults())
    policies = Library.read(None, rules).policies.values()
    occurring = {one.id for one in policies if isinstance(one.detect, Change | Occurrence)}
    assert {*dashboard.OCCURRENCES} == occurring - {"canary", "inspection_done"}, (
        "these two say nothing of what is watched"
    )


def test_panels_do_not_overlap_and_each_has_a_number_of_its_own() -> None:
    panels = dashboard.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing (apt-get install prometheus)")
def test_the_rules_are_valid_and_their_own_tests_pass() -> None:
    assert PROMTOOL is not None
    for command in (["check", "rules", *RULES], ["test", "rules", "tests.yaml"]):
        done = subprocess.run([PROMTOOL, *command], cwd=MIXIN, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_by_a_test_of_the_rules() -> None:
    tried = {
        case["alertname"]
        for test in yaml.safe_load((MIXIN / "tests.yaml").read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", [])
        if case["exp_alerts"]
    }
    assert tried == {rule["alert"] for rule in rules() if "alert" in rule}
