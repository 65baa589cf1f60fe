"""``probed version``."""

from __future__ import annotations

import platform

import click


def version() -> str:
    """Of the installed distribution."""
    from importlib import metadata

    try:
        return metadata.version("pg-probed")
    except metadata.PackageNotFoundError:
        return "0+not-installed"


@click.command("version")
def command() -> None:
    """Print the version."""
    click.echo(f"probed {version()} (Python {platform.python_version()})")
