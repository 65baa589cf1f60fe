"""``probed notify``: who is told of events, what became of it, and whether a receiver can be reached."""

from __future__ import annotations

from typing import Any

import click

from probed.cli import flags

_ALL = (
    "owed_at", "receiver", "told", "event", "instance", "event_id", "fate", "attempts", "tried_at", "settled_at",
    "answer", "transition",
)  # fmt: skip
NOTHING = "Nobody was told of anything yet: no event was announced since there are receivers."
NO_RECEIVERS = "No receiver is configured. Name one under `notifications` in probed.yml; see docs/alarms.md."


@click.group("notify")
def command() -> None:
    """Who is told of events, and what became of it."""


@command.command("list")
@flags.flag("--receiver", metavar="NAME", help="Only to this receiver.")
@flags.flag(
    "--fate",
    type=click.Choice(["owed", "delivered", "refused", "expired", "dropped"]),
    help="Only what came to this.",
)
@flags.list_flags
def list_(where: flags.Where, output: str, watch: float | None, limit: int, **filters: object) -> None:
    """Receivers, how they fare, and what each was sent or is owed.

    Also what was given up; newest first.
    """
    from probed.cli import listing

    listing.show("/api/v1/notifications", filters, _ALL, _tell, where=where, output=output, watch=watch, limit=limit)


def _tell(answer: dict[str, Any]) -> None:
    from probed.cli.output import Column, emit

    receivers = [
        Column("name", "receiver"), Column("kind"), Column("owed", right=True), Column("oldest_owed_at", "oldest"),
        Column("dead_letters", "dead letters", right=True),
        Column("failing_since", "failing since"), Column("answer", prose=True),
    ]  # fmt: skip
    emit("table", answer, receivers, answer["receivers"], empty=NO_RECEIVERS)
    if not answer["receivers"] and not answer["items"]:
        return
    click.echo()
    columns = [
        Column("owed_at", "when"), Column("receiver"), Column("told"), Column("event"), Column("instance"),
        Column("fate"), Column("attempts", right=True), Column("answer", prose=True),
    ]  # fmt: skip
    emit("table", answer, columns, answer["items"], empty=NOTHING)


@command.command("test")
@click.argument("receiver", metavar="NAME")
@flags.client_flags
def test(receiver: str, where: flags.Where) -> None:
    """Send a test message to one receiver now.

    Exit 1 when it does not take it.
    """
    answer = where.client().change("POST", "/api/v1/notifications/test", {"receiver": receiver})
    from probed.cli.output import text

    if not answer["delivered"]:
        click.echo(f"probed: {text(receiver)} did not take it: {text(answer['answer'])}", err=True)
        click.get_current_context().exit(1)
    click.echo(f"{text(receiver)} took it ({text(answer['answer'])}, {answer['seconds']:.2f} s)")


@command.command("resend")
@click.argument("receiver", metavar="NAME")
@flags.flag("--event-id", metavar="ID", help="Only what is about this event; without it, everything.")
@flags.flag("--reason", default="", metavar="TEXT", help="Why, for the audit log.")
@flags.client_flags
def resend(receiver: str, event_id: str | None, reason: str, where: flags.Where) -> None:
    """Send a receiver what was given up.

    What it refused, or what expired after a day, once it takes something again. Each event is told once and as it is
    now: what has ended meanwhile as resolved, and not as an alarm out of date.
    """
    body = {"receiver": receiver, "event_id": event_id, "reason": reason}
    answer = where.client().change("POST", "/api/v1/notifications/resend", body)
    from probed.cli.output import text

    if answer["held_back"]:
        why = "open, and nobody is told of them now (silenced, held back, flapping)"
        click.echo(f"probed: left as they are, because {why}: {answer['held_back']}", err=True)
    if answer["owed"]:
        click.echo(f"owed to {text(receiver)} again: {answer['owed']}")
    else:
        click.echo(f"{text(receiver)} is owed nothing again: it has no other dead letter")
