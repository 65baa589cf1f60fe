"""A process that does nothing but sleep 5 ms at a time: ``python -m benchmarks.idle SECONDS`` prints how late it woke.

What the machine itself does to a sleeper, as a control beside a daemon's figures: p99 and max, in milliseconds.
"""

from __future__ import annotations

import sys
import time

from benchmarks.figures import percentile

BEAT = 0.005


def main(seconds: float) -> None:
    late = []
    end = time.monotonic() + seconds
    while (before := time.monotonic()) < end:
        time.sleep(BEAT)
        late.append(time.monotonic() - before - BEAT)
    print(percentile(late, 99) * 1000, max(late) * 1000)


if __name__ == "__main__":
    main(float(sys.argv[1]))
