"""Out-of-memory kills in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from probed.probes._cgroups import MOUNT, Place
from probed.probes._kmsg import Victim
from probed.quantity import human_bytes

MOST = 4
"""Victims and places that one message names."""


def kills(count: int, victims: Sequence[Victim], places: Sequence[Place], *, late: bool, unnamed: str) -> str:
    """What was killed, as well as the best source knows it. ``unnamed``: why a victim has no name, if that is known."""
    noticed = "noticed late (it happened while probed was not looking): " if late else ""
    if count == 1 and victims:
        (victim,) = victims
        return f"{noticed}the kernel killed {_victim(victim)}: {_limit(victim)}"
    processes = "1 process" if count == 1 else f"{count} processes"
    said = f"{noticed}the kernel killed {processes} for lack of memory"
    if victims:
        return f"{said}: {_several([_victim(victim) for victim in victims], count - len(victims))}"
    because = f" ({unnamed})" if unnamed else ""
    names = "its name is" if count == 1 else "their names are"
    if len(places) == 1 and places[0].kills == count:
        return f"{said} in {_place(places[0])}; {names} not known{because}"
    if places:
        told = [f"{place.kills} in {_place(place)}" for place in places]
        return f"{said}: {_several(told, count - sum(place.kills for place in places))}; {names} not known{because}"
    where = "it can have been" if count == 1 else "they can have been"
    return f"{said}; {names} not known, {where} anything on this host{because}"


def cannot_read(unreadable: Mapping[Path, OSError]) -> str:
    """Each source with its error."""
    return "; ".join(f"cannot read {path}: {why(error)}" for path, error in unreadable.items())


def why(error: OSError) -> str:
    """The error without its path, which stands beside it."""
    return error.strerror or str(error)


def _victim(victim: Victim) -> str:
    where = f" in {victim.cgroup}" if victim.cgroup else ""
    return f"{victim.comm or 'a process'} (pid {victim.pid}, {human_bytes(victim.resident_bytes)} resident){where}"


def _limit(victim: Victim) -> str:
    if victim.limit is None:
        return "the machine was out of memory"
    whose = (
        "its cgroup's memory limit" if victim.limit in ("", victim.cgroup) else f"the memory limit of {victim.limit}"
    )
    return f"{whose} was reached"


def _place(place: Place) -> str:
    path = Path(place.path)
    for mount in (MOUNT / "memory", MOUNT):
        if path.is_relative_to(mount):
            path = Path("/", path.relative_to(mount))
            break
    whole = " (the whole cgroup: memory.oom.group is set)" if place.whole else ""
    return f"{path}{whole}"


def _several(told: Sequence[str], unknown: int) -> str:
    more = len(told) - MOST
    rest = [f"{more} more"] if more > 0 else []
    rest += [f"{unknown} not known"] if unknown > 0 else []
    return ", ".join([*told[:MOST], *rest])
