"""Which threads are in a call that may hang. Others wait for the next one, maybe since an earlier test."""

from __future__ import annotations

import threading
from collections.abc import Set

from probed.probes import _proc


def in_calls() -> Set[threading.Thread]:
    return {thread for thread in threading.enumerate() if isinstance(thread, _proc._Thread)} - set(_proc._waiting)
