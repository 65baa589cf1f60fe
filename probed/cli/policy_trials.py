"""``probed policy backtest|proposals``: changes tried on what was recorded, before anybody is told by them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from probed.cli import flags
from probed.cli.policy_edits import PATH, merge_patch, quoted
from probed.errors import ApiError

MAX_TOLD = 20
"""Events of one kind that a terminal is shown of a target."""
BAR = 30
LONGEST_SECONDS = 300.0


@click.command("backtest")
@click.argument("policy_id", metavar="ID")
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1)
@flags.flag("--since", metavar="TIME", default="-14d", show_default=True, help="RFC 3339, or relative such as -14d.")
@flags.flag("--until", metavar="TIME", help="RFC 3339, or relative such as -1d; default: now.")
@flags.client_flags
@flags.output_flag
def backtest(
    policy_id: str, changes: Sequence[str], since: str, until: str | None, where: flags.Where, output: str
) -> None:
    """What a change would have told of the recorded samples.

    As in: probed policy backtest ID sample_count=3

    Nothing is changed. KEY=VALUE as for set; without one, what the policy as it is tells. What other events would have
    suppressed is counted on both sides.
    """
    from probed.cli.output import Column, emit

    client = where.client()
    item = client.get(f"{PATH}/{quoted(policy_id)}")
    body: dict[str, Any] = {"patch": merge_patch(changes, item), "since": since}
    if until is not None:
        body["until"] = until
    result: dict[str, Any] | None = None
    for line in client.lines("POST", f"{PATH}/{quoted(policy_id)}/backtest", body):
        if "progress" in line:
            _bar(line["progress"])
        else:
            _bar(None)
            if "error" in line:
                raise ApiError(str(line["error"]))
            result = line["result"]
    if result is None:
        raise ApiError("the daemon ended the answer before the result; look at its log")
    if output != "table":
        columns = [Column(key) for key in ("target", "what", "opened_at", "resolved_at", "value", "present")]
        emit(output, result, columns, [row for target in result["targets"] for row in _rows(target)])
        return
    _tell(result)


def _tell(result: Mapping[str, Any]) -> None:
    from probed.cli.output import Column, moment, table

    present, changed = result["present"], result["changed"]
    click.echo(f"{result['policy']}: {result['samples']} samples of {len(result['targets'])} targets, "
               f"{moment(result['since'])} to {moment(result['until'])}\n")  # fmt: skip
    sides = [
        {"what": what, "present": present[key], "changed": changed[key]}
        for what, key in (
            ("events", "events"), ("flapping", "flaps"), ("over within 60 s", "short"),
            ("open, seconds", "open_seconds"), ("to detect, seconds", "detect_seconds"),
            ("to detect at most", "detect_seconds_max"),
        )
    ]  # fmt: skip
    table([Column("what", ""), Column("present", right=True), Column("changed", right=True)], sides)
    told = ", ".join(f"{result[kind]} {kind}" for kind in ("gained", "lost", "moved", "kept"))
    click.echo(f"\n{told}")
    rows = [row for target in result["targets"] for row in _rows(target)]
    if rows:
        click.echo()
        columns = [
            Column("what"), Column("target"), Column("opened_at", "opened"), Column("resolved_at", "resolved"),
            Column("value", right=True), Column("present", "at present"),
        ]  # fmt: skip
        table(columns, rows[: MAX_TOLD * 3])
        if len(rows) > MAX_TOLD * 3:
            click.echo(f"… and {len(rows) - MAX_TOLD * 3} more: -o json tells all")
    for note in result["notes"]:
        click.echo(f"\nnote: {note}" if note == result["notes"][0] else f"note: {note}")


def _rows(target: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What differs on one target, by time."""
    rows = [
        {"what": kind, "target": target["target"], **_times(one)} for kind in ("gained", "lost") for one in target[kind]
    ]
    for pair in target["moved"]:
        before = _times(pair["present"])
        rows.append(
            {
                "what": "moved",
                "target": target["target"],
                **_times(pair["changed"]),
                "present": f"{before['opened_at']} to {before['resolved_at'] or 'now'}",
            }
        )
    return sorted(rows, key=lambda row: str(row["opened_at"]))


def _times(one: Mapping[str, Any]) -> dict[str, Any]:
    from probed.cli.output import moment

    return {
        "opened_at": moment(one["opened_at"]),
        "resolved_at": moment(one["resolved_at"]),
        "value": one["value"],
        "present": "",
    }


def _bar(done: float | None) -> None:
    """How far it is, on a terminal's stderr; ``None`` takes the bar away."""
    if not sys.stderr.isatty():
        return
    if done is None:
        click.echo("\r" + " " * (BAR + 8) + "\r", err=True, nl=False)
        return
    filled = round(BAR * done)
    click.echo(f"\r[{'#' * filled}{' ' * (BAR - filled)}] {done:4.0%}", err=True, nl=False)


@click.command("proposals")
@flags.flag(
    "--days", type=click.IntRange(1, 90), default=14, show_default=True, help="How much of the recording to look at."
)
@flags.client_flags
@flags.output_flag
def proposals(days: int, where: flags.Where, output: str) -> None:
    """Policies that tell too much or nothing, and a better value.

    One that the recorded samples speak for. Nothing is changed; try one further with backtest or shadow, make it with
    set.
    """
    from probed.cli.output import Column, emit

    answer = where.client().get(f"{PATH}/proposals", {"days": days}, seconds=LONGEST_SECONDS)
    rows = [
        {
            **item,
            "change": words_of(item["patch"]),
            "events": item["present"]["events"],
            "then": item["changed"]["events"] if item["changed"] else None,
        }
        for item in answer["items"]
    ]
    columns = [
        Column("policy"), Column("kind"), Column("events", right=True), Column("change"), Column("then", right=True),
        Column("says", prose=True),
    ]  # fmt: skip
    emit(output, answer, columns, rows, empty=f"Nothing to propose from {days} days of samples.")


def words_of(patch: Mapping[str, Any] | None) -> str:
    """A merge patch as ``set`` takes it."""
    return " ".join(_words(patch))


def _words(patch: Mapping[str, Any] | None, prefix: str = "") -> list[str]:
    words: list[str] = []
    for key, value in (patch or {}).items():
        if isinstance(value, dict):
            words += _words(value, f"{prefix}{key}.")
        else:
            words.append(f"{prefix}{key}={value:g}" if isinstance(value, float) else f"{prefix}{key}={value}")
    return words


COMMANDS = (backtest, proposals)
