import asyncio
import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from probed.errors import Blind
from probed.probes import Context, Measured, probe
from probed.probes._proc import PATIENCE_SHARE, hangs, in_own_thread

AT_ONCE = 16
"""Threads at most, also of those that hang: a server may have hundreds of tablespaces."""

WORST: Mapping[str, Callable[[Iterable[float]], float]] = {
    "used_bytes": max,
    "used_pct": max,
    "free_bytes": min,
    "inodes_used_pct": max,
}


@probe(
    kinds=("disk",),
    readings={
        "used_bytes": "blocks in use, bytes; of the file system with the most",
        "used_pct": "used of what ordinary processes can have, per cent (as df shows it); of the fullest file system",
        "free_bytes": "what ordinary processes can still write, bytes; on the file system with the least",
        "inodes_used_pct": "used inodes, per cent; of the file system with the most",
    },
)
async def disk_usage(context: Context) -> Measured:
    """Usage of the file systems that hold the data directory, its WAL and its tablespaces, where probed runs (statvfs).

    What is measured: ``disk.path``; when that is a data directory (it holds PG_VERSION), also where its ``pg_wal`` and
    the links in ``pg_tblspc`` lead; and ``disk.wal`` and ``disk.paths``. Paths on one device count once. For each
    reading the worst file system decides; when there are several, the reason names it.

    A data directory lets only its owner look into it: run as another user, probed measures its file system all the
    same, and says that it cannot see a separate WAL or tablespace; declare these then.

    Used counts blocks reserved for root as free, available does not: the same figures as ``df``. A mount that hangs
    (stale NFS) delays nothing and blinds itself alone: the others count, and its last known usage stands in for it, so
    that an open event does not resolve by a hang. Blind only when no path can be measured.
    """
    assert context.path is not None
    declared = {context.path: "", **dict.fromkeys(context.paths.get("more", ()), "")}
    declared |= dict.fromkeys(context.paths.get("wal", ()), "WAL")
    measures = _measures(context)
    # Two steps, each with its own half of the time: links can be followed only once the data directory was looked into.
    step = context.timeout * PATIENCE_SHARE / 2
    await measures.take(declared, step, most=AT_ONCE + len(declared))
    home = measures.last.get(context.path)
    linked = dict(home.links) if home is not None else {}
    found = {path: role for path, role in linked.items() if path not in declared}
    await measures.take(found, step)
    return _measured(measures, {**declared, **found}, home if "WAL" not in declared.values() else None)


class Usage(Struct, frozen=True):
    """One path's file system."""

    device: int
    readings: Mapping[str, float]
    links: Sequence[tuple[Path, str]] = ()
    """(where it leads, role) of the WAL and tablespaces of a data directory."""
    closed: str = ""
    """Why a data directory could not be looked into."""
    marks: Sequence[int] = ()
    """While they are the same, nothing leads elsewhere than it did."""


class Measures:
    """What was measured last, and what could not be measured now. Never two threads for one path."""

    def __init__(self) -> None:
        self.last: dict[Path, Usage] = {}
        self.errors: dict[Path, str] = {}
        self.hung: set[Path] = set()
        self._threads: dict[Path, dict[str, object]] = {}

    async def take(self, paths: Collection[Path], patience: float, most: int = AT_ONCE) -> None:
        """Measure every path, some at a time; what has not answered within ``patience`` seconds altogether hangs.

        No thread is started while ``most`` of them hang.
        """
        end = asyncio.get_running_loop().time() + patience
        waiting = iter(paths)
        if len(paths) == 1:
            await self._work(waiting, end, most)
        elif paths:
            await asyncio.gather(*(self._work(waiting, end, most) for _ in range(min(AT_ONCE, len(paths)))))

    async def _work(self, waiting: Iterator[Path], end: float, most: int) -> None:
        for path in waiting:
            self.errors.pop(path, None)
            self.hung.discard(path)
            try:
                self.last[path] = await self._usage(path, end - asyncio.get_running_loop().time(), most)
            except Blind as hanging:
                self.errors[path] = f"{path}: {hanging}"
                self.hung.add(path)
            except OSError as error:
                self.last.pop(path, None)
                self.errors[path] = f"cannot read the file system of {path}: {error.strerror or error}"

    async def _usage(self, path: Path, patience: float, most: int) -> Usage:
        thread = self._threads.setdefault(path, {})
        if not hangs(thread) and (patience <= 0 or sum(map(hangs, self._threads.values())) >= most):
            raise Blind("timeout", "not measured, because too many others hang")
        return await in_own_thread(thread, partial(_usage, path, self.last.get(path)), patience)


