"""The command ``probed``: one thin module per command or group, imported when it is asked for.

A container's health check starts this every few seconds: nothing heavier than click is imported here, and a command
imports what it needs inside its function. Data goes to stdout; logs and errors go to stderr.
"""

from __future__ import annotations

import importlib
from typing import cast

import click

from probed.errors import ConfigError, ProbedError
from probed.redaction import visible

EX_CONFIG = 78
"""Bad configuration: a restart would not mend it."""

COMMANDS = (
    "run",
    "demo",
    "check",
    "doctor",
    "probe",
    "status",
    "events",
    "explain",
    "ack",
    "policy",
    "silence",
    "inspect",
    "notify",
    "token",
    "audit",
    "db",
    "schema",
    "completion",
    "healthcheck",
    "version",
)
"""Each is the ``command`` of the module of its name, in the order of the help."""


class Commands(click.Group):
    """Subcommands by module name, and our errors as messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return cast(click.Command, importlib.import_module(f"probed.cli.{cmd_name}").command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            tell_problems(error)
            ctx.exit(EX_CONFIG)
        except ProbedError as error:
            click.echo("\n".join(visible(line) for line in f"probed: {error}".split("\n")), err=True)
            ctx.exit(1)


def tell_problems(error: ConfigError) -> None:
    """Every problem on a line of its own, on stderr."""
    for problem in error.problems:
        click.echo(visible(str(problem)), err=True)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Every flag has an environment variable: --config.file is PROBED_CONFIG_FILE.
Exit codes: 0 ok, 1 failure, 2 usage, 78 bad configuration.""",
)
def cli() -> None:
    """Health probes and events for PostgreSQL high-availability stacks."""


def main() -> None:
    """Entry point; ends the process with the command's exit code."""
    cli(prog_name="probed")
