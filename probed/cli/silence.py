"""``probed silence``: what people are not to be told of, for a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from probed.cli import flags
from probed.cli.output import Column, emit, moment, text
from probed.errors import ApiError

if TYPE_CHECKING:
    from probed.cli.client import Client

PATH = "/api/v1/silences"
SHORT_ID = 18
MAX_LISTED = 10_000
_COLUMNS = (
    Column("id", brief=lambda value: value[:SHORT_ID] if not value.startswith("file:") else value),
    Column("state"),
    Column("covers"),
    Column("when"),
    Column("author", "by"),
    Column("comment", prose=True),
)
_ALL = (
    "id", "state", "origin", "instances", "nodes", "events", "severities", "starts_at", "ends_at", "every", "author",
    "created_at", "ended_at", "ended_by", "comment",
)  # fmt: skip


@click.group("silence")
def command() -> None:
    """Silences and maintenance windows: add, list, expire.

    What a silence covers is recorded, shown and counted as ever; people are not told while it holds. What is still open
    when it ends is told then.
    """


@command.command("add")
@flags.flag("--instance", metavar="NAME", multiple=True, help="Cover this instance. Repeatable, as are the next ones.")
@flags.flag("--node", metavar="NAME", multiple=True, help="Cover this node; what belongs to no node is told.")
@flags.flag("--event", metavar="ID", multiple=True, help="Cover this type, such as database_unavailable.")
@flags.flag(
    "--severity", type=click.Choice(["fatal", "critical", "normal"]), multiple=True, help="Cover this severity."
)
@flags.flag("--comment", metavar="TEXT", required=True, help="Why: whoever misses an alarm will want to know.")
@flags.flag("--for", "duration", metavar="TIME", help="How long, such as 2h; at most 31d.")
@flags.flag("--from", "starts_at", metavar="TIME", help="RFC 3339, or from now such as +30m; default: now.")
@flags.flag("--until", "ends_at", metavar="TIME", help="RFC 3339, or from now such as +2h.")
@flags.flag(
    "--every",
    metavar="WINDOWS",
    help='Only in these windows, such as "mon-fri 22:00-02:00 Europe/Berlin", "sun 1-7 03:00-05:00 UTC" (the first '
    'Sunday of a month) or "fri 22:00 for 56h UTC"; --until or --for says for how long they come back.',
)
@flags.flag("--dry-run", is_flag=True, help="Only say what it would cover, and what is wrong with it.")
@flags.client_flags
@flags.output_flag
def add(
    instance: Sequence[str],
    node: Sequence[str],
    event: Sequence[str],
    severity: Sequence[str],
    comment: str,
    duration: str | None,
    starts_at: str | None,
    ends_at: str | None,
    every: str | None,
    dry_run: bool,
    where: flags.Where,
    output: str,
) -> None:
    """Have people not be told of what all given names fit, for a time.

    Without --instance it covers all instances, without --event all events, and so on; one name at least is needed. That
    the observer is blind or did not look is covered only when that is named (--instance observer, --event probe_blind).
    """
    body = {
        "instances": list(instance), "nodes": list(node), "events": list(event), "severities": list(severity),
        "comment": comment, "duration": duration, "starts_at": starts_at, "ends_at": ends_at, "every": every,
    }  # fmt: skip
    given = {key: value for key, value in body.items() if value not in (None, [])}
    answer = where.client().change("POST", PATH, given, query={"dry_run": dry_run or None})
    for warning in answer["warnings"]:
        click.echo(f"probed: {text(warning)}", err=True)
    if output != "table":
        emit(output, answer, [Column(key) for key in _ALL], [answer])
        return
    row = _row(answer)
    click.echo(f"{'would cover' if dry_run else answer['id'] + ' covers'} {row['covers']}, {row['when']}")
    _tell_open(where.client(), answer["open_events"], "that it would cover" if dry_run else "that it covers")


@command.command("list")
@flags.flag(
    "--state", type=click.Choice(["pending", "active", "expired"]), help="Only in this state; default: not expired."
)
@flags.client_flags
@flags.output_flag
def list_(state: str | None, where: flags.Where, output: str) -> None:
    """Silences that hold or will hold.

    Those of the configuration included.
    """
    answer = where.client().items(PATH, {"state": state}, MAX_LISTED)
    if state is None:
        answer = {**answer, "items": [item for item in answer["items"] if item["state"] != "expired"]}
    if output == "tsv":
        emit(output, answer, [Column(key) for key in _ALL], answer["items"])
        return
    emit(output, answer, _COLUMNS, [_row(item) for item in answer["items"]], empty="No silence holds or is to come.")


@command.command("expire")
@click.argument("silence_ids", metavar="ID...", nargs=-1, required=True)
@flags.client_flags
@flags.output_flag
def expire(silence_ids: Sequence[str], where: flags.Where, output: str) -> None:
    """End silences now.

    What they cover and is still open is told with its next sample. The beginning of an id, at least 8 characters, is
    enough when no other begins like it.
    """
    client = where.client()
    answers = [client.change("DELETE", f"{PATH}/{_complete(client, wanted)}") for wanted in silence_ids]
    if output != "table":
        emit(output, {"items": answers}, [Column(key) for key in _ALL], answers)
        return
    for answer in answers:
        by = f" by {text(answer['ended_by'])}" if answer["ended_by"] else ""
        click.echo(f"{text(answer['id'])} ended at {moment(answer['ended_at'] or answer['ends_at'])}{by}")


def _complete(client: Client, wanted: str) -> str:
    from urllib.parse import quote

    if len(wanted) >= 36 or wanted.startswith("file:"):
        return quote(wanted, safe=":")
    if len(wanted) < 8:
        raise ApiError(f'expected a silence\'s id or at least its first 8 characters, got "{wanted}"')
    items = client.items(PATH, {}, MAX_LISTED)["items"]
    found = [str(item["id"]) for item in items if item["id"].startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ApiError(f'no silence\'s id begins with "{wanted}"; `probed silence list` shows them')
    raise ApiError(f'{len(found)} silences begin with "{wanted}": {", ".join(found[:5])}; give more of it')


def _tell_open(client: Client, ids: Sequence[str], what: str) -> None:
    """The open events of these ids, as a list of events shows them."""
    from probed.cli.events import COLUMNS, row
    from probed.cli.output import table

    events = client.items("/api/v1/events", {"state": "open"}, 10_000)["items"] if ids else []
    click.echo(f"open events {what}: {len(ids) or 'none'}")
    if not events:
        return
    table(COLUMNS, [row(event) for event in events if event["id"] in ids], indent=2)


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    """A silence as a row: what it covers and when it holds, in words."""
    named = [
        (word, item[key])
        for word, key in (("instance", "instances"), ("node", "nodes"), ("event", "events"), ("severity", "severities"))
    ]
    covers = ", ".join(f"{word} {' or '.join(map(text, names))}" for word, names in named if names)
    return {**item, "covers": covers, "when": _when(item)}


def _when(item: Mapping[str, Any]) -> str:
    window = item.get("window") or {}
    if item["state"] == "expired":
        return f"ended {moment(item['ended_at'] or item['ends_at'])}"
    until = f", until {moment(item['ends_at'])}" if item["ends_at"] else ""
    if not item["every"]:
        begins = f"from {moment(item['starts_at'])} " if item["state"] == "pending" else ""
        return f"{begins}until {moment(item['ends_at'])}"
    if item["state"] == "active":
        return f"{text(item['every'])}{until}; now until {moment(window.get('closes_at'))}"
    return f"{text(item['every'])}{until}; next {moment(window.get('opens_at'))}"
