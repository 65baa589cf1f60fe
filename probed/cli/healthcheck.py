"""``probed healthcheck``: for containers and scripts."""

from __future__ import annotations

from pathlib import Path

import click

from probed.cli import flags
from probed.errors import ApiError


@click.command("healthcheck")
@flags.client_flags
def command(url: str | None, socket: Path | None) -> None:
    """Ask the daemon on this machine whether it is healthy: exit 0 or 1."""
    from probed.cli.client import Client, addresses

    status, body, address = Client(addresses(url, socket)).request("/-/healthy")
    if status != 200:
        detail = " ".join(body[:200].decode("utf-8", "replace").split())
        raise ApiError(f"{address}/-/healthy: {status} {detail}")
    click.echo("healthy")
