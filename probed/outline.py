"""Any JSON value as text: one visible line, or lines; nothing in them drives a terminal or a page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from probed.redaction import visible


def text(value: object) -> str:
    """One visible line for a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, Mapping):
        return " ".join(f"{visible(str(key))}={text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value)
    return visible(str(value))


def changes(before: Any, after: Any) -> str:
    """``failure_count: 2 → 3, severity: – → fatal``: what differs; what is new or gone as it is."""
    told = []
    for path, old, new in _differences(before, after, ()):
        name = f"{text('.'.join(path))}: " if path else ""
        told.append(f"{name}{text(new)}" if before is None else f"{name}{text(old) or '–'} → {text(new) or '–'}")
    return ", ".join(told)


def _differences(before: Any, after: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(before, Mapping | None) and isinstance(after, Mapping | None):
        old, new = before or {}, after or {}
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), (*path, str(key)))
    elif before != after:
        yield path, before, after


def outline(value: Any) -> Iterator[str]:
    """Any JSON value as lines: plain values side by side, lists of maps as tables, what is deeper indented."""
    if isinstance(value, Mapping):
        yield from _map_lines(value)
    elif isinstance(value, list):
        yield from _list_lines(value)
    else:
        yield text(value)


def _map_lines(value: Mapping[str, Any]) -> Iterator[str]:
    plain = {key: item for key, item in value.items() if not isinstance(item, Mapping | list)}
    if plain:
        yield "  ".join(f"{text(key)}={text(item)}" for key, item in plain.items())
    for key, item in value.items():
        if isinstance(item, Mapping | list) and item:
            yield f"{text(key)}:"
            yield from (f"  {line}" for line in outline(item))


def _list_lines(value: Sequence[Any]) -> Iterator[str]:
    rows = [item for item in value if isinstance(item, Mapping)]
    flat = rows and all(not isinstance(cell, Mapping | list) for row in rows for cell in row.values())
    if flat:
        yield from _table(rows)
    for item in value:
        if isinstance(item, Mapping) and flat:
            continue
        lines = list(outline(item))
        yield f"- {lines[0]}" if lines else "-"
        yield from (f"  {line}" for line in lines[1:])


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[text(key) for key in keys], *([text(row.get(key)) for key in keys] for row in rows)]
    # A statement makes a column wide; it stands last and is not padded.
    order = sorted(range(len(keys)), key=lambda index: max(len(line[index]) for line in lines) > 60)
    widths = {index: max(len(line[index]) for line in lines) for index in order[:-1]}
    for line in lines:
        yield "  ".join(line[index].ljust(widths.get(index, 0)) for index in order).rstrip()
