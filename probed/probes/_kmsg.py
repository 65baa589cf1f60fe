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
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

RECORD_BYTES = 16 * 1024
"""More than any record: the kernel answers EINVAL to a buffer that is too small for the next one."""
MOST_RECORDS = 50_000
"""Of one look; a flood beyond that is read by the next look, or overwritten, which is told."""

_PREFIX = re.compile(r"(\d+),(\d+),(\d+),[^;]*;(.*)")
# A comm is up to 15 bytes of anything, also of spaces and parentheses: it ends at the last one before the sizes.
_KILLED = re.compile(r"(?:(.+): )?Killed process (\d+) \((.*)\)(?:,? UID:? ?\d+,?)? total-vm:\d+kB, (.*)")
_RESIDENT = re.compile(r"(?:anon|file|shmem)-rss:(\d+)kB")
_SUMMARY = re.compile(r"oom-kill:constraint=.*?(?:,oom_memcg=(.*))?,task_memcg=(.*),task=.*,pid=(\d+),uid=\d+")
_TASK_IN = re.compile(r"Task in (.*) killed as a result of limit of (.*)")
_GROUP = re.compile(r"Tasks in (.*) are going to be killed due to memory\.oom\.group set")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


class Victim(Struct, frozen=True):
    """A process that the kernel killed for lack of memory."""

    pid: int
    """In the machine's own numbering, whatever container it lived in."""
    comm: str
    resident_bytes: int
    cgroup: str = ""
    """Its memory cgroup; empty when the kernel did not say."""
    limit: str | None = None
    """The cgroup whose limit was reached, empty when it is not known; ``None``: the machine was out of memory."""


class Kills:
    """Picks the victims out of kernel messages, which say where a victim lived some lines before its name.

    Those lines are rate-limited by the kernel, the name is not: what was said of one victim must not pass to the next.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._of_pid: dict[int, tuple[str, str]] = {}
        """(cgroup, cgroup whose limit was reached) of the victim to come."""
        self._next: tuple[str, str] | None = None
        self._group = ("", "")
        self._limit = ""

    def feed(self, text: str) -> Victim | None:
        """One message; the victim, when it is the line that tells of a kill."""
        if "invoked oom-killer" in text:
            self._forget()
        elif match := _SUMMARY.fullmatch(text):
            self._of_pid[int(match[3])] = (match[2], match[1] or "")
        elif match := _TASK_IN.fullmatch(text):  # before 5.0
            self._next = (match[1], match[2])
        elif match := _GROUP.fullmatch(text):
            self._group = (match[1], self._limit)
        elif match := _KILLED.fullmatch(text):
            return self._killed(match)
        return None

    def _killed(self, match: re.Match[str]) -> Victim:
        said, pid, comm, sizes = match[1], int(match[2]), match[3], match[4]
        cgroup, self._limit = self._of_pid.pop(pid, self._next or self._group)
        self._next = None
        resident = sum(int(kilobytes) for kilobytes in _RESIDENT.findall(sizes)) * 1024
        # Before 5.1 this line does not say whose memory it was: then a limit was told of before, or it was none.
        of_cgroup = bool(self._limit) if said is None else said.startswith("Memory cgroup")
        return Victim(pid, comm, resident, cgroup, self._limit if of_cgroup else None)


class Kmsg:
    """The kernel's log, or a file or FIFO of such records. Read by one thread at a time; never waits.

    What was found is held until it is known to have been told, so that a look that comes to nothing loses nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._partial = b""
        self._kills = Kills()
        self._after = -1
        self._victims: dict[int, Victim] = {}
        self.lost = False
        """Whether records were overwritten before the last reading came to them."""

    def __del__(self) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def open(self, after: int | None) -> None:
        """Open and go on after a record's sequence number; with ``None`` after everything that is there. OSError."""
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._after = -1 if after is None else after
        if after is None:
            for number, _ in self._records():
                self._after = number

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._partial = -1, b""

    def read(self, told: int | None) -> Mapping[int, Victim]:
        """Victims by sequence number: those after ``told``, or since the opening. OSError closes the log."""
        self.lost = False
        if told is not None:
            self._after = max(self._after, told)
        self._victims = {number: victim for number, victim in self._victims.items() if number > self._after}
        try:
            for number, text in self._records():
                victim = self._kills.feed(text) if number > self._after else None
                if victim is not None:
                    self._victims[number] = victim
        except OSError:
            self.close()
            raise
        return dict(self._victims)

    @property
    def after(self) -> int:
        """Sequence number up to which every kill is told, or belongs to the baseline."""
        return self._after

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
