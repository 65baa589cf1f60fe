"""``probed explain``: why there is this event."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probed.cli import flags

if TYPE_CHECKING:
    from probed.cli.client import Client

MAX_CHAIN = 10


@click.command("explain")
@click.argument("event_id", metavar="ID")
@flags.client_flags
def command(event_id: str, url: str | None, socket: Path | None) -> None:
    """Samples, rule, and the chain of causes behind an event."""
    from probed.cli.client import Client
    from probed.cli.events import find, tell

    client = Client(url, socket)
    event = find(client, event_id)
    tell(event)
    _tell_rule(client, event)
    _tell_causes(client, event)
    _tell_consequences(client, event)


def _tell_rule(client: Client, event: Mapping[str, Any]) -> None:
    from probed.cli.client import NotThere
    from probed.cli.output import text

    try:
        policy = client.get(f"/api/v1/policies/{event['event']}")
    except NotThere:  # the policy was removed since
        return
    now = policy.get("version")
    changed = f" (version {text(now)} now)" if now not in (None, event.get("policy_version")) else ""
    click.echo(f"\nrule{changed}\n  {text(policy['rule'])}")
    if policy.get("params"):
        click.echo(f"  with {text(policy['params'])}")


def _tell_causes(client: Client, event: Mapping[str, Any]) -> None:
    seen = {event["id"]}
    cause = event.get("caused_by")
    while cause and cause not in seen and len(seen) <= MAX_CHAIN:
        seen.add(cause)
        found = _event(client, cause)
        if found is None:
            return
        click.echo(f"\ncaused by\n  {_line(found)}")
        cause = found.get("caused_by")


def _tell_consequences(client: Client, event: Mapping[str, Any]) -> None:
    ids = list(event.get("consequences") or ())
    found = [item for item in (_event(client, event_id) for event_id in ids[:MAX_CHAIN]) if item is not None]
    if found:
        click.echo("\nconsequences")
        for item in found:
            click.echo(f"  {_line(item)}")
    if len(ids) > MAX_CHAIN:
        click.echo(f"  and {len(ids) - MAX_CHAIN} more")


def _event(client: Client, event_id: str) -> dict[str, Any] | None:
    from probed.cli.client import NotThere

    try:
        event: dict[str, Any] = client.get(f"/api/v1/events/{event_id}")
    except NotThere:  # retention took it
        return None
    return event


def _line(event: Mapping[str, Any]) -> str:
    from probed.cli.events import where
    from probed.cli.output import moment, text

    held = ", held back" if event.get("suppressed") else ""
    return (
        f"{moment(event['opened_at'])} {event['severity']} {event['event']} {where(event)} ({event['state']}{held}): "
        f"{text(event['message'])}  {event['id']}"
    )
