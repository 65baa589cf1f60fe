"""What a daemon is spared that an import would do and nobody needs."""

from __future__ import annotations

import contextlib
import ssl
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """For the first import of what takes these modules where it finds them, and does without them elsewhere."""
    left_out = [name for name in names if name not in sys.modules]
    for name in left_out:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]


@contextlib.contextmanager
def server_alone() -> Iterator[None]:
    """For the first import of aiohttp, of which the server is used here.

    Left out are a decompressor of bodies that nobody sends, 0.3 MiB, and the C++ form of the lists that signals are
    kept in, 0.9 MiB with the library of that language.
    """
    with without("brotli", "brotlicffi", "frozenlist._frozenlist"), _without_authorities():
        yield


@contextlib.contextmanager
def _without_authorities() -> Iterator[None]:
    """aiohttp loads the system's authorities for a client of its own: that is not used here, and would keep 2 MiB.
    Other threads go on loading them."""
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
