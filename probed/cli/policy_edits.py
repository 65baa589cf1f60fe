"""``probed policy set|enable|disable|restore|history|rollback``: policies changed while the daemon runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from probed.cli import flags

if TYPE_CHECKING:
    from probed.cli.client import Client

PATH = "/api/v1/policies"
MAX_INLINE = 60
"""Characters of two values that stand on one line of a difference."""

_reason = flags.flag("--reason", metavar="TEXT", help="Why; kept in the history.")


def quoted(policy_id: str) -> str:
    from urllib.parse import quote

    return quote(policy_id, safe="")


# --- commands --------------------------------------------------------------------------------------------------


@click.command("set")
@click.argument("policy_id", metavar="ID")
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, required=True)
@_reason
@flags.client_flags
@flags.output_flag
def set_(policy_id: str, changes: Sequence[str], reason: str | None, where: flags.Where, output: str) -> None:
    """Change values of a policy.

    As in: probed policy set no_leader no_leader_count=3 severity=critical

    KEY is a key of the policy's file such as params.no_leader_count or detect.resolve_count; a parameter may be named
    alone. VALUE is as in the file: 3, 30s, 10GiB, true, [a, b]; nothing after the = takes the key away.
    """
    client = where.client()
    before = _read(client, policy_id)
    patch = merge_patch(changes, before[0])
    _edit(client, policy_id, before, patch, reason, output)


@click.command("enable")
@click.argument("policy_id", metavar="ID")
@_reason
@flags.client_flags
@flags.output_flag
def enable(policy_id: str, reason: str | None, where: flags.Where, output: str) -> None:
    """Switch a policy on."""
    client = where.client()
    _edit(client, policy_id, _read(client, policy_id), {"enabled": True}, reason, output)


@click.command("disable")
@click.argument("policy_id", metavar="ID")
@_reason
@flags.client_flags
@flags.output_flag
def disable(policy_id: str, reason: str | None, where: flags.Where, output: str) -> None:
    """Switch a policy off; its open events close."""
    client = where.client()
    _edit(client, policy_id, _read(client, policy_id), {"enabled": False}, reason, output)


@click.command("restore")
@click.argument("policy_id", metavar="ID")
@click.argument("key", metavar="[KEY]", required=False)
@_reason
@flags.client_flags
@flags.output_flag
def restore(policy_id: str, key: str | None, reason: str | None, where: flags.Where, output: str) -> None:
    """Take back what was changed of a policy, so that the files hold.

    One value (KEY such as params.failure_count), else all.
    """
    client = where.client()
    item, _ = _read(client, policy_id)
    body = {"key": key and _full_key(key, item), "reason": reason or ""}
    answer = client.change("POST", f"{PATH}/{quoted(policy_id)}/restore", body)
    tell_revision(output, answer, answer["revision"])


@click.command("history")
@click.argument("policy_id", metavar="[ID]", required=False)
@flags.flag("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many revisions.")
@flags.client_flags
@flags.output_flag
def history(policy_id: str | None, limit: int, where: flags.Where, output: str) -> None:
    """What was changed while the daemon ran, newest first.

    Of one policy, or of all.
    """
    from probed.cli.output import Column, emit, moment, text

    answer = where.client().items(f"{PATH}/history", {"policy": policy_id}, limit)
    if output in ("json", "yaml"):
        emit(output, answer, (), ())
        return
    rows = [
        {
            "version": made["version"],
            "at": moment(made["at"]),
            "author": made["author"],
            "kind": made["kind"],
            "changes": "; ".join(f"{row['policy']}: {_inline(row)}" for row in _rows(made, policy_id)) or _names(made),
            "reason": made["reason"],
        }
        for made in answer["items"]
    ]
    columns = [
        Column("version", right=True), Column("at"), Column("author", brief=text), Column("kind"),
        Column("changes", prose=True), Column("reason", prose=True),
    ]  # fmt: skip
    emit(output, answer, columns, rows, empty="Nothing was changed at run time.")


@click.command("rollback")
@click.argument("version", metavar="VERSION", type=click.IntRange(min=1))
@_reason
@flags.client_flags
@flags.output_flag
def rollback(version: int, reason: str | None, where: flags.Where, output: str) -> None:
    """Make all policies as they were at a version of the history.

    1 is as the files say.
    """
    answer = where.client().change("POST", f"{PATH}/rollback", {"version": version, "reason": reason or ""})
    tell_revision(output, answer, answer["revision"])


COMMANDS = (set_, enable, disable, restore, history, rollback)


# --- asking ----------------------------------------------------------------------------------------------------


def _read(client: Client, policy_id: str) -> tuple[Mapping[str, Any], str]:
    """(the policy, its tag)"""
    target = f"{PATH}/{quoted(policy_id)}"
    answer = client.ask("GET", target)
    return answer.data(target), answer.headers.get("etag", "*")


def _edit(
    client: Client,
    policy_id: str,
    before: tuple[Mapping[str, Any], str],
    patch: Mapping[str, Any],
    reason: str | None,
    output: str,
) -> None:
    headers = {"If-Match": before[1], "Content-Type": "application/merge-patch+json"}
    body = {**patch, "reason": reason or ""}
    answer = client.change("PATCH", f"{PATH}/{quoted(policy_id)}", body, headers=headers)
    tell_revision(output, answer, answer["revision"])


def merge_patch(changes: Sequence[str], item: Mapping[str, Any]) -> dict[str, Any]:
    """``KEY=VALUE`` words as a merge patch of the policy ``item``."""
    patch: dict[str, Any] = {}
    for change in changes:
        _put(patch, change, item)
    return patch


def _put(patch: dict[str, Any], change: str, item: Mapping[str, Any]) -> None:
    """``params.failure_count=5`` into a merge patch."""
    from probed import strict_yaml
    from probed.errors import ConfigError

    key, equals, text = change.partition("=")
    if not equals or not all(key.split(".")):
        raise click.UsageError(f'expected KEY=VALUE such as params.failure_count=5, got "{change}"')
    try:
        value = strict_yaml.parse(text, key, expand=False).data
    except ConfigError as error:
        raise click.UsageError(f'expected a value as in a policy file, got "{change}": {error}') from None
    *parents, last = _full_key(key, item).split(".")
    for parent in parents:
        inner = patch.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise click.UsageError(f'"{parent}" is set twice')
        patch = inner
    if last in patch:
        raise click.UsageError(f'"{key}" is set twice')
    patch[last] = value


def _full_key(key: str, item: Mapping[str, Any]) -> str:
    """A parameter may be named alone."""
    return f"params.{key}" if key not in item and key in item.get("params", {}) else key


# --- telling ---------------------------------------------------------------------------------------------------


def tell_revision(
    output: str, answer: Mapping[str, Any], revision: Mapping[str, Any] | None, *, dry: bool = False
) -> None:
    """What a change changed."""
    from probed.cli.output import Column, emit

    if output != "table":
        rows = list(_rows(revision)) if revision else []
        emit(output, answer, [Column(key) for key in ("policy", "path", "before", "after")], rows)
        return
    if revision is None:
        click.echo("Nothing to change: it is so already.")
        return
    click.echo(f"{'would be ' if dry else ''}version {revision['version']}")
    for touched in revision["policies"]:
        click.echo(f"\n{_shown(touched['id'])}")
        rows = list(_rows(revision, touched["id"]))
        for row in rows:
            _tell_difference(row)
        if not rows:
            click.echo("  as before, but for where its values come from")


def _rows(revision: Mapping[str, Any], policy_id: str | None = None) -> Iterator[dict[str, Any]]:
    for touched in revision["policies"]:
        if policy_id in (None, touched["id"]):
            for each in touched["differences"]:
                yield {"policy": touched["id"], **each}


def _names(revision: Mapping[str, Any]) -> str:
    return ", ".join(_shown(touched["id"]) for touched in revision["policies"])


def _tell_difference(row: Mapping[str, Any]) -> None:
    before, after = _value(row["before"]), _value(row["after"])
    if len(before) + len(after) <= MAX_INLINE:
        click.echo(f"  {_inline(row)}")
        return
    click.echo(f"  {_shown(row['path'])}")
    click.echo(f"    - {before}\n    + {after}")


def _inline(row: Mapping[str, Any]) -> str:
    return f"{_shown(row['path'])}: {_value(row['before'])} -> {_value(row['after'])}"


def _value(value: object) -> str:
    """As it is written; what is written nowhere has a default."""
    import json

    if value is None:
        return "(default)"
    return _shown(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _shown(text: str) -> str:
    from probed.redaction import visible

    return visible(text)


def origins(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each value of a policy with where it comes from."""
    return [
        {"path": path, "origin": _origin(origin), "value": _at(item, path)}
        for path, origin in item["origin"].items()
        if path != "examples"
    ]


def _origin(origin: Mapping[str, Any]) -> str:
    if origin["layer"] == "patch":
        return f"version {origin.get('version', '?')} by {origin.get('author', '?')}"
    return str(origin["where"] if origin["layer"] == "file" else origin["layer"])


def _at(item: Mapping[str, Any], path: str) -> Any:
    value: Any = item
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def tell_problems(item: Mapping[str, Any]) -> None:
    """On stderr: what was changed, and has no effect."""
    version = item.get("version")
    for problem in item.get("problems") or ():
        told = f"{item['id']}: what was changed does not fit the files any more: {problem['path']}: {problem['detail']}"
        click.echo(_shown(f"probed: {told}; the files hold (probed policy restore {item['id']})"), err=True)
    if "rule" not in item and "patch" in item:
        told = f"{item['id']}: was changed in version {version}, but no file has this policy any more"
        click.echo(_shown(f"probed: {told}"), err=True)
