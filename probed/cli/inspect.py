"""``probed inspect``: how healthy an instance is, now, with evidence; and the reports that are kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probed.cli import flags
from probed.errors import ApiError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from probed.cli.client import Client

PATH = "/api/v1/inspections"
SHORT_ID = 18
MAX_TOLD = 20
"""Items that a terminal is shown of all instances; a file has all."""
FILE_SECONDS = 120.0
"""For one file: a PDF of a fleet takes a while."""
FORMS = ("json", "markdown", "html", "pdf")
SUFFIXES = {"json": "json", "markdown": "md", "html": "html", "pdf": "pdf"}

_files = flags.together(
    *(
        flags.flag(f"--{form}", metavar="FILE", type=flags.file_path, help=f"Also write the report as {shown}.")
        for form, shown in zip(FORMS, ("JSON", "Markdown", "HTML", "PDF"), strict=True)
    ),
)


@click.group("inspect", invoke_without_command=True)
@flags.flag("--instance", "instances", metavar="NAME", multiple=True, help="Only this one; repeatable. Default: all.")
@flags.flag(
    "--event", "events", metavar="ID", multiple=True, help="Only this event; repeatable. Default: all that are on."
)
@flags.flag("--days", type=click.IntRange(1, 90), default=7, show_default=True, help="How much history counts.")
@flags.flag("--zone", metavar="ZONE", default="UTC", show_default=True, help="Time zone of the days in the report.")
@_files
@flags.flag(
    "--fail-on",
    type=click.Choice(["warn", "fail"]),
    default="warn",
    show_default=True,
    help="The least verdict for which the exit code is 1.",
)
@flags.client_flags
@flags.output_flag
def command(
    instances: Sequence[str],
    events: Sequence[str],
    days: int,
    zone: str,
    fail_on: str,
    where: flags.Where,
    output: str,
    **files: Path | None,
) -> None:
    """How healthy instances are, as a report to keep.

    Each chosen event's probe is run once, now; history of the last days, trends and advice are added. Exit 0 when
    everything passes, 1 when there are findings (see --fail-on). The report is kept: `probed inspect list`.
    """
    context = click.get_current_context()
    if context.invoked_subcommand is not None:
        return
    client = where.client()
    body = {"instances": list(instances), "events": list(events), "days": days, "zone": zone}
    report = _conducted(client, body)
    if report["error"]:
        raise ApiError(f"inspection {report['id']} failed: {report['error']}")
    _write(client, report["id"], files)
    _show(report, output)
    bad = ("fail",) if fail_on == "fail" else ("warn", "fail")
    context.exit(1 if report["verdict"] in bad else 0)


@command.command("list")
@flags.flag("--instance", metavar="NAME", help="Only those about this instance.")
@flags.flag("--name", metavar="NAME", help="Only those of this schedule.")
@flags.flag("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest so many.")
@flags.client_flags
@flags.output_flag
def list_(instance: str | None, name: str | None, limit: int, where: flags.Where, output: str) -> None:
    """Reports that are kept, newest first."""
    from probed.cli.output import Column, emit, moment

    answer = where.client().items(PATH, {"instance": instance, "name": name}, limit)
    rows = [{**item, "began_at": moment(item["began_at"]), **_totals(item)} for item in answer["items"]]
    columns = [
        Column("id", brief=lambda value: value[:SHORT_ID]), Column("began_at", "began"), Column("state"),
        Column("name", "schedule"), Column("author", "by"), Column("grade"), Column("fails", right=True),
        Column("warns", right=True), Column("worst", prose=True),
    ]  # fmt: skip
    emit(output, answer, columns, rows, empty="No inspection was made yet; probed inspect makes one.")


@command.command("show")
@click.argument("inspection_id", metavar="ID")
@_files
@flags.client_flags
@flags.output_flag
def show(inspection_id: str, where: flags.Where, output: str, **files: Path | None) -> None:
    """One report; the beginning of its id is enough."""
    client = where.client()
    found = _full_id(client, inspection_id)
    _write(client, found, files)
    _show(client.get(f"{PATH}/{found}", seconds=FILE_SECONDS), output)


def _conducted(client: Client, body: Mapping[str, Any]) -> dict[str, Any]:
    """The report, after a progress bar on a terminal's stderr."""
    report: dict[str, Any] | None = None
    with _Bar() as bar:
        for line in client.lines("POST", PATH, body):
            if "progress" in line:
                bar.show(line["progress"])
            else:
                report = line["result"]
    if report is None:
        raise ApiError("the daemon ended the answer before the report; look at its log")
    return report


