"""A report as one HTML document that needs nothing else: its styles and charts stand in it, and no script does.

It can be kept, sent and printed; the PDF is made of it. The same report always gives the same characters.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from probed.inspection import Report
from probed.inspection.sheets import paper
from probed.templating import environment

if TYPE_CHECKING:
    from jinja2 import Template

DIRECTORY = Path(__file__).parent / "templates"
STYLE = DIRECTORY / "report.css"
"""Of a report, wherever it is shown; ``document.css`` is what it needs beside it where there is no page around it."""


def html(report: Report, most: int | None = None) -> str:
    """The whole document, with the sheets of ``most`` instances. A big fleet takes a second: not on a loop that others
    wait for.
    """
    return _template().render(paper=paper(report, most), version=report.version)


@cache
def _template() -> Template:
    from markupsafe import Markup

    made = environment(DIRECTORY)
    # Ours, and plain CSS: nothing in it is escaped, and nobody else's text gets into it.
    styles = [(DIRECTORY / name).read_text(encoding="utf-8") for name in ("document.css", STYLE.name)]
    made.globals["style"] = Markup("".join(styles))  # noqa: S704 (our own files)
    return made.get_template("document.html")
