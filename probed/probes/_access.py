"""How a component is reached beyond its address: TLS files and credentials, bound to one origin. No judging."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from probed.errors import Blind
from probed.redaction import remember

_PORTS = {"http": 80, "https": 443}
_MAX_SECRET = 16 * 1024


class Access(Struct, frozen=True):
    """Files are read when they are needed, so that a renewed token or certificate counts without a reload."""

    url: str
    """Credentials and the client certificate go to this address's scheme, host and port, and nowhere else."""
    ca_file: Path | None = None
    """Trusted for every address of the component, instead of the system's authorities."""
    cert_file: Path | None = None
    key_file: Path | None = None
    bearer_token_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    also: tuple[str, ...] = ()
    """Further addresses of the same service (the members of one cluster), which may see the same."""

    def is_for(self, url: str) -> bool:
        """Whether ``url`` may see what is secret, or who we are."""
        return any(_origin(url) == _origin(known) for known in (self.url, *self.also))

    def credential_for(self, url: str) -> str:
        """What is shown to ``url``, in the configuration's own words; empty when nothing is."""
        if self.bearer_token_file is None and self.user is None and self.cert_file is None:
            return ""
        if not self.is_for(url):
            return ""
        if self.bearer_token_file is not None:
            return "bearer_token_file"
        if self.user is not None:
            return "basic_auth"
        return "cert_file" if self.cert_file is not None else ""

    def headers(self, url: str) -> Mapping[str, str]:
        """Authorization, where it is due. Blind when its file cannot be read or used."""
        if (self.bearer_token_file is None and self.user is None) or not self.is_for(url):
            return {}
        if self.bearer_token_file is not None:
            return {"Authorization": f"Bearer {_secret(self.bearer_token_file)}"}
        if self.user is not None:
            password = _secret(self.password_file) if self.password_file else ""
            pair = base64.b64encode(f"{self.user}:{password}".encode()).decode()
            remember(pair)
            return {"Authorization": f"Basic {pair}"}
        return {}

    def tls(self, url: str) -> ssl.SSLContext | bool:
        """How ``url`` is to be trusted; True: by the system's authorities. Blind as above."""
        ours = self.cert_file is not None and self.is_for(url)
        cert, key = (self.cert_file, self.key_file) if ours else (None, None)
        files = tuple(None if path is None else (str(path), _stamp(path)) for path in (self.ca_file, cert, key))
        return True if files == (None, None, None) else _context(*files)


@lru_cache(maxsize=4096)
def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _secret(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_SECRET).strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Blind("config", f'cannot read "{path}": {error}') from None
    if not text or not text.isprintable():
        raise Blind("config", f'"{path}" does not hold one line with a secret')
    remember(text)
    return text


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise Blind("config", f'cannot read "{path}": {error.strerror or error}') from None
    return found.st_mtime_ns, found.st_ino


_File = tuple[str, tuple[int, int]] | None


@lru_cache(maxsize=512)
def _context(ca: _File, cert: _File, key: _File) -> ssl.SSLContext:
    # One context per set of files, for connections are kept per context.
    path = ""
    try:
        path = ca[0] if ca else "the system's certificates"
        context = ssl.create_default_context(cafile=ca[0] if ca else None)
        if cert is not None:
            path = cert[0]
            # An encrypted key would have OpenSSL ask on the terminal.
            context.load_cert_chain(cert[0], key[0] if key else None, password=_no_password)
    except (OSError, ValueError) as error:
        text = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise Blind("config", f'cannot use "{path}" for TLS: {text}') from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give an unencrypted one")
