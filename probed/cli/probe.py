"""``probed probe``: the manual of each probe, and a run of one by hand."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from probed.cli import flags
from probed.errors import ApiError, ConfigError, ProbedError

if TYPE_CHECKING:
    from probed.cli.once import Round
    from probed.model import Reading, Sample, Target
    from probed.probes import AnyProbe
    from probed.steps import Step


@click.group("probe")
def command() -> None:
    """List probes, read the manual of one, run one by hand."""


@command.command("list")
@flags.output_flag
def list_(output: str) -> None:
    """Every probe, and what it can be pointed at."""
    from probed.cli.output import Column, emit
    from probed.probes import catalogue

    rows = [as_item(probe) for probe in catalogue().values()]
    columns = [Column("name"), Column("on"), Column("from", "computed from"), Column("summary", prose=True)]
    emit(output, {"items": rows}, columns, rows)


@command.command("show")
@click.argument("name")
def show(name: str) -> None:
    """The manual of a probe."""
    from probed.cli.output import pairs

    probe = _named(name)
    item = as_item(probe)
    click.echo(f"{probe.name}\n\n{probe.manual}\n")
    pairs([("on", item["on"]), ("computed from", item["from"])])
    click.echo("\nreadings")
    pairs(list(probe.readings.items()), indent=2)


@command.command("run")
@click.argument("name")
@flags.flag("--target", metavar="T", help="Only targets of this name, node or address; * matches anything.")
@flags.flag(
    "-v", "--verbose", is_flag=True, help="Also each step with its time, the inputs of a combined probe, and facts."
)
@flags.flag(
    "--format",
    "form",
    type=click.Choice(["text", "json", "nagios"]),
    default="text",
    show_default=True,
    help="nagios: one line, exit 0 ok, 1 warning, 2 critical, 3 unknown.",
)
@flags.source_flags
@flags.log_flags
def run(
    name: str,
    target: str | None,
    verbose: bool,
    form: str,
    config_file: Path | None,
    patroni: Sequence[str],
    postgres: str | None,
    log_level: str,
    log_format: Any,
) -> None:
    """Run a probe once against every target it fits, without a daemon.

    Takes the flags of `probed run`. Exit 0 when all was observed (or is not applicable), else 1.
    """
    from probed import logs
    from probed.cli.sources import source

    logs.set_up(log_level, log_format)
    chosen = source(config_file, patroni, postgres)
    context = click.get_current_context()
    try:
        probe = _named(name)
        found = _run(chosen.read(), probe, target)
    except ProbedError as error:
        if form != "nagios":
            raise
        first = str(error.problems[0]) if isinstance(error, ConfigError) else str(error)
        _unknown(probe=name, why=first)
    if form == "nagios":
        from probed.cli.nagios import line

        text, code = line(probe, found.samples, found.policies)
        click.echo(text)
        context.exit(code)
    if form == "json":
        from probed.cli.output import emit

        emit(
            "json", {"items": [_as_json(sample, verbose, _steps_of(found, sample)) for sample in found.samples]}, [], []
        )
    else:
        for sample in [*(found.inputs if verbose else ()), *found.samples]:
            _tell(sample, _readings_of(found, sample), verbose, _steps_of(found, sample))
    fine = all(sample.outcome.value in ("observed", "not_applicable") for sample in found.samples)
    context.exit(0 if fine else 1)


def _run(settings: Any, probe: AnyProbe, wanted: str | None) -> Round:
    import asyncio

    from probed.cli.once import sample_once

    found = asyncio.run(
        sample_once(settings, lambda name, target: name == probe.name and (not wanted or _matches(wanted, target)))
    )
    if found.samples:
        return found
    known = [target.key for name, target in found.known if name == probe.name]
    if wanted and known:
        raise ApiError(f'no target of {probe.name} matches --target "{wanted}"; there are: {", ".join(known)}')
    need = as_item(probe)
    message = f"these settings yield no target for {probe.name}: it is for {need['on']}"
    raise ApiError(message + (f", computed from {need['from']}" if need["from"] else ""))


def _matches(wanted: str, target: Target) -> bool:
    names = (target.key, target.node, target.address, target.member, target.instance, target.component)
    return any(fnmatch.fnmatchcase(name, wanted) for name in names if name)


def _named(name: str) -> AnyProbe:
    from probed.probes import catalogue
    from probed.strict_yaml import did_you_mean

    probes = catalogue()
    if name not in probes:
        raise ApiError(f'there is no probe "{name}"{did_you_mean(name, sorted(probes))}')
    return probes[name]


def as_item(probe: AnyProbe) -> dict[str, Any]:
    """A probe as plain data: ``on`` is what it can be pointed at, ``from`` the inputs of a combined one."""
    from probed.probes import Combined

    if isinstance(probe, Combined):
        on = "every node" if probe.scope == "node" else "the instance"
        inputs = ", ".join(probe.inputs)
    else:
        on, inputs = ", ".join(probe.kinds), ""
    return {
        "name": probe.name,
        "on": on,
        "from": inputs,
        "summary": probe.manual.split("\n\n")[0].replace("\n", " "),
        "readings": dict(probe.readings),
    }


def _readings_of(found: Round, sample: Sample) -> Mapping[str, str]:
    return found.catalogue[sample.probe].readings


def _steps_of(found: Round, sample: Sample) -> Sequence[Step]:
    return found.steps.get((sample.probe, sample.target.key), ())


def _tell(sample: Sample, described: Mapping[str, str], verbose: bool, steps: Sequence[Step]) -> None:
    from probed.cli.output import Column, pairs, table

    address = f" ({sample.target.address})" if sample.target.address else ""
    click.echo(f"{sample.probe} on {sample.target.key}{address}")
    pairs(
        [
            (
                "outcome",
                sample.outcome.value + (f" ({sample.kind})" if sample.kind not in ("", sample.outcome) else ""),
            ),
            ("duration", f"{sample.duration * 1000:.1f} ms" if sample.duration else None),
            ("reason", sample.reason),
        ],
        indent=2,
    )
    if verbose and steps:
        taken = [
            {
                "step": step.name,
                "at ms": f"{step.at * 1000:.1f}",
                "ms": f"{step.seconds * 1000:.1f}",
                "": step.detail if step.finished else f"{step.detail} (not finished)".strip(),
            }
            for step in steps
        ]
        table(
            [Column("step"), Column("at ms", right=True), Column("ms", right=True), Column("", "", prose=True)],
            taken,
            indent=2,
        )
    rows = [
        {"reading": key, "value": _with_unit(key, value), "": described.get(key)}
        for key, value in sample.readings.items()
    ]
    if rows:
        table([Column("reading"), Column("value", right=True), Column("", "is", prose=True)], rows, indent=2)
    if verbose and sample.facts:
        click.echo("  facts")
        pairs(list(sample.facts.items()), indent=4)
    click.echo()


def _with_unit(reading: str, value: Reading) -> str:
    """Readings carry their unit in their name; people read another one."""
    from probed.cli.output import text
    from probed.quantity import human_bytes, human_seconds

    if isinstance(value, str) or not reading.endswith(("_seconds", "_bytes", "_pct", "_ratio")):
        return text(value)
    if reading.endswith("_bytes"):
        return human_bytes(value)
    return human_seconds(value) if reading.endswith("_seconds") else f"{value:.1f} %"


def _as_json(sample: Sample, verbose: bool, steps: Sequence[Step]) -> dict[str, Any]:
    from probed.cli.output import rfc3339, text

    shown: dict[str, Any] = {
        "target": sample.target.key,
        "address": sample.target.address,
        "probe": sample.probe,
        "at": rfc3339(sample.at),
        "outcome": sample.outcome.value,
        "readings": dict(sample.readings),
        "reason": sample.reason,
        "kind": sample.kind,
        "duration_ms": round(sample.duration * 1000, 3),
    }
    if verbose:
        shown["steps"] = [
            {
                "step": step.name,
                "detail": step.detail,
                "at_ms": round(step.at * 1000, 3),
                "duration_ms": round(step.seconds * 1000, 3),
                "finished": step.finished,
            }
            for step in steps
        ]
        shown["facts"] = {key: text(value) for key, value in sample.facts.items()}
    return shown


def _unknown(probe: str, why: str) -> NoReturn:
    click.echo(f"PROBED UNKNOWN - {probe}: {why.replace('|', '/')}")
    raise click.exceptions.Exit(3)
