"""From the flags of ``run``, ``doctor`` and ``probe run`` to settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from msgspec import Struct

from probed.errors import ConfigError, Problem

if TYPE_CHECKING:
    from probed.config.settings import Settings


class Source(Struct, frozen=True):
    """What the flags say about where settings come from; at most one of the three ways is given."""

    config_file: Path | None = None
    patroni: Sequence[str] = ()
    postgres: str | None = None
    storage_path: Path | None = None
    listen: Sequence[str] = ()
    web_config: Path | None = None

    def read(self) -> Settings:
        """The settings, read anew at each call. ConfigError carries every problem."""
        from probed.config import load

        if self.patroni:
            return self._over(load.from_patroni(self.patroni))
        if self.postgres:
            return self._over(load.from_postgres(self.postgres))
        return self._over(load.load_file(self.file()))

    def file(self) -> Path:
        """The settings file. ConfigError names the three ways to start when the default one is not there."""
        from probed.config.settings import DEFAULT_FILE

        if self.config_file is not None:
            return self.config_file
        if not DEFAULT_FILE.exists():
            message = (
                "there is no such file; say what to watch: `--config.file FILE`, or without a file "
                "`--patroni http://127.0.0.1:8008` (a Patroni cluster), "
                "or `--postgres postgresql://probed@127.0.0.1/postgres` (a standalone server)"
            )
            raise ConfigError([Problem(str(DEFAULT_FILE), message)])
        return DEFAULT_FILE

    def _over(self, settings: Settings) -> Settings:
        """``settings`` with the flags laid over them, and what depends on several of them checked again."""
        from probed import strict_yaml
        from probed.config import load
        from probed.config.settings import Settings
        from probed.config.web import Web

        changed: dict[str, object] = dict(settings)
        where = "flags"
        if self.storage_path is not None:
            changed["storage"] = settings.storage.model_copy(update={"path": self.storage_path})
        changed_web: dict[str, object] = {}
        if self.listen:
            where = "--web.listen-address"
            changed_web["listen"] = list(self.listen)
        if self.web_config is not None:
            changed_web["config_file"] = self.web_config
        if changed_web:
            _ = strict_yaml.validate(strict_yaml.Document(where, changed_web), Web)
            changed["web"] = settings.web.model_copy(update=changed_web)
        laid = strict_yaml.validate(strict_yaml.Document(where, changed), Settings)
        if changed_web and (problems := load.web_problems(laid)):
            raise ConfigError(problems)
        return laid


def source(
    config_file: Path | None,
    patroni: Sequence[str],
    postgres: str | None,
    storage_path: Path | None = None,
    listen: Sequence[str] = (),
    web_config: Path | None = None,
) -> Source:
    """Flags as a Source. UsageError when two ways are named; what stands on the command line beats the environment."""
    given = {"config_file": config_file, "patroni": tuple(patroni), "postgres": postgres}
    named = {name for name, value in given.items() if value}
    context = click.get_current_context()
    typed = {name for name in named if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    chosen = typed or named
    if len(chosen) > 1:
        flags = sorted({"config_file": "--config.file"}.get(name, f"--{name}") for name in chosen)
        raise click.UsageError(f"{' and '.join(flags)} exclude each other: name one source of settings")
    return Source(
        config_file if "config_file" in chosen else None,
        tuple(patroni) if "patroni" in chosen else (),
        postgres if "postgres" in chosen else None,
        storage_path,
        tuple(listen),
        web_config,
    )
