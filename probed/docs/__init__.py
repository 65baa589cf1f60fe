"""Writes ``docs/events.md`` and the references in ``docs/reference``: ``python -m probed.docs [--check]``.

Lists that people keep by hand drift. These are a pure function of the code (no dates, no paths, no machine), and
``tests/unit/test_docs_fresh.py`` compares them with what stands in the repository.
"""

from __future__ import annotations

import functools
import inspect
import json
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from probed import evidence as evidences
from probed.cli import cli
from probed.cli.check import load_policies
from probed.cli.schema import duration, size
from probed.config import settings, values
from probed.docs import api
from probed.docs.markdown import codes, page, table, yes
from probed.metrics import CATALOGUE
from probed.model import Policy
from probed.policy import words
from probed.policy.layers import BUILT_IN
from probed.policy.parameters import PARAMETERS
from probed.probes import AnyProbe, Combined, catalogue

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "docs"


def probes() -> str:
    """Every probe: its manual, what it runs on, its readings."""
    return page(
        "Probes",
        "A probe measures and never judges. Run one by hand with `probed probe run NAME`; its manual is this page's "
        "text (`probed probe show NAME`).",
        (_probe(probe) for probe in catalogue().values()),
    )


def _probe(probe: AnyProbe) -> Iterator[str]:
    yield f"## {probe.name}\n"
    yield f"{probe.manual}\n"
    if isinstance(probe, Combined):
        where = "on every node" if probe.scope == "node" else "on the instance as a whole"
        yield f"Computed {where} from {codes(probe.inputs)}; touches nothing itself.\n"
    else:
        only = ", only while a policy that is on needs it" if probe.costly else ""
        yield f"Runs on targets of kind {codes(probe.kinds)}{only}.\n"
    yield from table(("reading", "what it is"), [(f"`{name}`", what) for name, what in probe.readings.items()])


def events() -> str:
    """Every built-in event policy."""
    policies = load_policies(None, settings.Defaults())
    rows = [
        (f"[`{policy.id}`](#{policy.id})", policy.name, policy.group, _severity(policy), yes(policy.enabled))
        for policy in policies.values()
    ]
    overview = list(table(("id", "event", "group", "severity", "on by default"), rows))
    return page(
        "Events",
        "What is detected out of the box. Every rule can be changed by a file of the same id in "
        "`policies.directory` that names only the keys that differ: `{id: deadlocks_frequent, enabled: true}` is a "
        "whole file. Times in brackets: how long at most from the first bad sample to the event.",
        [overview, *(_policy(policy) for policy in policies.values())],
    )


def _policy(policy: Policy) -> Iterator[str]:
    yield f"## {policy.id}\n"
    switch = "" if policy.can_disable else "; cannot be switched off"
    fixed = "; the rule is fixed" if policy.fixed else ""
    state = "on" if policy.enabled else "off"
    yield f"**{policy.name}** · {_severity(policy)} · {state} by default{switch}{fixed}\n"
    yield f"{policy.description}\n"
    yield f"*Rule*: {words.rule(policy)}. Judged on [`{policy.probe}`](probes.md#{policy.probe}).\n"
    if policy.switchover_grace:
        yield "Samples do not count for `defaults.switchover_grace` after a switchover.\n"
    yield f"*What to do*: {policy.suggestion}\n"
    if policy.evidence:
        yield f"*Evidence*: {', '.join(f'[`{name}`](evidence.md#{name})' for name in policy.evidence)}.\n"
    if policy.params:
        rows = [(f"`{name}`", words.value(name, value), *_bounds(name)) for name, value in policy.params.items()]
        yield from table(("parameter", "default", "what it is", "expected"), rows)


def _severity(policy: Policy) -> str:
    on_replica = f" ({policy.replica_severity.value} on a replica)" if policy.replica_severity else ""
    return policy.severity.value + on_replica


def _bounds(name: str) -> tuple[str, str]:
    known = PARAMETERS.get(name)
    return (known.says, known.expected()) if known else ("", "a number or quantity")


def proofs() -> str:
    """Every event of the contract, and the tests that saw it come and go."""
    found: dict[str, dict[str, list[str]]] = {}
    for proof in proofs_of_the_tests():
        by = f"{proof['kind']}: {proof['by']}"
        found.setdefault(proof["event"], {}).setdefault(by, []).append(proof["test"])
    policies = load_policies(None, settings.Defaults())
    contract = [policies[path.stem] for path in sorted(BUILT_IN.glob("*.yaml"))]
    rows = [
        (
            f"[`{policy.id}`](#{policy.id})",
            _severity(policy),
            ", ".join(f"`{name}={words.value(name, value)}`" for name, value in policy.params.items()) or "fixed",
            _best(found.get(policy.id, ())),
        )
        for policy in contract
    ]
    return page(
        "The events and their proofs",
        "For every event of the contract: how grave it is, what can be set, and the tests that saw it appear and "
        "resolve (an occurrence only appears), on a **real** server of the named version, or against **recorded** "
        "answers that are replayed over real sockets, byte for byte (a recording says whether it was observed or taken "
        "from the source), or on what the test has **written** in its place. The tests say so themselves "
        "(`@pytest.mark.proves`); this page is collected from them. Rules and remedies are in "
        "[reference/events.md](reference/events.md).",
        [
            table(("event", "severity", "parameters", "proof"), rows),
            *(_proved(p, found.get(p.id, {})) for p in contract),
        ],
    )