class _Bar:
    """How far it is, on a terminal's stderr; nothing elsewhere."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
            self._progress = Progress(*columns, console=Console(stderr=True, markup=False), transient=True)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, told: Mapping[str, Any]) -> None:
        if self._progress is None:
            return
        from probed.cli.output import text

        at_work = text(told["at_work"][:3]) if told["at_work"] else "reading what is recorded"
        if self._task is None:
            self._task = self._progress.add_task("", total=told["total"])
        self._progress.update(self._task, completed=told["done"], description=at_work)


def _write(client: Client, inspection_id: str, files: Mapping[str, Path | None]) -> None:
    """The report in every form that is wanted. ApiError when a file cannot be written."""
    for form in FORMS:
        path = files.get(form)
        if path is None:
            continue
        target = f"{PATH}/{inspection_id}.{SUFFIXES[form]}"
        answer = client.ask("GET", target, seconds=FILE_SECONDS)
        if answer.status >= 400:
            answer.data(target)
        try:
            path.write_bytes(answer.body)
        except OSError as error:
            raise ApiError(f"--{form}: cannot write {path}: {error.strerror or error}") from None
        click.echo(f"{path} written", err=True)


def _show(report: Mapping[str, Any], output: str) -> None:
    from probed.cli.output import Column, emit, moment, table, text

    items = _worst(report)
    columns = [Column("verdict"), Column("section"), Column("title", "item"), Column("target"),
               Column("finding", prose=True), Column("suggestion", "what to do", prose=True)]  # fmt: skip
    if output != "table":
        emit(output, report, [*columns, Column("id"), Column("instance")], items)
        return
    name = f", {text(report['name'])}" if report["name"] else ""
    click.echo(f"inspection {report['id']}{name}, began {moment(report['began_at'])}, {report['state']}")
    for note in filter(None, (report["note"], report["error"])):
        click.echo(text(note))
    click.echo()
    table(
        [Column("grade"), Column("instance"), Column("fails", right=True), Column("warns", right=True),
         Column("grade_reason", "because", prose=True)],
        [{**one, **_counts(one)} for one in report["instances"]],
    )  # fmt: skip
    bad = [item for item in items if item["verdict"] != "pass"]
    if bad:
        click.echo()
        table(columns, bad[:MAX_TOLD])
        if len(bad) > MAX_TOLD:
            click.echo(f"… and {len(bad) - MAX_TOLD} more: -o json, --html or --markdown have all")
    _tell_differences(report)


def _tell_differences(report: Mapping[str, Any]) -> None:
    from probed.cli.output import Column, moment, table

    rows = [
        {**one, "instance": each["instance"], "before": one["before"] or "-", "now": one["now"] or "-"}
        for each in report["instances"]
        for one in each["differences"]
    ]
    compared = [each["compared_at"] for each in report["instances"] if each["compared_at"]]
    if not compared:
        return
    since = moment(min(compared))
    if not rows:
        click.echo(f"\nnothing is otherwise than in the inspection before ({since})")
        return
    click.echo(f"\notherwise than in the inspection before ({since})")
    columns = [
        Column("before"),
        Column("now"),
        Column("title", "item"),
        Column("target"),
        Column("finding", prose=True),
    ]
    table(columns, rows[:MAX_TOLD])


def _worst(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Items of all instances, what fails first."""
    order = ["fail", "warn", "pass"]
    items = [{**item, "instance": each["instance"]} for each in report["instances"] for item in each["items"]]
    return sorted(items, key=lambda item: order.index(item["verdict"]))


def _counts(one: Mapping[str, Any]) -> dict[str, int]:
    verdicts = [item["verdict"] for item in one["items"]]
    return {"fails": verdicts.count("fail"), "warns": verdicts.count("warn")}


def _totals(item: Mapping[str, Any]) -> dict[str, Any]:
    """Of a report in the list: its worst instance, and the numbers of all."""
    instances = item["instances"]
    if not instances:
        return {"grade": None, "fails": None, "warns": None, "worst": item["error"]}
    more = f" and {len(instances) - 1} more" if len(instances) > 1 else ""
    return {
        "grade": instances[0]["grade"],
        "fails": sum(one["fails"] for one in instances),
        "warns": sum(one["warns"] for one in instances),
        "worst": f"{instances[0]['instance']}{more}",
    }


def _full_id(client: Client, beginning: str) -> str:
    """The only id that begins so."""
    if len(beginning) >= 36:
        return beginning
    found = [item["id"] for item in client.items(PATH, {}, 10_000)["items"] if item["id"].startswith(beginning)]
    if len(found) == 1:
        return str(found[0])
    if not found:
        raise ApiError(f'no inspection\'s id begins with "{beginning}"; `probed inspect list` shows them')
    raise ApiError(f'{len(found)} inspections begin with "{beginning}": {", ".join(found[:5])}; give more of it')
