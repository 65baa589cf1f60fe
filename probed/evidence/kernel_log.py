import os
import time
from pathlib import Path

from probed.errors import Blind
from probed.evidence import HOST, Data, collector
from probed.evidence import _proc as proc
from probed.probes import Context
from probed.probes._proc import in_own_thread

KMSG = Path("/dev/kmsg")
WITHIN = 300.0
"""Seconds back that are looked at."""
MAX_LINES = 50
MAX_BYTES = 4 * 1024 * 1024
LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")


@collector(kinds=(HOST,))
async def kernel_log(context: Context) -> Data:
    """The kernel's messages of the last five minutes, the newest 50: OOM kills, I/O errors, links that went down.

    Read from /dev/kmsg, which takes CAP_SYSLOG where ``kernel.dmesg_restrict`` is 1; ``systemd/probed-host.conf`` gives
    both to the unit.
    """
    return await in_own_thread(context.memory, lambda: read(KMSG), context.timeout * proc.PATIENCE_SHARE)


def read(path: Path, now: float | None = None) -> Data:
    """``now`` is monotonic time, the kernel's own stamp. Blind, with the remedy, where it cannot be read."""
    now = time.monotonic() if now is None else now
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        hint = "a container hides it, or PrivateDevices in the unit (systemd/probed-host.conf shows it)"
        raise Blind("config", f"{path} is not there: {hint}") from None
    except OSError as error:
        raise _forbidden(path, error) from None
    try:
        raw, lost = _drain(handle)
    except OSError as error:
        raise _forbidden(path, error) from None
    finally:
        os.close(handle)
    lines = [line for record in raw.split("\n") if (line := _line(record, now)) is not None]
    shown: dict[str, object] = {"lines": lines[-MAX_LINES:]}
    if len(lines) > MAX_LINES:
        shown["left_out"] = len(lines) - MAX_LINES
    if lost:
        shown["note"] = "older messages were overwritten meanwhile"
    return shown


def _forbidden(path: Path, error: OSError) -> Blind:
    remedy = "it takes CAP_SYSLOG (systemd/probed-host.conf gives it) where kernel.dmesg_restrict is 1"
    return Blind("privilege", f"{path}: {error.strerror or error}; {remedy}")


def _drain(handle: int) -> tuple[str, bool]:
    """(everything there is, whether some was overwritten while reading)."""
    parts: list[bytes] = []
    lost, size = False, 0
    while size < MAX_BYTES:
        try:
            part = os.read(handle, 8192)
        except BlockingIOError:
            break
        except BrokenPipeError:
            lost = True
            continue
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts).decode("utf-8", "replace"), lost


def _line(record: str, now: float) -> str | None:
    """``priority,number,microseconds,flags;text`` as ``-12.3 s err: text``; lines of details begin with a blank."""
    head, semicolon, text = record.partition(";")
    fields = head.split(",")
    if not semicolon or record.startswith(" ") or len(fields) < 3 or not (fields[0].isdigit() and fields[2].isdigit()):
        return None
    age = now - int(fields[2]) / 1e6
    if age > WITHIN:
        return None
    return f"{-age:.1f} s {LEVELS[int(fields[0]) & 7]}: {text}"
