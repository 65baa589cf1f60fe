"""``probed audit``: who changed what."""

from __future__ import annotations

from typing import Any

import click

from probed.cli import flags

_ALL = ("seq", "at", "who", "via", "client", "action", "subject", "reason", "before", "after")
NOTHING = "Nobody changed anything, or the filters exclude it."


@click.command("audit")
@flags.flag("--who", metavar="NAME", help="Only what this user, token or certificate did; local:NAME over the socket.")
@flags.flag("--action", metavar="ACTION", help="Only this, such as policy.edit; policy alone: all that is done to it.")
@flags.flag("--subject", metavar="ID", help="Only what was done to this policy, event, silence, token …")
@flags.span_flags
@flags.list_flags
def command(where: flags.Where, output: str, watch: float | None, limit: int, **filters: object) -> None:
    """Who changed what, newest first.

    Edits, silences, acknowledgements, tokens, logins, reloads.

    It is for administrators: over the UNIX socket, or with the token of one.
    """
    from probed.cli import listing

    listing.show("/api/v1/audit", filters, _ALL, _tell, where=where, output=output, watch=watch, limit=limit)


def _tell(answer: dict[str, Any]) -> None:
    from probed.cli.output import Column, emit, moment
    from probed.outline import changes

    columns = [
        Column("at"), Column("who"), Column("via"), Column("action"), Column("subject", prose=True),
        Column("changes", prose=True), Column("reason", prose=True),
    ]  # fmt: skip
    rows = [
        {**item, "at": moment(item["at"]), "changes": changes(item["before"], item["after"])}
        for item in answer["items"]
    ]
    emit("table", answer, columns, rows, empty=NOTHING)
