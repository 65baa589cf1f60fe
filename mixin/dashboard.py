"""The Grafana dashboard: ``python -m mixin.dashboard`` writes ``mixin/dashboards/probed.json``.

Rows of panels from a few lines each; a test compares the file with this source, and every query with what is exported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "dashboards" / "probed.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = 'db_instance=~"$db_instance"'
WIDTH, HEIGHT = 24, 8

Query = tuple[str, str]
"""(PromQL, legend)"""


@dataclass(frozen=True)
class Panel:
    title: str
    says: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    high: float | None = None
    """From here on it is drawn red."""
    options: dict[str, Any] = field(default_factory=dict)


ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "Now",
        [
            Panel("Open events", "Announced and not resolved.",
                  [(f"sum by (severity) (probed_event_active{{{CHOSEN}}})", "{{severity}}")], kind="stat", high=1),
            Panel("Databases up", "Share of servers that answered their newest probe.",
                  [(f'avg by (db_instance) (probed_probe_success{{probe="postgres_liveness",{CHOSEN}}})',
                    "{{db_instance}}")], "percentunit", kind="stat"),
            Panel("Not observed", "Targets of which nothing is known, for a reason of ours.",
                  [("probed_blind_targets", "targets")], kind="stat", high=1),
        ],
    ),
    (
        "Events",
        [
            Panel("What is open", "1 while an event is open.",
                  [(f"probed_event_active{{{CHOSEN}}} == 1", "{{event}} {{db_instance}}/{{node}}/{{component}}")],
                  width=16),
            Panel("Announced per hour", "Opened, occurred, or outlived their cause.",
                  [("sum by (event) (increase(probed_events_total[1h])) > 0", "{{event}}")], width=8),
        ],
    ),
    (
        "High availability",
        [
            Panel("Leader", "1 while there is a confirmed one.",
                  [(f"probed_has_leader{{{CHOSEN}}}", "{{db_instance}}")]),
            Panel("Replication lag", "For how long there was WAL that the standby had not replayed.",
                  [(f"probed_replication_lag_seconds{{{CHOSEN}}}", "{{db_instance}}/{{node}}")], "s"),
            Panel("etcd members that are well", "", [(f"probed_etcd_healthy_members{{{CHOSEN}}}", "{{db_instance}}")]),
        ],
    ),
    (
        "PostgreSQL",
        [
            Panel("Ping", "Round trip of one statement.",
                  [(f"probed_ping_latency_seconds{{{CHOSEN}}}", "{{db_instance}}/{{node}}")], "s"),
            Panel("Connections", "Used of those that ordinary roles can have.",
                  [(f"probed_connections_used_ratio{{{CHOSEN}}}", "{{db_instance}}/{{node}}")], "percentunit",
                  high=0.8),
            Panel("Cache hits", "Blocks found in shared buffers.",
                  [(f"probed_cache_hit_ratio{{{CHOSEN}}}", "{{db_instance}}/{{node}}")], "percentunit"),
            Panel("Deadlocks", "Per five minutes.",
                  [(f"increase(probed_deadlocks_total{{{CHOSEN}}}[5m])", "{{db_instance}}/{{node}}")]),
            Panel("Disk", "Used of the fullest file system.",
                  [(f"probed_disk_used_ratio{{{CHOSEN}}}", "{{db_instance}}/{{node}}")], "percentunit", high=0.85),
            Panel("Out of memory", "Processes that the kernel killed, per hour.",
                  [(f"increase(probed_oom_kills_total{{{CHOSEN}}}[1h])", "{{db_instance}}/{{node}}")]),
        ],
    ),
    (
        "probed",
        [
            Panel("Notifications", "By receiver and what became of them, per five minutes.",
                  [("sum by (receiver, outcome) (increase(probed_notifications_total[5m]))",
                    "{{receiver}} {{outcome}}")]),
            Panel("Oldest notification owed", "Above a few seconds, a receiver does not take what it is sent.",
                  [("probed_outbox_oldest_age_seconds", "age")], "s", high=300),
            Panel("Lateness and commits", "99th percentiles.",
                  [("histogram_quantile(0.99, sum by (le) (rate(probed_scheduler_lateness_seconds_bucket[5m])))",
                    "a cycle's start"),
                   ("histogram_quantile(0.99, sum by (le) (rate(probed_store_write_seconds_bucket[5m])))",
                    "a commit")], "s"),
        ],
    ),
)  # fmt: skip

OCCURRENCES = ("ha_switchover", "monitoring_gap", "oom_killed")
"""Events that have no end: nothing is ever active of them, so their counter is looked at."""


@dataclass(frozen=True)
class Annotation:
    """What is drawn across all panels: where the query has a value, from the first of its points to the last."""

    name: str
    query: str
    title: str
    text: str
    tags: str
    colour: str


ANNOTATIONS: Sequence[Annotation] = (
    Annotation("Events", f"probed_event_active{{{CHOSEN}}} == 1", "{{event}}",
               "{{db_instance}} {{node}} {{component}}", "severity,event,db_instance", "red"),
    Annotation("Occurrences",
               f'sum by (event, severity) (increase(probed_events_total{{event=~"{"|".join(OCCURRENCES)}"}}[1m])) > 0',
               "{{event}}", "of any instance: probed names it", "severity,event", "orange"),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    return {
        "uid": "probed",
        "title": "probed",
        "description": "Health and events of PostgreSQL stacks, as probed sees them.",
        "tags": ["postgresql", "probed"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "annotations": {"list": [_built_in(), *(_annotation(one) for one in ANNOTATIONS)]},
        "templating": {"list": [_data_source(), _instances()]},
        "panels": list(_panels()),
    }


def queries() -> Iterator[str]:
    """Every query of the dashboard."""
    for _, panels in ROWS:
        for panel in panels:
            yield from (query for query, _ in panel.queries)
    yield from (one.query for one in ANNOTATIONS)


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for title, panels in ROWS:
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        number, top, left = number + 1, top + 1, 0
        for panel in panels:
            if left + panel.width > WIDTH:
                left, top = 0, top + HEIGHT
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": HEIGHT})
            number, left = number + 1, left + panel.width
        top += HEIGHT


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.high is not None:
        steps.append({"color": "red", "value": panel.high})
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": panel.options,
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend, "datasource": SOURCE}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def _annotation(one: Annotation) -> dict[str, Any]:
    return {
        "name": one.name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": one.colour,
        "expr": one.query,
        "titleFormat": one.title,
        "textFormat": one.text,
        "tagKeys": one.tags,
        "useValueForTime": False,
    }


def _built_in() -> dict[str, Any]:
    """What people write into Grafana by hand; a dashboard that leaves it out cannot show it."""
    return {
        "name": "Annotations & Alerts",
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "blue",
        "type": "dashboard",
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _instances() -> dict[str, Any]:
    query = "label_values(probed_probe_success, db_instance)"
    return {
        "name": "db_instance",
        "label": "instance",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "instances"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def text() -> str:
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")
