"""Who is told of events, and how each is reached: the keys under ``notifications``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from probed.config.access import Secured
from probed.config.values import Duration, HookUrl, HttpUrl, Name, PathText, hook_url
from probed.errors import Problem
from probed.model import CANARY, Severity
from probed.strict_yaml import Misplaced, Strict, did_you_mean, dotted, no_items


def _severity(value: object) -> object:
    known = [severity.value for severity in Severity]
    if value not in known:
        raise ValueError(f'expected one of {", ".join(known)}, got "{value}"')
    return Severity(value)


Grade = Annotated[Severity, BeforeValidator(_severity)]
"""A severity as a file has it: a word."""

_Path = tuple[str | int, ...]


class Routed(Strict):
    """Which events a receiver is told of; without any of these: of all."""

    name: Name | None = Field(
        default=None,
        description="Its name in the history, in metrics and commands; default: the host it is reached at.",
    )
    min_severity: Grade = Field(
        default=Severity.NORMAL, description="Only events at least as grave: fatal, critical or normal (all)."
    )
    instances: list[Name] = Field(
        default_factory=no_items, description="Only of these instances (the daemon itself is called observer)."
    )
    events: list[Name] = Field(default_factory=no_items, description="Only events of these types, such as no_leader.")
    resolved: bool = Field(default=True, description="Also tell when an event that was told has resolved.")
    reminders: Duration | None = Field(
        default=None,
        description="Tell again after so long of what is open and not acknowledged, such as 4h; default never.",
    )


class Webhook(Secured, Routed):
    url: HookUrl | None = Field(default=None, description="Where each event is sent to by POST, as a CloudEvent.")
    url_file: PathText | None = Field(default=None, description="File with that address, when it holds a secret.")
    secret_file: PathText | None = Field(
        default=None,
        description="File with the signing secret (Standard Webhooks, whsec_…); several lines while it is rotated.",
    )

    @model_validator(mode="after")
    def _one_address(self) -> Webhook:
        _only_one(self.url, self.url_file)
        wrong = self.misused([self.url or "https:"])
        if wrong:
            raise Misplaced(*wrong)
        return self


class AlertSeverities(Strict):
    """What an alert's label ``severity`` is for each of ours."""

    fatal: Name = "critical"
    critical: Name = "warning"
    normal: Name = "info"


