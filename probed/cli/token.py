"""``probed token``: what programs show to be let in."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import click

from probed.cli import flags

ROLES = ("viewer", "operator", "admin")
SCOPES = ("metrics", "api")


@click.group("token")
def command() -> None:
    """API tokens, for programs: make, list, revoke."""


@command.command("add")
@click.argument("name")
@flags.flag("--role", type=click.Choice(ROLES), required=True, help="What it may: read, operate, administer.")
@flags.flag("--expires", metavar="DURATION", help="Such as 90d; without it, it lasts until it is revoked.")
@flags.flag(
    "--scopes",
    metavar="LIST",
    default=",".join(SCOPES),
    show_default=True,
    help="metrics: GET /metrics; api: everything else.",
)
@flags.flag("--reason", default="", help="Why, for the audit log.")
@flags.client_flags
def add(name: str, role: str, expires: str | None, scopes: str, reason: str, where: flags.Where) -> None:
    """Make a token and print it, this once.

    The token is all that goes to stdout: `probed token add prometheus --role viewer --scopes metrics >token`.
    Prometheus reads it by `authorization: {credentials_file: token}`, the commands here by --token-file.
    """
    body: dict[str, object] = {"name": name, "role": role, "scopes": scopes.split(","), "reason": reason}
    if expires is not None:
        body["expires_in"] = expires
    made = where.client().change("POST", "/api/v1/tokens", body)
    until = f"until {made['expires_at']}" if made["expires_at"] else "until it is revoked"
    click.echo(f"{name}: {role}, for {' and '.join(made['scopes'])}, {until}; it is not shown again", err=True)
    click.echo(made["token"])


@command.command("list")
@flags.flag("--all", "everything", is_flag=True, help="The revoked and expired ones too.")
@flags.client_flags
@flags.output_flag
def listing(everything: bool, where: flags.Where, output: str) -> None:
    """Tokens, what they may, and when they were last used."""
    from probed.cli.output import Column, emit

    answer = where.client().get("/api/v1/tokens")
    items = [item for item in answer["items"] if everything or item["state"] == "live"]
    keys = ("name", "role", "scopes", "state", "created_at", "created_by", "expires_at", "used_at", "id")
    rows = [{**item, "scopes": ",".join(item["scopes"])} for item in items]
    empty = "No tokens. Make one with: probed token add NAME --role viewer"
    emit(output, {**answer, "items": items}, [Column(key) for key in keys], rows, empty=empty)


@command.command("revoke")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@flags.client_flags
def revoke(names: Sequence[str], where: flags.Where) -> None:
    """End tokens, by name or id; from then on they open nothing."""
    client = where.client()
    for name in names:
        client.change("DELETE", f"/api/v1/tokens/{quote(name, safe='')}")
        click.echo(f"{name}: revoked", err=True)