def _measures(context: Context) -> Measures:
    measures = context.memory.get("measures")
    if not isinstance(measures, Measures):
        context.memory["measures"] = measures = Measures()
    return measures


def _usage(path: Path, before: Usage | None) -> Usage:
    """Everything of one path that can hang. Where it leads is looked up only when something about it has changed: each
    call that may hang is a turn of this thread's with the event loop."""
    stat = os.statvfs(path)
    used, free = (stat.f_blocks - stat.f_bfree) * stat.f_frsize, stat.f_bavail * stat.f_frsize
    readings = {"used_bytes": float(used), "free_bytes": float(free)}
    if used + free:
        readings["used_pct"] = 100.0 * used / (used + free)
    if stat.f_files:
        readings["inodes_used_pct"] = 100.0 * (stat.f_files - stat.f_ffree) / stat.f_files
    marks = _marks(path)
    if before is not None and before.marks == marks:
        return replace(before, readings=readings)
    device = marks[0]
    links, closed = _links(path, device)
    return Usage(device, readings, links, closed, marks)


def _marks(path: Path) -> Sequence[int]:
    """Of a directory and the tablespaces in it: device, inode and time of the last change."""
    own = os.stat(path)
    marks = [own.st_dev, own.st_ino, own.st_ctime_ns]
    try:
        spaces = os.stat(os.path.join(path, "pg_tblspc"))
    except OSError as error:
        return [*marks, error.errno or 0]
    return [*marks, spaces.st_dev, spaces.st_ino, spaces.st_ctime_ns]


def _links(path: Path, device: int) -> tuple[Sequence[tuple[Path, str]], str]:
    """Where a data directory's WAL and tablespaces are, unless within it; nothing for a directory that is none."""
    try:
        os.stat(path / "PG_VERSION")
        with os.scandir(path / "pg_tblspc") as entries:
            spaces = sorted(entry.name for entry in entries if entry.is_symlink())
        links = [(_target(path, "pg_tblspc", name), f"tablespace {name}") for name in spaces]
        wal = path / "pg_wal"
        if os.path.islink(wal):
            links.insert(0, (_target(path, "pg_wal"), "pg_wal"))
        elif not wal.exists() or wal.stat().st_dev != device:  # missing, which is told, or a mount of its own
            links.insert(0, (wal, "pg_wal"))
        return links, ""
    except OSError as error:
        return (), os.strerror(error.errno) if error.errno in (errno.EACCES, errno.EPERM) else ""


def _target(path: Path, *link: str) -> Path:
    """Where a link in a data directory leads. The link alone is read: what it leads to may hang."""
    place = path.joinpath(*link)
    return Path(os.path.normpath(place.parent / os.readlink(place)))


def _measured(measures: Measures, wanted: Mapping[Path, str], home: Usage | None) -> Measured:
    by_device: dict[int, tuple[Path, Usage]] = {}
    for path in sorted(wanted, key=measures.hung.__contains__):  # a path that answers speaks for its device
        usage = measures.last.get(path)
        if usage is not None:
            by_device.setdefault(usage.device, (path, usage))
    errors = [measures.errors[path] for path in wanted if path in measures.errors]
    if not by_device or all(path in measures.hung for path, _ in by_device.values()):
        raise Blind("timeout" if measures.hung else "config", "; ".join(errors))
    readings: dict[str, float] = {}
    deciding: dict[str, list[str]] = {}
    for name, worst in WORST.items():
        values = {path: usage.readings[name] for path, usage in by_device.values() if name in usage.readings}
        if values:
            readings[name] = worst(values.values())
            path = next(path for path, value in values.items() if value == readings[name])
            deciding.setdefault(_name(path, wanted[path]), []).append(name)
    notes = [_decided(deciding, len(by_device))] if len(by_device) > 1 else []
    notes += errors
    if any(path in measures.hung for path, _ in by_device.values()):
        notes.append("its last known usage stands in")
    if home is not None and home.closed:
        notes.append(
            f"a WAL or tablespaces elsewhere cannot be seen ({home.closed}); declare them as disk.wal, disk.paths"
        )
    facts = {_name(path, wanted[path]): dict(usage.readings) for path, usage in by_device.values()}
    return Measured(readings, reason="; ".join(notes), facts=facts)


def _name(path: Path, role: str) -> str:
    return f"{path} ({role})" if role else str(path)


def _decided(deciding: Mapping[str, Sequence[str]], number: int) -> str:
    """``worst of 2 file systems: /wal (used_pct, free_bytes), /data (used_bytes)``."""
    told = [name if len(deciding) == 1 else f"{name} ({', '.join(readings)})" for name, readings in deciding.items()]
    return f"worst of {number} file systems: {', '.join(told)}"
