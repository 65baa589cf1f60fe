"""``probed policy``: what is detected, by which rule; ``policy_edits`` and ``policy_files`` change it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from probed.cli import flags, policy_edits, policy_files, policy_shadow, policy_trials
from probed.errors import ApiError, ConfigError, Problem

if TYPE_CHECKING:
    from probed.model import Example, Policy
    from probed.policy.library import Library

_directory = flags.flag(
    "--policies.directory", metavar="DIR", type=flags.directory_path, help="Overrides and additions to take in."
)
_local = flags.flag("--local", is_flag=True, help="From the files on this machine, not from the running daemon.")


@click.group("policy")
def command() -> None:
    """What is detected and by which rule: look, try, change.

    A change takes effect with the next sample. Open events and counts stay; nothing is written to the files.
    """


@command.command("list")
@_local
@_directory
@flags.client_flags
@flags.output_flag
def list_(local: bool, policies_directory: Path | None, where: flags.Where, output: str) -> None:
    """Every policy, with its rule in words."""
    from probed.cli.output import Column, emit

    answer = _answer(local, policies_directory, where)
    columns = [
        Column("id"), Column("severity"), Column("enabled"), Column("version", right=True), Column("layers"),
        Column("group"), Column("rule", prose=True),
    ]  # fmt: skip
    emit(output, answer, columns, answer["items"])
    for item in (*answer["items"], *answer.get("strangers", ())):
        policy_edits.tell_problems(item)


@command.command("show")
@click.argument("policy_id", metavar="ID")
@flags.flag("--origin", is_flag=True, help="Only the values, each with where it comes from.")
@_local
@_directory
@flags.client_flags
@flags.output_flag
def show(
    policy_id: str,
    origin: bool,
    local: bool,
    policies_directory: Path | None,
    where: flags.Where,
    output: str,
) -> None:
    """One policy: its rule, parameters, meaning and worked examples."""
    from probed.cli.output import Column, emit, pairs
    from probed.strict_yaml import did_you_mean

    if local or policies_directory:
        items = {item["id"]: item for item in _answer(True, policies_directory, flags.Where())["items"]}
        if policy_id not in items:
            raise ApiError(f'there is no policy "{policy_id}"{did_you_mean(policy_id, sorted(items))}')
        item = items[policy_id]
    else:
        item = where.client().get(f"/api/v1/policies/{policy_edits.quoted(policy_id)}")
    policy_edits.tell_problems(item)
    if origin:
        rows = policy_edits.origins(item)
        columns = [Column("path"), Column("origin"), Column("value", prose=True)]
        emit(output, {"id": policy_id, "items": rows}, columns, rows)
        return
    if output != "table":
        emit(output, item, [Column("id"), Column("severity"), Column("enabled"), Column("rule")], [item])
        return
    click.echo(f"{item['id']}: {item.get('name', '')}")
    pairs([("rule", item["rule"]), *((key, value) for key, value in item.items() if _is_plain(key, value))], indent=2)
    for key in ("description", "suggestion"):
        if item.get(key):
            click.echo(f"\n{key}\n  {item[key]}")
    for example in item.get("examples") or ():
        click.echo(f"\nexample: {example['says']}")
        _aligned([("samples", _tokens(example["samples"])), ("events", _tokens(example["events"]))])


@command.command("test")
@click.argument("files", nargs=-1, type=flags.file_path, metavar="[FILE]...")
@_directory
def test(files: Sequence[Path], policies_directory: Path | None) -> None:
    """Run the worked examples of policies, offline.

    Exit 0 when all come out as written, else 1. Of the FILEs, else of every built-in policy and those of
    --policies.directory.
    """
    from probed.cli.check import outdated
    from probed.config.settings import Defaults

    failed = total = 0
    policies = _policies_to_test(files, policies_directory)
    stale = outdated({policy.id: policy for policy in policies}, Defaults())
    for policy in policies:
        if policy.id in stale:
            click.echo(f"{policy.id}: its rule was changed, so the built-in examples do not apply; add its own")
            continue
        click.echo(policy.id + ("" if policy.examples else ": has no examples"))
        for example in policy.examples:
            total += 1
            failed += not _told(policy, example)
    click.echo(f"{total} examples, {failed} failed")
    click.get_current_context().exit(1 if failed else 0)


def _policies_to_test(files: Sequence[Path], directory: Path | None) -> list[Policy]:
    from probed import strict_yaml
    from probed.cli.check import load_policies
    from probed.config.settings import Defaults

    policies = load_policies(directory, Defaults(), files)
    if not files:
        return list(policies.values())
    return [policies[strict_yaml.read(file).data["id"]] for file in files]


def _told(policy: Policy, example: Example) -> bool:
    """Run one example and tell how it came out; whether it came out as written."""
    from probed.policy import examples

    try:
        wrong = examples.run(replace(policy, examples=(example,)))
    except ValueError as error:
        raise ConfigError([Problem(policy.source, f"example: {example.says}: {error}")]) from None
    click.echo(f"  {'FAIL' if wrong else 'ok  '}  {example.says}")
    if wrong:
        _aligned([("samples", example.samples), ("expected", wrong[0].expected), ("got", wrong[0].got)], indent=8)
    return not wrong


def _aligned(rows: Sequence[tuple[str, Sequence[str]]], indent: int = 2) -> None:
    """Rows of tokens under each other, cycle by cycle."""
    widths = [max(map(len, column)) for column in zip(*(tokens for _, tokens in rows), strict=False)]
    for name, tokens in rows:
        line = " ".join(f"{token:<{width}}" for token, width in zip(tokens, widths, strict=False))
        click.echo(f"{' ' * indent}{name:<8}  {line}".rstrip())


def _tokens(value: str | Sequence[str]) -> Sequence[str]:
    return value.split() if isinstance(value, str) else value


def _answer(local: bool, directory: Path | None, where: flags.Where) -> dict[str, Any]:
    if local or directory:
        library = _library(directory)
        return {"items": [_as_item(library, name) for name in library.policies], "next_cursor": None}

    return where.client().items("/api/v1/policies", {}, limit=10_000)


def _library(directory: Path | None) -> Library:
    from probed.config.settings import Defaults
    from probed.policy.library import Library, Rules
    from probed.probes import catalogue

    readings = {name: frozenset(probe.readings) for name, probe in catalogue().items()}
    return Library.read(directory, Rules(readings, Defaults()))


def _as_item(library: Library, policy_id: str) -> dict[str, Any]:
    """A policy in the API's shape; beside it the file it came from."""
    from probed.api import policy_shapes

    return {**policy_shapes.detail(library, policy_id), "file": library.policies[policy_id].source}


_TOLD_APART = ("id", "name", "description", "suggestion", "examples", "detect", "rule", "origin", "patch", "problems")


def _is_plain(key: str, value: object) -> bool:
    return key not in _TOLD_APART and value not in (None, [], {})


for _command in (*policy_edits.COMMANDS, *policy_files.COMMANDS, *policy_trials.COMMANDS, policy_shadow.command):
    command.add_command(_command)
