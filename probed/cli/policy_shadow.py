"""``probed policy shadow``: changed versions that run beside the live policies, and tell nobody."""

from __future__ import annotations

from collections.abc import Sequence

import click

from probed.cli import flags
from probed.cli.policy_edits import PATH, merge_patch, quoted, tell_revision

_reason = flags.flag("--reason", metavar="TEXT", help="Why; kept with it.")


@click.group("shadow")
def command() -> None:
    """A changed policy beside the live one, that tells nobody.

    It judges the same samples.
    """


@command.command("list")
@flags.client_flags
@flags.output_flag
def list_(where: flags.Where, output: str) -> None:
    """Every shadow."""
    from probed.cli.output import Column, emit, moment
    from probed.cli.policy_trials import words_of

    answer = where.client().get(f"{PATH}/shadows")
    rows = [
        {**item, "change": words_of(item["patch"]), "since": moment(item["created_at"])} for item in answer["items"]
    ]
    columns = [
        Column("policy"), Column("change"), Column("since"), Column("author", "by"), Column("rule", prose=True),
        Column("problem", prose=True),
    ]  # fmt: skip
    emit(output, answer, columns, rows, empty="No policy has a shadow.")


@command.command("add")
@click.argument("policy_id", metavar="ID")
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, required=True)
@_reason
@flags.client_flags
@flags.output_flag
def add(policy_id: str, changes: Sequence[str], reason: str | None, where: flags.Where, output: str) -> None:
    """Run a changed version from now on.

    As in: probed policy shadow add ID sample_count=3

    It takes the place of an older shadow of the policy. KEY=VALUE as for set.
    """
    from probed.cli.output import Column, emit

    client = where.client()
    item = client.get(f"{PATH}/{quoted(policy_id)}")
    body = {"patch": merge_patch(changes, item), "reason": reason or ""}
    made = client.change("PUT", f"{PATH}/{quoted(policy_id)}/shadow", body)
    if output != "table":
        emit(output, made, [Column("policy"), Column("rule"), Column("problem")], [made])
        return
    click.echo(f"{made['policy']}: its shadow judges from the next sample on, and tells nobody\n  {made['rule']}")
    if made["problem"]:
        click.echo(f"  {made['problem']}")


@command.command("show")
@click.argument("policy_id", metavar="ID")
@flags.flag("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many events.")
@flags.client_flags
@flags.output_flag
def show(policy_id: str, limit: int, where: flags.Where, output: str) -> None:
    """What the shadow of a policy would have told, newest first."""
    from probed.cli.output import Column, emit, moment
    from probed.cli.policy_trials import words_of

    answer = where.client().get(f"{PATH}/{quoted(policy_id)}/shadow", {"limit": limit})
    if output == "table":
        suppressed = f", {answer['live_suppressed']} of them as consequences" if answer["live_suppressed"] else ""
        click.echo(f"{answer['policy']} with {words_of(answer['patch'])}, since {moment(answer['created_at'])}")
        click.echo(f"  the policy itself told {answer['live_events']} events meanwhile{suppressed}\n")
    rows = [
        {**item, "opened_at": moment(item["opened_at"]), "resolved_at": _end(item["resolved_at"], item["occurred"])}
        for item in answer["items"]
    ]
    columns = [
        Column("opened_at", "opened"), Column("resolved_at", "resolved"), Column("target"), Column("value", right=True),
        Column("count", right=True),
    ]  # fmt: skip
    emit(output, answer, columns, rows, empty="It would have told nothing so far.")


def _end(resolved_at: str | None, occurred: bool) -> str:
    from probed.cli.output import moment

    return moment(resolved_at) if resolved_at else "(occurred)" if occurred else "(open)"


@command.command("remove")
@click.argument("policy_id", metavar="ID")
@flags.client_flags
def remove(policy_id: str, where: flags.Where) -> None:
    """End a shadow; what it would have told goes too."""
    gone = where.client().change("DELETE", f"{PATH}/{quoted(policy_id)}/shadow")
    click.echo(f"{gone['policy']}: its shadow has ended")


@command.command("promote")
@click.argument("policy_id", metavar="ID")
@_reason
@flags.client_flags
@flags.output_flag
def promote(policy_id: str, reason: str | None, where: flags.Where, output: str) -> None:
    """Make the shadow's change an edit of the policy, and end it."""
    answer = where.client().change("POST", f"{PATH}/{quoted(policy_id)}/shadow/promote", {"reason": reason or ""})
    tell_revision(output, answer, answer["revision"])
