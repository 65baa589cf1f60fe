"""Reading the machine that probed runs on: files of the kernel, in a thread that may hang."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
PATIENCE_SHARE = 0.8
"""Of the collector's deadline: a call that hangs is told as such before the deadline ends it."""


def text(path: Path, limit: int = 64 * 1024) -> str:
    """A small file's text; empty when it is not there or not for us."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""
