"""``probed run``: the daemon."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from probed.cli import flags


@click.command("run")
@flags.source_flags
@flags.flag("--storage.path", metavar="DIR", type=flags.directory_path, help="Where history is kept.")
@flags.flag(
    "--web.listen-address",
    metavar="HOST:PORT",
    multiple=True,
    help="Where page, API and metrics are served; default 127.0.0.1:7432. Repeatable.",
)
@flags.flag(
    "--web.config.file", metavar="FILE", type=flags.file_path, help="TLS and users: exporter-toolkit's web-config.yml."
)
@flags.log_flags
def command(
    config_file: Path | None,
    patroni: Sequence[str],
    postgres: str | None,
    storage_path: Path | None,
    web_listen_address: Sequence[str],
    web_config_file: Path | None,
    log_level: str,
    log_format: Any,
) -> None:
    """The daemon: watch, until SIGTERM or Ctrl-C.

    Settings come from a file, or are found: name a Patroni or a PostgreSQL server and everything else is asked of it.
    SIGHUP reads the settings again. Exit code 78 means that they cannot be used.
    """
    with _uncollected():
        import asyncio

        from probed import logs

        logs.set_up(log_level, log_format)
        from probed import life
        from probed.cli.sources import source

        chosen = source(config_file, patroni, postgres, storage_path, web_listen_address, web_config_file)
        settings = chosen.read()
        try:
            import uvloop  # type: ignore[import-not-found, unused-ignore]
        except ImportError:  # an optional extra
            loop_factory = None
        else:
            loop_factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            code = runner.run(life.run(settings, chosen.read))
    click.get_current_context().exit(code)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Until ``tidying.settle``, or the end: what a start makes is there to stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
