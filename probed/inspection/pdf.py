"""A report as PDF, by WeasyPrint, in a process of its own that lives for one document.

Laying out a fleet takes seconds of computing and hundreds of MiB: neither may be the daemon's, and WeasyPrint is an
extra. The process reads HTML, writes PDF, may fetch nothing, and has bounds of memory and time. The same HTML gives the
same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
from collections.abc import Mapping

from probed.errors import MissingExtra, Unprintable
from probed.inspection import Report
from probed.inspection.html import html
from probed.redaction import clean

MISSING = (
    "PDF needs WeasyPrint and Pango, which are not installed here: pip install 'pg-probed[pdf]', and on Debian and "
    "Ubuntu apt-get install libpango-1.0-0 libpangoft2-1.0-0 fonts-dejavu-core"
)
MAX_BYTES = 1536 * 2**20
"""Of the process's address space, and with it of what it may allocate."""
MAX_SECONDS = 300.0
MAX_AT_ONCE = 1
MAX_SHEETS = 30
"""Instances in full; each costs a second of computing and 20 MiB. Of the others a PDF has their line among all."""
_MISSING_STATUS = 3
_KEPT = (
    "PATH",
    "PYTHONPATH",
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "XDG_CACHE_HOME",
    "FONTCONFIG_FILE",
    "FONTCONFIG_PATH",
)
_GRACE_SECONDS = 5.0


class Press:
    """Makes PDFs, so many at once; others wait for their turn."""

    def __init__(self, at_once: int = MAX_AT_ONCE, max_seconds: float = MAX_SECONDS) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._max_seconds = max_seconds

    async def pdf(self, report: Report) -> bytes:
        """MissingExtra says what to install; Unprintable what went wrong."""
        async with self._turns:
            return await self._printed(await asyncio.to_thread(html, report, MAX_SHEETS))

    async def _printed(self, document: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "probed.inspection.pdf",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._max_seconds):
                printed, said = await process.communicate(document.encode("utf-8"))
        except TimeoutError:
            raise Unprintable(f"the PDF was not ready after {self._max_seconds:.0f} s; take the HTML") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode == _MISSING_STATUS:
            raise MissingExtra(f"{MISSING} ({_last_line(said)})")
        if process.returncode or not printed.startswith(b"%PDF-"):
            raise Unprintable(f"WeasyPrint failed: {_last_line(said) or f'status {process.returncode}'}")
        return printed


def _environment() -> Mapping[str, str]:
    """What Python and the fonts need of ours, and none of its secrets."""
    kept = (
        "PATH",
        "PYTHONPATH",
        "HOME",
        "LANG",
        "LD_LIBRARY_PATH",
        "XDG_CACHE_HOME",
        "FONTCONFIG_FILE",
        "FONTCONFIG_PATH",
    )
    return {name: os.environ[name] for name in kept if name in os.environ}


def _last_line(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return clean(lines[-1], 400) if lines else ""


# --- the process itself ----------------------------------------------------------------------------------------


def main() -> int:
    """HTML from standard input as PDF on standard output."""
    document = sys.stdin.buffer.read().decode("utf-8")
    with contextlib.suppress(OSError):
        os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (int(MAX_SECONDS), int(MAX_SECONDS + _GRACE_SECONDS)))
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except (ImportError, OSError) as error:  # no library, or no Pango below it
        print(clean(str(error)), file=sys.stderr)  # noqa: T201 (a process of its own: this is how it answers)
        return _MISSING_STATUS

    class Nothing(URLFetcher):  # type: ignore[misc]  # the library has no types
        """A report needs nothing from anywhere; what asks for something is not ours."""

        def fetch(self, url: str, headers: object = None) -> None:
            raise ValueError(f"a report fetches nothing, not even {url[:100]}")

    printed = HTML(string=document, url_fetcher=Nothing()).write_pdf(pdf_tags=True)
    sys.stdout.buffer.write(printed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
