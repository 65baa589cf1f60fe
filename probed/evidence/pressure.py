from pathlib import Path

from probed.errors import Blind
from probed.evidence import HOST, Data, collector
from probed.evidence import _proc as proc
from probed.probes import Context
from probed.probes._proc import in_own_thread

MEMORY = (
    "MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree", "Dirty", "Writeback",
    "Shmem", "Slab", "CommitLimit", "Committed_AS", "HugePages_Total", "HugePages_Free",
)  # fmt: skip
EVENTS = ("oom_kill", "pgmajfault", "pswpin", "pswpout", "allocstall_normal")


@collector(kinds=(HOST,), recovery=True)
async def pressure(context: Context) -> Data:
    """How hard the machine is pressed: stall times of CPU, memory and I/O (PSI), load, memory, OOM kills since boot.

    ``some avg10=12.5``: in the last 10 s something waited for 12.5 % of the time; ``full``: everything did.
    """
    return await in_own_thread(context.memory, read, context.timeout * proc.PATIENCE_SHARE)


def read() -> Data:
    shown: dict[str, object] = {}
    for resource in ("cpu", "memory", "io"):
        lines = proc.text(proc.PROC / "pressure" / resource).splitlines()
        shown[resource] = lines or "not told by this kernel (PSI is off)"
    loads = proc.text(proc.PROC / "loadavg").split()
    if not loads:
        raise Blind("config", f"{proc.PROC} cannot be read")
    shown["load"] = {"1m": loads[0], "5m": loads[1], "15m": loads[2], "tasks": loads[3]}
    memory = _pairs(proc.PROC / "meminfo")
    shown["memory_kib"] = {name: memory[name] for name in MEMORY if name in memory}
    events = _pairs(proc.PROC / "vmstat")
    shown["events_since_boot"] = {name: events[name] for name in EVENTS if name in events}
    return shown


def _pairs(path: Path) -> dict[str, int]:
    """``Name: 123 kB`` or ``name 123`` as numbers."""
    found = {}
    for line in proc.text(path).splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found
