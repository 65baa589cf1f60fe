import os
from pathlib import Path

from probed.errors import Blind
from probed.evidence import HOST, Data, collector
from probed.evidence import _proc as proc
from probed.probes import Context
from probed.probes._proc import OwnThread, in_own_thread

MAX_MOUNTS = 20
VIRTUAL = frozenset(
    {"proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "mqueue", "bpf",
     "pstore", "configfs", "fusectl", "hugetlbfs", "binfmt_misc", "autofs", "rpc_pipefs", "nsfs", "squashfs", "ramfs",
     "efivarfs"}
)  # fmt: skip


@collector(kinds=(HOST,), recovery=True)
async def disk(context: Context) -> Data:
    """Space and inodes of every file system of the machine, as ``df`` shows them; that of ``disk.path`` first.

    A mount that hangs is named, and those before it are shown.
    """
    shown: list[Data] = []
    at: list[str] = []
    memory = context.memory

    def look() -> None:
        for path in _mounts(context.path):
            at[:] = [path]
            row = _usage(path)
            if row is not None:
                shown.append(row)
        at.clear()

    try:
        await in_own_thread(memory, look, context.timeout * proc.PATIENCE_SHARE)
    except Blind:
        call = memory.get("call")
        if not at or not isinstance(call, OwnThread):
            raise
        return {"mounts": list(shown), "hangs": at[0]}
    return {"mounts": shown}


def _mounts(first: Path | None) -> list[str]:
    """Mount points, one per device, the data directory's own path first."""
    found: dict[str, str] = {}
    for line in proc.text(proc.PROC / "self" / "mounts", 256 * 1024).splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[2] not in VIRTUAL:
            found.setdefault(fields[0] if fields[0].startswith("/") else fields[1], fields[1])
    paths = [str(first)] if first is not None else []
    return [*paths, *(path.replace("\\040", " ") for path in found.values())][:MAX_MOUNTS]


def _usage(path: str) -> Data | None:
    try:
        stat = os.statvfs(path)
    except OSError as error:
        return {"mount": path, "error": error.strerror or str(error)}
    if not stat.f_blocks:
        return None
    used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    free = stat.f_bavail * stat.f_frsize
    return {
        "mount": path,
        "size_bytes": stat.f_blocks * stat.f_frsize,
        "used_bytes": used,
        "free_bytes": free,
        "used_pct": round(100.0 * used / (used + free), 1) if used + free else None,
        "inodes_used_pct": round(100.0 * (stat.f_files - stat.f_ffree) / stat.f_files, 1) if stat.f_files else None,
    }
