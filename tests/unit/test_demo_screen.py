"""The demo's picture fits an ordinary terminal, whatever has happened."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from probed.demo import screen

WIDTH, HEIGHT = 100, 40
HINT = "probed demo break NAME | heal NAME | list            Ctrl-C ends everything"
COMPONENTS = {
    "kong": "api_gateway", "auth": "auth", "rest": "rest", "realtime": "realtime", "storage": "storage",
    "functions": "component", "meta": "component", "studio": "studio",
}  # fmt: skip


def target(component: str, probe: str, outcome: str | None, **readings: Any) -> dict[str, Any]:
    return {"component": component, "probe": probe, "outcome": outcome, "readings": readings}


def instance(outcome: str = "observed") -> dict[str, Any]:
    nodes = [
        {
            "name": name,
            "role": role,
            "targets": [
                target("postgres", "postgres_liveness", outcome, ping_seconds=0.0012),
                target("patroni", "patroni_member", outcome, state="running"),
                target("postgres", "connections", outcome, connections_used_pct=11.0),
            ],
        }
        for name, role in (("node1", "primary"), ("node2", "replica"))
    ]
    targets = [target(name, probe, outcome, http_status=200.0) for name, probe in COMPONENTS.items()]
    targets += [
        target("etcd", "etcd_member", outcome),
        target("etcd", "etcd_quorum", outcome, healthy_members=1.0, members=3.0, quorum=2.0),
        target("haproxy", "haproxy_stats", outcome),
        target("haproxy", "haproxy_routing", outcome),
        target("haproxy", "postgres_liveness", outcome),
        target("patroni", "patroni_cluster", outcome),
        target("postgres", "leader", outcome),
    ]
    return {"name": "demo", "state": "ok", "leader": "node1", "nodes": nodes, "targets": targets}


def event(number: int, state: str) -> dict[str, Any]:
    return {
        "id": str(number), "event": "wal_receiver_interrupted", "severity": "critical", "state": state,
        "suppressed": False, "opened_at": "2026-11-25T16:30:55Z", "node": "node2", "instance": "demo",
        "component": "postgres", "message": f"number {number}: " + "words that go on " * 12,
    }  # fmt: skip


def picture(outcome: str = "observed", events: list[dict[str, Any]] | None = None) -> list[str]:
    console = Console(width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=False)
    console.print(screen.render({"instances": [instance(outcome)]}, events or [], HINT, ["kong", "auth"]))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_everything_that_belongs_to_no_node_is_shown_and_stand_ins_are_marked() -> None:
    text = "\n".join(picture())
    assert "etcd ✕ 1 of 3" in text
    assert "haproxy ● ok" in text
    assert "write port ● ok" in text
    assert "kong* ● ok" in text
    assert "meta ● ok" in text
    assert all(name in text for name in COMPONENTS)
    assert "a stand-in" in text


def test_nothing_is_cut_off_at_a_hundred_columns_even_when_all_of_it_fails() -> None:
    lines = picture("failed")
    assert all(len(line) <= WIDTH for line in lines)
    assert "…" not in "\n".join(lines)
    assert "\n".join(lines).count("✕ failed") >= 2 + len(COMPONENTS)


def test_events_that_are_over_take_a_line_each_and_the_hint_stands_above_them() -> None:
    lines = picture(events=[event(1, "open"), *(event(number, "resolved") for number in range(2, 13))])
    assert len(lines) <= HEIGHT
    assert lines.index(HINT) < next(number for number, line in enumerate(lines) if "number 1:" in line)
    assert sum("number " in line for line in lines) == 12


def test_a_pipe_gets_the_same_in_plain_lines() -> None:
    lines = list(screen.lines({"instances": [instance()]}))
    assert lines[0] == "demo: ok, leader node1"
    assert lines[1].startswith("  node1: role primary  database ● ok  patroni running")
    assert "etcd ✕ 1 of 3  haproxy ● ok  write port ● ok  kong ● ok" in lines[3]


def test_each_service_has_one_place_however_many_probes_look_at_it() -> None:
    names = [name for name, _ in screen._services(instance())]
    assert sorted(names) == sorted(set(names))
