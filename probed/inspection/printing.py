"""Reports as files to read, made in a process beside the daemon: a fleet's takes seconds of arithmetic (see ``child``).

The process lives for one file. It gets a report as the store has it, as a pickle of our own on stdin, from its parent
alone; it answers with the file on stdout. Its memory and its time are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import resource
import sys
from enum import StrEnum

from probed.errors import MissingExtra, ProbedError, Unprintable
from probed.inspection.html import html
from probed.inspection.markdown import markdown
from probed.inspection.packing import report_of
from probed.inspection.pdf import pdf
from probed.redaction import clean
from probed.store.reports import InspectionRecord

MAX_SECONDS = 300.0
MAX_BYTES = 1536 * 2**20
"""Of the process's address space."""
MAX_AT_ONCE = 1
MAX_WAITING = 4
MAX_SHEETS = 30
"""Instances in full in a PDF: each takes a second and 20 MiB to lay out. The others have their line among all."""
_MISSING, _FAILED = 3, 4
"""What the process ends with when it says why on stderr."""


class Form(StrEnum):
    """Value: how the file's name ends."""

    MARKDOWN = "md"
    HTML = "html"
    PDF = "pdf"


class Press:
    """Makes files of reports, one at a time; a few more may wait for their turn."""

    def __init__(self, max_seconds: float = MAX_SECONDS) -> None:
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._max_seconds = max_seconds
        self._asked = 0

    @property
    def is_full(self) -> bool:
        """Whether as many wait as may."""
        return self._asked >= MAX_AT_ONCE + MAX_WAITING

    async def file(self, record: InspectionRecord, form: Form) -> bytes:
        """``record`` with its bodies. MissingExtra says what to install, Unprintable what went wrong."""
        self._asked += 1
        try:
            async with self._turns:
                return await self._made(pickle.dumps((record, form)), form)
        finally:
            self._asked -= 1

    async def _made(self, request: bytes, form: Form) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "probed.inspection.printing",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._max_seconds):
                made, said = await process.communicate(request)
        except TimeoutError:
            raise Unprintable(f"the {form.value} file was not ready after {self._max_seconds:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode == 0:
            return made
        why = _last_line(said)
        if process.returncode == _MISSING:
            raise MissingExtra(why)
        raise Unprintable(f"the {form.value} file could not be made: {why or f'status {process.returncode}'}")


def _last_line(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return clean(lines[-1], 600) if lines else ""


# --- the process -----------------------------------------------------------------------------------------------


def made(record: InspectionRecord, form: Form) -> bytes:
    """The file, here and now."""
    report = report_of(record)
    match form:
        case Form.MARKDOWN:
            return markdown(report).encode()
        case Form.HTML:
            return html(report).encode()
        case Form.PDF:
            return pdf(html(report, MAX_SHEETS))


def main() -> int:
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    record, form = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our parent, by a pipe that nobody else has
    try:
        file = made(record, form)
    except (ProbedError, MemoryError) as error:
        sys.stderr.write(f"{str(error) or f'it needs more than {MAX_BYTES // 2**20} MiB'}\n")
        return _MISSING if isinstance(error, MissingExtra) else _FAILED
    sys.stdout.buffer.write(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
