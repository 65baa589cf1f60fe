"""Which probed this is. Standard library only, for commands that must start at once."""

from __future__ import annotations

import os
import sys

_BEGINS, _ENDS = "pg_probed-", ".dist-info"


def version() -> str:
    """Of the installed distribution; ``0+not-installed`` when it runs from a bare checkout."""
    # Its directory carries it; importlib.metadata, which knows every other way to install, costs 20 ms and 1 MiB.
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.startswith(_BEGINS) and name.endswith(_ENDS):
                return name[len(_BEGINS) : -len(_ENDS)]
    from importlib import metadata

    try:
        return metadata.version("pg-probed")
    except metadata.PackageNotFoundError:
        return "0+not-installed"
