"""``probed healthcheck``: for containers and scripts."""

from __future__ import annotations

import click

from probed.cli import flags
from probed.errors import ApiError


@click.command("healthcheck")
@flags.client_flags
def command(where: flags.Where) -> None:
    """Is the daemon alive? Exit 0 or 1.

    Standard library only and quick: made for a container's HEALTHCHECK.
    """
    answer = where.client().ask("GET", "/-/healthy")
    if answer.status != 200:
        detail = " ".join(answer.body[:200].decode("utf-8", "replace").split())
        raise ApiError(f"{answer.address}/-/healthy: {answer.status} {detail}")
    click.echo("healthy")
