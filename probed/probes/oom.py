import errno
import os
import re
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import astuple

from probed.clock import boot_id
from probed.errors import Blind
from probed.probes import Context, Measured, _cgroups, probe
from probed.probes import _oom_words as words
from probed.probes._kmsg import Kmsg, Victim
from probed.probes._proc import PATIENCE_SHARE, in_own_thread

KMSG, VMSTAT = Path("/dev/kmsg"), Path("/proc/vmstat")
FOUND: Mapping[str, tuple[Path, ...]] = {"kmsg": (KMSG,), "cgroups": (_cgroups.MOUNT,), "vmstat": (VMSTAT,)}
"""The sources when none is named."""

LATE_RECORD_SECONDS = 0.1
"""The kernel counts a kill, then writes its line: for how long a line that is still missing is waited for, once."""

PART_BYTES = 1 << 16
"""Asked for at once; the kernel hands out its counters a page at a time."""

LOST = "records of the kernel's log were overwritten before they were read"

_OOM_KILL = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)


@probe(
    kinds=("oom",),
    readings={
        "oom_kills": "processes killed for lack of memory since the cycle before",
        "oom_kills_total": "processes killed since the first cycle, over restarts of probed (counter)",
    },
)
async def oom(context: Context) -> Measured:
    """Which processes did the kernel kill for lack of memory, on the node where probed runs?

    Three sources, each read in every cycle as far as it can be: the kernel's log (``/dev/kmsg``), which alone names the
    victim; the counters of cgroups (``memory.events`` of v2, ``memory.oom_control`` of v1), which name the service; and
    ``/proc/vmstat``, which counts for the whole machine and names nothing. A kill that several of them saw is one kill.
    ``oom: {}`` finds all three; when ``kmsg``, ``cgroups`` or ``vmstat`` is set, those that are set are read and no
    other: with ``cgroups`` alone only kills in these services count.

    The first cycle is the baseline. It outlives restarts of probed: what was killed meanwhile is told once, as noticed
    late. A count that went down, a cgroup made anew and a reboot are a new baseline.

    Kills by user space (systemd-oomd, earlyoom) are ordinary signals, which the kernel does not count.

    Blind only when no source at all can be read.
    """
    eye = context.memory.get("eye")
    sources = context.paths or FOUND
    if not isinstance(eye, Eye) or eye.sources != sources:
        context.memory["eye"] = eye = Eye(sources)
    before = _before(context.kept)
    if eye.prompt:
        look = eye.look(before)
    else:
        look = await in_own_thread(context.memory, partial(eye.look, before), context.timeout * PATIENCE_SHARE)
    if not look.deltas:
        raise _blind(look.unreadable)
    return _measured(before, look, eye)


class Before(Struct, frozen=True):
    """What the cycle before has left, perhaps in another daemon of the same boot."""

    kmsg: int | None = None
    """Sequence number of the last record of a kill that was told, or of the baseline."""
    vmstat: int | None = None
    cgroups: _cgroups.Counters = field(default_factory=dict)
    behind: Mapping[str, int] = field(default_factory=dict)
    """By source: kills that another source told of, and that this one may still show."""
    total: int = 0


class Look(Struct):
    """What the sources showed."""

    deltas: dict[str, int] = field(default_factory=dict)
    """By source that could be read: kills since the cycle before."""
    late: set[str] = field(default_factory=set)
    """Sources that this daemon reads for the first time, or again after it could not."""
    places: list[_cgroups.Place] = field(default_factory=list)
    victims: list[Victim] = field(default_factory=list)
    lost: bool = False
    """Whether records of the kernel's log were overwritten before they were read."""
    kmsg: int | None = None
    vmstat: int | None = None
    cgroups: _cgroups.Counters = field(default_factory=dict)
    unreadable: dict[Path, OSError] = field(default_factory=dict)