class Alertmanager(Secured, Routed):
    url: HttpUrl = Field(description="Base address of one Alertmanager; of a cluster, name every member.")
    severity: AlertSeverities = Field(
        default_factory=AlertSeverities, description="What the label severity says for each of ours."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Alertmanager:
        wrong = self.misused([self.url])
        if self.reminders is not None:
            wrong.append(
                (("reminders",), "means nothing here: repeat_interval in Alertmanager's own configuration does that")
            )
        if wrong:
            raise Misplaced(*wrong)
        return self


def _as_map(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


AlertmanagerText = Annotated[Alertmanager, BeforeValidator(_as_map, json_schema_input_type=HttpUrl | Alertmanager)]
"""An Alertmanager as a file has it: a map, or its address alone."""


class Apprise(Routed):
    url_file: PathText = Field(description="File with Apprise addresses (mailto://, slack://, …), one a line.")


class Heartbeat(Strict):
    url: HookUrl | None = Field(
        default=None, description="Asked by GET every interval while probed does its work: a dead man's switch."
    )
    url_file: PathText | None = Field(default=None, description="File with that address, when it holds a secret.")
    interval: Duration = Field(default=15.0, description="Between two pings.")
    alertmanager: bool = Field(
        default=False, description="Also keep an alert ProbedWatchdog firing in every Alertmanager."
    )

    @model_validator(mode="after")
    def _some_way(self) -> Heartbeat:
        if self.url is None and self.url_file is None and self.alertmanager:
            return self
        _only_one(self.url, self.url_file)
        return self


def _pace(value: object) -> float | None:
    return None if value == "off" else _DURATION.validate_python(value)


_DURATION: TypeAdapter[float] = TypeAdapter(Duration)
Pace = Annotated[float | None, BeforeValidator(_pace, json_schema_input_type=Duration | Literal["off"])]
"""A duration, or ``off``."""


class Notifications(Strict):
    alertmanager: list[AlertmanagerText] = Field(
        default_factory=no_items, description="Every Alertmanager; each gets every alert. An address alone is enough."
    )
    webhooks: list[Webhook] = Field(default_factory=no_items, description="Each gets one signed CloudEvent per event.")
    apprise: list[Apprise] = Field(
        default_factory=no_items, description="Chat, mail and push by Apprise (needs the extra: pg-probed[apprise])."
    )
    heartbeat: Heartbeat | None = Field(default=None, description="Tells somebody else that this daemon lives.")
    canary: Pace = Field(
        default=3600.0,
        description="How often an event of probed's own goes the way of an alarm, to see that it is open; or off.",
    )
    runbook_url: HttpUrl | None = Field(
        default=None, description="Where your runbooks are, for alerts; {event} stands for the event's type."
    )

    @model_validator(mode="after")
    def _told_apart(self) -> Notifications:
        seen: set[str] = set()
        wrong: list[tuple[_Path, str]] = []
        for path, name, _ in self.receivers():
            if name in seen:
                wrong.append((path, f'two receivers are called "{name}"; give this one a name of its own'))
            if name == CANARY:
                wrong.append((path, f'"{CANARY}" is what probed calls a receiver of its own; choose another name'))
            seen.add(name)
        if wrong:
            raise Misplaced(*wrong)
        return self

    def receivers(self) -> list[tuple[_Path, str, Alertmanager | Webhook | Apprise]]:
        """(place below ``notifications``, name, settings) of everyone who is told of events."""
        return [
            *((("alertmanager", i), one.name or _host(one.url), one) for i, one in enumerate(self.alertmanager)),
            *((("webhooks", i), one.name or _called(one), one) for i, one in enumerate(self.webhooks)),
            *((("apprise", i), one.name or _word(one.url_file.stem), one) for i, one in enumerate(self.apprise)),
        ]


def _only_one(url: str | None, url_file: Path | None) -> None:
    if (url is None) == (url_file is None):
        raise ValueError("expected an address: either url or url_file")


def _called(webhook: Webhook) -> str:
    return _host(webhook.url) if webhook.url else _word(webhook.url_file.stem if webhook.url_file else "webhook")


def _host(url: str) -> str:
    """``am-1-9093`` of ``http://am-1:9093``: no path, which may hold a secret."""
    parts = urlsplit(url)
    return _word(f"{parts.hostname}-{parts.port}" if parts.port else str(parts.hostname))


def _word(text: str) -> str:
    """``text`` as a name: stable, whatever stands beside it in the file."""
    word = "".join(char if char.isalnum() or char in "-_." else "-" for char in text)
    return word.strip("-")[:63] or "receiver"


def address_in(path: Path) -> str:
    """The address that a ``url_file`` holds. ValueError without any of it in its text; OSError."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(lines) != 1:
        raise ValueError(f'"{path}" does not hold one line with an address')
    return hook_url(lines[0])


def misdirected(told: Notifications | None, policies: Collection[str], where: str = "probed.yml") -> list[Problem]:
    """Events that receivers name and no policy brings, and files that hold no address."""
    problems: list[Problem] = []
    if told is None:
        return problems
    files: list[tuple[str, Path | None]] = []
    for path, _, one in told.receivers():
        here = dotted(("notifications", *path))
        for index, event in enumerate(one.events):
            if event not in policies or event == CANARY:
                message = f'no policy is called "{event}"' + did_you_mean(event, sorted(policies))
                problems.append(Problem(where, message, path=f"{here}.events[{index}]"))
        if isinstance(one, Webhook):
            files.append((f"{here}.url_file", one.url_file))
    if told.heartbeat is not None:
        files.append(("notifications.heartbeat.url_file", told.heartbeat.url_file))
    for here, file in files:
        try:
            if file is not None:
                address_in(file)
        except (OSError, ValueError) as error:
            problems.append(Problem(where, getattr(error, "strerror", None) or str(error), path=here))
    return problems
