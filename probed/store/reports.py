"""Reports of inspections as the store keeps them. Values only; ``inspections`` has the SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field


class InspectedRecord(Struct, frozen=True):
    """What an inspection found of one instance."""

    instance: str
    grade: str
    fails: int
    """Items that failed."""
    warns: int
    body: bytes = b""
    """As ``inspection.packing`` makes it; empty in a list."""


class InspectionRecord(Struct, frozen=True):
    """A report, or one in the making. Times are Unix seconds."""

    id: str
    """Time-ordered, as an event's."""
    series: str
    """Those of one series follow each other: the schedule's name, else the instances."""
    name: str
    """Of its schedule, or empty."""
    state: str
    author: str
    began_at: float
    ended_at: float | None = None
    head: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: the rest of the report but its instances."""
    parts: tuple[InspectedRecord, ...] = ()
    """The worst first."""


class InspectionQuery(Struct, frozen=True):
    """Filters of the list; newest first."""

    instance: str | None = None
    name: str | None = None
    state: str | None = None
    before_id: str | None = None
    limit: int = 100


class Earlier(Struct, frozen=True):
    """The newest report before one, as far as it is about an instance."""

    id: str
    began_at: float
    body: bytes
