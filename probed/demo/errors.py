"""The one error the lab raises."""

from __future__ import annotations

from pathlib import Path

from probed.errors import ProbedError

TAIL_LINES = 12
TAIL_BYTES = 16 * 1024


class LabError(ProbedError):
    """The lab could not do what was asked.

    ``str()`` tells what, and when a log knows more: where it is and its last lines.
    """

    def __init__(self, what: str, *, log: Path | None = None) -> None:
        self.what = what
        self.log = log
        parts = [what]
        if log is not None:
            parts.append(f"  log: {log}")
            parts.extend(f"  | {line}" for line in last_lines(log))
        super().__init__("\n".join(parts))


def last_lines(log: Path, count: int = TAIL_LINES) -> list[str]:
    """The last ``count`` lines of a log, read from its last 16 KiB; none when it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
