"""What a daemon is spared: work that its start need not do, and memory that only its start needed."""

from __future__ import annotations

import contextlib
import ctypes
import gc
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

    ssl.SSLContext.set_default_verify_paths = spared  # type: ignore[method-assign]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # what it inherits is in force again


def settle() -> None:
    """What exists now lives as long as the daemon: keep the collector from walking it again, 50 ms at a time.

    What only the start needed goes back to the system: half a MiB of 60.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
