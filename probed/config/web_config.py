"""``web-config.yml`` in exporter-toolkit's format, so that one file fits every exporter: TLS, headers, users.

What that format has and this daemon could only ignore is refused with what to write instead. Relative paths are
relative to the file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from probed import strict_yaml
from probed.config.values import PathText
from probed.errors import ConfigError, Problem
from probed.strict_yaml import Misplaced, Strict, did_you_mean, no_items

MAX_COST = 14
"""Of a bcrypt hash: about a second of one core. Each step more doubles it; 31 would take a day."""

VERSIONS = ("TLS12", "TLS13")
CLIENT_AUTH = ("NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
SUITES: Mapping[str, str] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""Go's names of what Go calls secure, and OpenSSL's."""
SUITES_13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Always on with TLS 1.3, in Go as here: naming them chooses nothing."""

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")


def _hash(value: Any) -> str:
    # The value is not repeated in the message: who errs here has most likely written the password itself.
    match = _HASH.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a bcrypt hash such as $2y$10$…; make one with: htpasswd -nBC 10 NAME")
    if not 4 <= int(match[1]) <= MAX_COST:
        raise ValueError(f"expected a cost from 4 to {MAX_COST}, got {int(match[1])}: every login would take too long")
    return match[0]


def _header(value: Any) -> Any:
    if isinstance(value, str) and not (value.isascii() and value.isprintable()):
        raise ValueError("expected one line of printable ASCII")
    return value


Hash = Annotated[str, BeforeValidator(_hash)]
HeaderText = Annotated[str, BeforeValidator(_header)]


class TlsServer(Strict):
    cert_file: PathText | None = Field(default=None, description="Certificate of this server, with its chain (PEM).")
    key_file: PathText | None = Field(default=None, description="Its key, unencrypted (PEM).")
    client_ca_file: PathText | None = Field(default=None, description="CA of the certificates that clients show.")
    client_auth_type: str = Field(default="NoClientCert", description="One of " + ", ".join(CLIENT_AUTH) + ".")
    client_allowed_sans: list[str] | None = Field(
        default=None, description="Of a client certificate, one of these must be a SAN (DNS, IP, e-mail or URI)."
    )
    min_version: str = Field(default="TLS12", description="TLS12 or TLS13.")
    max_version: str = Field(default="TLS13", description="TLS12 or TLS13.")
    cipher_suites: list[str] = Field(default_factory=no_items, description="For TLS 1.2, by their Go names.")
    prefer_server_cipher_suites: bool = Field(default=True, description="Ours come first, not the client's.")
    curve_preferences: list[str] | None = Field(default=None, description="Cannot be chosen here: refused.")
    cert: Any = Field(default=None, description="Inline: refused, name a file.")
    key: Any = Field(default=None, description="Inline: refused, name a file.")
    client_ca: Any = Field(default=None, description="Inline: refused, name a file.")

    @model_validator(mode="after")
    def _consistent(self) -> TlsServer:
        wrong: list[tuple[tuple[str | int, ...], str]] = []
        for inline in ("cert", "key", "client_ca"):
            if getattr(self, inline) is not None:
                wrong.append(((inline,), f"is not read from here; write it into a file and name that: {inline}_file"))
        if self.curve_preferences is not None:
            wrong.append((("curve_preferences",), "cannot be chosen here; leave it out: X25519, P-256 … are offered"))
        for file in ("cert_file", "key_file"):
            if getattr(self, file) is None and getattr(self, file.removesuffix("_file")) is None:
                wrong.append(((), f'required key "{file}" is missing; without TLS, leave out tls_server_config'))
        wrong += self._wrong_versions() + self._wrong_suites() + self._wrong_clients()
        if wrong:
            raise Misplaced(*wrong)
        return self

    def _wrong_versions(self) -> list[tuple[tuple[str | int, ...], str]]:
        wrong: list[tuple[tuple[str | int, ...], str]] = [
            ((key,), f'expected TLS12 or TLS13, got "{getattr(self, key)}": older ones can be broken into')
            for key in ("min_version", "max_version")
            if getattr(self, key) not in VERSIONS
        ]
        if not wrong and self.min_version > self.max_version:
            wrong.append((("max_version",), f"expected at least min_version ({self.min_version})"))
        return wrong

    def _wrong_suites(self) -> list[tuple[tuple[str | int, ...], str]]:
        wrong: list[tuple[tuple[str | int, ...], str]] = []
        known = (*SUITES, *SUITES_13)
        for index, suite in enumerate(self.cipher_suites):
            if suite not in known:
                hint = did_you_mean(suite, known).replace("; known here", "; expected one of")
                wrong.append((("cipher_suites", index), f'"{suite}" is not among the safe suites{hint}'))
        chosen = any(suite in SUITES for suite in self.cipher_suites)
        if self.cipher_suites and not wrong and not chosen and self.min_version == "TLS12":
            message = "leaves nothing for TLS 1.2; add a suite for it, or set min_version: TLS13"
            wrong.append((("cipher_suites",), message))
        return wrong

    def _wrong_clients(self) -> list[tuple[tuple[str | int, ...], str]]:
        kind = self.client_auth_type
        if kind in UNVERIFIED:
            message = f"{kind} does not verify the certificate, which then says nothing; expected one of "
            return [(("client_auth_type",), message + ", ".join(CLIENT_AUTH))]
        if kind not in CLIENT_AUTH:
            message = f'expected one of {", ".join(CLIENT_AUTH)}, got "{kind}"{_close(kind)}'
            return [(("client_auth_type",), message)]
        wrong: list[tuple[tuple[str | int, ...], str]] = []
        if kind == "NoClientCert" and self.client_ca_file is not None:
            wrong.append((("client_ca_file",), "means nothing without client_auth_type: RequireAndVerifyClientCert"))
        if kind != "NoClientCert" and self.client_ca_file is None and self.client_ca is None:
            wrong.append((("client_auth_type",), f"{kind} needs client_ca_file to verify by"))
        if self.client_allowed_sans is not None and kind != "RequireAndVerifyClientCert":
            wrong.append((("client_allowed_sans",), "needs client_auth_type: RequireAndVerifyClientCert"))
        return wrong

    def in_directory(self, directory: Path) -> TlsServer:
        """The same with absolute paths, relative ones taken from ``directory``."""
        files = {key: directory / path for key in FILE_KEYS if (path := getattr(self, key)) is not None}
        return self.model_copy(update=files)


class Headers(Strict):
    content_security_policy: HeaderText = Field(default="", alias="Content-Security-Policy")
    x_frame_options: HeaderText = Field(default="", alias="X-Frame-Options", description="deny or sameorigin.")
    x_content_type_options: HeaderText = Field(default="", alias="X-Content-Type-Options", description="nosniff.")
    x_xss_protection: HeaderText = Field(default="", alias="X-XSS-Protection")
    strict_transport_security: HeaderText = Field(default="", alias="Strict-Transport-Security")

    @model_validator(mode="after")
    def _known_values(self) -> Headers:
        wrong: list[tuple[tuple[str | int, ...], str]] = []
        for key, value, known in (
            ("X-Frame-Options", self.x_frame_options, ("deny", "sameorigin")),
            ("X-Content-Type-Options", self.x_content_type_options, ("nosniff",)),
        ):
            if value and value.lower() not in known:
                wrong.append(((key,), f'expected {" or ".join(known)}, got "{value}"'))
        if wrong:
            raise Misplaced(*wrong)
        return self

    def given(self) -> dict[str, str]:
        """Header by name; what is empty is not set."""
        return {name: value for name, value in self.model_dump(by_alias=True).items() if value}


class HttpServer(Strict):
    http2: bool = Field(default=True, description="Accepted; this daemon speaks HTTP/1.1.")
    headers: Headers = Field(default_factory=Headers)


class WebConfig(Strict):
    tls_server_config: TlsServer | None = None
    http_server_config: HttpServer = Field(default_factory=HttpServer)
    basic_auth_users: dict[str, Hash] = Field(default_factory=dict, description="bcrypt hash by user name.")
    rate_limit: Any = Field(default=None, description="Refused: failed logins are limited anyway.")

    @model_validator(mode="after")
    def _consistent(self) -> WebConfig:
        wrong: list[tuple[tuple[str | int, ...], str]] = []
        if self.rate_limit is not None:
            message = "is not built; leave it out: connections and failed logins are limited without it"
            wrong.append((("rate_limit",), message))
        for name in self.basic_auth_users:
            if not name or ":" in name or not name.isprintable() or len(name) > 200:
                message = 'expected a name of 1 to 200 printable characters without ":"'
                wrong.append((("basic_auth_users", name), message))
        if wrong:
            raise Misplaced(*wrong)
        return self

    @property
    def knows_certificates(self) -> bool:
        """Whether clients can show who they are by a certificate."""
        return self.tls_server_config is not None and self.tls_server_config.client_auth_type != "NoClientCert"

    @property
    def knows_people(self) -> bool:
        """Whether there is any way to say over TCP who one is, beside tokens."""
        return bool(self.basic_auth_users) or self.knows_certificates

    @property
    def files(self) -> tuple[Path, ...]:
        """What else is read: certificate, key, CA."""
        tls = self.tls_server_config
        return () if tls is None else tuple(path for key in FILE_KEYS if (path := getattr(tls, key)) is not None)

    @property
    def trust(self) -> bytes:
        """Changes with whatever decides which client certificates are believed. OSError when the CA cannot be read."""
        tls = self.tls_server_config
        if tls is None or tls.client_ca_file is None:
            return b""
        parts = (tls.client_auth_type, *(tls.client_allowed_sans or ()))
        return hashlib.sha256(repr(parts).encode() + tls.client_ca_file.read_bytes()).digest()


FILE_KEYS = ("cert_file", "key_file", "client_ca_file")


def read(path: Path) -> WebConfig:
    """The file. ConfigError carries every problem, also of files that it names."""
    document = strict_yaml.read(path)
    if document.data is None:
        return WebConfig()  # as exporter-toolkit: an empty file asks for nothing
    if not isinstance(document.data, dict):
        raise ConfigError([Problem(str(path), "expected a map of settings", 1, 1)])
    problems = _missing_files(document, path.parent)
    config = None
    try:
        config = strict_yaml.validate(document, WebConfig)
    except ConfigError as error:
        problems += error.problems
    if config is None or problems:
        raise ConfigError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    if config.tls_server_config is None:
        return config
    return config.model_copy(update={"tls_server_config": config.tls_server_config.in_directory(path.parent)})


def _missing_files(document: strict_yaml.Document, directory: Path) -> list[Problem]:
    problems = []
    for key in FILE_KEYS:
        place = ("tls_server_config", key)
        value = document.at(place)
        if not isinstance(value, str):
            continue
        file = directory / value
        try:
            if not file.is_file():
                problems.append(document.problem(place, f'cannot read "{file}": there is no such regular file'))
                continue
            file.read_bytes()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            problems.append(document.problem(place, f'cannot read "{file}": {why}'))
    return problems


def _close(kind: str) -> str:
    hint = did_you_mean(kind, CLIENT_AUTH)
    return hint if "did you mean" in hint else ""  # all of them were named already
