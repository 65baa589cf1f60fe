"""``probed events``: what happened."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from probed.cli import flags, listing
from probed.cli.output import Column, emit, moment, pairs, rfc3339, table, text
from probed.errors import ApiError

if TYPE_CHECKING:
    from probed.cli.client import Client

_F = TypeVar("_F", bound=Callable[..., Any])

SHORT_ID = 18
"""Characters of an id that a terminal shows: the millisecond and 12 random bits, enough for `events show`."""

COLUMNS = (
    Column("opened_at", "opened"),
    Column("severity"),
    Column("state"),
    Column("event"),
    Column("where"),
    Column("message", prose=True),
    Column("id", brief=lambda value: value[:SHORT_ID]),
)
ALL = (
    "id", "opened_at", "resolved_at", "severity", "state", "event", "instance", "node", "component", "suppressed",
    "caused_by", "silenced", "silenced_by", "count", "message",
)  # fmt: skip

NO_EVENTS = (
    "No events. Nothing that was watched has failed long enough to open one, or the filters exclude it "
    "(`probed status` shows what is watched, `probed policy list` what is detected)."
)


@click.group("events")
def command() -> None:
    """What happened: list, one event, stream, export, per day."""


_kinds: Callable[[_F], _F] = flags.together(
    flags.flag("--instance", metavar="NAME", help="Only of this instance."),
    flags.flag("--event", metavar="ID", help="Only of this type, such as database_unavailable."),
    flags.flag("--severity", type=click.Choice(["fatal", "critical", "normal"]), help="Only of this severity."),
    flags.flag(
        "--suppressed/--no-suppressed",
        default=None,
        help="Only, or without, those held back as consequences of another; default: all.",
    ),
    flags.flag(
        "--silenced/--no-silenced",
        default=None,
        help="Only, or without, those that nobody was told of because of a silence; default: all.",
    ),
)
_filters: Callable[[_F], _F] = flags.together(
    _kinds,
    flags.flag("--state", type=click.Choice(["open", "resolved", "occurred"]), help="Only in this state."),
    flags.span_flags,
)


@command.command("list")
@_filters
@flags.list_flags
def list_(where: flags.Where, output: str, watch: float | None, limit: int, **filters: object) -> None:
    """Open and past events, newest first."""

    def tell_all(answer: dict[str, Any]) -> None:
        emit("table", answer, COLUMNS, [row(event) for event in answer["items"]], empty=NO_EVENTS)

    listing.show("/api/v1/events", filters, ALL, tell_all, where=where, output=output, watch=watch, limit=limit)


@command.command("stream")
@_kinds
@flags.flag(
    "--after",
    metavar="NUMBER",
    type=click.IntRange(min=0),
    help="Go on after the transition of this number; 0: from the beginning. Default: from now on.",
)
@flags.client_flags
@flags.flag(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="json: one object a line, with the number of its transition.",
)
def stream(where: flags.Where, output: str, after: int | None, **filters: object) -> None:
    """Events as they open, resolve, occur or are acknowledged.

    Until Ctrl-C. When the connection is lost another one goes on where it was: nothing is missed, nothing comes twice.
    """
    import json

    from probed.cli.following import Follower
    from probed.redaction import visible

    def lost(why: str) -> None:
        click.echo(f"probed: {visible(why)}; connecting again", err=True)

    follower = Follower(where.client(), filters, "" if after is None else str(after), lost)
    try:
        for kind, event in follower.messages():
            if kind == "reset":
                click.echo("probed: some transitions are gone, purged or of another store", err=True)
            elif output == "json":
                click.echo(json.dumps(event))
            else:
                click.echo(_line(kind, event))
    except KeyboardInterrupt:
        return


@command.command("export")
@_filters
@flags.flag("--format", type=click.Choice(["csv", "json"]), default="csv", show_default=True, help="Of the file.")
@flags.client_flags
def export(where: flags.Where, **filters: object) -> None:
    """All events that fit, however many, as CSV or JSON.

    On stdout, newest first.
    """
    out = sys.stdout.buffer
    with where.client().stream("/api/v1/events", filters, silence=30.0) as response:
        while part := response.read1(1 << 16):
            out.write(part)
    out.flush()


@command.command("show")
@click.argument("event_id", metavar="ID")
@flags.client_flags
@flags.output_flag
def show(event_id: str, where: flags.Where, output: str) -> None:
    """One event with its samples and evidence.

    The beginning of an id, at least 8 characters, is enough when no other begins like it.
    """
    event = find(where.client(), event_id)
    if output == "table":
        tell(event)
    else:
        emit(output, event, [Column(key) for key in ALL], [event])


@command.command("daily")
@flags.flag("--tz", metavar="ZONE", help="Days of this time zone, such as Europe/Berlin; default UTC.")
@flags.flag("--since", metavar="TIME", help="RFC 3339, or relative such as -30d.")
@flags.flag("--until", metavar="TIME", help="RFC 3339, or relative.")
@flags.client_flags
@flags.output_flag
def daily(tz: str | None, since: str | None, until: str | None, where: flags.Where, output: str) -> None:
    """Number of triggers per day, event and instance."""
    answer = where.client().get("/api/v1/events/daily", {"tz": tz, "since": since, "until": until})
    columns = [
        Column("date"), Column("event"), Column("instance"), Column("severity"), Column("count", right=True)
    ]  # fmt: skip
    emit(output, answer, columns, answer["items"], empty="No event was triggered in this time.")


def find(client: Client, event_id: str) -> dict[str, Any]:
    """The one event whose id is, or begins with, ``event_id``. ApiError when there is none, or are several."""
    if not re.fullmatch(r"[0-9a-fA-F-]{8,36}", event_id):
        raise ApiError(f'expected an event\'s id or at least its first 8 characters, got "{event_id}"')
    wanted = event_id.lower()
    if len(wanted) < 36:
        wanted = _complete(client, wanted)
    event: dict[str, Any] = client.get(f"/api/v1/events/{wanted}")
    return event


def _complete(client: Client, beginning: str) -> str:
    """An id begins with its time (UUID version 7), so its beginning says where in the list to look."""
    digits = beginning.replace("-", "")[:12]
    first, last = int(digits.ljust(12, "0"), 16), int(digits.ljust(12, "f"), 16)
    query = {"since": rfc3339(first / 1000), "until": rfc3339((last + 1) / 1000)}
    items = client.items("/api/v1/events", query, limit=10_000)["items"]
    found = [item["id"] for item in items if item["id"].startswith(beginning)]
    if len(found) == 1:
        return str(found[0])
    if not found:
        raise ApiError(f'no event\'s id begins with "{beginning}"; `probed events list` shows them')
    raise ApiError(f'{len(found)} events begin with "{beginning}": {", ".join(found[:5])}; give more of it')


def _line(kind: str, event: Mapping[str, Any]) -> str:
    """A transition as a line for people."""
    turn = event["transition"]
    said = f" by {text(turn['who'])}{': ' if turn['comment'] else ''}{text(turn['comment'])}" if turn["who"] else ""
    held = " (held back)" if event["suppressed"] else ""
    told = f"{moment(turn['at'])}  {text(kind):<8}  {text(event['severity']):<8}  {text(event['event'])}  "
    return f"{told}{place_of(event)}  {text(event['message'])}{held}{said}  {event['id'][:SHORT_ID]}"


def row(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as a row of the list."""
    state = event["state"] + _held(event)
    return {**event, "opened_at": moment(event["opened_at"]), "state": state, "where": place_of(event)}