def _best(found: Iterable[str]) -> str:
    kinds = {by.partition(":")[0] for by in found}
    return next((kind for kind in ("real", "recorded", "written") if kind in kinds), "none")


def _proved(policy: Policy, found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield f"## {policy.id}\n"
    yield f"**{policy.name}** · {_severity(policy)} · [rule](reference/events.md#{policy.id})\n"
    for by, tests in sorted(found.items()):
        yield f"- {by}"
        for test in tests:
            file, _, name = test.partition("::")
            yield f"  - [{Path(file).name}](../{file}) `{name}`"
    yield ""


@functools.cache
def proofs_of_the_tests() -> list[dict[str, str]]:
    """The marks of the tests in this checkout, collected by pytest in a process of its own."""
    command = [sys.executable, "-m", "tests.proofs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"the proofs cannot be collected from the tests: {done.stderr[-2000:]}")
    return list(json.loads(done.stdout))


def evidence() -> str:
    """Every collector of evidence."""
    policies = load_policies(None, settings.Defaults())
    return page(
        "Evidence",
        "Snapshots that are kept with an event, beside its samples: what was there before, and what is found because "
        "of it. A policy names its collectors under `evidence:`. They read only, each within 5 s and 32 KiB, 256 KiB "
        "for one event, on a connection of their own that is closed again; texts lose passwords, tokens and the "
        "literals of SQL. What could not be had is kept with the reason. `probed explain ID` shows them in short, "
        "`probed events show ID` whole.",
        (
            _collector(one, [policy.id for policy in policies.values() if one.name in policy.evidence])
            for one in evidences.catalogue().values()
        ),
    )


_SCOPES = {
    "node": "those of the event's node, or of all nodes when the event belongs to the instance as a whole",
    "instance": "all of the instance",
    "target": "the event's own target alone",
}


def _collector(one: evidences.Collector, events: Sequence[str]) -> Iterator[str]:
    yield f"## {one.name}\n"
    yield f"{one.manual}\n"
    kinds = "the machine that probed runs on (nodes with `local: true`)" if one.kinds == (evidences.HOST,) else ""
    yield f"Looks at {kinds or f'targets of kind {codes(one.kinds)}'}: {_SCOPES[one.scope]}.\n"
    before = [f"the samples of [`{one.recall.probe}`](probes.md#{one.recall.probe})"] if one.recall else []
    before += ["standing snapshots"] if one.standing else []
    taken = ["at the trigger"] + (["again after the recovery (of an occurrence: 30 s later)"] if one.recovery else [])
    yield f"*Before*: {' and '.join(before) or 'nothing'}. *After*: taken {' and '.join(taken)}.\n"
    linked = [f"[`{event}`](events.md#{event})" for event in events]
    yield f"Named by {', '.join(linked) or 'no built-in policy'}.\n"


def settings_() -> str:
    """Every key of ``probed.yml``."""
    rows = [(f"`{path}`", kind, default, text) for path, kind, default, text in _keys(settings.Settings, "")]
    return page(
        "Settings",
        "Every key of `probed.yml` (`probed schema config` prints a JSON Schema, `probed check` validates a file). "
        "Unknown keys are errors. `${VAR}` and `${VAR:-default}` expand in values. Durations carry their unit: "
        "`500ms`, `5s`, `1h30m`, `90d`.",
        [table(("key", "type", "default", "what it is"), rows)],
    )


_PER_MACHINE = {"observer": "the host's name"}


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    own = model.__annotations__
    # What it shares with others comes last.
    for name, info in sorted(model.model_fields.items(), key=lambda item: item[0] not in own):
        path = f"{prefix}{info.alias or name}"
        inner, several = _model_in(info.annotation)
        kind = "list of maps" if several == "[]" else "map of maps" if several else "map" if inner else _kind(info)
        yield path, kind, _PER_MACHINE.get(path) or _default(info), info.description or ""
        if inner is not None:
            yield from _keys(inner, f"{path}{several}.")


def _model_in(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """(model inside an annotation, how a path steps into it: ``[]``, ``.NAME`` or nothing)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    step = {list: "[]", dict: ".NAME"}.get(origin, "") if origin else ""
    for argument in arguments if origin in (list, dict, typing.Union, types.UnionType, typing.Annotated) else ():
        inner, further = _model_in(argument)
        if inner is not None:
            return inner, step + further
    return None, ""


_KINDS: Mapping[str, str] = {
    "Duration": "duration", "Moment": "time", "HostPort": "host:port", "HttpUrl": "http(s) address", "Name": "name",
    "HookUrl": "http(s) address",
    "ComponentUrl": "http(s) or tcp:// address", "StatsAddress": "http(s) address or unix:/path", "PathText": "path",
    "Port": "port", "StoreSize": "size",
}  # fmt: skip


def _kind(info: FieldInfo) -> str:
    return _kind_of(info.annotation, info.metadata)


def _kind_of(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    for name, shown in _KINDS.items():
        declared = getattr(values, name)
        own = typing.get_args(declared)
        if annotation == declared or (metadata and own and annotation == own[0] and list(own[1:]) == list(metadata)):
            return shown
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind_of(argument) for argument in arguments if argument is not type(None))
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin is list:
        return f"list of {_kind_of(arguments[0])}"
    if origin is dict:
        return "map" if arguments[1] is Any else f"map of {_kind_of(arguments[1])}"
    known = {str: "text", bool: "true or false", int: "whole number", float: "number", Path: "path"}
    return known.get(annotation, "any")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or value == [] or value == {} or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and _kind(info) == "duration":
        return f"`{duration(value)}`"
    if isinstance(value, int) and _kind(info) == "size":
        return f"`{size(value)}`"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value}`"


def metrics() -> str:
    """Every Prometheus metric."""
    rows = [
        (f"`{series.name}`", series.type, ", ".join(f"`{label}`" for label in series.labels), series.help)
        for series in CATALOGUE
    ]
    return page(
        "Metrics",
        "Served at `/metrics`. Base units; labels are bounded sets and never text from a target. No reading means no "
        "series: nothing is exported that is not known.",
        [table(("metric", "type", "labels", "what it is"), rows)],
    )


def commands() -> str:
    """Every command with its flags."""
    root = click.Context(cli, info_name="probed")
    return page(
        "Commands",
        "Data goes to stdout, logs and errors to stderr; `NO_COLOR` is honoured. Exit codes: 0 ok, 1 failure, 2 usage, "
        "78 bad configuration. Every flag has an environment variable; a flag on the command line beats it. A flag "
        "that can be repeated takes several values from its variable, parted by blanks.",
        (_command(context) for context in _contexts(root)),
    )


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """Of every command, depth first, in the order of the help; the root itself has nothing to say."""
    command = context.command
    assert isinstance(command, click.Group)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None, name
        inner = click.Context(found, info_name=name, parent=context)
        yield inner
        if isinstance(found, click.Group):
            yield from _contexts(inner)


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    usage = " ".join(piece for piece in command.collect_usage_pieces(context))
    yield f"## {context.command_path}\n"
    yield f"```\n{context.command_path} {usage}\n```\n"
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    yield from _unfolded(text)
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    rows = [(_flag(option), f"`{option.envvar}`", _flag_default(option), _flag_help(option)) for option in options]
    if rows:
        yield from table(("flag", "environment", "default", "what it is"), rows)


def _unfolded(text: str) -> Iterable[str]:
    """Help as Markdown: lines that are indented or aligned stay as they are, in a code block."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if any("  " in line.strip() for line in lines):
            yield from ("```", *lines, "```", "")
        else:
            yield from (*lines, "")


def _flag(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {codes(list(option.type.choices), ' or ')}"
    return f"{names} {option.metavar or option.type.name.upper()}"


def _flag_default(option: click.Option) -> str:
    default = option.to_info_dict()["default"]
    return "" if default in (None, False, (), "") else f"`{default}`"


def _flag_help(option: click.Option) -> str:
    repeatable = "" if not option.multiple or "epeatable" in (option.help or "") else " Repeatable."
    return (option.help or "") + repeatable


PAGES: Mapping[str, Callable[[], str]] = {
    "events.md": proofs,
    "reference/probes.md": probes,
    "reference/events.md": events,
    "reference/evidence.md": evidence,
    "reference/settings.md": settings_,
    "reference/metrics.md": metrics,
    "reference/commands.md": commands,
    "reference/api.md": api.page_of_the_api,
}
"""By path below docs/."""


def stale(directory: Path = DIRECTORY) -> list[str]:
    """Names of the pages that are not what the code says."""
    return [name for name, page in PAGES.items() if _read(directory / name) != page()]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main(arguments: Sequence[str]) -> int:
    if "--check" in arguments:
        old = stale()
        for name in old:
            click.echo(f"docs/{name}: not what the code says; run `make docs`", err=True)
        return 1 if old else 0
    for name, written in PAGES.items():
        (DIRECTORY / name).parent.mkdir(parents=True, exist_ok=True)
        (DIRECTORY / name).write_text(written(), encoding="utf-8")
        click.echo(f"docs/{name}")
    return 0
