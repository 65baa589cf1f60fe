"""``probed healthcheck``: for containers and scripts."""

from __future__ import annotations

from pathlib import Path

import click

from probed.cli import flags
from probed.errors import ApiError


@click.command("healthcheck")
@flags.client_flags
def command(url: str | None, socket: Path | None) -> None:
    """Is the daemon alive? Exit 0 or 1.

    Standard library only and quick: made for a container's HEALTHCHECK.
    """
    from probed.cli.client import Client

    status, body, address = Client(url, socket).request("/-/healthy")
    if status != 200:
        detail = " ".join(body[:200].decode("utf-8", "replace").split())
        raise ApiError(f"{address}/-/healthy: {status} {detail}")
    click.echo("healthy")
