"""Out-of-memory kills as cgroups count them: ``memory.events`` (v2) and ``memory.oom_control`` (v1, Linux 4.13).

A v2 counter holds what happened in the cgroup and in everything below it, and goes on when what was below is gone. A v1
counter is the cgroup's own. Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

MOUNT = Path("/sys/fs/cgroup")
MOST = 5_000
"""Cgroups of one look; a machine with more of them is measured by naming those that matter."""

V2, V1 = "memory.events", "memory.oom_control"
_LINE = re.compile(r"^(oom_kill|oom_group_kill) (\d+)$", re.MULTILINE)


class Counter(Struct, frozen=True):
    """One cgroup's count. ``inode`` tells a cgroup from a later one of the same name."""

    inode: int
    kills: int
    groups: int = 0
    """How often the whole group was killed at once (memory.oom.group, Linux 5.17)."""
    own: bool = False
    """Whether the kills are its own only (v1), and not those of everything below it (v2)."""


Counters = Mapping[str, Counter]
"""By path: the cgroups that were asked for, and those below them that are not at zero."""


class Place(Struct, frozen=True):
    """Where processes were killed."""

    path: str
    kills: int
    whole: bool
    """Whether all of the group's processes were, because memory.oom.group is set."""


def read(directory: Path) -> Counters:
    """The counters at and below a directory. OSError when there is none."""
    found: dict[str, Counter] = {}
    if (directory / V2).exists():
        _read_v2(str(directory), found, top=True)
    elif (directory / V1).exists():
        _read_v1(str(directory), found, top=True)
    elif (directory / "memory" / V1).exists():
        _read_v1(str(directory / "memory"), found, top=True)
    else:  # the root of v2 has no counter of its own
        for path in _below(str(directory)):
            _read_v2(path, found, top=True)
    if not found:
        raise FileNotFoundError(errno.ENOENT, f"no {V2} and no {V1} that counts kills", str(directory))
    return found


def news(before: Counters, now: Counters) -> list[Place]:
    """Where how many processes were killed between two looks.

    A cgroup that is seen for the first time, a new one of the same name and a count that went down are a new baseline.
    Below one that was seen before, a cgroup that was not there (or at zero) is known from its beginning.
    """
    rose: dict[str, int] = {}
    for path in sorted(now):  # parents first
        counter, old, parent = now[path], before.get(path), _parent(path, now)
        if old is not None and old.inode == counter.inode:
            rose[path] = max(0, counter.kills - old.kills)
        elif counter.own:
            rose[path] = counter.kills if old is None and parent in before else 0
        else:
            rose[path] = min(counter.kills, rose[parent]) if parent else 0
    own = dict(rose)
    for path, kills in rose.items():
        parent = _parent(path, now)
        if parent and not now[path].own:
            own[parent] = max(0, own[parent] - kills)
    return [Place(path, kills, _whole(path, before, now)) for path, kills in own.items() if kills]


def _whole(path: str, before: Counters, now: Counters) -> bool:
    old = before.get(path)
    return now[path].groups > (old.groups if old is not None and old.inode == now[path].inode else 0)


def _parent(path: str, now: Counters) -> str:
    """The nearest cgroup above that is counted too; empty when there is none."""
    while path := path.rpartition("/")[0]:
        if path in now:
            return path
    return ""


def _read_v2(path: str, found: dict[str, Counter], *, top: bool) -> None:
    counter = _counter(path, V2, own=False)
    if counter is None or not (top or counter.kills) or len(found) >= MOST:
        return
    found[path] = counter
    if counter.kills:  # below a cgroup at zero everything is
        for child in _below(path):
            _read_v2(child, found, top=False)


def _read_v1(path: str, found: dict[str, Counter], *, top: bool) -> None:
    counter = _counter(path, V1, own=True)
    if counter is None or len(found) >= MOST:
        return
    if top or counter.kills:
        found[path] = counter
    for child in _below(path):
        _read_v1(child, found, top=False)


def _counter(path: str, file: str, *, own: bool) -> Counter | None:
    """``None`` where there is no cgroup (any more), or one that counts no kills."""
    try:
        with open(f"{path}/{file}", encoding="ascii", errors="replace") as opened:
            counts = dict(_LINE.findall(opened.read()))
        inode = os.stat(path).st_ino
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):  # ENODEV: removed while it was open
            return None
        raise
    if "oom_kill" not in counts:
        return None
    return Counter(inode, int(counts["oom_kill"]), int(counts.get("oom_group_kill", 0)), own)


def _below(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
