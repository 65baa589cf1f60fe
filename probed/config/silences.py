"""Silences as people write them: under ``silences:`` in ``probed.yml``, and in the body of a request."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from probed import recurrence
from probed.config.values import Moment, Name
from probed.errors import Problem
from probed.model import Severity
from probed.silences import FILE, MAX_COMMENT, MAX_NAMES, Scope, Silence, wrong_span
from probed.strict_yaml import Misplaced, Strict, did_you_mean, no_items


def _every(value: str) -> str:
    _ = recurrence.parse(value)
    return value


def _comment(value: str) -> str:
    if not value.strip() or len(value) > MAX_COMMENT or not value.isprintable():
        raise ValueError(f"expected one line of at most {MAX_COMMENT} characters that says why")
    return value.strip()


_Named = Annotated[str, Field(min_length=1, max_length=200)]
Every = Annotated[
    str, AfterValidator(_every), Field(max_length=200, examples=["mon-fri 22:00-02:00 Europe/Berlin"])
]  # fmt: skip
Comment = Annotated[str, AfterValidator(_comment)]


class Scoped(Strict):
    """What a silence covers, and why there is one."""

    comment: Comment = Field(description="Why: whoever misses an alarm will want to know.")
    instances: list[_Named] = Field(default_factory=no_items, max_length=MAX_NAMES, description="Default: all.")
    nodes: list[_Named] = Field(default_factory=no_items, max_length=MAX_NAMES, description="Default: all, and none.")
    events: list[_Named] = Field(default_factory=no_items, max_length=MAX_NAMES, description="Ids of policies.")
    severities: list[Literal["fatal", "critical", "normal"]] = Field(
        default_factory=no_items, max_length=3, description="Default: all."
    )
    every: Every | None = Field(
        default=None, description="Windows in which it holds: days, times of day and a time zone."
    )

    @property
    def scope(self) -> Scope:
        named = (self.instances, self.nodes, self.events)
        instances, nodes, events = (tuple(dict.fromkeys(names)) for names in named)
        return Scope(instances, nodes, events, tuple(map(Severity, dict.fromkeys(self.severities))))

    @property
    def recurrence(self) -> recurrence.Recurrence | None:
        return None if self.every is None else recurrence.parse(self.every)

    @model_validator(mode="after")
    def _names_something(self) -> Scoped:
        if not self.scope:
            raise ValueError(
                "it would hide everything: name instances, nodes, events or severities that it is to cover"
            )
        return self


class DeclaredSilence(Scoped):
    """A maintenance window, or a planned outage, that stands in the configuration."""

    name: Name = Field(description="Its id is file:NAME.")
    starts_at: Moment | None = Field(default=None, description="RFC 3339; with every, default: always.")
    ends_at: Moment | None = Field(default=None, description="RFC 3339; with every, default: never.")
    _place: tuple[str, int] = PrivateAttr(default=("probed.yml", 0))

    @model_validator(mode="after")
    def _fits(self) -> DeclaredSilence:
        wrong = []
        if self.every is None and self.starts_at is None:
            wrong.append((("starts_at",), "expected a start, or windows that come back (every)"))
        for key, message in wrong_span(self.starts_at or 0.0, self.ends_at, self.recurrence, None):
            wrong.append(((key,), message))
        if wrong:
            raise Misplaced(*wrong)
        return self

    def stands_at(self, file: str, line: int) -> None:
        """Where it is written, for those who want to end it."""
        self._place = (file, line)

    def silence(self) -> Silence:
        file, line = self._place
        return Silence(
            id=FILE + self.name,
            scope=self.scope,
            comment=self.comment,
            author=file,
            created_at=0.0,
            starts_at=self.starts_at or 0.0,
            ends_at=self.ends_at,
            every=self.recurrence,
            where=f"{file}:{line}" if line else file,
        )

    def problem(self, message: str, path: str) -> Problem:
        file, line = self._place
        return Problem(file, message, line, 1 if line else 0, path=path)


def misnamed(declared: Iterable[DeclaredSilence], events: Collection[str]) -> list[Problem]:
    """Event types that there are not: such a silence would cover nothing."""
    return [
        silence.problem(unknown_event(name, events), f"silences[{index}].events")
        for index, silence in enumerate(declared)
        for name in silence.events
        if name not in events
    ]


def unknown_event(name: str, events: Collection[str]) -> str:
    return f'there is no event "{name}"{did_you_mean(name, sorted(events))}'
