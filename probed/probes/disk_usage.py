import os

from probed.errors import Blind
from probed.probes import Context, Readings, probe
from probed.probes._proc import in_own_thread

PATIENCE_SHARE = 0.9
"""Of the cycle's time: a hanging mount has to be told as our blindness before the deadline makes it a failure."""


@probe(
    kinds=("disk",),
    readings={
        "used_bytes": "blocks in use, bytes",
        "used_pct": "used of what ordinary processes can have, per cent (as df shows it)",
        "free_bytes": "what ordinary processes can still write, bytes",
        "inodes_used_pct": "used inodes, per cent",
    },
)
async def disk_usage(context: Context) -> Readings:
    """Usage of the file system that holds the data directory (statvfs), on the node where probed runs.

    Used counts blocks reserved for root as free, available does not: the same figures as ``df``. A hanging mount
    (stale NFS) is blind and delays nothing else.
    """
    path = context.path
    assert path is not None
    try:
        stat = await in_own_thread(context.memory, lambda: os.statvfs(path), context.timeout * PATIENCE_SHARE)
    except OSError as error:
        raise Blind("config", f"cannot read the file system of {path}: {error.strerror or error}") from None
    used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    free = stat.f_bavail * stat.f_frsize
    readings = {"used_bytes": float(used), "free_bytes": float(free)}
    if used + free:
        readings["used_pct"] = 100.0 * used / (used + free)
    if stat.f_files:
        readings["inodes_used_pct"] = 100.0 * (stat.f_files - stat.f_ffree) / stat.f_files
    return readings
