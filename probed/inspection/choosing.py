"""What an inspection is asked to look at. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set

from msgspec import Struct

from probed.model import Policy

DEFAULT_DAYS, MAX_DAYS = 7, 90
BY_SCHEDULE = "schedule"
"""The author of what nobody asked for."""


class Order(Struct, frozen=True):
    """One inspection that is wanted."""

    instances: tuple[str, ...]
    events: tuple[str, ...] = ()
    """Ids of policies; empty: all that are on."""
    days: int = DEFAULT_DAYS
    zone: str = "UTC"
    name: str = ""
    """Of its schedule; empty: on demand."""
    author: str = BY_SCHEDULE
    note: str = ""

    @property
    def series(self) -> str:
        """Reports with the same follow each other."""
        return f"name:{self.name}" if self.name else "instances:" + ",".join(sorted(self.instances))


def chosen(order: Order, policies: Mapping[str, Policy], watched: Set[str]) -> tuple[str, ...]:
    """Ids of the events that it is about, in the order of the policies: what is off is not looked at.

    ``watched``: those that judge anything of the instances.
    """
    wanted = frozenset(order.events) or watched
    return tuple(policy.id for policy in policies.values() if policy.enabled and policy.id in wanted)
