"""``probed check``: are these files fit to start with?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probed.errors import ConfigError, Problem

if TYPE_CHECKING:
    from probed.config.settings import Defaults, Settings
    from probed.model import Policy
    from probed.policy.site import Site

KINDS = ("config", "policy", "web-config")
_WEB_KEYS = {"tls_server_config", "basic_auth_users", "http_server_config"}


@click.command("check")
@click.argument("files", nargs=-1, metavar="[config|policy|web-config] [FILE]...")
def command(files: Sequence[str]) -> None:
    """Validate files without starting anything.

    Exit 0 when all are fit to start with, else 1. What kind of file it is, is found by itself. A
    configuration is checked with the policies of its policies.directory, and the worked examples of policies
    are run. Without a FILE it is the default configuration.
    """
    from probed.cli import tell_problems
    from probed.cli.sources import Source

    kind = None
    if files and files[0] in KINDS:
        kind, files = files[0], files[1:]
    bad = 0
    try:
        paths = [Path(file) for file in files] or [Source().file()]
    except ConfigError as error:
        tell_problems(error)
        paths, bad = [], 1
    for path in paths:
        try:
            _check(path, kind)
        except ConfigError as error:
            tell_problems(error)
            bad += 1
        else:
            click.echo(f"{path}: ok")
    click.get_current_context().exit(1 if bad else 0)


def _check(path: Path, kind: str | None) -> None:
    match kind or _kind(path):
        case "config":
            from probed.config import fitting, load
            from probed.policy.site import Site

            settings = load.load_file(path)
            policies = checked_policies(settings.policies.directory, settings.defaults, site=Site.of(settings))
            if problems := fitting.policy_problems(settings, policies, str(path)):
                raise ConfigError(problems)
            if settings.web.config_file is not None:
                _check(settings.web.config_file, "web-config")
            _warn(path, settings)
        case "policy":
            from probed.config.settings import Defaults

            _ = checked_policies(None, Defaults(), [path])
        case _:
            from probed.access.tls import context_of
            from probed.config import web_config

            _ = context_of(web_config.read(path), str(path))


def _kind(path: Path) -> str:
    from probed import strict_yaml

    document = strict_yaml.read(path)
    keys = set(document.data) if isinstance(document.data, dict) else set()
    if "id" in keys:  # first: a policy may have ``instances`` too
        return "policy"
    if keys & {"instances", "storage", "defaults", "policies", "notifications"}:
        return "config"
    if keys & _WEB_KEYS:
        return "web-config"
    message = (
        "cannot tell what kind of file it is: a configuration has `instances`, a policy an `id`; "
        f"name it, as in `probed check config {path}`"
    )
    raise ConfigError([Problem(str(path), message)])


def _warn(path: Path, settings: Settings) -> None:
    from probed.config import load

    for part in load.not_used_yet(settings):
        click.echo(f"{path}: {part}: accepted, but without effect in this version", err=True)


def checked_policies(
    directory: Path | None, defaults: Defaults, files: Sequence[Path] = (), site: Site | None = None
) -> dict[str, Policy]:
    """All effective policies, after their examples were run. ConfigError carries every problem, failed examples too."""
    policies = load_policies(directory, defaults, files, site)
    stale = outdated(policies, defaults)
    problems = [
        problem for policy in policies.values() if policy.id not in stale for problem in _example_problems(policy)
    ]
    if problems:
        raise ConfigError(problems)
    return policies


def outdated(policies: Mapping[str, Policy], defaults: Defaults) -> frozenset[str]:
    """Built-in policies whose rule was changed without examples of its own: the shipped ones no longer speak of it."""
    shipped = load_policies(None, defaults)
    return frozenset(
        policy.id
        for policy in policies.values()
        if (own := shipped.get(policy.id)) is not None
        and policy.examples == own.examples
        and (policy.detect, policy.interval) != (own.detect, own.interval)
    )


def load_policies(
    directory: Path | None, defaults: Defaults, files: Sequence[Path] = (), site: Site | None = None
) -> dict[str, Policy]:
    """All effective policies by id: built-in, ``directory`` and ``files``; as fit for ``site``, when it is given."""
    from probed.policy import load
    from probed.probes import catalogue

    readings = {name: frozenset(probe.readings) for name, probe in catalogue().items()}
    return load.load(directory, readings, defaults, files=files, site=site)


def _example_problems(policy: Policy) -> list[Problem]:
    from probed.policy import examples

    try:
        wrong: list[Any] = list(examples.run(policy))
    except ValueError as error:
        return [Problem(policy.source, f"examples: {error}")]
    return [Problem(policy.source, f"example does not come out as written: {mismatch}") for mismatch in wrong]
