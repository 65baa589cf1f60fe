"""``python -m tests.reliability.accuracy [--seed N | --seeds N] [--faults N]``: exit 1 when a promise was broken."""

from __future__ import annotations

import argparse
import sys

from tests.reliability.accuracy.oracle import judge, summary
from tests.reliability.accuracy.simulation import Run, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.accuracy", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed, with its faults and all that was recorded of it")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds, from 1 on (20)")
    parser.add_argument("--faults", type=int, default=100, help="faults per seed (100)")
    arguments = parser.parse_args()
    verdicts = []
    for seed in [arguments.seed] if arguments.seed is not None else range(1, arguments.seeds + 1):
        run = simulate(seed, arguments.faults)
        verdict = judge(run)
        verdicts.append(verdict)
        if arguments.seed is not None:
            print(story(run))
        for line in verdict.wrong:
            print(f"seed {seed}: {line}")
        if verdict.wrong and arguments.seed is None:
            print(f"repeat it: python -m tests.reliability.accuracy --seed {seed} --faults {arguments.faults}")
        sys.stdout.flush()
    print(summary(verdicts))
    return 1 if any(verdict.wrong for verdict in verdicts) else 0


def story(run: Run) -> str:
    """Faults and records of a run in the order in which they came."""
    lines = [(fault.start, f"fault {fault}") for fault in run.faults]
    lines += [(fault.end, f"  end of #{fault.number} {fault.kind.name}") for fault in run.faults if fault.length]
    lines += [(at, f"  {new} leads in place of {old}") for at, old, new in run.switchovers]
    for record in run.records:
        event = record.change.event
        held = " (held back)" if event.suppressed else ""
        text = f"{record.change.kind} {event.event} {event.target.key} {event.severity.value}{held}: {event.message}"
        lines.append((record.at, f"    {text[:150]}"))
    return "\n".join(f"{at:9.1f} {line}" for at, line in sorted(lines, key=lambda item: item[0]))


if __name__ == "__main__":
    sys.exit(main())
