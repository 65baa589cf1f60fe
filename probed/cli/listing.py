"""Lists that go on, newest first, page by page: as the commands with ``flags.list_flags`` show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from probed.cli import flags
from probed.cli.output import Column, emit, repeat

Row = Mapping[str, Any]


def show(
    path: str,
    filters: Mapping[str, object],
    keys: Sequence[str],
    tell: Callable[[dict[str, Any]], None],
    *,
    where: flags.Where,
    output: str,
    watch: float | None,
    limit: int,
) -> None:
    """Up to ``limit`` items of the API's list, once or again and again. ``tell``: as a table; TSV has all ``keys``."""
    client = where.client()

    def once() -> None:
        answer = client.items(path, filters, limit)
        if output == "table":
            tell(answer)
        else:
            emit(output, answer, [Column(key) for key in keys], answer["items"])

    repeat(watch, once)
