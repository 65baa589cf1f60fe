"""What the demo shows: the instance and its events, from the same JSON that the API gives everybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from probed.quantity import human_bytes, human_seconds

Json = Mapping[str, Any]

_STYLES = {"fatal": "bold white on red", "critical": "bold yellow", "normal": "cyan"}
_SHAPES = {"observed": "●", "failed": "✕", "blind": "○", "not_applicable": "·", None: "…"}


def render(status: Json, events: Sequence[Json], hint: str, stand_ins: Collection[str] = ()) -> RenderableType:
    """The whole picture for a terminal. ``stand_ins`` are components that are marked as such."""
    instances = status["instances"]
    parts: list[RenderableType] = [_instance(instance, stand_ins) for instance in instances]
    # Last, so that a small terminal cuts off the oldest events and nothing else.
    parts += [Text(hint, style="dim"), _events(events)]
    return Group(*parts)


def lines(status: Json) -> Iterable[str]:
    """The instance in plain lines, for a log or a pipe."""
    for instance in status["instances"]:
        yield f"{instance['name']}: {instance['state']}, leader {instance['leader'] or 'unknown'}"
        for node in instance["nodes"]:
            # The first column says which row it is, the others need their titles.
            name, *cells = _row(node)
            told = (f"{title} {cell.strip()}" for title, cell in zip(_COLUMNS[1:], cells, strict=True) if cell.strip())
            yield f"  {name}: {'  '.join(told)}"
        yield "  " + "  ".join(f"{name} {word}" for name, word in _services(instance))


def event_line(event: Json) -> str:
    """One event in one plain line."""
    word = event["state"] if not event["suppressed"] else f"{event['state']}, held back"
    what = f"{event['event']} on {_where(event)} ({word})"
    return f"{_clock(event)} {event['severity'].upper():8} {what}: {event['message']}"


_SERVICES_IN_A_ROW = 4
_COLUMNS = ("node", "role", "database", "patroni", "receiver", "lag", "connections", "ping")


def _instance(instance: Json, stand_ins: Collection[str]) -> Panel:
    table = Table(box=None, pad_edge=False, expand=False)
    for title in _COLUMNS:
        table.add_column(title, no_wrap=True)
    for node in instance["nodes"]:
        table.add_row(*_row(node))
    badge = Text(f" {instance['state']} ", style=_STYLES.get(instance["state"], "bold green"))
    heading = Text.assemble((instance["name"], "bold"), "  ", badge, f"  leader {instance['leader'] or 'unknown'}")
    services = Table(box=None, pad_edge=False, expand=False, show_header=False)
    for _ in range(_SERVICES_IN_A_ROW):
        services.add_column(no_wrap=True)
    cells = [_service(name, word, name in stand_ins) for name, word in _services(instance)]
    for start in range(0, len(cells), _SERVICES_IN_A_ROW):
        services.add_row(*cells[start : start + _SERVICES_IN_A_ROW])
    parts: list[RenderableType] = [table, "", services]
    if stand_ins:
        parts.append(Text("* a stand-in that only answers as was recorded", style="dim"))
    return Panel(Group(*parts), title=heading, title_align="left")


def _service(name: str, word: str, stands_in: bool) -> Text:
    return Text.assemble((f"{name}{'*' if stands_in else ''} ", "dim"), word)


def _services(instance: Json) -> Iterable[tuple[str, str]]:
    """(name, how it is) of everything that belongs to no node."""
    for target in sorted(instance["targets"], key=_position):
        if target["component"] == "observer":  # the daemon itself, which tells by events
            continue
        match target["probe"]:
            case "etcd_quorum":
                yield "etcd", _members(target)
            case "haproxy_stats":
                yield "haproxy", _outcome(target)
            case "postgres_liveness":
                yield "write port", _outcome(target)
            case "etcd_member" | "haproxy_routing" | "patroni_cluster" | "leader":
                continue
            case _:
                yield target["component"], _outcome(target)


def _position(target: Json) -> tuple[int, str]:
    """What the database needs first, then its components by name."""
    first = ("etcd_quorum", "haproxy_stats", "postgres_liveness", "api_gateway")
    return first.index(target["probe"]) if target["probe"] in first else len(first), target["component"]


def _members(target: Json) -> str:
    readings = target["readings"]
    if "members" not in readings:
        return _outcome(target)
    lost = readings["healthy_members"] < readings["quorum"]
    return f"{'✕' if lost else '●'} {readings['healthy_members']:.0f} of {readings['members']:.0f}"


def _row(node: Json) -> tuple[str, ...]:
    targets = {target["probe"]: target for target in node["targets"]}
    return (
        node["name"],
        node["role"] or "–",
        _outcome(targets.get("postgres_liveness")),
        _reading(targets, "patroni_member", "state") or _outcome(targets.get("patroni_rest")),
        {1.0: "streaming", 0.0: "not streaming"}.get(_value(targets, "wal_receiver", "wal_receiver_streaming"), "–"),
        _reading(targets, "replication_lag", "lag_seconds", human_seconds)
        + _reading(targets, "replication_lag", "lag_bytes", lambda value: f" / {human_bytes(value)}"),
        _reading(targets, "connections", "connections_used_pct", lambda value: f"{value:.0f} %"),
        _reading(targets, "postgres_liveness", "ping_seconds", human_seconds),
    )


def _outcome(target: Json | None) -> str:
    if target is None:
        return "–"
    word = {"observed": "ok", None: "waiting"}.get(target["outcome"], target["outcome"])
    return f"{_SHAPES.get(target['outcome'], '')} {word}"


def _value(targets: Mapping[str, Json], probe: str, reading: str) -> Any:
    target = targets.get(probe)
    return target["readings"].get(reading) if target else None


def _reading(targets: Mapping[str, Json], probe: str, reading: str, shown: Any = str) -> str:
    value = _value(targets, probe, reading)
    return "" if value is None else shown(value)


def _events(events: Sequence[Json]) -> Panel:
    if not events:
        nothing = Text("No events yet. Break something on purpose, in another terminal: probed demo break primary-kill")
        return Panel(nothing, title="events", title_align="left")
    table = Table(box=None, pad_edge=False, expand=True)
    for title, ratio in (("at", None), ("severity", None), ("event", None), ("on", None), ("state", None), ("what", 1)):
        table.add_column(title, no_wrap=ratio is None, ratio=ratio, overflow="fold")
    for event in events:
        held = event["suppressed"]
        style = "dim" if held or event["state"] == "resolved" else ""
        severity = Text(event["severity"], style="" if style else _STYLES.get(event["severity"], ""))
        word = "held back" if held else event["state"]
        # What is over takes one line; what is open is told in full.
        message = Text(event["message"], no_wrap=bool(style), overflow="ellipsis" if style else "fold")
        table.add_row(_clock(event), severity, event["event"], _where(event), word, message, style=style)
    return Panel(table, title="events, newest first", title_align="left")


def _where(event: Json) -> str:
    """The node, or what of the instance has none; what concerns it as a whole is its own."""
    whole = event["component"] in (None, "postgres", "patroni", "etcd")
    return str(event["node"] or (event["instance"] if whole else event["component"]))


def _clock(event: Json) -> str:
    at = datetime.fromisoformat(event["opened_at"])
    return at.strftime("%H:%M:%S")
