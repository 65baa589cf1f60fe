"""``probed db``: the store, from beside the daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec.structs import asdict

from probed.cli import flags

if TYPE_CHECKING:
    from probed.config.settings import Storage

_F = TypeVar("_F", bound=Callable[..., Any])

_place = flags.together(
    flags.flag("--config.file", metavar="FILE", type=flags.file_path, help="Settings that say where it is."),
    flags.flag("--storage.path", metavar="DIR", type=flags.directory_path, help="Where it is, instead."),
)


@click.group("db")
def command() -> None:
    """The store: its state, its schema, a copy of it."""


@command.command("status")
@_place
@flags.output_flag
def status(config_file: Path | None, storage_path: Path | None, output: str) -> None:
    """Schema, size, number of events and how far back they go.

    Also while the daemon runs.
    """
    from probed.cli.output import Column, emit, moment, pairs, rfc3339
    from probed.quantity import human_bytes, human_seconds
    from probed.store.tending import state_of

    storage = _storage(config_file, storage_path)
    state = state_of(storage.path)
    answer = {**asdict(state), "path": str(state.path)}
    for key in ("oldest", "newest", "last_sign_of_life"):
        answer[key] = None if answer[key] is None else rfc3339(answer[key])
    answer |= {"retention_seconds": storage.retention, "max_size_bytes": storage.max_size}
    if output != "table":
        emit(output, answer, [Column(key) for key in answer], [answer])
        return
    schema = str(state.schema)
    if state.schema < state.newest_schema:
        schema += f", and {state.newest_schema} after `probed db migrate` or the daemon's next start"
    size = f"{human_bytes(state.bytes)}, {human_bytes(state.used_bytes)} of it in use"
    pairs(
        [
            ("path", answer["path"]),
            ("schema", schema),
            ("daemon", "running" if state.in_use else "not running"),
            ("last sign of life", moment(answer["last_sign_of_life"])),
            ("events", state.events),
            ("open", state.open_events),
            ("oldest", moment(answer["oldest"])),
            ("newest", moment(answer["newest"])),
            ("transitions", state.transitions),
            ("purged up to", state.purged or None),
            ("size", size),
            ("log", human_bytes(state.log_bytes)),
            ("purging", "gives its space back" if state.shrinks else "leaves its space to what comes next"),
            ("retention", human_seconds(storage.retention)),
            ("at most", human_bytes(storage.max_size)),
        ]
    )


@command.command("migrate")
@_place
def migrate(config_file: Path | None, storage_path: Path | None) -> None:
    """Bring an older store up to this program's schema. The daemon does so at its start; it must not run meanwhile."""
    from probed.store.tending import bring_up_to_date

    before, now = bring_up_to_date(_storage(config_file, storage_path).path)
    click.echo(f"schema {now}, as it was" if before == now else f"schema {before} -> {now}")


@command.command("backup")
@click.argument("target", metavar="FILE", type=flags.file_path)
@_place
def backup(target: Path, config_file: Path | None, storage_path: Path | None) -> None:
    """Copy the store to a new FILE, also while the daemon runs.

    The copy is of one moment and readable by its owner alone. To go back to it: stop the daemon, put it in the place of
    probed.db, remove probed.db-wal and probed.db-shm beside it, start.
    """
    from probed.quantity import human_bytes
    from probed.store.tending import back_up

    size = back_up(_storage(config_file, storage_path).path, target)
    click.echo(f"{target}: {human_bytes(size)}")


def _storage(config_file: Path | None, storage_path: Path | None) -> Storage:
    """What the flags say, else the file, else the defaults: a store can be looked at without settings."""
    from probed.config import load
    from probed.config.settings import DEFAULT_FILE, Storage

    found = Storage()
    if config_file is not None or (storage_path is None and DEFAULT_FILE.exists()):
        found = load.load_file(config_file or DEFAULT_FILE).storage
    return found if storage_path is None else found.model_copy(update={"path": storage_path})
