"""``python -m benchmarks overhead|throughput|jitter|detect|inproc|soak``: what the daemon costs, measured.

One JSON line per figure on stdout, with the machine's own noise beside it (an idle control or the bare floor in the
same run). Bounds are told, not enforced; ``--gate`` exits 1 when one is missed. Peers come by ``make peers``; what the
goals are and how they were met stands in docs/performance.md. ``footprint``, ``ledger``, ``page``, ``samples`` and
``backtest`` are of single parts.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks import (
    backtest,
    detect,
    footprint,
    inproc,
    inspections,
    jitter,
    ledger,
    overhead,
    page,
    samples,
    soak,
    throughput,
)
from benchmarks.goals import into

Figures = list[dict[str, Any]]
RUNS: dict[str, Callable[..., Coroutine[Any, Any, Figures]]] = {
    "overhead": overhead.run,
    "detect": detect.run,
    "inproc": inproc.run,
    "soak": soak.run,
    "throughput": throughput.run,
    "jitter": jitter.run,
    "footprint": footprint.run,
    "ledger": ledger.run,
    "samples": samples.run,
    "backtest": backtest.run,
    "page": page.run,
    "inspections": inspections.run,
}
OPTIONS: dict[str, tuple[str, ...]] = {
    "overhead": ("rounds", "cycles", "pace", "loop", "markdown"),
    "jitter": ("targets", "interval", "scrape", "markdown"),
    "throughput": ("rounds", "loop", "markdown"),
    "detect": ("interval", "faults", "markdown"),
    "soak": ("cycles", "markdown"),
    "inproc": ("rounds", "kill", "markdown"),
    "ledger": ("events", "store"),
}
"""What each of them takes besides ``--seconds`` and ``--alone``."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="+", choices=RUNS)
    parser.add_argument("--gate", action="store_true", help="exit 1 when a bound is missed")
    parser.add_argument("--markdown", action="store_true", help="a table for docs/performance.md instead of JSON lines")
    parser.add_argument("--seconds", type=float, help="how long each thing is measured")
    parser.add_argument("--rounds", type=int, help="how often each contender has its turn (overhead, inproc)")
    parser.add_argument("--kill", type=int, help="how often a writing process is killed (inproc)")
    parser.add_argument("--cycles", type=int, help="how many cycles: of a turn (overhead), of all (soak)")
    parser.add_argument("--pace", type=float, help="seconds between two cycles (overhead)")
    parser.add_argument("--targets", type=int, help="healthy targets; then the hung ones are left out (jitter)")
    parser.add_argument("--interval", type=float, help="seconds between two cycles of a target (jitter, detect)")
    parser.add_argument("--scrape", type=float, help="seconds between two scrapes of /metrics (jitter)")
    parser.add_argument("--faults", type=int, help="how many, at random phases (detect)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), help="the event loop of daemon and floor (overhead)")
    parser.add_argument(
        "--alone", action="store_true", help="real-time priority for the daemon (jitter, ledger; privileged)"
    )
    parser.add_argument("--events", type=int, default=1_000_000, help="how long the history is (ledger)")
    parser.add_argument("--store", type=Path, help="a store to use, and alter, instead of a new one (ledger)")
    parser.add_argument(
        "--into", type=Path, metavar="PAGE", help="also put the tables into this page (docs/performance.md)"
    )
    arguments = parser.parse_args()
    # So that whatever was started ends with us, also when somebody has had enough of it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    missed = 0
    for name in arguments.what:
        more = {option: getattr(arguments, option) for option in OPTIONS.get(name, ())}
        figures = asyncio.run(RUNS[name](arguments.seconds, alone=arguments.alone, **more))
        missed += sum(bool(figure.get("missed")) for figure in figures)
        if arguments.into is not None:
            into(arguments.into, name, [figure for figure in figures if "id" in figure])
    return 1 if missed and arguments.gate else 0


if __name__ == "__main__":
    sys.exit(main())
