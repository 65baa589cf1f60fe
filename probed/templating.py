"""Templates to HTML. Whatever is put into one is escaped; whatever cannot be seen is made visible first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from probed.redaction import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(*directories: Path) -> Environment:
    """Templates of these directories. Jinja is imported here, for the first one that is asked for."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        autoescape=True,
        loader=FileSystemLoader(directories),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )


def _shown(value: object) -> object:
    """Every value that a template puts out: no control characters, nothing that changes the direction of text."""
    if value is None:
        return ""
    # What is safe already is of a class of its own, and goes as it is; a page has some thousand values.
    return visible(value) if type(value) is str else value
