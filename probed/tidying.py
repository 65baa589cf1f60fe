"""When the garbage collector works: a little and often, instead of by its own count, which stops the loop for 50 ms.

CPython's collector counts objects. What is under way in some rounds reaches its 700 several times a second; whatever
lives just then ages, and soon all samples that the daemon holds are walked over again and again: for a fleet, 50 to
130 ms in which no probe starts and every answer waits. Reference counts free nearly all that goes here. Cycles are made
at logins and by failures, and those are young when they end.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

from probed.clock import Clock

ALL_EACH = 600.0
"""Seconds between two walks over everything: for cycles that were old when they ended."""
_BY_ITSELF = 5_000, 1_000_000
"""Objects more than there were, after which the collector looks at what is new by itself, as in a burst (a storm, the
first scrape of a fleet): 2 ms. And after how many such looks at anything older, which is to say never."""


@contextlib.contextmanager
def by_hand(clock: Clock) -> Iterator[Callable[[], None]]:
    """The collector works when it is called, twice a second; what it was set to before holds again at the end."""
    before = gc.get_threshold()
    gc.set_threshold(*_BY_ITSELF)
    walked = clock.mono()

    def tidy() -> None:
        nonlocal walked
        whole = clock.mono() - walked >= ALL_EACH
        gc.collect(2 if whole else 0)
        if whole:
            walked = clock.mono()

    try:
        yield tidy
    finally:
        gc.set_threshold(*before)


def settle() -> None:
    """What exists now lives as long as the daemon: keep the collector from walking it again, 50 ms at a time.

    What only the start needed goes back to the system: half a MiB of 60.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    import ctypes  # 0.4 MiB, which its one call more than pays for; not before the first look

    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
