"""``probed status``: the instances, their targets, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from probed.cli import flags

_PLACE = ("instance", "node", "role", "component")


@click.command("status")
@flags.flag("--instance", metavar="NAME", help="Only this instance.")
@flags.client_flags
@flags.output_flag
@flags.watch_flag
def command(instance: str | None, where: flags.Where, output: str, watch: float | None) -> None:
    """Instances, nodes, targets, and what is open."""
    from probed.cli.output import repeat

    client = where.client()
    repeat(watch, lambda: _show(client, instance, output))


def _show(client: Any, instance: str | None, output: str) -> None:
    from probed.cli.output import Column, emit

    answer = client.get("/api/v1/status")
    if instance is not None:
        answer = {**answer, "instances": [item for item in answer["instances"] if item["name"] == instance]}
    if output != "table":
        keys = [*_PLACE, "probe", "outcome", "since", "last_sample_at", "address", "reason"]
        rows = [row for item in answer["instances"] for row in _rows(item)]
        emit(output, answer, [Column(key) for key in keys], rows)
        return
    if not answer["instances"]:
        missing = f"There is no instance {instance}" if instance else "Nothing is watched yet"
        click.echo(f"{missing}. An instance appears when the settings declare it.")
        return
    events = client.items("/api/v1/events", {"state": "open"}, limit=1000)["items"]
    for number, item in enumerate(answer["instances"]):
        if number:
            click.echo()
        _tell(item, [event for event in events if event["instance"] == item["name"]])
    if instance is None and "self" in answer:
        _tell_oneself(answer, events)


def _tell_oneself(answer: Mapping[str, Any], events: list[Mapping[str, Any]]) -> None:
    """How the observer itself is; its events in full, since they hold back those of the instances."""
    from probed.cli.events import COLUMNS, row
    from probed.cli.output import table, text

    own = answer["self"]
    click.echo(f"\nobserver {text(answer['observer'])}  {text(own['state'])}")
    shown = [event for event in events if event["id"] in own["open_events"]]
    if shown:
        table(COLUMNS, [row(event) for event in shown], indent=2)


def _tell(item: Mapping[str, Any], events: list[Mapping[str, Any]]) -> None:
    from probed.cli.events import COLUMNS, row
    from probed.cli.output import Column, moment, table, text

    leader = f"  leader {text(item['leader'])}" if item.get("leader") else ""
    paused = "  Patroni is paused: it fails over by itself no more" if item.get("paused") else ""
    labels = f"  {text(item['labels'])}" if item.get("labels") else ""
    click.echo(f"{text(item['name'])}  {text(item.get('state'))}{leader}{labels}{paused}")
    rows = [
        {
            **found,
            "since": moment(found.get("since")),
            "outcome": found.get("outcome") or "waiting",
            "what": found.get("reason") or found.get("readings"),
        }
        for found in _rows(item)
    ]
    columns = [Column(key) for key in ("node", "role", "component", "probe", "outcome", "since")]
    columns.append(Column("what", prose=True))
    if rows:
        table(columns, rows, indent=2)
    else:
        click.echo("  no target is known yet: discovery has not answered, or nothing is declared")
    shown = [event for event in events if not event.get("suppressed")]
    held = len(events) - len(shown)
    if events:
        click.echo("\n  open events" + (f" ({held} more held back as consequences)" if held else ""))
        table(COLUMNS, [row(event) for event in shown], indent=2)
    else:
        click.echo("\n  no open events")


def _rows(item: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """One row per target: the instance's own first, then node by node."""
    for target in item.get("targets") or ():
        yield {"instance": item["name"], "node": "", "role": "", **target}
    for node in item.get("nodes") or ():
        for target in node.get("targets") or ():
            yield {"instance": item["name"], "node": node["name"], "role": node.get("role"), **target}
