"""Data on stdout: rows as a table for people, whole answers as JSON, YAML or TSV for programs.

Only a terminal gets colour and folding (rich); everything else gets plain aligned columns with nothing cut off.
Text that came from targets is made visible first, so that it can never drive the terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import click
from msgspec import Struct

from probed import outline
from probed.errors import ApiError
from probed.redaction import visible

Row = Mapping[str, Any]


class Column(Struct, frozen=True):
    """``key`` of a row under a title; numbers stand right."""

    key: str
    title: str = ""
    right: bool = False
    brief: Callable[[str], str] | None = None
    """A shorter form for a terminal."""
    prose: bool = False
    """Sentences: what is folded first when a terminal is too narrow."""

    @property
    def heading(self) -> str:
        return (self.title or self.key).upper()


text = outline.text
"""One visible line for a cell: every command spells values so."""

MIN_PROSE = 24
"""Characters that a column of sentences needs to be read with ease."""

STYLES = {
    "fatal": "bold red", "critical": "red", "normal": "cyan", "open": "bold", "failed": "red", "failing": "red",
    "fail": "bold red", "warn": "yellow", "pass": "green",
    "blind": "yellow", "observed": "green", "ok": "green", "resolved": "dim", "not_applicable": "dim",
}  # fmt: skip


def emit(form: str, answer: Any, columns: Sequence[Column], rows: Sequence[Row], *, empty: str = "") -> None:
    """``answer`` whole as json or yaml, else ``rows``; ``empty`` says what it means that there is no row."""
    if form == "json":
        click.echo(_as_json(answer))
    elif form == "yaml":
        click.echo(_as_yaml(answer), nl=False)
    elif form == "tsv":
        _tsv(columns, rows)
    elif rows:
        table(columns, rows)
    elif empty:
        click.echo(empty)


def table(columns: Sequence[Column], rows: Sequence[Row], *, indent: int = 0) -> None:
    """Rows for people."""
    cells = [[text(row.get(column.key)) for column in columns] for row in rows]
    if sys.stdout.isatty():
        _folding(columns, cells, indent)
    else:
        _plain(columns, cells, indent)


def pairs(values: Sequence[tuple[str, object]], *, indent: int = 0) -> None:
    """Names and values below each other; what has no value is left out."""
    shown = [(name, text(value)) for name, value in values if value is not None and value != ""]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{' ' * indent}{name:<{width}}  {value}")


def repeat(seconds: float | None, show: Callable[[], None], *, pause: Callable[[float], None] = time.sleep) -> None:
    """``show`` once, or every ``seconds`` until Ctrl-C; while repeating, a daemon that is away is told and awaited."""
    if seconds is None:
        show()
        return
    try:
        while True:
            click.clear()  # does nothing when stdout is not a terminal
            try:
                show()
            except ApiError as error:
                click.echo(f"probed: {visible(str(error))}", err=True)
            pause(seconds)
    except KeyboardInterrupt:
        return


def moment(value: object) -> str:
    """An RFC 3339 time as UTC to the second; text that is none as it is."""
    if not isinstance(value, str):
        return ""
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return value
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339(at: float) -> str:
    """Unix seconds as RFC 3339 UTC with milliseconds, the API's form."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_json(answer: Any) -> str:
    raw = json.dumps(answer, indent=2, ensure_ascii=False)
    # Legal in JSON strings, but a terminal would obey them.
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in raw)


def _as_yaml(answer: Any) -> str:
    import yaml

    raw = yaml.safe_dump(answer, sort_keys=False, allow_unicode=True, width=10_000)
    if raw.replace("\n", "").isprintable():
        return raw
    return yaml.safe_dump(answer, sort_keys=False, allow_unicode=False, width=10_000)


def _tsv(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    # visible() escapes tabs and line ends, so that a row is a line and a cell is a field.
    click.echo("\t".join(column.key for column in columns))
    for row in rows:
        click.echo("\t".join(text(row.get(column.key)) for column in columns))


def _plain(columns: Sequence[Column], cells: Sequence[Sequence[str]], indent: int) -> None:
    lines = [[column.heading for column in columns], *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        shown = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        click.echo((" " * indent + "  ".join(shown)).rstrip())


def _folding(columns: Sequence[Column], cells: Sequence[Sequence[str]], indent: int) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)  # honours NO_COLOR by itself
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    lines = [
        [column.brief(cell) if column.brief else cell for cell, column in zip(line, columns, strict=True)]
        for line in cells
    ]
    stiff = sum(
        max(len(word) for word in (column.heading, *(line[index] for line in lines))) + 2
        for index, column in enumerate(columns)
        if not column.prose
    )
    fits = stiff + indent + MIN_PROSE <= console.width
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        shown.add_column(column.heading, justify=justify, overflow="fold", no_wrap=fits and not column.prose)
    for line in lines:
        shown.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in line))
    console.print(Padding(shown, (0, 0, 0, indent), expand=False))