class Eye:
    """The sources of one node. Looks from one thread at a time."""

    def __init__(self, sources: Mapping[str, tuple[Path, ...]]) -> None:
        self.sources = sources
        self.kmsg: Kmsg | None = next((Kmsg(path) for path in sources.get("kmsg", ())), None)
        self.looked: set[str] = set()
        """Sources that could be read in the look before."""

    @property
    def prompt(self) -> bool:
        """Whether a look is one counter that the kernel has in memory: a thread would cost ten times that."""
        return all(source == "vmstat" and paths == (VMSTAT,) for source, paths in self.sources.items())

    def look(self, before: Before) -> Look:
        """Read everything. The log comes first: the kernel counts a kill before it writes of it."""
        look = Look()
        self._look_at_kmsg(before, look)
        for directory in sorted(self.sources.get("cgroups", ())):  # what contains others, before them
            self._look_at_cgroups(directory, before, look)
        for path in self.sources.get("vmstat", ()):
            self._look_at_vmstat(path, before, look)
        counted = max((kills for source, kills in look.deltas.items() if source != "kmsg"), default=0)
        if "kmsg" in look.deltas and counted > look.deltas["kmsg"]:
            time.sleep(LATE_RECORD_SECONDS)
            self._look_at_kmsg(before, look)
        look.late = look.deltas.keys() - self.looked
        self.looked = set(look.deltas)
        return look

    def _look_at_kmsg(self, before: Before, look: Look) -> None:
        log = self.kmsg
        if log is None:
            return
        try:
            if not log.is_open:
                log.open(before.kmsg)
            victims = log.read(before.kmsg)
        except OSError as error:
            look.unreadable[log.path] = error
            look.deltas.pop("kmsg", None)
            return
        look.lost = look.lost or log.lost
        look.victims = list(victims.values())
        look.deltas["kmsg"], look.kmsg = len(victims), max(victims, default=log.after)

    def _look_at_cgroups(self, directory: Path, before: Before, look: Look) -> None:
        try:
            counters = _cgroups.read(directory)
        except OSError as error:
            look.unreadable[directory] = error
            kept = {path: known for path, known in before.cgroups.items() if Path(path).is_relative_to(directory)}
            look.cgroups = {**kept, **look.cgroups}
            return
        fresh = {path: counter for path, counter in counters.items() if path not in look.cgroups}
        places = _cgroups.news(before.cgroups, fresh)
        look.places += places
        look.cgroups = {**look.cgroups, **counters}
        look.deltas["cgroups"] = look.deltas.get("cgroups", 0) + sum(place.kills for place in places)

    def _look_at_vmstat(self, path: Path, before: Before, look: Look) -> None:
        try:
            match = _OOM_KILL.search(_content(path))
        except OSError as error:
            look.unreadable[path] = error
            return
        if match is None:
            look.unreadable[path] = OSError(0, "counts no oom_kill (Linux before 4.13)")
            return
        look.vmstat = int(match[1])
        look.deltas["vmstat"] = max(0, look.vmstat - before.vmstat) if before.vmstat is not None else 0


def _content(path: Path) -> bytes:
    """Of a file of counters, in as few calls into the kernel as can be."""
    file = os.open(path, os.O_RDONLY)
    try:
        content = b""
        while part := os.read(file, PART_BYTES):
            content += part
        return content
    finally:
        os.close(file)


def _before(kept: Mapping[str, Any]) -> Before:
    """What was kept, as far as it still means something: counters of another boot do not."""
    total = int(kept.get("total", 0))
    if kept.get("boot") != boot_id():
        return Before(total=total)
    counters = {path: _cgroups.Counter(*values) for path, values in kept.get("cgroups", {}).items()}
    return Before(kept.get("kmsg"), kept.get("vmstat"), counters, kept.get("behind", {}), total)


def _measured(before: Before, look: Look, eye: Eye) -> Measured:
    """What is new, each kill once, however many sources show it and whichever shows it first."""
    new = {source: max(0, kills - before.behind.get(source, 0)) for source, kills in look.deltas.items()}
    count = max(new.values())
    victims = look.victims[len(look.victims) - new.get("kmsg", 0) :]
    # A source that shows fewer may show the rest in its next look; one that could not be read, whenever it can be.
    behind = {source: kills for source, kills in before.behind.items() if source in eye.sources.keys() - new.keys()}
    behind |= {source: count - kills for source, kills in new.items() if kills < count}
    if look.lost:
        behind.pop("kmsg", None)
    late = count > 0 and all(source in look.late for source, kills in new.items() if kills)
    keep: dict[str, object] = {
        "boot": boot_id(),
        "total": before.total + count,
        "cgroups": {path: list(astuple(counter)) for path, counter in sorted(look.cgroups.items())},
        "behind": behind,
    }
    if "kmsg" in eye.sources:
        keep["kmsg"] = before.kmsg if look.kmsg is None else look.kmsg
    if "vmstat" in eye.sources:
        keep["vmstat"] = before.vmstat if look.vmstat is None else look.vmstat
    logs = {path: error for path, error in look.unreadable.items() if path in eye.sources.get("kmsg", ())}
    unnamed = LOST if look.lost else words.cannot_read(logs)
    if count:
        reason = words.kills(count, victims, look.places, late=late, unnamed=unnamed)
    elif eye.sources is FOUND:  # it is enough to say what is lost with a source that this machine does not have
        reason = f"victims cannot be named: {unnamed}" if unnamed else ""
    else:
        reason = LOST if look.lost else words.cannot_read(look.unreadable)
    facts = {
        "sources": sorted(look.deltas),
        "victims": victims,
        "places": look.places,
        "unreadable": {str(path): words.why(error) for path, error in look.unreadable.items()},
    }
    readings = {"oom_kills": float(count), "oom_kills_total": float(before.total + count)}
    return Measured(readings, reason=reason, facts=facts, keep=keep)


def _blind(unreadable: Mapping[Path, OSError]) -> Blind:
    refused = any(error.errno in (errno.EACCES, errno.EPERM) for error in unreadable.values())
    told = "; ".join(f"{path}: {words.why(error)}" for path, error in unreadable.items())
    remedy = (
        "let probed read one of them (systemd/probed-host.conf does, for the shipped unit), or name others under oom"
    )
    return Blind("privilege" if refused else "config", f"no source tells of out-of-memory kills: {told}; {remedy}")
