"""web-config.yml as it is now: read again when it, or a file that it names, changes; a bad one changes nothing."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from msgspec import Struct

from probed.access.tls import Context, context_of
from probed.clock import Clock
from probed.config import web_config
from probed.config.web_config import WebConfig
from probed.errors import ConfigError, Problem

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""At most so often are the files looked at."""

Fits = Callable[[WebConfig], Sequence[Problem]]
_Signature = tuple[tuple[int, int, int] | None, ...]


class _Loaded(Struct, frozen=True):
    config: WebConfig
    context: Context | None


class WebFile:
    """The last good state of the file. ``fits``: what the rest of the settings has against a content."""

    def __init__(self, path: Path, fits: Fits, clock: Clock) -> None:
        """ConfigError when it cannot be used to start with."""
        self._path, self._fits, self._clock = path, fits, clock
        self.reloads = {"ok": 0, "failed": 0}
        self.last_ok = True
        self._looked_at = clock.mono()
        self._seen = self._signature(())
        self._loaded = self._load()
        self._seen = self._signature(self._loaded.config.files)
        _warn_of_readable(self._loaded.config)

    @property
    def config(self) -> WebConfig:
        self._look()
        return self._loaded.config

    @property
    def context(self) -> Context | None:
        self._look()
        return self._loaded.context

    def _look(self) -> None:
        now = self._clock.mono()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        # Signed before it is read: what is written meanwhile is read again the next time.
        seen = self._signature(self._loaded.config.files)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            loaded = self._load()
            if (loaded.context is None) != (self._loaded.context is None):
                message = "TLS cannot be switched on or off while the daemon runs; restart it"
                raise ConfigError([Problem(str(self._path), message, path="tls_server_config")])
        except ConfigError as error:
            self.last_ok = False
            self.reloads["failed"] += 1
            problems = [str(problem) for problem in error.problems]
            _log.error("web_config.reload_failed", problems=problems, kept="the last good one goes on")
            return
        if loaded.config.files != self._loaded.config.files:
            self._seen = self._signature(loaded.config.files)
        self._loaded, self.last_ok = loaded, True
        self.reloads["ok"] += 1
        _warn_of_readable(loaded.config)
        _log.info("web_config.reloaded", users=len(loaded.config.basic_auth_users))

    def _load(self) -> _Loaded:
        config = web_config.read(self._path)
        problems = list(self._fits(config))
        if problems:
            raise ConfigError(problems)
        return _Loaded(config, context_of(config, str(self._path)))

    def _signature(self, named: Sequence[Path]) -> _Signature:
        return tuple(_signed(path) for path in (self._path, *named))


def _warn_of_readable(config: WebConfig) -> None:
    """Not refused: in containers, secrets are often mounted so."""
    tls = config.tls_server_config
    key = tls.key_file if tls is not None else None
    with contextlib.suppress(OSError):  # it went away since it was read: the next look tells
        if key is None or not key.stat().st_mode & stat.S_IROTH:
            return
        _log.warning("web_config.key_readable_by_all", file=str(key), remedy=f"chmod o-r {key}")


def _signed(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()  # through links: certificates are often links into a directory that is exchanged
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
