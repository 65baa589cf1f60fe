"""``probed version``."""

from __future__ import annotations

import platform

import click

from probed.version import version


@click.command("version")
def command() -> None:
    """Print the version."""
    click.echo(f"probed {version()} (Python {platform.python_version()})")
