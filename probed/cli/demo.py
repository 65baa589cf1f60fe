"""``probed demo``: a real two-node stack to break on purpose. The work is ``probed.demo.show``'s."""

from __future__ import annotations

from pathlib import Path

import click

from probed.cli import flags


@click.group("demo", invoke_without_command=True)
@flags.flag("--directory", metavar="DIR", type=flags.directory_path, help="Where the stack lives; default: a new one.")
@click.pass_context
def command(ctx: click.Context, directory: Path | None) -> None:
    """Start a real two-node stack (PostgreSQL, Patroni, etcd) on loopback, and the daemon watching it.

    No root, no configuration; Ctrl-C ends it. Needs the extra: pip install 'pg-probed[demo]'.
    From another terminal cause real faults: `probed demo break NAME`.
    """
    if ctx.invoked_subcommand is None:
        from probed.demo import show

        show.up(directory)


@command.command("break")
@click.argument("name")
def break_(name: str) -> None:
    """Cause the fault NAME in the running demo."""
    from probed.demo import show

    show.break_fault(name)


@command.command("heal")
@click.argument("name")
def heal(name: str) -> None:
    """Undo the fault NAME."""
    from probed.demo import show

    show.heal_fault(name)


@command.command("list")
def list_() -> None:
    """Name the faults that can be caused, and the event that each must lead to."""
    from probed.demo import show

    show.list_faults()
