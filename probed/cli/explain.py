"""``probed explain``: why there is this event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from probed.cli import flags
from probed.quantity import human_bytes, human_seconds

if TYPE_CHECKING:
    from probed.cli.client import Client

MAX_CHAIN = 10
MAX_SAMPLES, MAX_AFTER = 6, 3


@click.command("explain")
@click.argument("event_id", metavar="ID")
@flags.client_flags
def command(event_id: str, where: flags.Where) -> None:
    """The report of an event: what, since when, why, what was seen.

    Its rule with the samples, the chain of causes, the evidence in a few lines each (`probed events show ID` prints all
    of it), what could not be had, what followed, and what to do.
    """
    from probed.cli.events import find, headline, tell_suggestion
    from probed.cli.evidence import tell_digest

    client = where.client()
    event = find(client, event_id)
    headline(event)
    _tell_times(event)
    _tell_switchover(event)
    _tell_causes(client, event)
    _tell_rule(client, event)
    _tell_samples(event)
    tell_digest(event)
    _tell_consequences(client, event)
    tell_suggestion(event)


def _tell_times(event: Mapping[str, Any]) -> None:
    """Since when, how it was noticed, and how long it took."""
    from probed.cli.events import silence_of
    from probed.cli.output import moment, pairs, text

    samples = "1 sample" if event["count"] == 1 else f"{event['count']} samples"
    rows: list[tuple[str, object]] = [
        ("first bad sample", moment(event.get("first_failed_at"))),
        ("occurred" if event["state"] == "occurred" else "opened", f"{moment(event['opened_at'])}, after {samples}"),
    ]
    if event.get("resolved_at"):
        took = _between(event.get("first_failed_at") or event["opened_at"], event["resolved_at"])
        rows.append(
            ("resolved", f"{moment(event['resolved_at'])} ({event.get('resolve_reason')}), {took} after it began")
        )
    elif event["state"] == "open":
        rows.append(("resolved", "not yet"))
    if event.get("value") is not None and event.get("threshold") is not None:
        rows.append(("value", f"{text(event['value'])}, threshold {text(event['threshold'])}"))
    if event.get("suppressed"):
        rows.append(("held back", "yes: it is told with its cause"))
    rows.append(("silenced", silence_of(event)))
    if (event.get("details") or {}).get("patroni_paused"):
        rows.append(("Patroni", "was paused (maintenance mode): it would not have failed over"))
    if event.get("acked_by"):
        rows.append(("acknowledged by", event["acked_by"]))
    rows.append(("seen by", f"{text(event.get('observer'))}, event {event['id']}"))
    click.echo("\nwhat happened")
    pairs(rows, indent=2)


_CLASSES = {
    "planned": "planned switchover",
    "automatic_failover": "automatic failover",
    "manual_failover": "failover by hand",
    "unknown": "unknown",
}


def _tell_switchover(event: Mapping[str, Any]) -> None:
    """How the new leader got there, what speaks for that, and what it cost."""
    from probed.cli.output import pairs, text

    story = (event.get("details") or {}).get("switchover")
    if not isinstance(story, Mapping):
        return
    how = _CLASSES.get(str(story.get("class")), text(story.get("class")))
    if story.get("scheduled"):
        how += ", as scheduled"
    rows: list[tuple[str, object]] = [
        ("what it was", f"{how} (confidence {text(story.get('confidence'))})"),
        ("leader", f"{text(story.get('old_leader'))} -> {text(story.get('new_leader'))}"),
    ]
    if story.get("old_timeline") is not None and story.get("new_timeline") is not None:
        rows.append(("timeline", f"{story['old_timeline']} -> {story['new_timeline']}"))
    if story.get("write_outage_seconds") is not None:
        rows.append(("no writes", f"for at most {human_seconds(story['write_outage_seconds'])}"))
    lost = story.get("lost_bytes")
    rows.append(("WAL lost", "not known" if lost is None else f"at least {human_bytes(lost)}" if lost else "none seen"))
    if story.get("inferred"):
        rows.append(("seen", "no: it happened while nobody looked, and is told from Patroni's history"))
    click.echo("\nthe switchover")
    pairs(rows, indent=2)
    for signal in story.get("signals") or ():
        click.echo(f"    - {text(signal)}")


def _between(begin: str, end: str) -> str:
    try:
        seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    except ValueError:
        return "some time"
    return human_seconds(max(0.0, seconds))


def _tell_samples(event: Mapping[str, Any]) -> None:
    """The last samples that led to it, and those that ended it."""
    from probed.cli.events import tell_samples

    samples = event.get("samples") or {}
    tell_samples("samples up to the trigger", list(samples.get("before") or ())[-MAX_SAMPLES:])
    tell_samples("samples up to the recovery", list(samples.get("after") or ())[-MAX_AFTER:])


def _tell_rule(client: Client, event: Mapping[str, Any]) -> None:
    from probed.cli.client import NotThere
    from probed.cli.output import text

    try:
        policy = client.get(f"/api/v1/policies/{event['event']}")
    except NotThere:  # the policy was removed since
        return
    now = policy.get("version")
    opened = (event.get("details") or {}).get("opened_under", event.get("policy_version"))
    changed = f" (version {text(now)} now, {text(opened)} when it opened)" if now not in (None, opened) else ""
    click.echo(f"\nrule{changed}\n  {text(policy['rule'])}")
    if policy.get("params"):
        click.echo(f"  with {text(policy['params'])}")


def _tell_causes(client: Client, event: Mapping[str, Any]) -> None:
    seen = {event["id"]}
    cause = event.get("caused_by")
    while cause and cause not in seen and len(seen) <= MAX_CHAIN:
        seen.add(cause)
        found = _event(client, cause)
        if found is None:
            return
        click.echo(f"\ncaused by\n  {_line(found)}")
        cause = found.get("caused_by")


def _tell_consequences(client: Client, event: Mapping[str, Any]) -> None:
    ids = list(event.get("consequences") or ())
    found = [item for item in (_event(client, event_id) for event_id in ids[:MAX_CHAIN]) if item is not None]
    if found:
        click.echo("\nconsequences")
        for item in found:
            click.echo(f"  {_line(item)}")
    if len(ids) > MAX_CHAIN:
        click.echo(f"  and {len(ids) - MAX_CHAIN} more")


def _event(client: Client, event_id: str) -> dict[str, Any] | None:
    from probed.cli.client import NotThere

    try:
        event: dict[str, Any] = client.get(f"/api/v1/events/{event_id}")
    except NotThere:  # retention took it
        return None
    return event


def _line(event: Mapping[str, Any]) -> str:
    from probed.cli.events import place_of
    from probed.cli.output import moment, text

    held = ", held back" if event.get("suppressed") else ", silenced" if event.get("silenced") else ""
    head = f"{moment(event['opened_at'])} {event['severity']} {event['event']} {place_of(event)}"
    return f"{head} ({event['state']}{held}): {text(event['message'])}  {event['id']}"
