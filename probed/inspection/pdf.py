"""A report's HTML as PDF, by WeasyPrint, which is an extra. The same HTML gives the same bytes.

Laying out takes seconds of computing and hundreds of MiB: it is called in a process of its own (``printing``).
"""

from __future__ import annotations

from typing import cast

from probed.errors import MissingExtra

MISSING = (
    "a PDF needs WeasyPrint and Pango, which are not here: pip install 'pg-probed[pdf]', and on Debian or Ubuntu "
    "apt-get install libpango-1.0-0 libpangoft2-1.0-0 fonts-dejavu-core"
)


def pdf(document: str) -> bytes:
    """``document`` as ``html.html`` gives it. MissingExtra says what to install."""
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except (ImportError, OSError) as error:  # no library, or no Pango below it
        raise MissingExtra(f"{MISSING} ({error})") from None

    class Nothing(URLFetcher):  # type: ignore[misc]  # the library has no types
        """A report needs nothing from anywhere; what asks for something is not ours."""

        def fetch(self, url: str, headers: object = None) -> None:
            raise ValueError(f"a report fetches nothing, not even {url[:100]}")

    return cast(bytes, HTML(string=document, url_fetcher=Nothing()).write_pdf(pdf_tags=True))
