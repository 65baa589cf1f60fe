"""``probed demo``: a real two-node stack to break on purpose. The work is ``probed.demo.show``'s."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from probed.cli import flags

_directory = flags.flag(
    "--directory", metavar="DIR", type=flags.directory_path, help="Of the stack; default: one per user."
)


@click.group("demo", invoke_without_command=True)
@_directory
@flags.flag("--web.listen-address", metavar="HOST:PORT", help="Of the daemon; default 127.0.0.1:7432, or a free port.")
@flags.flag("--seconds", type=click.FloatRange(min=0), help="End by itself after so many seconds.")
@click.pass_context
def command(ctx: click.Context, directory: Path | None, web_listen_address: str | None, seconds: float | None) -> None:
    """A real two-node stack to break on purpose.

    Starts PostgreSQL, Patroni and etcd on loopback, and the daemon watching them. No root, no configuration;
    Ctrl-C ends it. Needs the extra: pip install 'pg-probed[demo]'. From another terminal cause real faults:
    `probed demo break NAME`.
    """
    from probed import logs

    logs.set_up("warning")
    from probed.demo import show

    ctx.obj = directory or show.default_directory()
    if ctx.invoked_subcommand is None:
        ctx.exit(asyncio.run(show.up(ctx.obj, listen=web_listen_address, seconds=seconds)))


@command.command("break")
@click.argument("name")
@_directory
@click.pass_obj
def break_(default: Path, name: str, directory: Path | None) -> None:
    """Cause the fault NAME in the running demo."""
    from probed.demo import show

    show.break_fault(directory or default, name)


@command.command("heal")
@click.argument("name")
@_directory
@click.pass_obj
def heal(default: Path, name: str, directory: Path | None) -> None:
    """Undo the fault NAME, and wait until the stack is healthy again."""
    from probed.demo import show

    show.heal_fault(directory or default, name)


@command.command("list")
def list_() -> None:
    """The faults that can be caused, and the events of each."""
    from probed.cli.output import Column, table
    from probed.demo import show

    rows = [{"name": name, "does": says, "events": events} for name, says, events in show.list_faults()]
    table([Column("name"), Column("does"), Column("events")], rows)
