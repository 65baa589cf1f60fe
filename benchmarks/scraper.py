"""A Prometheus' part of a scrape: ``python -m benchmarks.scraper PORT EVERY`` gets /metrics each so many seconds."""

from __future__ import annotations

import contextlib
import sys
import time

from benchmarks.peers import fetch

if __name__ == "__main__":
    while True:
        with contextlib.suppress(OSError):  # too slow an answer is the daemon's figure, not an end of asking
            fetch(int(sys.argv[1]), "/metrics")
        time.sleep(float(sys.argv[2]))
