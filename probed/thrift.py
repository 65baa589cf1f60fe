"""What a daemon is spared that an import would do and nobody needs."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def without_authorities() -> Iterator[None]:
    """For the first import of aiohttp, which loads the system's authorities for a client of its own: that is not used
    here, and would keep 2 MiB. Other threads go on loading them."""
    ours, load = threading.get_ident(), ssl.SSLContext.set_default_verify_paths

    def spared(context: ssl.SSLContext) -> None:
        if threading.get_ident() != ours:
            load(context)

    # A method replaced on purpose, and put back below: aiohttp has no switch for it.
    ssl.SSLContext.set_default_verify_paths = spared  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # what it inherits is in force again
