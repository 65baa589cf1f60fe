"""Where settings come from: a file, or the short forms ``--patroni`` and ``--postgres``. All problems at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from probed import strict_yaml
from probed.config.settings import Settings
from probed.config.web import Web, misfits
from probed.errors import ConfigError, Problem

if TYPE_CHECKING:
    from probed.config.web_config import WebConfig


def load_file(path: Path, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from ``probed.yml``. ConfigError carries every problem: syntax, keys, types, missing secrets."""
    try:
        return _settings(strict_yaml.read(path, environ=environ), path)
    except strict_yaml.Flawed as flawed:
        try:
            _settings(flawed.document, path)
        except ConfigError as error:
            raise flawed.with_all(error.problems) from None
        raise


def _settings(document: strict_yaml.Document, path: Path) -> Settings:
    if document.data is None:
        raise ConfigError([Problem(str(path), "is empty; declare at least one instance")])
    if not isinstance(document.data, dict):
        raise ConfigError([Problem(str(path), "expected a map of settings", 1, 1)])
    problems = missing_files(document)
    settings: Settings | None = None
    try:
        settings = strict_yaml.validate(document, Settings)
    except ConfigError as error:
        problems += error.problems
    if settings is not None and not problems:
        problems += web_problems(settings, document)
    if settings is None or problems:
        raise ConfigError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    for index, silence in enumerate(settings.silences):
        silence.stands_at(str(path), document.places.get(("silences", index), (0, 0))[0])
    for index, inspection in enumerate(settings.inspections):
        inspection.stands_at(str(path), document.places.get(("inspections", index), (0, 0))[0])
    return settings


UNNAMED = "patroni"
"""Name of an instance found by ``--patroni`` until Patroni tells its scope."""


def from_patroni(urls: Sequence[str], **web_and_storage: object) -> Settings:
    """``probed run --patroni URL``: one instance, found by itself, named after Patroni's scope once it answers."""
    instance = {"name": UNNAMED, "patroni": [url.rstrip("/") for url in urls]}
    return _validated({"instances": [instance], **web_and_storage}, "--patroni")


def from_postgres(dsn: str, **web_and_storage: object) -> Settings:
    """``probed run --postgres DSN``: a standalone server. A password in the DSN would stand in argv: refused."""
    try:
        parts = urlsplit(dsn)
        port = parts.port or 5432
    except ValueError as error:
        raise ConfigError([Problem("--postgres", f"not an address: {error}")]) from None
    if parts.scheme not in ("postgresql", "postgres"):
        message = f'expected an address such as postgresql://probed@127.0.0.1/postgres, got "{parts.scheme}:…"'
        raise ConfigError([Problem("--postgres", message)])
    query = parse_qs(parts.query)
    if parts.password or "password" in query:
        message = "a password in an argument can be read by everyone on this machine; use PGPASSWORD or ~/.pgpass"
        raise ConfigError([Problem("--postgres", message)])
    unknown = sorted(query.keys() - {"host", "sslmode"})
    if unknown:
        message = f'"{unknown[0]}" is not understood here; a configuration file can say more'
        raise ConfigError([Problem("--postgres", message)])
    host = unquote(parts.hostname or query.get("host", ["127.0.0.1"])[0])
    login: dict[str, object] = {"host": host, "port": port}
    if parts.username:
        login["user"] = unquote(parts.username)
    if parts.path.strip("/"):
        login["database"] = unquote(parts.path.strip("/"))
    if "sslmode" in query:
        login["sslmode"] = query["sslmode"][0]
    name = "".join(char if char.isalnum() or char in "-_." else "-" for char in host).strip("-") or "postgres"
    node = {"name": name, "postgres": login}
    return _validated({"instances": [{"name": "postgres", "nodes": [node]}], **web_and_storage}, "--postgres")


def _validated(data: dict[str, object], where: str) -> Settings:
    document = strict_yaml.Document(where, data)
    return strict_yaml.validate(document, Settings)


FILE_KEYS = (
    "config_file", "password_file", "sslrootcert", "ca_file", "cert_file", "key_file", "bearer_token_file",
    "secret_file", "url_file",
)  # fmt: skip


def missing_files(document: strict_yaml.Document) -> list[Problem]:
    """Secret and CA files are needed at once; a missing one is told now, with its place, not at the first login."""
    problems = []
    for path in document.places:
        if not path or path[-1] not in FILE_KEYS or not isinstance(value := document.at(path), str):
            continue
        try:
            # A FIFO would hold up the start, and could be read only once.
            if not Path(value).is_file():
                problems.append(document.problem(path, f'cannot read "{value}": there is no such regular file'))
                continue
            with Path(value).open("rb"):
                pass
        except OSError as error:
            problems.append(document.problem(path, f'cannot read "{value}": {error.strerror or error}'))
    return problems


def web_misfits(web: Web, config: WebConfig) -> list[Problem]:
    """What ``web`` has against the content of the file that it names."""
    return [Problem(strict_yaml.dotted(("web", *path)), message) for path, message in misfits(web, config)]


def web_problems(settings: Settings, document: strict_yaml.Document | None = None) -> list[Problem]:
    """Problems of the file that ``web.config_file`` names, and of what in ``document`` does not go together with it."""
    if settings.web.config_file is None:
        return []
    from probed.config import web_config

    try:
        config = web_config.read(settings.web.config_file)
    except ConfigError as error:
        return list(error.problems)
    if document is None:
        return web_misfits(settings.web, config)
    return [document.problem(("web", *path), message) for path, message in misfits(settings.web, config)]


def not_used_yet(settings: Settings) -> list[str]:
    """Parts of the contract that are accepted but have no effect in this version, for a warning at start."""
    unused = []
    for instance in settings.instances:
        for node in instance.nodes:
            idle = [key for key in ("disk", "oom") if getattr(node, key) is not None and not node.local]
            if idle:
                named = " and ".join(idle)
                unused.append(f"{instance.name}/{node.name}: {named} (probed must run on that node, with local: true)")
    if settings.storage.fleet is not None:
        unused.append("storage.fleet")
    return unused
