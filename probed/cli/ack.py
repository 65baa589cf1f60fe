"""``probed ack``: take an event on, so that the others know."""

from __future__ import annotations

import click

from probed.cli import flags


@click.command("ack")
@click.argument("event_id", metavar="ID")
@flags.flag("--comment", metavar="TEXT", default="", help="For the others: what is being done about it.")
@flags.flag("--undo", is_flag=True, help="Take an acknowledgement back.")
@flags.client_flags
@flags.output_flag
def command(event_id: str, comment: str, undo: bool, where: flags.Where, output: str) -> None:
    """Take an event on, so that the others know.

    It may be open or over, and stays as it is; who has taken it on and what they say is kept with it. The beginning of
    an id, at least 8 characters, is enough when no other begins like it.
    """
    from probed.cli.events import ALL, find, headline
    from probed.cli.output import Column, emit, text

    if undo and comment:
        raise click.UsageError("--undo takes no --comment")
    client = where.client()
    path = f"/api/v1/events/{find(client, event_id)['id']}/ack"
    event = client.change("DELETE", path) if undo else client.change("POST", path, {"comment": comment})
    if output != "table":
        emit(output, event, [Column(key) for key in ALL], [event])
        return
    click.echo("no longer acknowledged" if undo else f"acknowledged by {text(event['acked_by'])}")
    headline(event)
