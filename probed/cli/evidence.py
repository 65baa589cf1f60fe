"""Evidence for people: in a few lines each (``explain``), or whole (``events show``)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from probed.cli.output import moment, text
from probed.outline import outline

Item = Mapping[str, Any]

MAX_LINES = 8
"""Of one digest."""
MAX_LINE = 220


def tell_whole(event: Mapping[str, Any]) -> None:
    """Everything that was kept."""
    for item in _with_data(event):
        click.echo(f"\nevidence: {_title(event, item)}")
        for line in outline(item["data"]):
            click.echo(f"  {line}")
    _tell_missing(event)


def tell_digest(event: Mapping[str, Any]) -> None:
    """What matters at first sight, the time before above the time after."""
    from probed.digests import digest

    items = _with_data(event)
    if items:
        click.echo("\nevidence (all of it: probed events show)")
    heading, before = None, None
    earlier: list[str] = []
    for item in items:
        if heading != (heading := _name(item)):
            click.echo(f"  {heading}")
            before, earlier = None, []
        lines = list(digest(str(item["collector"]), item["data"], before)) or ["nothing"]
        unchanged, earlier, before = lines == earlier, lines, item["data"]
        if unchanged:
            lines = ["as before"]
        when = f"{_age(event, item)}:"
        for number, line in enumerate(lines[:MAX_LINES]):
            shown = text(line)
            click.echo(
                f"    {when if number == 0 else '':<11} {shown if len(shown) <= MAX_LINE else shown[:MAX_LINE] + '…'}"
            )
        if len(lines) > MAX_LINES:
            click.echo(f"    {'':<11} and {len(lines) - MAX_LINES} more lines")
    _tell_missing(event)


def _with_data(event: Mapping[str, Any]) -> list[Item]:
    """Grouped by what was looked at, in the order in which that first comes; each group oldest first."""
    items = [item for item in event.get("evidence") or () if "data" in item]
    order = {name: number for number, name in reversed(list(enumerate(_name(item) for item in items)))}
    return sorted(items, key=lambda item: (order[_name(item)], str(item.get("taken_at"))))


def _tell_missing(event: Mapping[str, Any]) -> None:
    """What could not be had and why: the same reason once."""
    reasons: dict[str, list[str]] = {}
    for item in event.get("evidence") or ():
        if "data" not in item:
            what = _name(item) + (" before" if item.get("when") == "before" else "")
            names = reasons.setdefault(str(item.get("error")), [])
            if what not in names:
                names.append(what)
    if reasons:
        click.echo("\nwhat could not be had")
        for reason, names in reasons.items():
            click.echo(f"  {text(', '.join(names))}: {text(reason)}")


def _name(item: Item) -> str:
    target = item.get("target")
    return text(f"{item['collector']} {target}" if target else item["collector"])


def _title(event: Mapping[str, Any], item: Item) -> str:
    return f"{_name(item)}  {item.get('when')}, {_age(event, item)}, {moment(item.get('taken_at'))}"


def _age(event: Mapping[str, Any], item: Item) -> str:
    """Seconds from the moment that the evidence is about: ``-17 s``, ``+2 s``, ``end +1 s``."""
    recovery = item.get("moment") == "recovery" and bool(event.get("resolved_at"))
    try:
        of = datetime.fromisoformat(str(event["resolved_at" if recovery else "opened_at"]))
        seconds = (datetime.fromisoformat(str(item["taken_at"])) - of).total_seconds()
    except ValueError:
        return moment(item.get("taken_at"))
    return f"{'end ' if recovery else ''}{seconds:+.0f} s"
