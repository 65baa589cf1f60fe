"""``probed doctor``: can everything be reached, and what mends it if not?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probed.cli import flags

if TYPE_CHECKING:
    from probed.model import Sample


@click.command("doctor")
@flags.source_flags
@flags.output_flag
@flags.log_flags
def command(
    config_file: Path | None,
    patroni: Sequence[str],
    postgres: str | None,
    output: str,
    log_level: str,
    log_format: Any,
) -> None:
    """Reach every target once; say what mends it.

    What is ok, failing, blind or not applicable, why, and the SQL grant or setting that mends it. Takes the
    flags of `probed run`; needs no running daemon and changes nothing. Exit 0 when every target is observed
    (or not applicable), else 1.
    """
    from probed import logs
    from probed.cli import tell_problems
    from probed.cli.sources import source
    from probed.errors import ConfigError

    logs.set_up(log_level, log_format)
    chosen = source(config_file, patroni, postgres)
    context = click.get_current_context()
    try:
        samples = _samples(chosen.read())
    except ConfigError as error:
        tell_problems(error)
        context.exit(1)
    _tell(samples, output)
    context.exit(0 if all(_is_fine(sample) for sample in samples) else 1)


def _samples(settings: Any) -> list[Sample]:
    import asyncio

    from probed.cli.once import sample_once
    from probed.config import load

    for part in load.not_used_yet(settings):
        click.echo(f"{part}: accepted, but without effect in this version", err=True)
    found = asyncio.run(sample_once(settings))
    # A combined probe without its input repeats what stands in the input's own row.
    return [sample for sample in found.samples if sample.kind != "no_input"]


def _is_fine(sample: Sample) -> bool:
    return sample.outcome.value in ("observed", "not_applicable")


def _tell(samples: Sequence[Sample], output: str) -> None:
    from probed.cli.output import Column, emit

    rows = [
        {
            "target": sample.target.key,
            "address": sample.target.address,
            "probe": sample.probe,
            "outcome": sample.outcome.value,
            "duration_ms": round(sample.duration * 1000, 1) if sample.duration else None,
            "reason": sample.reason,
        }
        for sample in sorted(samples, key=lambda sample: (sample.target.key, sample.probe))
    ]
    columns = [
        Column("target"),
        Column("probe"),
        Column("outcome"),
        Column("duration_ms", "ms", right=True),
        Column("reason", prose=True),
    ]
    emit(output, {"items": rows}, columns, rows, empty="These settings yield no target.")
    if output == "table" and rows:
        bad = sum(not _is_fine(sample) for sample in samples)
        verdict = f"{bad} of {len(rows)} need a hand" if bad else f"all {len(rows)} are fine"
        click.echo(f"\n{verdict}")
