import heapq
import os

from probed.evidence import HOST, Data, collector
from probed.evidence import _proc as proc
from probed.probes import Context
from probed.probes._proc import in_own_thread

LARGEST = 10
MAX_PROCESSES = 50_000


@collector(kinds=(HOST,))
async def top_memory(context: Context) -> Data:
    """The ten processes that hold the most memory (resident, with what they share): number, name, cgroup, OOM score.

    Command lines are not read: they may hold secrets.
    """
    return await in_own_thread(context.memory, read, context.timeout * proc.PATIENCE_SHARE)


def read() -> Data:
    page = os.sysconf("SC_PAGE_SIZE")
    pids = [entry.name for entry in os.scandir(proc.PROC) if entry.name.isdigit()][:MAX_PROCESSES]
    sizes = []
    for pid in pids:
        fields = proc.text(proc.PROC / pid / "statm", 200).split()
        if len(fields) > 1:
            sizes.append((int(fields[1]) * page, int(pid)))
    largest = heapq.nlargest(LARGEST, sizes)
    return {"processes": len(pids), "largest": [_shown(size, pid) for size, pid in largest]}


def _shown(size: int, pid: int) -> Data:
    place = proc.PROC / str(pid)
    cgroup = proc.text(place / "cgroup", 4096).splitlines()
    return {
        "pid": pid,
        "resident_bytes": size,
        "name": proc.text(place / "comm", 64).strip(),
        "oom_score": proc.text(place / "oom_score", 32).strip(),
        "cgroup": cgroup[-1].rpartition(":")[2] if cgroup else "",
    }
