"""The kernel's log as records (/dev/kmsg), and the out-of-memory kills among them.

Formats: Documentation/ABI/testing/dev-kmsg of the kernel, and what ``oom_kill_process`` and ``dump_header`` of its
mm/oom_kill.c print in the versions that ``tests/recorded/kmsg.toml`` names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RECORD_BYTES = 16 * 1024
"""More than any record: the kernel answers EINVAL to a buffer that is too small for the next one."""
MOST_RECORDS = 50_000
"""Of one look; a flood beyond that is read by the next look, or overwritten, which is told."""

_PREFIX = re.compile(r"(\d+),(\d+),(\d+),[^;]*;(.*)")
# A comm is up to 15 bytes of anything, also of spaces and parentheses: it ends at the last one before the sizes.
_KILLED = re.compile(r"(?:(.+): )?Killed process (\d+) \((.*)\)(?:,? UID:? ?\d+,?)? total-vm:\d+kB, (.*)")
_RESIDENT = re.compile(r"(?:anon|file|shmem)-rss:(\d+)kB")
_SUMMARY = re.compile(r"oom-kill:constraint=.*,task_memcg=(.*),task=.*,pid=(\d+),uid=\d+")
_TASK_IN = re.compile(r"Task in (.*) killed as a result of limit of (.*)")
_GROUP = re.compile(r"Tasks in (.*) are going to be killed due to memory\.oom\.group set")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Victim:
    """A process that the kernel killed for lack of memory."""

    pid: int
    """In the machine's own numbering, whatever container it lived in."""
    comm: str
    resident_bytes: int
    cgroup: str = ""
    """Its memory cgroup; empty when the kernel did not say."""
    limit: bool = False
    """Whether a cgroup's limit was reached, and not the machine's memory."""


class Kills:
    """Picks the victims out of kernel messages, which say where a victim lived some lines before its name."""

    def __init__(self) -> None:
        self._cgroups: dict[int, str] = {}
        self._cgroup, self._limit = "", False

    def feed(self, text: str) -> Victim | None:
        """One message; the victim, when it is the line that tells of a kill."""
        if "invoked oom-killer" in text:
            self._cgroups.clear()
            self._cgroup, self._limit = "", False
        elif match := _SUMMARY.fullmatch(text):
            self._cgroups[int(match[2])] = match[1]
        elif match := _TASK_IN.fullmatch(text):  # before 5.0
            self._cgroup, self._limit = match[1], True
        elif match := _GROUP.fullmatch(text):
            self._cgroup = match[1]
        elif match := _KILLED.fullmatch(text):
            pid = int(match[2])
            resident = sum(int(kilobytes) for kilobytes in _RESIDENT.findall(match[4])) * 1024
            limit = self._limit or (match[1] or "").startswith("Memory cgroup")
            return Victim(pid, match[3], resident, self._cgroups.pop(pid, self._cgroup), limit)
        return None


class Kmsg:
    """The kernel's log, or a file or FIFO of such records. Read by one thread at a time; never waits.

    What was found is kept until it is taken, so that nothing is lost with a look that came back too late.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._partial = b""
        self._kills = Kills()
        self._after: int | None = None
        self.victims: list[Victim] = []
        """Victims since they were last taken."""
        self.lost = False
        """Whether records were overwritten before they were read."""
        self.newest = -1
        """Sequence number of the newest record read; of a kill, when there was one since the opening."""

    def __del__(self) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def open(self, after: int | None) -> None:
        """Open and go on after a record's sequence number; with ``None`` after everything that is there. OSError."""
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._after, self.newest = after, -1 if after is None else after
        if after is None:
            for number, _ in self._records():
                self.newest = number

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._partial = -1, b""

    def read(self) -> None:
        """Take in what was written since the last look. OSError when the source has gone; it is closed then."""
        try:
            for number, text in self._records():
                if self._after is not None and number <= self._after:
                    continue
                victim = self._kills.feed(text)
                if victim is not None:
                    self.victims.append(victim)
                    self.newest = number
        except OSError:
            self.close()
            raise

    def _records(self) -> Iterator[tuple[int, str]]:
        """(sequence number, text) of the kernel's own messages; what programs wrote into its log is left out."""
        for raw in self._raw():
            match = _PREFIX.fullmatch(raw.decode("utf-8", "replace"))
            # The facility stands above the three bits of the level, and no program can write as facility 0.
            if match and int(match[1]) >> 3 == 0:
                yield int(match[2]), _unescaped(match[4])

    def _raw(self) -> Iterator[bytes]:
        device = stat.S_ISCHR(os.fstat(self._fd).st_mode)
        for _ in range(MOST_RECORDS):
            try:
                data = os.read(self._fd, RECORD_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                self.lost = True  # the next read goes on with the oldest record that is left
                continue
            if not data:
                return
            if device:
                yield data.partition(b"\n")[0]  # what follows is a dictionary
            else:
                *lines, self._partial = (self._partial + data).split(b"\n")
                yield from lines


def _unescaped(text: str) -> str:
    r"""The kernel writes bytes that are not printable, and the backslash, as ``\xHH``."""
    if "\\x" not in text:
        return text
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    with contextlib.suppress(UnicodeDecodeError):
        return raw.decode()
    return raw.decode("utf-8", "replace")