def place_of(event: Mapping[str, Any]) -> str:
    """``orders/node-a``."""
    return "/".join(part for part in (event["instance"], event.get("node") or "") if part)


def _held(event: Mapping[str, Any]) -> str:
    if event.get("suppressed"):
        return " (held back)"
    return " (silenced)" if event.get("silenced") else " (told, then silenced)" if is_muted(event) else ""


def is_muted(event: Mapping[str, Any]) -> bool:
    """Whether a silence holds over an event."""
    note = (event.get("details") or {}).get("silence")
    return bool(event.get("silenced_by")) and isinstance(note, Mapping) and "over_at" not in note


def silence_of(event: Mapping[str, Any]) -> str:
    """What a silence did to an event, in words; empty when there was none."""
    note = (event.get("details") or {}).get("silence")
    if not event.get("silenced_by") or not isinstance(note, Mapping):
        return ""
    span = f"since {moment(note.get('since'))}"
    if note.get("over_at"):
        span = f"from {moment(note.get('since'))} to {moment(note['over_at'])}, then told"
    told = "" if event.get("silenced") or note.get("over_at") else ", after it was told"
    why = f"{text(note.get('comment'))} ({text(note.get('author'))})"
    return f"{span}{told}: {why}; silence {text(event['silenced_by'])}"


def tell(event: Mapping[str, Any]) -> None:
    """One event for people, with everything that was kept of it."""
    from probed.cli.evidence import tell_whole

    headline(event)
    click.echo()
    pairs(
        [
            ("id", event["id"]),
            ("event", event["event"]),
            ("target", event.get("target")),
            ("opened", moment(event["opened_at"])),
            ("first failed", moment(event.get("first_failed_at"))),
            ("resolved", moment(event.get("resolved_at"))),
            ("because", event.get("resolve_reason")),
            ("value", event.get("value")),
            ("threshold", event.get("threshold")),
            ("policy version", event.get("policy_version")),
            ("observer", event.get("observer")),
            ("labels", event.get("labels")),
            ("caused by", event.get("caused_by")),
            ("held back", "yes: announced with its cause" if event.get("suppressed") else None),
            ("silenced", silence_of(event)),
            ("Patroni paused", "yes" if (event.get("details") or {}).get("patroni_paused") else None),
            ("acknowledged by", event.get("acked_by")),
            ("comment", ((event.get("details") or {}).get("ack") or {}).get("comment")),
            ("consequences", event.get("consequences")),
        ],
        indent=2,
    )
    samples = event.get("samples") or {}
    tell_samples("samples up to the trigger", samples.get("before") or ())
    tell_samples("samples up to the recovery", samples.get("after") or ())
    tell_whole(event)
    tell_suggestion(event)


def headline(event: Mapping[str, Any]) -> None:
    """What it is, where, whether it goes on; and its own words."""
    click.echo(f"{text(event['severity']).upper()}  {text(event['name'])}  {place_of(event)}  {event['state']}")
    click.echo(text(event["message"]))


def tell_suggestion(event: Mapping[str, Any]) -> None:
    if event.get("suggestion"):
        click.echo(f"\nwhat to do\n  {text(event['suggestion'])}")


def tell_samples(title: str, samples: Sequence[Mapping[str, Any]]) -> None:
    """Samples as they were kept, oldest first."""
    if not samples:
        return
    click.echo(f"\n{title}")
    columns = [Column("at"), Column("outcome"), Column("duration_ms", "ms", right=True)]
    columns += [Column("readings", prose=True), Column("reason", prose=True)]
    table(columns, [{**sample, "at": moment(sample["at"])} for sample in samples], indent=2)
