"""``probed policy export|import``: policies as one document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from probed.cli import flags
from probed.cli.policy_edits import PATH, tell_revision
from probed.errors import ApiError, Problem


@click.command("export")
@flags.flag("--modified", is_flag=True, help="Only what differs from the default.")
@flags.client_flags
@flags.flag(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="Form of the document.",
)
def export(modified: bool, where: flags.Where, output: str) -> None:
    """All policies as one document, which import takes.

    Each is in the shape of its file; what `http`, `tcp` and `sql` policies ask of whom stays here.
    """
    target = f"{PATH}/export?modified={str(modified).lower()}&format={output}"
    answer = where.client().ask("GET", target)
    if answer.status != 200:
        answer.data(target)
    click.echo(answer.body, nl=False)


@click.command("import")
@click.argument("file", metavar="FILE", type=click.File("rb"))
@flags.flag("--dry-run", is_flag=True, help="Change nothing, tell what would be changed.")
@flags.flag("--reason", metavar="TEXT", help="Why; kept in the history.")
@flags.client_flags
@flags.output_flag
def import_(file: BinaryIO, dry_run: bool, reason: str | None, where: flags.Where, output: str) -> None:
    """Make policies as a document says, all of them or none.

    FILE is YAML or JSON, as export makes it; - is standard input. Policies that it does not name stay as they are.
    """
    from urllib.parse import urlencode

    from probed.cli.client import Declined

    body = file.read()
    kind = "application/json" if _is_json(file.name, body) else "application/yaml"
    target = f"{PATH}/import?" + urlencode({"dry_run": str(dry_run).lower(), **({"reason": reason} if reason else {})})
    answer = where.client().ask("POST", target, body, {"Content-Type": kind})
    try:
        data = answer.data(target)
    except Declined as refused:
        if not refused.errors:
            raise
        raise ApiError("\n".join(_placed(file.name, error) for error in refused.errors)) from None
    tell_revision(output, data, data["revision"], dry=dry_run)


def _placed(name: str, error: Mapping[str, Any]) -> str:
    return str(Problem(name, error["detail"], error.get("line") or 0, error.get("column") or 0, error.get("path", "")))


def _is_json(name: str, body: bytes) -> bool:
    suffix = Path(name).suffix
    return suffix == ".json" or (suffix not in (".yaml", ".yml") and body.lstrip()[:1] == b"{")


COMMANDS = (export, import_)
