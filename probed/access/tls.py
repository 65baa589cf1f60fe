"""The listening side of TLS, as web-config.yml asks for it."""

from __future__ import annotations

import ssl
from typing import Any

from probed.config.web_config import SUITES, TlsServer, WebConfig
from probed.errors import ConfigError, Problem

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_MODES = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class Context(ssl.SSLContext):
    """What one state of the files made."""

    trust: bytes
    """``WebConfig.trust`` of those files."""


def context_of(config: WebConfig, where: str) -> Context | None:
    """A context from the files that ``config`` names; ``None`` without TLS. ConfigError when they do not fit."""
    tls = config.tls_server_config
    if tls is None:
        return None
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
    suites = [SUITES[name] for name in tls.cipher_suites if name in SUITES]
    if suites:
        context.set_ciphers(":".join(suites))
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    problems = _load(context, tls, where)
    if problems:
        raise ConfigError(problems)
    context.verify_mode = _MODES[tls.client_auth_type]
    try:
        context.trust = config.trust
    except OSError as error:
        message = f'cannot read "{tls.client_ca_file}": {error.strerror}'
        raise ConfigError([Problem(where, message, path="tls_server_config.client_ca_file")]) from None
    if tls.client_allowed_sans is not None:
        context.sslobject_class = _choosy(frozenset(tls.client_allowed_sans))
    return context


def _load(context: ssl.SSLContext, tls: TlsServer, where: str) -> list[Problem]:
    assert tls.cert_file is not None and tls.key_file is not None, "the model requires both"
    problems = []
    try:
        # Without an answer to the question for a passphrase, OpenSSL would ask the terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_passphrase)
    except (ssl.SSLError, OSError, _Encrypted) as error:
        key, message = _why(error, tls)
        problems.append(Problem(where, message, path=f"tls_server_config.{key}"))
    if tls.client_ca_file is not None:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except (ssl.SSLError, OSError) as error:
            message = f'"{tls.client_ca_file}" is no certificate of an authority in PEM form: {_reason(error)}'
            problems.append(Problem(where, message, path="tls_server_config.client_ca_file"))
    return problems


class _Encrypted(Exception):
    pass


def _no_passphrase() -> str:
    raise _Encrypted


def _why(error: Exception, tls: TlsServer) -> tuple[str, str]:
    """(key, message)"""
    if isinstance(error, _Encrypted):
        return "key_file", f'"{tls.key_file}" is encrypted, and nobody is there to type its passphrase; decrypt it'
    reason = _reason(error)
    if "KEY_VALUES_MISMATCH" in reason:
        return "key_file", f'"{tls.key_file}" is not the key of the certificate in "{tls.cert_file}"'
    if isinstance(error, ssl.SSLError):
        return (
            "cert_file",
            f'"{tls.cert_file}" and "{tls.key_file}": expected a certificate and its key as PEM: {reason}',
        )
    return "cert_file", f'cannot read "{tls.cert_file}" and "{tls.key_file}": {reason}'


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return getattr(error, "strerror", None) or str(error)


def names_in(certificate: dict[str, Any]) -> list[str]:
    """Who a verified certificate (``getpeercert()``) is for: its common name, then its SANs."""
    common = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return list(dict.fromkeys([*common, *_sans(certificate)]))


def _sans(certificate: dict[str, Any]) -> list[str]:
    return [value for kind, value in certificate.get("subjectAltName", ()) if kind in _SAN_KINDS]


_SAN_KINDS = ("DNS", "IP Address", "email", "URI")


def _choosy(allowed: frozenset[str]) -> type[ssl.SSLObject]:
    class Choosy(ssl.SSLObject):
        """Ends the handshake with a client whose certificate has none of the allowed SANs."""

        def do_handshake(self) -> None:
            super().do_handshake()
            if not allowed.intersection(_sans(self.getpeercert() or {})):
                raise ssl.SSLCertVerificationError("no SAN of the client's certificate is in client_allowed_sans")

    return Choosy
