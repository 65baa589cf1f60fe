"""Inspections that come back, as people write them under ``inspections:`` in ``probed.yml``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from probed.config.silences import unknown_event
from probed.config.values import Name
from probed.errors import Problem
from probed.inspection import schedules
from probed.inspection.choosing import DEFAULT_DAYS, MAX_DAYS
from probed.model import Policy
from probed.recurrence import zone_of
from probed.strict_yaml import Misplaced, Strict, no_items


def _zone(value: str) -> str:
    _ = zone_of(value)
    return value


Zone = Annotated[str, AfterValidator(_zone), Field(max_length=64, examples=["Europe/Berlin"])]
Days = Annotated[int, Field(ge=1, le=MAX_DAYS)]


class Inspection(Strict):
    name: Name = Field(description="Its reports carry it.")
    schedule: str = Field(
        max_length=100,
        description="daily 03:00, weekly mon 03:00, monthly 1 03:00 (or last), or a cron expression of five fields.",
        examples=["daily 03:00", "0 3 * * 1-5"],
    )
    zone: Zone = Field(default="UTC", description="Time zone of the schedule, and of the times in its reports.")
    instances: list[Name] = Field(default_factory=no_items, description="Default: all, in one report.")
    events: list[str] = Field(
        default_factory=no_items, max_length=200, description="Ids of policies that are on; default: all that are."
    )
    days: Days = Field(default=DEFAULT_DAYS, description="How much history a report takes into account.")
    _place: tuple[str, int] = PrivateAttr(default=("probed.yml", 0))

    @model_validator(mode="after")
    def _comes_back(self) -> Inspection:
        try:
            _ = self.times
        except ValueError as error:
            raise Misplaced((("schedule",), str(error))) from None
        return self

    @property
    def times(self) -> schedules.Schedule:
        return schedules.parse(self.schedule, self.zone)

    def stands_at(self, file: str, line: int) -> None:
        """Where it is written, for messages."""
        self._place = (file, line)

    def problem(self, message: str, path: str) -> Problem:
        file, line = self._place
        return Problem(file, message, line, 1 if line else 0, path=path)


def unfit(declared: Iterable[Inspection], policies: Mapping[str, Policy]) -> list[Problem]:
    """Events that there are not, or whose monitoring is off: only what is watched can be inspected."""
    return [
        inspection.problem(message, f"inspections[{index}].events")
        for index, inspection in enumerate(declared)
        for name in inspection.events
        for message in _wrong(name, policies)
    ]


def _wrong(name: str, policies: Mapping[str, Policy]) -> list[str]:
    if name not in policies:
        return [unknown_event(name, policies)]
    return [] if policies[name].enabled else [switched_off(name)]


def switched_off(name: str) -> str:
    return f'monitoring of "{name}" is off, and only what is watched can be inspected; probed policy enable {name}'
